"""Export as one .onnx file, which onnxruntime runs in Python, in a browser or on a phone."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from aejax.errors import UserError
from aejax.interop.programs.inline import bind, evaluate
from aejax.interop.programs.onnx_check import check
from aejax.interop.programs.onnx_graph import rename, shorten
from aejax.interop.programs.program import Traced, batched, mapped
from aejax.interop.programs.weights import Packed
from aejax.kernels.conv import by_phases
from aejax.optional import needs
from aejax.types import Array

OPSET = 21
# Giles (2010), "Approximating the erfinv function", table 1: polynomials of w = -log(1 - x^2).
CENTRAL = (  # the coefficients of the polynomial in w - 2.5, for w < 5
    2.81022636e-08,
    3.43273939e-07,
    -3.5233877e-06,
    -4.39150654e-06,
    0.00021858087,
    -0.00125372503,
    -0.00417768164,
    0.246640727,
    1.50140941,
)
TAIL = (  # the coefficients of the polynomial in sqrt(w) - 3, for larger w
    -0.000200214257,
    0.000100950558,
    0.00134934322,
    -0.00367342844,
    0.00573950773,
    -0.0076224613,
    0.00943887047,
    1.00167406,
    2.83297682,
)


def onnx(traced: Traced, packed: Mapping[str, Packed], about: Mapping[str, str]) -> bytes:
    """Returns a program as the bytes of one .onnx file, which includes the weights.

    The file's inputs and outputs have the program's names; their first axis is called B. If
    onnxruntime is installed, the file is run once and compared with the program.

    Raises:
      UserError: if jax2onnx is not installed, an operation has no form in ONNX, or the file does
        not compute what the program does.
    """
    converter = needs("jax2onnx", "exporting ONNX")
    order, names = list(traced.inputs), list(traced.outputs)
    specs = list(batched(traced.inputs, "B").values())
    try:
        # This runs before the conversion, in which jax2onnx replaces functions of jax.numpy.
        run = mapped(_simplified(traced), packed)

        def listed(*values: Any) -> tuple[Any, ...]:
            found = run(dict(zip(order, values, strict=True)))
            return tuple(found[name] for name in names)

        with _quiet():
            model = converter.to_onnx(listed, specs, model_name=traced.name, opset=OPSET)
    except Exception as error:  # the converter raises errors of many kinds
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"the part {traced.name} of this model cannot be written as ONNX, because jax2onnx "
            f"does not convert one of its operations ({reason}): export it as StableHLO"
        ) from error
    renamed = dict(zip((value.name for value in model.graph.input), order, strict=True))
    renamed |= dict(zip((value.name for value in model.graph.output), names, strict=True))
    shorten(model)
    rename(model.graph, renamed)
    for key, text in about.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, text
    content = model.SerializeToString()
    check(content, traced, packed)
    return content


def _simplified(traced: Traced) -> Traced:
    """Returns the same program without the operations that jax2onnx does not convert."""
    for _ in range(2):  # a replacement may itself contain an operation to replace
        run = functools.partial(_evaluate, traced.closed)
        traced = traced._replace(closed=jax.make_jaxpr(run)(*traced.closed.in_avals))
    return traced


def _evaluate(closed: ClosedJaxpr, *given: Any) -> list[Any]:
    return evaluate(closed, list(given), _replaced)


def _replaced(equation: Any, given: list[Any]) -> list[Any] | None:
    """Returns the results of an operation that is replaced, or None for any other operation.

    Where the library has an implementation for each platform, ONNX gets the default one, which is a
    single operation.
    """
    name, params = equation.primitive.name, equation.params
    if name.startswith("random_"):
        raise NotImplementedError(f"{name}, which draws random numbers inside the program")
    result = None
    if name == "platform_index":
        result = np.int32(len(params["platforms"]) - 1)
    elif name == "convolve":
        images, kernels = (jax.lax.squeeze(array, (0,)) for array in given)
        result = jax.lax.expand_dims(by_phases(images, kernels, **params), (0,))
    elif name == "erf_inv":
        result = _erf_inv(given[0])
    elif name == "concatenate" and any(array.size == 0 for array in given):
        # onnxruntime refuses a Reshape whose sizes contain both a symbol and a 0.
        full = [array for array in given if array.size]
        result = jax.lax.concatenate(full, params["dimension"]) if full else None
    elif name == "conv_general_dilated" and max(params["lhs_dilation"], default=1) > 1:
        # jax2onnx converts a transposed convolution as if its input were not dilated.
        images = _dilated(given[0], params["lhs_dilation"], params["dimension_numbers"].lhs_spec)
        ones = (1,) * len(params["lhs_dilation"])
        result = bind(equation, [images, given[1]], lhs_dilation=ones)[0]
    elif name == "stack":
        axis = params.get("axis", params.get("dimension"))
        result = jax.lax.concatenate([jax.lax.expand_dims(v, (axis,)) for v in given], axis)
    elif name == "pad" and all(
        min(sides) >= 0 and not sides[2] for sides in params["padding_config"]
    ):
        result = _padded(given[0], given[1], params["padding_config"])
    elif name == "scatter-add" and _is_one_row(given, params["dimension_numbers"]):
        result = _spread(*given)
    return None if result is None else [result]


def _erf_inv(x: Array) -> Array:
    """Computes the inverse error function by the polynomials of Giles (2010), as XLA does.

    The Newton steps that jax2onnx would use lose all digits near 1 and -1 in float32. The square is
    rounded as XLA rounds it, so that both agree to 5e-7; the exact value is up to 2e-5 away.
    """
    w = -jnp.log(1.0 - x * x)
    central = _polynomial(CENTRAL, w - 2.5)
    tail = _polynomial(TAIL, jnp.sqrt(jnp.maximum(w, 5.0)) - 3.0)
    return x * jnp.where(w < 5.0, central, tail)


def _polynomial(coefficients: Sequence[float], w: Array) -> Array:
    return functools.reduce(lambda value, next: value * w + next, coefficients, jnp.zeros_like(w))


def _padded(values: Array, filling: Array, sides: Any) -> Array:
    """Pads an array by concatenation, as jax2onnx cannot convert a pad with a symbolic batch size.

    Args:
      values: the array.
      filling: the value to pad with.
      sides: (number before, number after, 0) for each axis.
    """
    for axis, (low, high, _) in enumerate(sides):
        before, after = (
            jax.lax.broadcast(filling, (*values.shape[:axis], size, *values.shape[axis + 1 :]))
            for size in (low, high)
        )
        parts = [*([before] if low else []), values, *([after] if high else [])]
        values = jax.lax.concatenate(parts, axis) if len(parts) > 1 else values
    return values


def _dilated(images: Array, steps: Sequence[int], spec: Sequence[int]) -> Array:
    """Inserts step - 1 zeros between neighbouring entries of each spatial axis.

    Args:
      images: the images.
      steps: the step of each spatial axis.
      spec: the indices of the axes as in jax: batch, channels, then the spatial axes.
    """
    for step, axis in zip(steps, spec[2:], strict=True):
        shape = images.shape
        sides = [(0, step - 1 if i == axis + 1 else 0, 0) for i in range(len(shape) + 1)]
        zero = jnp.zeros((), images.dtype)
        filled = jax.lax.pad(jax.lax.expand_dims(images, (axis + 1,)), zero, sides)
        size = shape[axis] * step
        images = jax.lax.reshape(filled, (*shape[:axis], size, *shape[axis + 1 :]))
        images = jax.lax.slice_in_dim(images, 0, size - step + 1, axis=axis)
    return images


def _is_one_row(given: list[Any], numbers: Any) -> bool:
    """Returns whether a scatter adds values to single elements of an array f32[1, m].

    Args:
      given: the arguments of the scatter: array, indices and values.
      numbers: its dimension numbers.
    """
    whole = numbers.inserted_window_dims == numbers.scatter_dims_to_operand_dims == (0, 1)
    return whole and given[0].ndim == 2 and given[0].shape[0] == 1 and given[2].ndim == 2


def _spread(row: Array, indices: Array, values: Array) -> Array:
    """Adds values [1, k] to elements of row, f32[1, m], at indices i32[1, k, 2], without a scatter.

    Each index is compared with all m columns.
    """
    columns = jax.lax.slice_in_dim(indices, 1, 2, axis=2)
    places = jax.lax.broadcasted_iota(columns.dtype, (1, 1, row.shape[1]), 2)
    chosen = jax.lax.eq(*jnp.broadcast_arrays(columns, places)).astype(row.dtype)
    return row + jnp.sum(chosen * jax.lax.expand_dims(values, (2,)), axis=1)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides what jax2onnx prints and logs, such as the traceback of one of its plug-ins."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
