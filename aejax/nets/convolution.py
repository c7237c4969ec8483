"""Flax's convolutions, computed in a way that stays fast inside a `lax.scan` of training steps."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from aejax.errors import UserError
from aejax.kernels.conv import convolve, convolve_transposed
from aejax.types import Array


def _convolve(images: Array, kernel: Array, *args: Any, **options: Any) -> Array:
    """Computes `convolve`, with the same arguments.

    Raises:
      UserError: if the images do not have as many axes as the kernel.
    """
    if images.ndim != kernel.ndim:
        raise UserError(
            "a convolution needs pictures [B, height, width, channels], but x has shape "
            f"{images.shape}: reshape x, or use a net for vectors, such as nets.MLP"
        )
    return convolve(images, kernel, *args, **options)


Convolution = functools.partial(nn.Conv, conv_general_dilated=_convolve)


class TransposedConvolution(nn.Module):
    """Enlarges an image by `strides`, as `nn.ConvTranspose` with padding "SAME" does.

    Attributes:
      features: the number of channels of the output.
      kernel_size: the kernel's height and width.
      strides: the factors by which height and width grow.
      dtype: the dtype of the computation; parameters stay float32.
    """

    features: int
    kernel_size: Sequence[int]
    strides: Sequence[int]
    dtype: Any = None

    @nn.compact
    def __call__(self, values: Array) -> Array:
        """Maps [B, H, W, C] to [B, H * strides[0], W * strides[1], features]."""
        shape = (*self.kernel_size, values.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
        values, kernel, bias = promote_dtype(values, kernel, bias, dtype=self.dtype)
        return convolve_transposed(values, kernel, self.strides) + bias[None, None, None]
