"""Reads the activations of a PyTorch model, so that `collect` can write them to a store.

read = torch_reader(model, {"blocks.6": "transformer.h.6"})       # extra `hf`
collect(read, batches, "activations/gpt2", provenance={...})
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from aejax.errors import UserError
from aejax.language.layers import PADDING
from aejax.language.reading import Read
from aejax.optional import needs


def torch_reader(module: Any, places: Mapping[str, str]) -> Read:
    """Returns a function, for `collect`, from tokens to the outputs of a PyTorch model's modules.

    Args:
      module: a model of the package transformers, called as module(input_ids, attention_mask=...).
      places: the name of a hook in the store -> the dotted name of a submodule; the submodule's
        output, or the first of its outputs, is f[B, P, d].

    Raises:
      UserError: if there is no such submodule.
    """
    torch: Any = needs("torch", "running a PyTorch model")
    found = dict(module.named_modules())
    for name in places.values():
        if name not in found:
            raise UserError(f"the model has no module {name!r}: see model.named_modules()")
    device = next(module.parameters()).device

    def read(tokens: np.ndarray, position: np.ndarray) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        def keep(hook: str, output: Any) -> None:
            seen[hook] = output[0] if isinstance(output, tuple) else output

        with contextlib.ExitStack() as stack, torch.no_grad():
            for hook, name in places.items():
                handle = found[name].register_forward_hook(
                    lambda _, __, output, hook=hook: keep(hook, output)
                )
                stack.callback(handle.remove)
            mask = torch.as_tensor(np.asarray(position) != PADDING, device=device)
            ids = torch.as_tensor(np.asarray(tokens), dtype=torch.long, device=device)
            module(ids, attention_mask=mask.long())
        return seen

    return read
