"""Priors of a hierarchy of latents: a top level, then each level given those above."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.contracts import Prior, TopDownCode
from aejax.errors import UserError
from aejax.normal import mean_and_log_std, normal_kl, normal_log_prob
from aejax.priors.standard import Standard
from aejax.types import Array, Batch, Key


class Levels(Prior):
    """The prior p(z_1) p(z_2 | z_1) p(z_3 | z_1, z_2) ..., whose levels below the top are Gaussian.

    It is the prior of Burda et al. 2016. With a VampPrior as `top` it is that of the HVAE (Tomczak
    and Welling 2018); then the bottleneck must be `bottlenecks.Levels`, which draws the top level
    first.

    Attributes:
      nets: one net for each level but the top. The net of level i, counted from 1 at the top, is
        called as net(z_{i-1}, ((z_1, ..., z_{i-2}), context)). It returns f32[B, 2 L], the means
        followed by the log standard deviations of the level's L latents.
      top: the prior of the first level.
    """

    nets: Sequence[nn.Module]
    top: Any = Standard()
    of_levels = True

    def log_prob(self, z: Sequence[Array], context: Any = None, posterior: Any = None) -> Array:
        """Computes log p(z), f32[B], in nats, for z, a tuple of the levels' latents f32[B, L_l].

        Raises:
          UserError: if z does not have one level more than there are nets.
        """
        self._check(len(z))
        value = self.top.log_prob(z[0], context, of_top(posterior))
        for i, net in enumerate(self.nets, 1):
            density = normal_log_prob(z[i], *mean_and_log_std(_read(net, z[:i], context)))
            value = value + jnp.sum(density, axis=-1)
        return value

    def sample(
        self, key: Key, n: int, shape: Sequence[Any], context: Any = None, posterior: Any = None
    ) -> tuple[Array, ...]:
        """Draws n latents, a tuple of levels f32[n, L_l] from the top down."""
        self._check(len(shape))
        keys = jax.random.split(key, len(shape))
        z = (self.top.sample(keys[0], n, shape[0], context, of_top(posterior)),)
        for net, noise in zip(self.nets, keys[1:], strict=True):
            z = (*z, normal(noise, *mean_and_log_std(_read(net, z, context))))
        return z

    def kl(self, code: Any, context: Any = None, posterior: Any = None) -> Array | None:
        """Computes the KL of each latent given the levels drawn above it, f32[B, sum of L_l].

        It returns None if the KL of the top level has no closed form, or if the posterior was not
        drawn from the top level down (`contracts.TopDownCode`).
        """
        if not isinstance(code, TopDownCode):
            return None
        self._check(len(code.levels))
        top = self.top.kl(code.levels[0], context, of_top(posterior))
        if top is None:
            return None
        z = code.latent
        below = [
            normal_kl(level.mean, level.log_std, *mean_and_log_std(_read(net, z[:i], context)))
            for i, (net, level) in enumerate(zip(self.nets, code.levels[1:], strict=True), 1)
        ]
        return jnp.concatenate([top, *below], axis=-1)

    def check_event(self, event: tuple[int, ...]) -> None:
        """Raises UserError if `top` is a VampPrior whose pseudo-inputs differ in shape from x."""
        self.top.check_event(event)

    def _check(self, levels: int) -> None:
        if levels != len(self.nets) + 1:
            raise UserError(
                f"the prior Levels has {len(self.nets) + 1} levels, including the top, but the "
                f"code has {levels}: give a net for each level but the top"
            )


class Ladder(Prior):
    """The prior p(z_1) p(z_2 | z_1) ... of a ladder VAE, with a deterministic trunk.

    The trunk is a net with a state, which is updated with the latent of each level, from the top
    down. The posterior (`bottlenecks.Levels`) computes each level from the trunk's state and the
    features, and the decoder's input is the last state (Soenderby et al. 2016; Kingma et al. 2016,
    section 5).

    Attributes:
      trunk: a module such as `nets.LadderTrunk`, with the methods start(n, context) -> state,
        statistics(level, state) -> f32[B, 2 L] (means followed by log standard deviations) and
        advance(level, state, z) -> state.
    """

    trunk: Any
    of_levels = True

    def start(self, n: int, context: Any = None) -> Array:
        """Returns the first state of the trunk for n examples; p(z_1) is computed from it."""
        return self.trunk.start(n, context)

    def advance(self, level: int, state: Array, z: Array, context: Any = None) -> Array:
        """Returns the trunk's next state, updated with the latent z that was drawn at a level."""
        return self.trunk.advance(level, state, z)

    def log_prob(self, z: Sequence[Array], context: Any = None, posterior: Any = None) -> Array:
        """Computes log p(z), f32[B], in nats, for z, a tuple of levels f32[B, L_l]."""
        state, value = self.start(z[0].shape[0], context), jnp.zeros(z[0].shape[0])
        for i, level in enumerate(z):
            density = normal_log_prob(level, *mean_and_log_std(self.trunk.statistics(i, state)))
            value = value + jnp.sum(density, axis=-1)
            if i + 1 < len(z):
                state = self.advance(i, state, level)
        return value

    def sample(
        self, key: Key, n: int, shape: Sequence[Any], context: Any = None, posterior: Any = None
    ) -> tuple[Array, ...]:
        """Draws n latents, a tuple of levels f32[n, L_l] from the top down."""
        state, z = self.start(n, context), []
        for i, noise in enumerate(jax.random.split(key, len(shape))):
            z.append(normal(noise, *mean_and_log_std(self.trunk.statistics(i, state))))
            if i + 1 < len(shape):
                state = self.advance(i, state, z[-1])
        return tuple(z)

    def kl(self, code: Any, context: Any = None, posterior: Any = None) -> Array | None:
        """Computes the KL of each latent given the levels drawn above it, f32[B, sum of L_l].

        It returns None if the posterior was not drawn from the top level down
        (`contracts.TopDownCode`).
        """
        if not isinstance(code, TopDownCode):
            return None
        state, each = self.start(code.levels[0].z.shape[0], context), []
        for i, level in enumerate(code.levels):
            mean, log_std = mean_and_log_std(self.trunk.statistics(i, state))
            each.append(normal_kl(level.mean, level.log_std, mean, log_std))
            if i + 1 < len(code.levels):
                state = self.advance(i, state, level.z)
        return jnp.concatenate(each, axis=-1)


def of_top(posterior: Any) -> Callable[[Batch], Any] | None:
    """Returns a function from a Batch to the posterior's code of the top level.

    A VampPrior needs it if it is the prior of the top level.

    Args:
      posterior: a function from a Batch to the code of all levels; if it is None, so is the result.

    Raises:
      UserError: when the function is called, if the posterior was not drawn from the top level
        down (`contracts.TopDownCode`).
    """
    if posterior is None:
        return None

    def top(batch: Batch) -> Any:
        code = posterior(batch)
        if not isinstance(code, TopDownCode):
            raise UserError(
                "the prior's top needs the posterior q(z | x) of the top level, which "
                f"{type(code).__name__} does not have: use the bottleneck Levels"
            )
        return code.levels[0]

    return top


def normal(key: Key, mean: Array, log_std: Array) -> Array:
    """Draws from N(mean, exp(log_std)^2), f32[B, L], for mean and log_std f32[B, L]."""
    return mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)


def _read(net: Any, above: Sequence[Array], context: Any) -> Array:
    """Calls the net of a level, and returns its output f32[B, 2 L]: means, then log deviations.

    Args:
      net: the net, called with (z of the level directly above, (z of all higher levels, context)).
      above: the z of all levels above, f32[B, L_l] each, from the top down.
      context: the context, or None.
    """
    return net(above[-1], (tuple(above[:-1]), context))
