"""The paths of a dictionary's weights in a model's variables, and functions on paths.

A path is a tuple of names, from the collection downwards, in `variables`, which are
{"params": ..., "memory": ...} and further collections of the nets, such as BatchNorm's
{"batch_stats": ...}.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

Path: TypeAlias = tuple[str, ...]

# These are the paths of an Autoencoder with a sparse bottleneck and a Dictionary as its decoder.
KERNEL = ("params", "bottleneck", "encode", "kernel")  # W_enc, f32[D, m]
BIAS = ("params", "bottleneck", "encode", "bias")  # b_enc, f32[m]
AGE = ("memory", "bottleneck", "ages", "age")  # i32[m]
ATOMS = ("params", "decoder", "atoms")  # W_dec, f32[m, D]
OFFSET = ("params", "decoder", "bias")  # b_dec, f32[D]
SKIP = ("params", "decoder", "skip_kernel")  # W_skip, f32[D_in, D], only with a skip connection
# Each `Scale` stores a mapping with mean, factor and inverse.
INPUT_SCALE = ("memory", "encoder")
OUTPUT_SCALE = ("memory", "decoder", "scale")
SKIP_SCALE = ("memory", "decoder", "skip")


def get(tree: Any, path: Path) -> Any:
    """Returns the entry at a path, or None if there is none."""
    for name in path:
        if not isinstance(tree, Mapping) or name not in tree:
            return None
        tree = tree[name]
    return tree


def put(tree: Any, path: Path, value: Any) -> Any:
    """Returns a copy of nested mappings with one entry replaced.

    Raises:
      KeyError: if there is no entry at the path.
    """
    return value if not path else {**tree, path[0]: put(tree[path[0]], path[1:], value)}


def nested(path: Path, value: Any) -> Any:
    """Returns nested mappings with a single entry, at the path."""
    return value if not path else {path[0]: nested(path[1:], value)}


def ending(path: Path) -> str:
    """Returns a regular expression that matches the end of a leaf's path, without the collection.

    It matches the parameter and also the optimiser's moments of it, whose paths end the same way.
    """
    return "/".join(map(re.escape, path[1:])) + "$"


# A state keeps the collection "memory" and, under names that begin so, all others but "params".
FURTHER = "@"


def remembered(variables: Any) -> dict[str, Any]:
    """Returns a state's memory: the collection "memory" with all further collections in it."""
    further = {name: kept for name, kept in variables.items() if name not in ("params", "memory")}
    return {**variables.get("memory", {}), **{FURTHER + n: kept for n, kept in further.items()}}


def unpacked(params: Any, memory: Any) -> dict[str, Any]:
    """Returns the variables of parameters and of a state's memory, as `remembered` packs it."""
    further = {name: kept for name, kept in memory.items() if name.startswith(FURTHER)}
    own = {name: kept for name, kept in memory.items() if name not in further}
    collections = {name.removeprefix(FURTHER): kept for name, kept in further.items()}
    return {"params": params, "memory": own, **collections}
