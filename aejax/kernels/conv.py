"""Convolutions of images whose derivatives are as fast inside a loop as outside.

On CPUs, XLA has a fast convolution routine that needs a certain order of axes. XLA converts a
convolution to this order only outside loops. Inside a loop, such as a loop over training steps, the
derivatives that JAX generates have another order and use a slower routine (jax 0.10 to 0.12; the
command `bench-conv` measures the difference). The derivatives in this module have the required
order. The fast routine supports neither grouped convolutions nor dilated images. On CPUs the
convolutions of several models that `seeds` trains together therefore run one after the other, and a
convolution of a dilated image is split into several convolutions without the inserted zeros. On
other platforms the models share one grouped convolution.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import AxisType

from aejax.types import Array

Padding = str | Sequence[tuple[int, int]]
ORDER = ("NHWC", "HWIO", "NHWC")


class Axis(NamedTuple):
    """How a kernel moves along the height or the width of an image."""

    stride: int
    padding: tuple[int, int]  # the number of zeros before and after the image
    spread: int  # the image's dilation: 2 inserts a zero between neighbouring pixels
    dilation: int  # the kernel's dilation


Window = tuple[Axis, ...]  # for height and width


def convolve(
    images: Array,
    kernel: Array,
    strides: Sequence[int],
    padding: Padding,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = ORDER,
    feature_group_count: int = 1,
    precision: Any = None,
) -> Array:
    """Computes `jax.lax.conv_general_dilated` with fast derivatives.

    For other ranks or orders of axes, several groups of channels, empty arrays, and arrays on a
    manual or explicit mesh it calls that function itself. The result can be differentiated any
    number of times, in forward and reverse mode.

    Args:
      images: [B, H, W, I].
      kernel: [h, w, I, O].
      strides: the kernel's strides along height and width.
      padding: "SAME", "VALID", or the padding before and after each axis.
      lhs_dilation: the dilation of the images; None: 1.
      rhs_dilation: the dilation of the kernel; None: 1.
      dimension_numbers: the order of the axes; by default the shapes above.
      feature_group_count: the number of groups of channels.
      precision: the precision of the products; None: the current `jax.default_matmul_precision`.

    Returns:
      [B, H', W', O].
    """
    by_lax = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        precision=precision,
    )
    if feature_group_count != 1 or not _in_order(images, kernel, dimension_numbers):
        return by_lax(images, kernel)
    output = jax.eval_shape(by_lax, images, kernel)  # raises the errors that lax raises
    if 0 in (*images.shape, *kernel.shape, *output.shape) or not _automatic(images, kernel):
        return by_lax(images, kernel)
    spread, dilation = lhs_dilation or (1, 1), rhs_dilation or (1, 1)
    if isinstance(padding, str):
        extents = [_extent(*sizes) for sizes in zip(kernel.shape[:2], dilation, strict=True)]
        padding = jax.lax.padtype_to_pads(images.shape[1:3], extents, strides, padding)
    pads = [(int(before), int(after)) for before, after in padding]
    window = tuple(itertools.starmap(Axis, zip(strides, pads, spread, dilation, strict=True)))
    # The default precision is read here. When the primitive is lowered, a context manager that sets
    # it may already have ended.
    precision = precision or jax.config.jax_default_matmul_precision
    return _conv.bind(images[None], kernel[None], window=window, precision=precision)[0]


def _in_order(images: Array, kernel: Array, order: Any) -> bool:
    if images.ndim != 4 or kernel.ndim != 4:
        return False
    shapes = images.shape, kernel.shape
    given, wanted = (jax.lax.conv_dimension_numbers(*shapes, each) for each in (order, ORDER))
    return given == wanted


def _automatic(*arrays: Array) -> bool:
    """Returns whether the compiler chooses the sharding of the given arrays."""
    kinds = {kind for a in arrays for kind in jax.typeof(a).sharding.mesh.axis_types}
    return kinds <= {AxisType.Auto}


def convolve_transposed(
    images: Array, kernel: Array, strides: Sequence[int], precision: Any = None
) -> Array:
    """Enlarges images by `strides`, as `jax.lax.conv_transpose` with padding "SAME" does.

    Args:
      images: [B, H, W, I].
      kernel: [h, w, I, O].
      strides: the factors by which height and width grow.
      precision: the precision of the products, as for `convolve`.

    Returns:
      [B, H * strides[0], W * strides[1], O].
    """
    pads = []
    for size, stride in zip(kernel.shape[:2], strides, strict=True):
        whole = size + stride - 2
        before = size - 1 if stride > size - 1 else -(-whole // 2)
        pads.append((before, whole - before))
    return convolve(images, kernel, (1, 1), pads, strides, precision=precision)


# Maps images [S, B, H, W, I] and kernels [S, h, w, I, O] of S models to [S, B, H', W', O].
_conv = Primitive("convolve")


def _one(images: Array, kernel: Array, window: Window, precision: Any) -> Array:
    strides, padding, spread, dilation = zip(*window, strict=True)
    return jax.lax.conv_general_dilated(
        images, kernel, strides, padding, spread, dilation, ORDER, precision=precision
    )


def _together(images: Array, kernels: Array, **how: Any) -> Array:
    one = functools.partial(_one, **how)
    if images.shape[0] == 1:
        return one(images[0], kernels[0])[None]
    return jax.vmap(one)(images, kernels)


def _in_turn(images: Array, kernels: Array, **how: Any) -> Array:
    one = functools.partial(by_phases, **how)
    if images.shape[0] == 1:
        return one(images[0], kernels[0])[None]
    return jax.lax.map(lambda both: one(*both), (images, kernels))


def by_phases(images: Array, kernel: Array, window: Window, precision: Any) -> Array:
    """Convolves the images of one model; convolutions of dilated images are split into phases.

    If the dilation of the image is a, only every a-th row of the kernel is multiplied by pixels and
    not by inserted zeros, and these rows are the same for every a-th output. A phase is the
    convolution with these rows, which computes every a-th output.

    Args:
      images: [B, H, W, I].
      kernel: [h, w, I, O].
      window: how the kernel moves along height and width.
      precision: the precision of the products.

    Returns:
      [B, H', W', O].
    """
    axes = enumerate(zip(window, kernel.shape[:2], strict=True))
    along = next((i for i, (axis, size) in axes if _has_phases(axis, size)), None)
    if along is None:
        return _one(images, kernel, window, precision)
    axis, size = window[along], kernel.shape[along]
    step, (before, after) = axis.spread, axis.padding
    count = _extent(images.shape[1 + along], step) + before + after - size + 1
    phases = []
    for phase in range(step):
        first = (before - phase) % step
        rows = kernel[(slice(None),) * along + (slice(first, None, step),)]
        low = (before - phase - first) // step
        # All phases have the same number of outputs; superfluous outputs are cropped below.
        high = -(-count // step) - 1 + rows.shape[along] - low - images.shape[1 + along]
        part = Axis(1, (low, high), 1, 1)
        phases.append(
            by_phases(images, rows, (*window[:along], part, *window[along + 1 :]), precision)
        )
    stacked = jnp.stack(phases, axis=2 + along)
    shape = (*stacked.shape[: 1 + along], -1, *stacked.shape[3 + along :])
    return jax.lax.slice_in_dim(stacked.reshape(shape), 0, count, axis=1 + along)


def _has_phases(axis: Axis, size: int) -> bool:
    return 1 < axis.spread <= size and axis.stride == axis.dilation == 1


def _shape(images: Any, kernels: Any, **how: Any) -> Any:
    found = jax.eval_shape(functools.partial(_together, **how), images, kernels)
    return jax.core.ShapedArray(found.shape, found.dtype)


def _to_images(
    cotangent: Array, images: Any, kernels: Array, window: Window, precision: Any
) -> Array:
    """Returns the gradient for the images, the cotangent convolved with the rotated kernel."""
    back = []
    for axis, inner, outer, size in _extents(window, images.aval, cotangent, kernels):
        before = size - 1 - axis.padding[0]
        after = inner + size - 1 - outer - before
        back.append(Axis(axis.spread, (before, after), axis.stride, axis.dilation))
    turned = jnp.swapaxes(kernels[:, ::-1, ::-1], 3, 4)
    return _conv.bind(cotangent, turned, window=tuple(back), precision=precision)


def _to_kernels(
    cotangent: Array, images: Array, kernels: Any, window: Window, precision: Any
) -> Array:
    """Returns the gradient for the kernels, the images convolved with the cotangent.

    In this convolution the examples of the batch are the input channels.
    """
    back = []
    for axis, inner, outer, size in _extents(window, images, cotangent, kernels.aval):
        before = axis.padding[0]
        after = outer - inner + size - 1 - before
        back.append(Axis(axis.dilation, (before, after), axis.spread, axis.stride))
    seen, kernel = jnp.swapaxes(images, 1, 4), jnp.moveaxis(cotangent, 1, 3)
    found = _conv.bind(seen, kernel, window=tuple(back), precision=precision)
    return jnp.moveaxis(found, 1, 3)  # from [S, I, h, w, O]


def _extents(
    window: Window, images: Any, outputs: Any, kernels: Any
) -> Iterator[tuple[Axis, int, int, int]]:
    """Yields, for height and then width, the `Axis` and the extents of images, outputs and kernels.

    An extent is the size including the zeros that dilation inserts.
    """
    for i, axis in enumerate(window):
        yield (
            axis,
            _extent(images.shape[2 + i], axis.spread),
            _extent(outputs.shape[2 + i], axis.stride),
            _extent(kernels.shape[1 + i], axis.dilation),
        )


def _extent(size: int, step: int) -> int:
    return (size - 1) * step + 1


def _batched(arguments: Any, axes: Any, **how: Any) -> tuple[Array, int]:
    """Computes the convolution under vmap, by merging the vmapped axis into an existing axis.

    If images and kernels have the vmapped axis, it becomes part of the axis S of models. If only
    the images have it, it becomes part of the batch; if only the kernels, of the output channels.

    Returns:
      The result, and the index of the vmapped axis in it.
    """
    (images, kernels), (of_images, of_kernels) = arguments, axes
    if of_kernels is None:
        images = jnp.moveaxis(images, of_images, 1)
        flat = images.reshape((images.shape[0], -1, *images.shape[3:]))
        found = _conv.bind(flat, kernels, **how)
        return found.reshape((*images.shape[:3], *found.shape[2:])), 1
    if of_images is None:
        kernels = jnp.moveaxis(kernels, of_kernels, 4)
        found = _conv.bind(images, kernels.reshape((*kernels.shape[:4], -1)), **how)
        return found.reshape((*found.shape[:4], *kernels.shape[4:])), 4
    both = jnp.moveaxis(images, of_images, 0), jnp.moveaxis(kernels, of_kernels, 0)
    found = _conv.bind(*(each.reshape((-1, *each.shape[2:])) for each in both), **how)
    return found.reshape((*both[0].shape[:2], *found.shape[1:])), 0


_conv.def_impl(jax.jit(_conv.bind, static_argnames=("window", "precision")))
_conv.def_abstract_eval(_shape)
ad.defbilinear(_conv, _to_images, _to_kernels)
batching.primitive_batchers[_conv] = _batched
mlir.register_lowering(_conv, mlir.lower_fun(_together, multiple_results=False))
mlir.register_lowering(_conv, mlir.lower_fun(_in_turn, multiple_results=False), platform="cpu")
