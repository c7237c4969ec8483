"""Export of the weights alone as .safetensors, with a table of their names and shapes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from aejax.interop.programs.weights import Packed
from aejax.interop.tensors import safetensors


def tensors(packed: Mapping[str, Packed], about: Mapping[str, str]) -> bytes:
    """Returns weights as the bytes of a .safetensors file; an int8 tensor's scale is NAME.scale."""
    arrays: dict[str, np.ndarray] = {}
    for name, one in packed.items():
        arrays[name] = np.ascontiguousarray(one.values)
        if one.scale is not None:
            arrays[f"{name}.scale"] = np.ascontiguousarray(one.scale)
    return safetensors().numpy.save(arrays, metadata=dict(about))


def table(name: str, packed: Mapping[str, Packed], about: Mapping[str, str]) -> str:
    """Returns a Markdown table of the names, dtypes and shapes in a file."""
    lines = [f"# {name}", "", *(f"- {key}: {text}" for key, text in about.items()), ""]
    lines += ["| tensor | dtype | shape |", "|---|---|---|"]
    for tensor, one in packed.items():
        lines.append(f"| `{tensor}` | {one.values.dtype} | {list(one.values.shape)} |")
        if one.scale is not None:
            lines.append(f"| `{tensor}.scale` | {one.scale.dtype} | {list(one.scale.shape)} |")
    if any(one.scale is not None for one in packed.values()):
        lines += ["", "A tensor with a scale stands for tensor * scale."]
    return "\n".join(lines) + "\n"
