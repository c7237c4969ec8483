"""Random draws whose uniform numbers are an input of the program, instead of coming from a key.

    sample = lambda key, p: jax.random.bernoulli(key, p)
    columns(sample, p)            # 784: how many uniform numbers the draw for one example needs
    draw(sample, noise, p)        # with noise f32[B, 784] in [0, 1); no key is left in the program

Each function of `jax.random` that draws floating-point numbers turns random bits into a uniform
number in [1, 2): it shifts them, puts an exponent before them and reads the result as a float.
`draw` runs the traced function operation by operation and puts 1 + noise in the place of that
number. What remains is arithmetic, which every export format supports.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from aejax.interop.programs.inline import called, evaluate
from aejax.types import Array

STEPS = 2.0**23  # jax.random draws multiples of 1 / STEPS
Take: TypeAlias = Callable[[tuple[Any, ...]], Array]  # shape [B, ...] -> uniform numbers


class Undrawable(Exception):
    """Raised for a draw that cannot be computed from a row of uniform numbers for each example."""


class _Key:
    """A placeholder for any random key; the noise replaces what the key would generate."""


class _Bits:
    """A placeholder for random bits that are being converted to a float."""

    def __init__(self, uniform: Array):
        self.uniform = uniform


KEY = _Key()


def columns(function: Callable[..., Any], *arguments: Any) -> int:
    """Returns how many uniform numbers the draw for one example needs.

    Args:
      function: (key, *arguments) -> a pytree of arrays [B, ...].
      *arguments: arrays or their specs (shape and dtype), [B, ...].

    Raises:
      Undrawable: if the draw cannot be computed from one row of uniform numbers for each example.
    """
    counted = 0

    def take(shape: tuple[Any, ...]) -> Array:
        nonlocal counted
        counted += math.prod(shape[1:])
        return jnp.zeros(shape)

    jax.eval_shape(lambda *given: _run(function, take, given), *arguments)
    return counted


def draw(function: Callable[..., Any], noise: Array, *arguments: Any) -> Any:
    """Computes function(key, *arguments) with uniform numbers f32[B, n] instead of a key.

    Raises:
      Undrawable: if the draw cannot be computed from one row of uniform numbers for each example.
    """
    used = 0

    def take(shape: tuple[Any, ...]) -> Array:
        nonlocal used
        first, used = used, used + math.prod(shape[1:])
        # On these multiples 1 + noise is exact, so that all compilers compute the same.
        whole = jnp.clip(jnp.floor(noise[:, first:used] * STEPS), 0.0, STEPS - 1.0)
        return (whole / STEPS).reshape((-1, *shape[1:]))

    return _run(function, take, arguments)


def _run(function: Callable[..., Any], take: Take, arguments: tuple[Any, ...]) -> Any:
    key = jax.random.key(0, impl="threefry2x32")
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(key, *arguments)

    def replace(equation: Any, given: list[Any]) -> list[Any] | None:
        return _replaced(equation, given, take)

    results = evaluate(closed, [KEY, *jax.tree.leaves(arguments)], replace)
    return jax.tree.unflatten(jax.tree.structure(shapes), results)


def _replaced(equation: Any, given: list[Any], take: Take) -> list[Any] | None:
    """Returns the results of an operation on keys or random bits, or None for another operation."""
    name, params = equation.primitive.name, equation.params
    if all(jnp.issubdtype(v.aval.dtype, jax.dtypes.prng_key) for v in equation.outvars):
        return [KEY] * len(equation.outvars)
    if name == "random_bits":
        shape = params["shape"]
        if params["bit_width"] != 32 or not shape:
            raise Undrawable(
                f"random numbers of {params['bit_width']} bits and shape {shape} are not supported"
            )
        return [_Bits(take(shape))]
    bits = next((value for value in given if isinstance(value, _Bits)), None)
    if bits is not None and name in ("shift_right_logical", "or"):
        return [bits]
    if bits is not None and name == "bitcast_convert_type" and params["new_dtype"] == np.float32:
        return [1.0 + bits.uniform]
    special = any(isinstance(value, _Key | _Bits) for value in given)
    if special and called(equation, given) is None:
        raise Undrawable(f"the operation {name} reads random bits or a key, which is not supported")
    return None
