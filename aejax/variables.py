"""Where the weights of a dictionary stand in a model's variables, and how an entry is replaced.

A path is the names from the collection downwards; `variables` are {"params": ..., "memory": ...}.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

Path: TypeAlias = tuple[str, ...]

# Of an Autoencoder whose bottleneck is sparse and whose decoder is a Dictionary.
KERNEL = ("params", "bottleneck", "encode", "kernel")  # f32[D, m]
BIAS = ("params", "bottleneck", "encode", "bias")  # f32[m]
AGE = ("memory", "bottleneck", "ages", "age")  # i32[m]
ATOMS = ("params", "decoder", "atoms")  # f32[m, D]
OFFSET = ("params", "decoder", "bias")  # f32[D]
SKIP = ("params", "decoder", "skip_kernel")  # f32[D_in, D], where there is a skip connection
# What each `Scale` remembers of the data: a mapping with mean, factor and inverse.
INPUT_SCALE = ("memory", "encoder")
OUTPUT_SCALE = ("memory", "decoder", "scale")
SKIP_SCALE = ("memory", "decoder", "skip")


def get(tree: Any, path: Path) -> Any:
    """The entry at a path; None where there is none."""
    for name in path:
        if not isinstance(tree, Mapping) or name not in tree:
            return None
        tree = tree[name]
    return tree


def put(tree: Any, path: Path, value: Any) -> Any:
    """The same nested mappings with one entry replaced; a KeyError where there is none."""
    return value if not path else {**tree, path[0]: put(tree[path[0]], path[1:], value)}


def nested(path: Path, value: Any) -> Any:
    """Nested mappings with one entry."""
    return value if not path else {path[0]: nested(path[1:], value)}


def ending(path: Path) -> str:
    """A regular expression for a leaf's path in a state: the optimiser's moments end in it too."""
    return "/".join(map(re.escape, path[1:])) + "$"
