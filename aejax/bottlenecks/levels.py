"""Posteriors of a hierarchy of latents, from the top level down or from the bottom up.

    Levels(latents=(40, 40), nets=(top, below))            q(z_1 | x) q(z_2 | x, z_1) ...
    UpwardLevels(latents=(50, 100), nets=(above,))         q(z_2 | x) q(z_1 | z_2) ...

Everywhere the levels stand from the top down: z = (z_1, z_2, ...), and the last is the nearest to
the data. Each is a vector. Pair them with `priors.Levels` or `priors.Ladder`.
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
    """A draw from q(z_1 | x) q(z_2 | x, z_1) ..., each a diagonal Gaussian given those above."""

    levels: tuple[GaussianCode, ...]  # from the top down
    z: Any  # what the decoder sees: all levels, or what the prior's trunk makes of them

    @property
    def latent(self) -> tuple[Array, ...]:
        """A tuple of f32[B, L_l]."""
        return tuple(level.z for level in self.levels)

    def log_q(self, stick: bool = False) -> Array:
        """log q(z | x), the sum over the levels, f32[B].

        Raises:
          UserError: with stick.
        """
        return _log_q(self.levels, stick)


class UpwardCode(NamedTuple):
    """A draw from q(z_L | x) q(z_{L-1} | z_L) ...: of a level the next one below is read alone.

    The field is not named as that of a LevelsCode, whose KL per level is wrong here.
    """

    steps: tuple[GaussianCode, ...]  # from the top down
    z: Any  # what the decoder sees: the lowest level

    @property
    def whole(self) -> GaussianCode:
        """The level that is drawn from x: those above are drawn from it and tell no more of x."""
        return self.steps[-1]

    @property
    def latent(self) -> tuple[Array, ...]:
        """A tuple of f32[B, L_l]."""
        return tuple(level.z for level in self.steps)

    def log_q(self, stick: bool = False) -> Array:
        """log q(z | x), the sum over the levels, f32[B].

        Raises:
          UserError: with stick.
        """
        return _log_q(self.steps, stick)


class Levels(Bottleneck):
    """q(z_1 | x) q(z_2 | x, z_1) ...: from the top down, as in the HVAE and in ladders.

    Each net is called with (features, (state, context)) and gives f32[B, 2 L_l], means and then
    log deviations. The state is the tuple of the levels above, or what the prior's own trunk makes
    of them where it has one (Soenderby et al. 2016): then posterior and prior share it.

    Attributes:
      latents: L_l of each level.
      nets: one a level. Features that are a tuple are handed out, one a level; others go to all.
    """

    latents: Sequence[int]
    nets: Sequence[nn.Module]

    @property
    def shape(self) -> tuple[tuple[int, ...], ...]:
        """Of one example's latent, level by level."""
        return _shape(self.latents)

    @nn.compact
    def __call__(self, features: Any, key: Key | None, given: Given = NOTHING) -> LevelsCode:
        """Features -> LevelsCode; without a key each level is its mean, given the means above.

        Raises:
          UserError: if there are not as many nets or features as levels.
        """
        count = len(self.latents)
        each = features if isinstance(features, tuple) else (features,) * count
        if not len(self.nets) == len(each) == count:
            raise UserError(
                f"Levels has {count} levels, {len(self.nets)} nets and {len(each)} features: give "
                "as many of each"
            )
        keys = (None,) * count if key is None else jax.random.split(key, count)
        state, levels = _start(jax.tree.leaves(each)[0].shape[0], given), []
        for i, (net, seen, noise) in enumerate(zip(self.nets, each, keys, strict=True)):
            levels.append(_drawn(net(seen, (state, given.context)), self.latents[i], noise))
            state = _advance(i, state, levels[-1].z, given)
        return LevelsCode(tuple(levels), state)

    def lift(self, latent: tuple[Array, ...], given: Given = NOTHING) -> Any:
        """What the decoder sees of a latent: all levels, or the end of the prior's trunk."""
        state = _start(latent[0].shape[0], given)
        for i, z in enumerate(latent):
            state = _advance(i, state, z, given)
        return state


class UpwardLevels(Bottleneck):
    """q(z_L | x) q(z_{L-1} | z_L) ...: from the bottom up (Burda et al. 2016, equation 6).

    The decoder sees the lowest level alone.

    Attributes:
      latents: L_l of each level, from the top down.
      nets: of every level but the lowest, from the top down: the level below -> f32[B, 2 L_l],
        means and then log deviations. The lowest is one linear map of the features.
    """

    latents: Sequence[int]
    nets: Sequence[nn.Module]

    @property
    def shape(self) -> tuple[tuple[int, ...], ...]:
        """Of one example's latent, level by level."""
        return _shape(self.latents)

    @nn.compact
    def __call__(self, features: Array, key: Key | None, given: Given = NOTHING) -> UpwardCode:
        """[B, ...] -> UpwardCode; without a key each level is its mean, given the means below.

        Raises:
          UserError: if there are not as many nets as levels above the lowest.
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
        """The lowest level, f32[B, L_L]."""
        return latent[-1]


def _log_q(levels: Sequence[GaussianCode], stick: bool) -> Array:
    if stick:
        raise UserError(
            "the log q of a hierarchy cannot stick the landing: a level's draw moves the "
            "parameters of the levels drawn from it, and the generalised estimator (Bauer and Mnih "
            "2021) is not here; use losses.rate() without stick, and bounds.iwae for bounds.dreg"
        )
    return sum((level.log_q() for level in levels[1:]), levels[0].log_q())


def _shape(latents: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    return tuple((size,) for size in latents)


def _start(size: int, given: Given) -> Any:
    """The state above the top level: the start of the prior's trunk, or no level."""
    return given.prior.start(size, given.context) if isinstance(given.prior, TrunkPrior) else ()


def _advance(level: int, state: Any, z: Array, given: Given) -> Any:
    """The state below a level: the next one of the prior's trunk, or one level more."""
    if isinstance(given.prior, TrunkPrior):
        return given.prior.advance(level, state, z, given.context)
    return (*state, z)


def _drawn(statistics: Array, latents: int, key: Key | None) -> GaussianCode:
    """A level's code of f32[B, 2 L], its mean where there is no key."""
    if statistics.shape[1:] != (2 * latents,):
        raise UserError(
            f"a net of a level with {latents} latents gives shape {statistics.shape[1:]}: let it "
            f"end in ({2 * latents},), means and then log deviations"
        )
    return drawn(statistics, key)
