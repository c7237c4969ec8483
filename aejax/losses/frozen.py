"""The further nets of a model in a loss term: by name, and with their parameters held constant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from aejax.errors import UserError


def part_of(model: Any, part: str) -> Any:
    """Returns the net of a bound model that has a name in its `parts`.

    Raises:
      UserError: if there is none.
    """
    if part not in model.parts:
        raise UserError(
            f"the model has no net named {part!r} in its parts: give Autoencoder "
            f"parts={{{part!r}: a module}}, as the module of this loss describes"
        )
    return model.parts[part]


def frozen(module: Any) -> Callable[..., Any]:
    """Returns a function that calls a module with its variables held constant.

    Gradients flow to the arguments of the call only, not to the module's variables.

    Args:
      module: a submodule of the bound model that a term receives, such as model.parts["critic"].

    Returns:
      A function with the same arguments and result as the module.
    """

    def apply(*arguments: Any) -> Any:
        if module.is_initializing():
            # During initialisation the parameters may not exist yet, and no gradient is computed.
            return module(*arguments)
        unbound, variables = module.unbind()
        return unbound.apply(jax.lax.stop_gradient(variables), *arguments)

    return apply
