"""Runs a function that was traced for one example on a batch of any size, row by row.

    closed = jax.make_jaxpr(lambda x: function(x))(x[:1])
    by_rows(closed, [Rows(x)])     # what jax.vmap(lambda row: function(row[None])) computes

`jax.vmap` keeps the axis of the one example beside the axis of the batch, f32[B, 1, D], so that a
product with a matrix is no longer a product of two matrices, which onnxruntime computes fastest.
Here the batch takes the place of the first axis where an operation allows it; every other operation
is mapped by `jax.vmap`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from aejax.interop.programs.inline import bind, called, evaluate
from aejax.types import Array

# Operations that compute each entry from the entries at the same place.
# fmt: off
BY_ENTRY = {
    "abs", "acos", "acosh", "add", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt",
    "ceil", "convert_element_type", "copy", "cos", "cosh", "div", "eq", "erf", "erf_inv",
    "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le",
    "lgamma", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg", "nextafter",
    "not", "or", "pow", "reduce_precision", "rem", "round", "rsqrt", "sign", "sin", "sinh",
    "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor"
}
# fmt: on


def _outside(field: str) -> Callable[[Any, list[bool]], bool]:
    """Returns a function that tells whether an operation's axes leave out the first axis.

    The axes are the operation's parameter of the name `field`, such as "axes" or "dimensions".
    """
    return lambda params, rows: 0 not in np.atleast_1d(params[field])


def _product(params: Any, rows: list[bool]) -> bool:
    (summed, _), (left, right) = params["dimension_numbers"]
    if all(rows):
        return left[:1] == right[:1] == (0,)
    return rows[0] and 0 not in summed and not left


def _convolution(params: Any, rows: list[bool]) -> bool:
    numbers = params["dimension_numbers"]
    first = numbers.lhs_spec[0] == numbers.out_spec[0] == 0
    return rows == [True, False] and first and params["batch_group_count"] == 1


# Operations that may treat each entry of the first axis separately: name -> a function that decides
# whether they do, from the parameters and a list of which arguments have the batch as first axis.
LEAVES_FIRST: dict[str, Callable[[Any, list[bool]], bool]] = {
    **{f"reduce_{kind}": _outside("axes") for kind in ("sum", "max", "min", "prod", "and", "or")},
    "argmax": _outside("axes"),
    "argmin": _outside("axes"),
    "concatenate": lambda params, rows: all(rows) and params["dimension"] != 0,
    "conv_general_dilated": _convolution,
    "dot_general": _product,
    "pad": lambda params, rows: rows == [True, False] and params["padding_config"][0] == (0, 0, 0),
    "select_n": lambda params, rows: all(rows),
    "split": _outside("axis"),
    "squeeze": _outside("dimensions"),
    "transpose": lambda params, rows: params["permutation"][0] == 0,
}
# Operations with a parameter that contains the size of the first axis: name -> that parameter, and
# a function that decides whether they treat each entry of that axis separately.
SIZED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "broadcast_in_dim": ("shape", lambda params: params["broadcast_dimensions"][:1] == (0,)),
    "reshape": ("new_sizes", lambda params: params["dimensions"] is None),
    "slice": ("limit_indices", lambda params: (params["strides"] or (1,))[0] == 1),
}


class Rows(NamedTuple):
    """A value that differs between the examples (rows) of a batch, with the batch as first axis.

    The array is [B, *s] if the value for one example is [1, *s]. It is [B, *s], too, if the value
    for one example has a shape s that does not begin with 1.
    """

    array: Array


def by_rows(closed: ClosedJaxpr, arguments: list[Any]) -> list[Any]:
    """Runs a function that was traced for one example on a batch of examples (rows).

    Args:
      closed: the function, traced for a batch of one.
      arguments: a flat list of its arguments: `Rows`, which have a batch axis, or arrays that are
        the same for all examples.

    Returns:
      A flat list of the function's results: `Rows` for a result that differs between examples, and
      an array for one that does not.
    """
    return evaluate(closed, arguments, _replaced)


def _replaced(equation: Any, given: list[Any]) -> list[Any] | None:
    """Returns an operation's results for a batch.

    The result is None, so that the operation is not replaced, if it calls a function or if none of
    its arguments is `Rows`.
    """
    if not any(isinstance(value, Rows) for value in given) or called(equation, given) is not None:
        return None
    changed = _changed(equation, given)
    arrays = [value.array if isinstance(value, Rows) else jnp.asarray(value) for value in given]
    if changed is None:
        axes = [0 if isinstance(value, Rows) else None for value in given]
        results = jax.vmap(functools.partial(_one, equation, axes), in_axes=axes)(*arrays)
    else:
        results = bind(equation, arrays, **changed)
    return [Rows(result) for result in results]


def _one(equation: Any, axes: list[int | None], *values: Any) -> list[Array]:
    """Runs an operation on one row, and removes the first axis of its results if its size is 1."""
    given = [
        jax.lax.expand_dims(value, (0,)) if axis == 0 and atom.aval.shape[:1] == (1,) else value
        for value, atom, axis in zip(values, equation.invars, axes, strict=True)
    ]
    return [
        jax.lax.squeeze(result, (0,)) if variable.aval.shape[:1] == (1,) else result
        for result, variable in zip(bind(equation, given), equation.outvars, strict=True)
    ]


def _changed(equation: Any, given: list[Any]) -> dict[str, Any] | None:
    """Returns the parameters to change so that an operation runs on the whole batch at once.

    It returns None if that is impossible, because the first axis is not the axis of examples or the
    operation mixes its entries, or if the operation is not in the tables of this module.
    """
    name, params = equation.primitive.name, equation.params
    shapes = [atom.aval.shape for atom in equation.invars]
    rows = [isinstance(value, Rows) for value in given]
    results = [variable.aval.shape for variable in equation.outvars]
    if not all(shape[:1] == (1,) for shape in results):
        return None
    if any(row and shape[:1] != (1,) for shape, row in zip(shapes, rows, strict=True)):
        return None
    size = next(value.array.shape[0] for value in given if isinstance(value, Rows))
    if name in SIZED:
        field, allowed = SIZED[name]
        return {field: (size, *params[field][1:])} if allowed(params) else None
    if name in BY_ENTRY:
        apart = all(not shape or len(shape) == len(results[0]) for shape in shapes)
    else:
        apart = name in LEAVES_FIRST and LEAVES_FIRST[name](params, rows)
    return {} if apart else None
