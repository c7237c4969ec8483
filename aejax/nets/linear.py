"""The two nets of a sparse autoencoder: nothing, and one linear map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from aejax.errors import UserError
from aejax.events import is_dense
from aejax.types import Array


class Identity(nn.Module):
    """Hands the values over as they are; a sparse bottleneck owns its projection."""

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """[B, *event] -> [B, *event]."""
        return values


class Weights(NamedTuple):
    """A dictionary's parameters, in its own units."""

    atoms: Array  # f32[m, D]
    bias: Array  # f32[D]
    skip: Array | None  # f32[D_in, D]


class Dictionary(nn.Module):
    """One linear map whose rows are the features' directions: z @ atoms + bias.

    Takes a dense z f32[B, m], or one that holds few latents and combines their atoms itself, at the
    cost of these alone (see `aejax.events.is_dense`).

    Attributes:
      shape: of one example's output: a number of units, or a shape; (layers, size) makes a
        crosscoder.
      norm: of each atom at the start; directions are uniform on the sphere.
      dtype: of the computation; parameters and output stay float32.
      scale: a `Scale` that brings the output to the target's units; None where they are its own.
      skip: a net, such as `Identity()` or `Scale()`, whose view of the context is mapped linearly
        to the output as well: with the input as the batch's context, a skip transcoder.
    """

    shape: int | Sequence[int]
    norm: float = 0.1
    dtype: Any = None
    scale: Any = None
    skip: Any = None

    def __call__(self, z: Any, context: Any = None) -> Array:
        """f32[B, m], or rows, -> f32[B, *shape].

        Raises:
          UserError: if there is a skip connection and no context.
        """
        return self.finish(self.combine(z) + self.offset(_latents(z), context))

    def combine(self, z: Any) -> Array:
        """z @ atoms without the bias, f32[B, D], in the dictionary's own units."""
        dtype = self.dtype or jnp.float32
        atoms = self.weights(_latents(z)).atoms.astype(dtype)
        if not is_dense(z):
            return z.combine(atoms)
        return jnp.matmul(z.astype(dtype), atoms, preferred_element_type=jnp.float32)

    def offset(self, latents: int, context: Any = None) -> Array:
        """The output without any latent, in the dictionary's own units: bias and skip connection.

        Args:
          latents: m.
          context: of the batch, which a skip connection reads.

        Returns:
          f32[1, D], or f32[B, D] where there is a skip connection.

        Raises:
          UserError: if there is a skip connection and no context.
        """
        weights = self.weights(latents, self._seen(context))
        bias = weights.bias[None]
        return bias if weights.skip is None else bias + self._view(context) @ weights.skip

    def finish(self, output: Array) -> Array:
        """f32[B, D] in the dictionary's own units -> f32[B, *shape] in the target's."""
        restored = output if self.scale is None else self.scale.restore(output)
        return restored.reshape((-1, *self._event()))

    def measure(self, differences: Array) -> Array:
        """Differences [B, *shape] in the target's units -> f32[B, D] in the dictionary's own."""
        flat = differences.reshape((differences.shape[0], -1)).astype(jnp.float32)
        return flat if self.scale is None else self.scale.measure(flat)

    @nn.compact
    def weights(self, latents: int, inputs: int | None = None) -> Weights:
        """The parameters.

        Args:
          latents: m.
          inputs: size of what the skip connection sees, or None.
        """
        size = math.prod(self._event())
        zeros = nn.initializers.zeros_init()
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
                "a Dictionary with a skip connection reads the input from the batch's context: "
                "make batches Batch(x, target, context=x)"
            )
        return math.prod(context.shape[1:])

    def _directions(self, key: Any, shape: tuple[int, int]) -> Array:
        rows = nn.initializers.normal(1.0)(key, shape)
        return self.norm * rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)


def _latents(z: Any) -> int:
    return z.shape[-1] if is_dense(z) else z.latents
