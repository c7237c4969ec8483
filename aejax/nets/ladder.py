"""The nets of a ladder VAE: features going up, one deterministic trunk coming down.

    up     x -> features_L -> ... -> features_1              LadderEncoder, finest first
    down   state_1 -> z_1 -> state_2 -> z_2 -> ... -> image  LadderTrunk, then LadderOutput

Level l's latent is an image of few channels at the level's size; its prior is read from the trunk's
state, its posterior from state and features together (Soenderby et al. 2016; Kingma et al. 2016,
section 5). A context enters where the trunk starts, and so reaches every prior, posterior and the
image. `ladder` makes the nets that belong together.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from aejax.errors import UserError
from aejax.events import flatten, join_context
from aejax.nets.conv import Residual
from aejax.nets.convolution import Convolution, TransposedConvolution
from aejax.types import Array


class Nets(NamedTuple):
    """What a ladder is built from: Autoencoder(encoder, Levels(latents, heads), output, ...)."""

    encoder: nn.Module
    latents: tuple[int, ...]  # of each level, from the top down
    heads: tuple[nn.Module, ...]  # of the bottleneck `Levels`
    trunk: nn.Module  # of the prior `Ladder`
    output: nn.Module  # the decoder


def ladder(
    shape: Sequence[int],
    levels: Sequence[int] = (1, 2),
    channels: int = 64,
    latents: int = 4,
    blocks: int = 1,
    remat: bool = False,
) -> Nets:
    """The nets of a ladder of sum(levels) stochastic levels.

    Args:
      shape: (height, width, channels) of an image.
      levels: how many stand at each size, from the smallest on; each size doubles the one before,
        and the largest is half of the image's.
      channels: of the features and of the trunk.
      latents: channels of each level's latent.
      blocks: residual blocks between one level and the next, upwards and downwards each.
      remat: computes the blocks anew in the backward pass, so that memory does not grow with the
        number of blocks.

    Raises:
      UserError: if there is no level, or the image cannot be halved so often.
    """
    height, width = shape[:2]
    shrink = 2 ** len(levels)
    if min(levels, default=0) < 1 or height % shrink or width % shrink:
        raise UserError(
            f"a ladder with levels {tuple(levels)} halves images {len(levels)} times, and those of "
            f"{height}x{width} cannot be: give 1 or more levels at each of fewer sizes"
        )
    # The size of each level, from the top down.
    sizes = tuple(
        (height // (shrink >> i), width // (shrink >> i))
        for i, count in enumerate(levels)
        for _ in range(count)
    )
    return Nets(
        LadderEncoder(sizes, channels, blocks, remat),
        tuple(math.prod(size) * latents for size in sizes),
        tuple(LadderHead(channels, latents) for _ in sizes),
        LadderTrunk(sizes, channels, latents, blocks, remat),
        LadderOutput(tuple(shape), channels),
    )


class LadderEncoder(nn.Module):
    """Residual blocks upwards; the features of each level, from the top down.

    Attributes:
      sizes: (height, width) of each level, from the top down.
      channels: of the features.
      blocks: before each level.
      remat: computes them anew in the backward pass.
    """

    sizes: Sequence[tuple[int, int]]
    channels: int
    blocks: int
    remat: bool = False

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> tuple[Array, ...]:
        """[B, H, W, C] -> a tuple of f32[B, h, w, channels]."""
        hidden, features = values, []
        for i in reversed(range(len(self.sizes))):
            if hidden.shape[1:3] != tuple(self.sizes[i]):
                hidden = Convolution(self.channels, (3, 3), 2, name=f"down_{i}")(hidden)
            for block in residuals(self.blocks, self.remat, f"up_{i}"):
                hidden = block(hidden)
            features.append(hidden)
        return tuple(reversed(features))


class LadderHead(nn.Module):
    """A level's posterior from its features and the trunk's state."""

    channels: int
    latents: int

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """Features f32[B, h, w, channels], (state, ...) -> f32[B, 2 L], means, log deviations."""
        state, _ = context
        hidden = Convolution(self.channels, (3, 3), name="joined")(
            nn.elu(jnp.concatenate([values, state], axis=-1))
        )
        return _flat(Convolution(2 * self.latents, (1, 1), name="statistics")(nn.elu(hidden)))


class LadderTrunk(nn.Module):
    """The trunk from the top down; its methods are those that `priors.Ladder` asks for.

    Attributes:
      sizes, channels, latents, blocks, remat: as of `ladder`, sizes from the top down.
    """

    sizes: Sequence[tuple[int, int]]
    channels: int
    latents: int
    blocks: int
    remat: bool = False

    def setup(self) -> None:
        """Declares the nets of each level."""
        count, zeros = len(self.sizes), nn.initializers.zeros_init()
        top = (1, *self.sizes[0], self.channels)
        self.top = self.param("top", nn.initializers.normal(0.1), top)
        self.given = nn.Dense(self.channels, name="context")
        # Zero at the start: the prior is the standard normal before training.
        self.priors = [
            Convolution(2 * self.latents, (1, 1), kernel_init=zeros, name=f"prior_{i}")
            for i in range(count)
        ]
        self.reads = [Convolution(self.channels, (1, 1), name=f"read_{i}") for i in range(count)]
        self.down = [residuals(self.blocks, self.remat, f"down_{i}") for i in range(count)]
        self.grow = [
            TransposedConvolution(self.channels, (4, 4), (2, 2), name=f"grow_{i}")
            if tuple(here) != tuple(below)
            else None
            for i, (here, below) in enumerate(itertools.pairwise(self.sizes))
        ]

    def start(self, n: int, context: Any = None) -> Array:
        """The learned state above the top, moved by a context [n, ...]: f32[n, h, w, channels]."""
        state = jnp.broadcast_to(self.top, (n, *self.top.shape[1:]))
        given = join_context(jnp.zeros((n, 0)), context)
        return state + self.given(given)[:, None, None] if given.size else state

    def statistics(self, level: int, state: Array) -> Array:
        """The prior of a level, f32[B, 2 L]."""
        return _flat(self.priors[level](nn.elu(state)))

    def advance(self, level: int, state: Array, z: Array) -> Array:
        """The state below a level whose latent is z f32[B, L], at the next level's size."""
        image = z.reshape((z.shape[0], *self.sizes[level], self.latents))
        hidden = state + self.reads[level](image)
        for block in self.down[level]:
            hidden = block(hidden)
        grow = self.grow[level] if level < len(self.grow) else None
        return hidden if grow is None else grow(nn.elu(hidden))


class LadderOutput(nn.Module):
    """Decoder: from the end of the trunk, at half the image's size, to the image."""

    shape: Sequence[int]
    channels: int

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """f32[B, H / 2, W / 2, channels] -> f32[B, *shape]."""
        hidden = TransposedConvolution(self.channels, (4, 4), (2, 2), name="grow")(nn.elu(values))
        return Convolution(self.shape[-1], (3, 3), name="output")(nn.elu(hidden))


def residuals(count: int, remat: bool, name: str) -> list[Any]:
    """Residual blocks, each computed anew in the backward pass where remat is on."""
    block: Any = nn.remat(Residual) if remat else Residual
    return [block(nn.elu, None, name=f"{name}_{i}") for i in range(count)]


def _flat(statistics: Array) -> Array:
    """f32[B, h, w, 2 C] -> f32[B, 2 h w C]: all means, then all log deviations."""
    mean, log_std = jnp.split(statistics, 2, axis=-1)
    return jnp.concatenate([flatten(mean), flatten(log_std)], axis=-1)
