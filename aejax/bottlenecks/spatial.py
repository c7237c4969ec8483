"""A Gaussian bottleneck whose z is a map: a vector for each position of a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from aejax.bottlenecks.gaussian import GaussianCode, drawn
from aejax.bottlenecks.positions import Positions
from aejax.checks import check_count
from aejax.contracts import NOTHING, Bottleneck, Given
from aejax.types import Array, Key


class SpatialCode(NamedTuple):
    """A draw from a diagonal Gaussian, as a map that the decoder sees; L is the map's size."""

    z: Array  # f32[B, *positions, size]
    mean: Array  # f32[B, L]
    log_std: Array  # f32[B, L]

    @property
    def latent(self) -> Array:
        """Returns z as vectors, whose density the prior evaluates, f32[B, L]."""
        return self.z.reshape(self.mean.shape)

    def log_q(self, stick: bool = False) -> Array:
        """Computes log q(z | x), f32[B], in nats; `stick` as in `GaussianCode.log_q`."""
        return self._flat().log_q(stick)

    def log_prob(self, values: Array) -> Array:
        """Computes log q(values_n | x_b) of all pairs, f32[N, B], for values f32[N, L]."""
        return self._flat().log_prob(values)

    def redraw(self, key: Key) -> Array:
        """Draws another latent from q(z | x) for each example, f32[B, L]."""
        return self._flat().redraw(key)

    def _flat(self) -> GaussianCode:
        return GaussianCode(self.latent, self.mean, self.log_std)


class SpatialGaussian(Bottleneck):
    """Draws a map of z = mean + exp(log_std) * noise, with noise ~ N(0, I).

    It is the bottleneck of the autoencoders of latent diffusion (Rombach et al. 2022, appendix G).
    One linear layer maps the features of each position to its means and log_stds. The prior models
    the map as one vector, so every prior and estimate of a `Gaussian` serves.

    Attributes:
      positions: the shape of the grid, such as (height, width). Features [B, *positions, channels]
        are projected at each position; features of another shape are flattened and projected.
      size: the number of latents at each position.
    """

    positions: Sequence[int]
    size: int

    def __post_init__(self) -> None:
        """Raises UserError if the size is below 1."""
        check_count(self, 1, "size")
        super().__post_init__()

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns the shape of one example's latent, (L,)."""
        return (math.prod(self.positions) * self.size,)

    @nn.compact
    def __call__(self, features: Array, key: Key | None, given: Given = NOTHING) -> SpatialCode:
        """Draws the code of features [B, ...]; if key is None, z is the mean."""
        grid = Positions(self.positions, 2 * self.size, name="statistics")(features)
        halves = jnp.split(grid, 2, axis=-1)
        statistics = [half.reshape((-1, *self.shape)) for half in halves]
        code = drawn(jnp.concatenate(statistics, axis=-1), key)
        return SpatialCode(self.lift(code.z), code.mean, code.log_std)

    def lift(self, latent: Array, given: Given = NOTHING) -> Array:
        """Reshapes latents f32[B, L] to maps f32[B, *positions, size]."""
        return latent.reshape((-1, *self.positions, self.size))
