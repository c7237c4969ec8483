"""The encoder and the decoder of a sparse autoencoder: the identity and a linear map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from aejax.checks import check_size
from aejax.errors import UserError
from aejax.events import is_dense
from aejax.types import Array


class Identity(nn.Module):
    """Returns the values unchanged; a sparse bottleneck has its own projection."""

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """Returns the values [B, *event] unchanged."""
        return values


class Weights(NamedTuple):
    """A dictionary's parameters, which apply before `Dictionary.scale` converts the output."""

    atoms: Array  # W_dec, f32[m, D]
    bias: Array  # b_dec, f32[D]
    skip: Array | None  # W_skip, f32[D_in, D], the kernel of the skip connection


class Dictionary(nn.Module):
    """Computes z W_dec + b_dec; each row of W_dec is the direction (atom) of one latent.

    W_dec and b_dec are its parameters `atoms` and `bias`.

    z is an array f32[B, m], or a sparse record such as `Rows`, for which only the atoms of active
    latents are summed (see `aejax.events.is_dense`). If there is a `scale`, z @ atoms + bias is
    said to be in scaled units, and the scale converts it to the target's units.

    Attributes:
      shape: the number of elements of one example's output, or its shape, such as (layers, size)
        for a crosscoder.
      norm: the norm of each atom before training; directions are uniform on the sphere.
      dtype: the dtype of the computation; parameters and output stay float32.
      scale: a `Scale`, or a `Normalise`, that converts the output to the target's units; None: no
        conversion.
      skip: a net, such as `Identity()` or `Scale()`, that is applied to the batch's context and
        mapped linearly to the output. With the input as the context this is a skip transcoder.
        None: no skip connection.
    """

    shape: int | Sequence[int]
    norm: float = 0.1
    dtype: Any = None
    scale: Any = None
    skip: Any = None

    def __call__(self, z: Any, context: Any = None) -> Array:
        """Decodes z, f32[B, m] or a sparse record, to f32[B, *shape].

        Raises:
          UserError: if there is a skip connection but no context.
        """
        return self.finish(self.combine(z) + self.offset(_latents(z), context), context)

    def combine(self, z: Any) -> Array:
        """Computes z @ atoms without the bias, f32[B, D], in scaled units."""
        dtype = self.dtype or jnp.float32
        atoms = self.weights(_latents(z)).atoms.astype(dtype)
        if not is_dense(z):
            return z.combine(atoms)
        return jnp.matmul(z.astype(dtype), atoms, preferred_element_type=jnp.float32)

    def offset(self, latents: int, context: Any = None) -> Array:
        """Computes the output for z = 0, in scaled units: the bias plus the skip connection.

        Args:
          latents: the number of latents m.
          context: the batch's context, which a skip connection reads.

        Returns:
          f32[1, D], or f32[B, D] if there is a skip connection.

        Raises:
          UserError: if there is a skip connection but no context.
        """
        weights = self.weights(latents, self._seen(context))
        bias = weights.bias[None]
        return bias if weights.skip is None else bias + self._view(context) @ weights.skip

    def finish(self, output: Array, context: Any = None) -> Array:
        """Converts f32[B, D] from scaled units to f32[B, *shape] in the target's units."""
        restored = output if self.scale is None else self.scale.restore(output, context)
        return restored.reshape((-1, *self._event()))

    def measure(self, differences: Array, context: Any = None) -> Array:
        """Converts differences [B, *shape] from the target's units to scaled units f32[B, D]."""
        flat = differences.reshape((differences.shape[0], -1)).astype(jnp.float32)
        return flat if self.scale is None else self.scale.measure(flat, context)

    @nn.compact
    def weights(self, latents: int, inputs: int | None = None) -> Weights:
        """Returns the dictionary's parameters: atoms, bias and the kernel of the skip connection.

        Args:
          latents: the number of latents m.
          inputs: the size D_in of the skip connection's input; None: no skip connection.
        """
        size = math.prod(self._event())
        zeros = nn.initializers.zeros_init()
        check_size(self, "atoms", 0, latents, "the code has {} latents, but the dictionary has {}")
        check_size(self, "skip_kernel", 0, inputs)
        atoms = self.param("atoms", self._directions, (latents, size))
        bias = self.param("bias", zeros, (size,))
        return Weights(atoms, bias, inputs and self.param("skip_kernel", zeros, (inputs, size)))  # pyright: ignore[reportArgumentType]

    def _event(self) -> tuple[int, ...]:
        return (self.shape,) if isinstance(self.shape, int) else tuple(self.shape)

    def _view(self, context: Any) -> Array:
        return self.skip(context).reshape((context.shape[0], -1)).astype(jnp.float32)

    def _seen(self, context: Any) -> int | None:
        if self.skip is None:
            return None
        if context is None:
            raise UserError(
                "a Dictionary with a skip connection reads the input from the batch's context, but "
                "there is none: make batches as Batch(x, target, context=x)"
            )
        return math.prod(context.shape[1:])

    def _directions(self, key: Any, shape: tuple[int, int]) -> Array:
        rows = nn.initializers.normal(1.0)(key, shape)
        return self.norm * rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)


def _latents(z: Any) -> int:
    return z.shape[-1] if is_dense(z) else z.latents
