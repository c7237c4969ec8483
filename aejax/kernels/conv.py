"""Convolutions of images whose derivatives are as fast inside of a loop as outside.

On CPUs XLA brings a convolution into the one order of axes that its fast routine reads, but only in
a program's outermost computation: in the body of a loop, where a chunk of training steps runs, the
derivatives that JAX writes take a routine 15 to 30 times slower (jax 0.10 to 0.12). These are
written in that order from the start. Several members (`seeds`) take turns there, as a grouped
convolution has no fast routine either; elsewhere they are one grouped convolution.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from aejax.errors import UserError
from aejax.types import Array

Padding = str | Sequence[tuple[int, int]]


class Axis(NamedTuple):
    """How a kernel moves along the height or the width of an image."""

    stride: int
    padding: tuple[int, int]  # before and after
    spread: int  # of the image: 2 puts a zero between two pixels
    dilation: int  # of the kernel, in the same way


Window = tuple[Axis, ...]  # of height and width


def convolve(
    images: Array,
    kernel: Array,
    strides: Sequence[int],
    padding: Padding,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    precision: Any = None,
    **rest: Any,
) -> Array:
    """As `jax.lax.conv_general_dilated`, of one group and in flax's order of axes.

    Can be differentiated forwards and backwards, and any number of times.

    Args:
      images: [B, H, W, I].
      kernel: [h, w, I, O].
      strides: of the kernel.
      padding: "SAME", "VALID", or what is added before and after each axis.
      lhs_dilation: of the images.
      rhs_dilation: of the kernel.
      precision: of the products.
      **rest: what flax's `Conv` says as well, and which is as above.

    Returns:
      [B, H', W', O].
    """
    if rest.get("feature_group_count", 1) != 1:
        raise UserError("convolve has one group of channels: for more take flax's nn.Conv")
    spread, dilation = lhs_dilation or (1, 1), rhs_dilation or (1, 1)
    if isinstance(padding, str):
        extents = [_extent(*sizes) for sizes in zip(kernel.shape[:2], dilation, strict=True)]
        padding = jax.lax.padtype_to_pads(images.shape[1:3], extents, strides, padding)
    pads = [(int(before), int(after)) for before, after in padding]
    window = tuple(map(Axis, strides, pads, spread, dilation))
    return _conv.bind(images[None], kernel[None], window=window, precision=precision)[0]


def convolve_transposed(
    images: Array, kernel: Array, strides: Sequence[int], precision: Any = None
) -> Array:
    """As `jax.lax.conv_transpose` with padding "SAME": images that are `strides` times as large.

    Args:
      images: [B, H, W, I].
      kernel: [h, w, I, O].
      strides: by which height and width grow.
      precision: of the products.

    Returns:
      [B, H * strides[0], W * strides[1], O].
    """
    pads = []
    for size, stride in zip(kernel.shape[:2], strides, strict=True):
        whole = size + stride - 2
        before = size - 1 if stride > size - 1 else -(-whole // 2)
        pads.append((before, whole - before))
    return convolve(images, kernel, (1, 1), pads, strides, precision=precision)


# Images [S, B, H, W, I] and kernels [S, h, w, I, O] of S members -> [S, B, H', W', O].
_conv = Primitive("convolve")


def _one(images: Array, kernel: Array, window: Window, precision: Any) -> Array:
    strides, padding, spread, dilation = zip(*window, strict=True)
    order = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        images, kernel, strides, padding, spread, dilation, order, precision=precision
    )


def _together(images: Array, kernels: Array, **how: Any) -> Array:
    one = functools.partial(_one, **how)
    if images.shape[0] == 1:
        return one(images[0], kernels[0])[None]
    return jax.vmap(one)(images, kernels)


def _in_turn(images: Array, kernels: Array, **how: Any) -> Array:
    one = functools.partial(_by_phase, **how)
    if images.shape[0] == 1:
        return one(images[0], kernels[0])[None]
    return jax.lax.map(lambda both: one(*both), (images, kernels))


def _by_phase(images: Array, kernel: Array, window: Window, precision: Any) -> Array:
    """Of spread images: every a-th output sees every a-th row of the kernel, and no zero."""
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
        # As many outputs of each phase; what is too much is cut below.
        high = -(-count // step) - 1 + rows.shape[along] - low - images.shape[1 + along]
        part = Axis(1, (low, high), 1, 1)
        phases.append(
            _by_phase(images, rows, (*window[:along], part, *window[along + 1 :]), precision)
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
    """The cotangent convolved with the kernel turned around, its channels swapped."""
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
    """The images convolved with the cotangent; examples take the place of input channels.

    Where images are spread, as in a transposed convolution, it is the cotangent with the images:
    their fast routine reads no spread ones. The result is turned around.
    """
    turned = any(axis.spread > axis.stride for axis in window)
    back = []
    for axis, inner, outer, size in _extents(window, images, cotangent, kernels.aval):
        low = axis.padding[0]
        if turned:
            pads = (size - 1 - low, inner - outer + low)
            back.append(Axis(axis.dilation, pads, axis.stride, axis.spread))
        else:
            pads = (low, outer - inner + size - 1 - low)
            back.append(Axis(axis.dilation, pads, axis.spread, axis.stride))
    seen, kernel = (cotangent, images) if turned else (images, cotangent)
    both = jnp.swapaxes(seen, 1, 4), jnp.moveaxis(kernel, 1, 3)
    found = _conv.bind(*both, window=tuple(back), precision=precision)
    if turned:  # [S, O, h, w, I]
        return jnp.transpose(found[:, :, ::-1, ::-1], (0, 2, 3, 4, 1))
    return jnp.moveaxis(found, 1, 3)  # [S, I, h, w, O]


def _extents(
    window: Window, images: Any, outputs: Any, kernels: Any
) -> Iterator[tuple[Axis, int, int, int]]:
    """Each axis and the extents of images, outputs and kernels along it, zeros included."""
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
    """More members, or more images of a member's kernel, or more outputs of its images."""
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


_conv.def_impl(lambda *both, **how: jax.jit(functools.partial(_in_turn, **how))(*both))
_conv.def_abstract_eval(_shape)
ad.defbilinear(_conv, _to_images, _to_kernels)
batching.primitive_batchers[_conv] = _batched
mlir.register_lowering(_conv, mlir.lower_fun(_together, multiple_results=False))
mlir.register_lowering(_conv, mlir.lower_fun(_in_turn, multiple_results=False), platform="cpu")
