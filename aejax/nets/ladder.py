"""The nets of a ladder VAE: a bottom-up encoder and a deterministic top-down path, the trunk.

    up     x -> features_L -> ... -> features_1              LadderEncoder, largest image first
    down   state_1 -> z_1 -> state_2 -> z_2 -> ... -> image  LadderTrunk, then LadderOutput

Each level's latent is an image of a few channels at the level's size. The trunk's state determines
the level's prior; the state and the features together determine its posterior (Soenderby et al.
2016; Kingma et al. 2016, section 5). A context is added to the trunk's first state, and so affects
every prior, every posterior and the image. `ladder` returns all nets of one model.
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
    """The nets for Autoencoder(encoder, Levels(latents, heads), output, Ladder(trunk), ...)."""

    encoder: nn.Module
    latents: tuple[int, ...]  # sizes of the levels' latents, from the top down
    heads: tuple[nn.Module, ...]  # the nets of the bottleneck `Levels`
    trunk: nn.Module  # the trunk of the prior `Ladder`
    output: nn.Module  # the decoder


def ladder(
    shape: Sequence[int],
    levels: Sequence[int] = (1, 2),
    channels: int = 64,
    latents: int = 4,
    blocks: int = 1,
    remat: bool = False,
) -> Nets:
    """Returns the nets of a ladder VAE with sum(levels) stochastic levels.

    Args:
      shape: (height, width, channels) of an image.
      levels: the number of levels at each image size, from the smallest size on. Each size is
        twice the one before, and the largest is half of the image's.
      channels: the number of channels of the features and of the trunk.
      latents: the number of channels of each level's latent.
      blocks: the number of residual blocks per level, both bottom-up and top-down.
      remat: whether the backward pass recomputes the blocks, which saves their activations' memory.

    Raises:
      UserError: if a size has no level, or the image cannot be halved once for each size.
    """
    height, width = shape[:2]
    shrink = 2 ** len(levels)
    if min(levels, default=0) < 1 or height % shrink or width % shrink:
        raise UserError(
            f"levels {tuple(levels)} do not suit images of {height}x{width}: give each size 1 or "
            f"more levels, and only so many sizes n that 2^n (here {shrink}) divides both the "
            "height and the width of the images"
        )
    # The height and width of each level, from the top down.
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
    """Computes features for each level by residual blocks, from the largest image down.

    Attributes:
      sizes: (height, width) of each level, from the top down.
      channels: the number of channels of the features.
      blocks: the number of residual blocks before each level.
      remat: whether the backward pass recomputes the blocks.
    """

    sizes: Sequence[tuple[int, int]]
    channels: int
    blocks: int
    remat: bool = False

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> tuple[Array, ...]:
        """Maps [B, H, W, C] to features f32[B, h, w, channels] of each level, from the top down."""
        hidden, features = values, []
        for i in reversed(range(len(self.sizes))):
            if hidden.shape[1:3] != tuple(self.sizes[i]):
                hidden = Convolution(self.channels, (3, 3), 2, name=f"down_{i}")(hidden)
            for block in residuals(self.blocks, self.remat, f"up_{i}"):
                hidden = block(hidden)
            features.append(hidden)
        return tuple(reversed(features))


class LadderHead(nn.Module):
    """Computes a level's posterior from its features and the trunk's state.

    Attributes:
      channels: the number of channels of the hidden layer.
      latents: the number of channels of the level's latent.
    """

    channels: int
    latents: int

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """Returns the means and log deviations f32[B, 2 L] of a level's posterior.

        Args:
          values: the level's features, f32[B, h, w, channels].
          context: a pair: the trunk's state at this level, and the batch's context.
            Only the state is used.
        """
        state, _ = context
        hidden = Convolution(self.channels, (3, 3), name="joined")(
            nn.elu(jnp.concatenate([values, state], axis=-1))
        )
        return _flat(Convolution(2 * self.latents, (1, 1), name="statistics")(nn.elu(hidden)))


class LadderTrunk(nn.Module):
    """The deterministic top-down path, with the methods that `priors.Ladder` calls.

    Attributes:
      sizes: (height, width) of each level, from the top down.
      channels: the number of channels of the trunk's state.
      latents: the number of channels of each level's latent.
      blocks: the number of residual blocks after each level.
      remat: whether the backward pass recomputes the blocks.
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
        # Zero kernels make every level's prior the standard normal before training.
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
        """Returns the learned first state plus a linear map of the context, f32[n, h, w, C]."""
        state = jnp.broadcast_to(self.top, (n, *self.top.shape[1:]))
        given = join_context(jnp.zeros((n, 0)), context)
        return state + self.given(given)[:, None, None] if given.size else state

    def statistics(self, level: int, state: Array) -> Array:
        """Returns the means and log deviations of a level's prior, f32[B, 2 L]."""
        return _flat(self.priors[level](nn.elu(state)))

    def advance(self, level: int, state: Array, z: Array) -> Array:
        """Returns the trunk's next state, updated with the latent z f32[B, L] of a level.

        The result has the height and width of the next level.
        """
        image = z.reshape((z.shape[0], *self.sizes[level], self.latents))
        hidden = state + self.reads[level](image)
        for block in self.down[level]:
            hidden = block(hidden)
        grow = self.grow[level] if level < len(self.grow) else None
        return hidden if grow is None else grow(nn.elu(hidden))


class LadderOutput(nn.Module):
    """Decodes the trunk's last state, at half of the image's size, to the image.

    Attributes:
      shape: (height, width, channels) of one output.
      channels: the number of channels of the hidden layer.
    """

    shape: Sequence[int]
    channels: int

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """Maps f32[B, H / 2, W / 2, channels] to f32[B, *shape]."""
        hidden = TransposedConvolution(self.channels, (4, 4), (2, 2), name="grow")(nn.elu(values))
        return Convolution(self.shape[-1], (3, 3), name="output")(nn.elu(hidden))


def residuals(count: int, remat: bool, name: str) -> list[Any]:
    """Returns `count` residual blocks; with remat, the backward pass recomputes them."""
    block: Any = nn.remat(Residual) if remat else Residual
    return [block(nn.elu, None, name=f"{name}_{i}") for i in range(count)]


def _flat(statistics: Array) -> Array:
    """Flattens f32[B, h, w, 2 C] to f32[B, 2 h w C]: all means, then all log deviations."""
    mean, log_std = jnp.split(statistics, 2, axis=-1)
    return jnp.concatenate([flatten(mean), flatten(log_std)], axis=-1)
