"""Posteriors of a hierarchy of latents, drawn from the top level down or from the bottom up.

    Levels(latents=(40, 40), nets=(top, below))            q(z_1 | x) q(z_2 | x, z_1) ...
    UpwardLevels(latents=(50, 100), nets=(above,))         q(z_2 | x) q(z_1 | z_2) ...

Both order the levels from the top down: z = (z_1, z_2, ...), where the last level is nearest to the
data. Each level is a vector. Use them with the prior `priors.Levels` or `priors.Ladder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.bottlenecks.gaussian import GaussianCode, drawn
from aejax.contracts import NOTHING, Bottleneck, Given, TrunkPrior
from aejax.errors import UserError
from aejax.events import flatten
from aejax.types import Array, Key


class LevelsCode(NamedTuple):
    """A draw from q(z_1 | x) q(z_2 | x, z_1) ..., diagonal Gaussians given the levels above."""

    levels: tuple[GaussianCode, ...]  # the codes of the levels, from the top down
    # The decoder's input: the tuple of the z of all levels, or the last state of the prior's trunk.
    z: Any

    @property
    def latent(self) -> tuple[Array, ...]:
        """Returns the z of each level, whose joint density the prior evaluates, f32[B, L_l]."""
        return tuple(level.z for level in self.levels)

    def log_q(self, stick: bool = False) -> Array:
        """Computes log q(z | x), summed over the levels, f32[B].

        Raises:
          UserError: if stick is True.
        """
        return _log_q(self.levels, stick)


class UpwardCode(NamedTuple):
    """A draw from q(z_L | x) q(z_{L-1} | z_L) ..., where each level depends on the one below only.

    The field `steps` is not called levels, because priors treat a code with a field `levels` as
    top-down (`contracts.TopDownCode`), and the KL of each level that they compute would be wrong.
    """

    steps: tuple[GaussianCode, ...]  # the codes of the levels, from the top down
    z: Any  # the decoder's input: z of the lowest level, f32[B, L_L]

    @property
    def whole(self) -> GaussianCode:
        """Returns the code of the lowest level; the levels above add no information about x."""
        return self.steps[-1]

    @property
    def latent(self) -> tuple[Array, ...]:
        """Returns the z of each level, whose joint density the prior evaluates, f32[B, L_l]."""
        return tuple(level.z for level in self.steps)

    def log_q(self, stick: bool = False) -> Array:
        """Computes log q(z | x), summed over the levels, f32[B].

        Raises:
          UserError: if stick is True.
        """
        return _log_q(self.steps, stick)


class Levels(Bottleneck):
    """Draws from q(z_1 | x) q(z_2 | x, z_1) ..., top level first, as the HVAE and ladder VAEs do.

    Each net is called with (features, (state, context)) and returns f32[B, 2 L_l], the means
    followed by the log standard deviations. The state is the tuple of the z of the levels above.
    With the prior `priors.Ladder` (Soenderby et al. 2016) it is instead the state of the prior's
    trunk, a deterministic net that posterior and prior share.

    Attributes:
      latents: the sizes L_l of the levels, from the top down.
      nets: one net for each level. If the features are a tuple, net i receives entry i; otherwise
        every net receives the same features.
    """

    latents: Sequence[int]
    nets: Sequence[nn.Module]

    @property
    def shape(self) -> tuple[tuple[int, ...], ...]:
        """Returns the shape of one example's latent at each level."""
        return _shape(self.latents)

    @nn.compact
    def __call__(self, features: Any, key: Key | None, given: Given = NOTHING) -> LevelsCode:
        """Draws the z of all levels; if key is None, each is its mean given the means above it.

        Raises:
          UserError: if the number of nets, or of entries of a tuple of features, is not the number
            of levels.
        """
        count = len(self.latents)
        each = features if isinstance(features, tuple) else (features,) * count
        if not len(self.nets) == len(each) == count:
            raise UserError(
                f"Levels has {count} levels, {len(self.nets)} nets and {len(each)} features: give "
                "the same number of each"
            )
        keys = (None,) * count if key is None else jax.random.split(key, count)
        state, levels = _start(jax.tree.leaves(each)[0].shape[0], given), []
        for i, (net, seen, noise) in enumerate(zip(self.nets, each, keys, strict=True)):
            levels.append(_drawn(net(seen, (state, given.context)), self.latents[i], noise))
            state = _advance(i, state, levels[-1].z, given)
        return LevelsCode(tuple(levels), state)

    def lift(self, latent: tuple[Array, ...], given: Given = NOTHING) -> Any:
        """Returns the decoder's input for given latents, one for each level.

        It is the tuple of all latents, or the last state of the prior's trunk if there is one.
        """
        state = _start(latent[0].shape[0], given)
        for i, z in enumerate(latent):
            state = _advance(i, state, z, given)
        return state


class UpwardLevels(Bottleneck):
    """Draws from q(z_L | x) q(z_{L-1} | z_L) ..., lowest level first (Burda et al. 2016, eq. 6).

    The input of the decoder is the lowest level only.

    Attributes:
      latents: the sizes L_l of the levels, from the top down.
      nets: one net for each level but the lowest, from the top down. A net is called with (z of the
        level below, context) and returns f32[B, 2 L_l], the means followed by the log standard
        deviations. The lowest level has a linear layer of the features instead of a net.
    """

    latents: Sequence[int]
    nets: Sequence[nn.Module]

    @property
    def shape(self) -> tuple[tuple[int, ...], ...]:
        """Returns the shape of one example's latent at each level."""
        return _shape(self.latents)

    @nn.compact
    def __call__(self, features: Array, key: Key | None, given: Given = NOTHING) -> UpwardCode:
        """Draws the z of all levels; if key is None, each is its mean given the mean below it.

        Raises:
          UserError: if there is not one net for each level but the lowest.
        """
        if len(self.nets) != len(self.latents) - 1:
            raise UserError(
                f"UpwardLevels has {len(self.latents)} levels and {len(self.nets)} nets: give one "
                "for each level but the lowest"
            )
        count = len(self.latents)
        keys = (None,) * count if key is None else jax.random.split(key, count)
        lowest = nn.Dense(2 * self.latents[-1], name="statistics")
        codes = [_drawn(lowest(flatten(features).astype(jnp.float32)), self.latents[-1], keys[-1])]
        for i in reversed(range(count - 1)):
            codes.append(_drawn(self.nets[i](codes[-1].z, given.context), self.latents[i], keys[i]))
        return UpwardCode(tuple(reversed(codes)), codes[0].z)

    def lift(self, latent: tuple[Array, ...], given: Given = NOTHING) -> Array:
        """Returns the decoder's input for given latents: that of the lowest level, f32[B, L_L]."""
        return latent[-1]


def _log_q(levels: Sequence[GaussianCode], stick: bool) -> Array:
    if stick:
        raise UserError(
            "the log q of a hierarchy cannot stick the landing: a level's draw changes the "
            "parameters of other levels, which needs the generalised estimator of Bauer and Mnih "
            "2021, which aejax lacks; use losses.rate() without stick, and bounds.iwae instead of "
            "bounds.dreg"
        )
    return sum((level.log_q() for level in levels[1:]), levels[0].log_q())


def _shape(latents: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    return tuple((size,) for size in latents)


def _start(size: int, given: Given) -> Any:
    """Returns the state that the net of the top level reads for a batch of `size` examples.

    It is the first state of the prior's trunk, or () if the prior has no trunk.
    """
    return given.prior.start(size, given.context) if isinstance(given.prior, TrunkPrior) else ()


def _advance(level: int, state: Any, z: Array, given: Given) -> Any:
    """Returns the state that the net of the next level reads, after z was drawn at this level.

    It is the next state of the prior's trunk, or, if the prior has no trunk, the tuple of the
    latents drawn so far.
    """
    if isinstance(given.prior, TrunkPrior):
        return given.prior.advance(level, state, z, given.context)
    return (*state, z)


def _drawn(statistics: Array, latents: int, key: Key | None) -> GaussianCode:
    """Draws the code of one level; if key is None, z is the mean.

    Args:
      statistics: f32[B, 2 L], the means followed by the log standard deviations.
      latents: the level's size L.
      key: the random key of the draw, or None.

    Raises:
      UserError: if the statistics have another shape, because the level's net returns another one.
    """
    if statistics.shape[1:] != (2 * latents,):
        raise UserError(
            f"the net of a level with {latents} latents returns shape {statistics.shape[1:]}, but "
            f"must return ({2 * latents},), the means followed by the log standard deviations: "
            "change the output shape of that net"
        )
    return drawn(statistics, key)
