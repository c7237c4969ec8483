"""Chooses the fastest implementation (form) of an operation by a table of benchmark results.

Nothing is timed when a program runs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from aejax.types import Array


class Timing(NamedTuple):
    """The times of all implementations of an operation at one shape, minima of several runs."""

    shape: tuple[int, ...]  # (B, k, m, D), or (B, k, m) for `largest`
    milliseconds: Mapping[str, float]  # name of an implementation -> its time


# Backend -> operation -> the rows that `python -m experiments bench-kernels` wrote (jax 0.10.2; 2
# cores of a Xeon with AVX-512, and of an EPYC for `largest` up to k = 64). The machine was shared,
# so only the times in one row are comparable. There are results of CPUs only; other backends run
# the first implementation of each operation, which is one XLA operation.
MEASURED: dict[str, dict[str, list[Timing]]] = {
    "cpu": {
        "combine": [
            Timing((2048, 32, 8192, 576), {"flat": 76.7, "slots": 9.9, "dense": 187.7}),
            Timing((2048, 64, 8192, 576), {"flat": 145.9, "slots": 20.4, "dense": 203.2}),
            Timing((2048, 256, 8192, 576), {"slots": 55.1, "dense": 227.4}),
            Timing((2048, 32, 32768, 576), {"flat": 81.2, "slots": 17.4}),
            Timing((256, 32, 1024, 784), {"flat": 4.9, "slots": 0.6, "dense": 3.4}),
        ],
        "match": [
            Timing(
                (2048, 32, 8192, 576),
                {"flat": 84.4, "slots": 32.2, "examples": 16.3, "dense": 186.8},
            ),
            Timing(
                (2048, 64, 8192, 576),
                {"flat": 179.3, "slots": 55.3, "examples": 28.6, "dense": 188.4},
            ),
            Timing((2048, 256, 8192, 576), {"slots": 224.1, "examples": 172.4, "dense": 249.8}),
            Timing((2048, 32, 32768, 576), {"flat": 88.9, "slots": 37.4, "examples": 24.1}),
            Timing(
                (256, 32, 1024, 784), {"flat": 4.8, "slots": 3.7, "examples": 1.5, "dense": 3.0}
            ),
        ],
        "spread": [
            Timing(
                (2048, 32, 8192, 576),
                {"flat": 84.2, "slots": 35.0, "examples": 11.9, "dense": 185.2},
            ),
            Timing(
                (2048, 64, 8192, 576),
                {"flat": 144.7, "slots": 60.0, "examples": 35.0, "dense": 160.0},
            ),
            Timing((2048, 256, 8192, 576), {"slots": 204.6, "examples": 148.3, "dense": 193.1}),
            Timing((2048, 32, 32768, 576), {"flat": 110.0, "slots": 70.3, "examples": 51.2}),
            Timing(
                (256, 32, 1024, 784), {"flat": 5.8, "slots": 2.7, "examples": 1.6, "dense": 3.2}
            ),
        ],
        "largest": [
            Timing(
                (2048, 32, 8192),
                {"whole": 67.4, "groups of 8": 23.7, "groups of 16": 28.0, "groups of 32": 52.3},
            ),
            Timing(
                (2048, 64, 8192),
                {"whole": 105.8, "groups of 8": 49.7, "groups of 16": 67.9, "groups of 32": 88.0},
            ),
            Timing(
                (2048, 256, 8192), {"whole": 274.4, "groups of 8": 218.3, "groups of 16": 283.8}
            ),
            Timing(
                (2048, 32, 32768),
                {"whole": 235.9, "groups of 8": 64.2, "groups of 16": 69.0, "groups of 32": 85.6},
            ),
            Timing((256, 32, 1024), {"whole": 2.3, "groups of 8": 1.8, "groups of 16": 2.4}),
        ],
    }
}


def chosen(
    operation: str, shape: tuple[int, ...], forms: Mapping[str, Callable[..., Any]], *args: Array
) -> Any:
    """Runs the implementation that was fastest on the backend at the nearest measured shape.

    It is chosen for the platform that the program is lowered to, so that an export for another
    platform contains the implementation for that platform.

    Args:
      operation: the operation's name in `MEASURED`.
      shape: the sizes of this call, in the order of `Timing.shape`.
      forms: name -> implementation, a function of the arguments; the first one runs on backends
        that `MEASURED` does not contain.
      *args: the arguments, arrays.
    """
    branches = {
        backend: forms[fastest(backend, operation, shape, tuple(forms))] for backend in MEASURED
    }
    return jax.lax.platform_dependent(*args, **branches, default=next(iter(forms.values())))


@functools.cache
def fastest(backend: str, operation: str, shape: tuple[int, ...], names: tuple[str, ...]) -> str:
    """Returns the name of the implementation that is fastest at the nearest measured shape.

    Args:
      backend: a key of `MEASURED`, such as "cpu".
      operation: a key of `MEASURED[backend]`, such as "combine".
      shape: the sizes of the call, in the order of `Timing.shape`.
      names: the names of the implementations that support this shape.
    """
    rows = MEASURED.get(backend, {}).get(operation, [])
    rows = [row for row in rows if row.milliseconds.keys() & set(names)]
    if not rows:
        return names[0]

    def distance(row: Timing) -> float:
        return sum(abs(math.log(a / b)) for a, b in zip(row.shape, shape, strict=True))

    milliseconds = min(rows, key=distance).milliseconds
    return min(milliseconds.keys() & set(names), key=lambda name: milliseconds[name])
