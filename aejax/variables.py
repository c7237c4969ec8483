"""The paths of a dictionary's weights in a model's variables, and functions on paths.

A model's variables are nested mappings, {"params": ..., "memory": ...} and further collections of
its nets, such as BatchNorm's {"batch_stats": ...}. A path is the tuple of names that leads to an
entry, and its first name is the collection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

Path: TypeAlias = tuple[str, ...]

# These paths hold in an Autoencoder with a sparse bottleneck and the decoder `nets.Dictionary`.
KERNEL = ("params", "bottleneck", "encode", "kernel")  # W_enc, f32[D, m]
BIAS = ("params", "bottleneck", "encode", "bias")  # b_enc, f32[m]
AGE = ("memory", "bottleneck", "ages", "age")  # i32[m], steps since each latent was last active
ATOMS = ("params", "decoder", "atoms")  # W_dec, f32[m, D]
OFFSET = ("params", "decoder", "bias")  # b_dec, f32[D]
SKIP = ("params", "decoder", "skip_kernel")  # W_skip, f32[D_in, D], only with a skip connection
# The net `Scale` stores a mapping {"mean": ..., "factor": ..., "inverse": ...} at each of these.
INPUT_SCALE = ("memory", "encoder")
OUTPUT_SCALE = ("memory", "decoder", "scale")
SKIP_SCALE = ("memory", "decoder", "skip")


def get(tree: Any, path: Path) -> Any:
    """Returns the entry of nested mappings at a path, or None if nothing is there."""
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
    """Returns nested mappings whose only entry is `value`, at the path."""
    return value if not path else {path[0]: nested(path[1:], value)}


def ending(path: Path) -> str:
    """Returns a regular expression that matches slash-separated paths that end with `path`.

    The first name of `path`, the collection, is left out, so that the expression matches a
    parameter and also the optimiser's moments of that parameter.
    """
    return "/".join(map(re.escape, path[1:])) + "$"


# `State.memory` holds the collection "memory" and every further collection but "params". The names
# of the further collections have this prefix there.
FURTHER = "@"


def remembered(variables: Any) -> dict[str, Any]:
    """Returns all collections but "params" in one mapping, the field `memory` of a State."""
    further = {name: kept for name, kept in variables.items() if name not in ("params", "memory")}
    return {**variables.get("memory", {}), **{FURTHER + n: kept for n, kept in further.items()}}


def unpacked(params: Any, memory: Any) -> dict[str, Any]:
    """Returns a model's variables from the fields `params` and `memory` of a State.

    It undoes the packing of `remembered`.
    """
    further = {name: kept for name, kept in memory.items() if name.startswith(FURTHER)}
    own = {name: kept for name, kept in memory.items() if name not in further}
    collections = {name.removeprefix(FURTHER): kept for name, kept in further.items()}
    return {"params": params, "memory": own, **collections}
