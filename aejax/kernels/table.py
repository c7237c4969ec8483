"""Which form of an operation runs on which backend: looked up among measurements, never timed."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from aejax.types import Array


class Measured(NamedTuple):
    """Milliseconds of each form of one operation at one shape, the best of several."""

    shape: tuple[int, ...]  # (B, k, m, D), or (B, k, m) for `largest`
    milliseconds: Mapping[str, float]


# backend -> operation -> rows written by `python -m experiments bench-kernels` (jax 0.10.2, 2 cores
# of a Xeon with AVX-512, `largest` up to k = 64 of an EPYC; the shared machine was not quiet, so
# compare within a row). CPUs alone are measured: other backends run each operation's first form,
# one XLA operation, until they are.
MEASURED: dict[str, dict[str, list[Measured]]] = {
    "cpu": {
        "combine": [
            Measured((2048, 32, 8192, 576), {"flat": 76.7, "slots": 9.9, "dense": 187.7}),
            Measured((2048, 64, 8192, 576), {"flat": 145.9, "slots": 20.4, "dense": 203.2}),
            Measured((2048, 256, 8192, 576), {"slots": 55.1, "dense": 227.4}),
            Measured((2048, 32, 32768, 576), {"flat": 81.2, "slots": 17.4}),
            Measured((256, 32, 1024, 784), {"flat": 4.9, "slots": 0.6, "dense": 3.4}),
        ],
        "match": [
            Measured(
                (2048, 32, 8192, 576),
                {"flat": 84.4, "slots": 32.2, "examples": 16.3, "dense": 186.8},
            ),
            Measured(
                (2048, 64, 8192, 576),
                {"flat": 179.3, "slots": 55.3, "examples": 28.6, "dense": 188.4},
            ),
            Measured((2048, 256, 8192, 576), {"slots": 224.1, "examples": 172.4, "dense": 249.8}),
            Measured((2048, 32, 32768, 576), {"flat": 88.9, "slots": 37.4, "examples": 24.1}),
            Measured(
                (256, 32, 1024, 784), {"flat": 4.8, "slots": 3.7, "examples": 1.5, "dense": 3.0}
            ),
        ],
        "spread": [
            Measured(
                (2048, 32, 8192, 576),
                {"flat": 84.2, "slots": 35.0, "examples": 11.9, "dense": 185.2},
            ),
            Measured(
                (2048, 64, 8192, 576),
                {"flat": 144.7, "slots": 60.0, "examples": 35.0, "dense": 160.0},
            ),
            Measured((2048, 256, 8192, 576), {"slots": 204.6, "examples": 148.3, "dense": 193.1}),
            Measured((2048, 32, 32768, 576), {"flat": 110.0, "slots": 70.3, "examples": 51.2}),
            Measured(
                (256, 32, 1024, 784), {"flat": 5.8, "slots": 2.7, "examples": 1.6, "dense": 3.2}
            ),
        ],
        "largest": [
            Measured(
                (2048, 32, 8192),
                {"whole": 67.4, "groups of 8": 23.7, "groups of 16": 28.0, "groups of 32": 52.3},
            ),
            Measured(
                (2048, 64, 8192),
                {"whole": 105.8, "groups of 8": 49.7, "groups of 16": 67.9, "groups of 32": 88.0},
            ),
            Measured(
                (2048, 256, 8192), {"whole": 274.4, "groups of 8": 218.3, "groups of 16": 283.8}
            ),
            Measured(
                (2048, 32, 32768),
                {"whole": 235.9, "groups of 8": 64.2, "groups of 16": 69.0, "groups of 32": 85.6},
            ),
            Measured((256, 32, 1024), {"whole": 2.3, "groups of 8": 1.8, "groups of 16": 2.4}),
        ],
    }
}


def chosen(
    operation: str, shape: tuple[int, ...], forms: Mapping[str, Callable[..., Any]], *args: Array
) -> Any:
    """Runs the form that was fastest at the nearest measured shape, for each backend its own.

    The choice is made while tracing, for the platform that the program is lowered to: an export
    for another one holds that one's form.

    Args:
      operation: a key of `MEASURED`.
      shape: of this call.
      forms: name -> function of the arguments; the first runs where nothing was measured.
      *args: arrays.
    """
    branches = {
        backend: forms[fastest(backend, operation, shape, tuple(forms))] for backend in MEASURED
    }
    return jax.lax.platform_dependent(*args, **branches, default=next(iter(forms.values())))


@functools.cache
def fastest(backend: str, operation: str, shape: tuple[int, ...], names: tuple[str, ...]) -> str:
    """The name of the form with the least time at the nearest measured shape.

    Args:
      backend: a key of `MEASURED`.
      operation: a key of `MEASURED[backend]`.
      shape: of the call.
      names: of the forms that fit it.
    """
    rows = MEASURED.get(backend, {}).get(operation, [])
    rows = [row for row in rows if row.milliseconds.keys() & set(names)]
    if not rows:
        return names[0]

    def distance(row: Measured) -> float:
        return sum(abs(math.log(a / b)) for a, b in zip(row.shape, shape, strict=True))

    milliseconds = min(rows, key=distance).milliseconds
    return min(milliseconds.keys() & set(names), key=lambda name: milliseconds[name])
