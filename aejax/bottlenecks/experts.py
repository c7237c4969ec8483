"""Posteriors of several views, some of which may be missing: products and mixtures of experts.

    Autoencoder(nets.Views({"a": ..., "b": ...}, sizes), ProductOfExperts(8), ...)    MVAE
    Autoencoder(nets.Views({"a": ..., "b": ...}, sizes), MixtureOfExperts(8), ...)    MMVAE

The features are a mapping: name of a view -> (features [B, ...], 1 where the view is there and 0
where it is missing, f32[B]), as `nets.Views` makes it. Each view has an expert, a diagonal Gaussian
whose parameters a linear layer computes from the view's features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.bottlenecks.gaussian import GaussianCode
from aejax.contracts import NOTHING, Given, VectorBottleneck
from aejax.errors import UserError
from aejax.events import flatten
from aejax.normal import LOG_2PI, mean_and_log_std
from aejax.types import Array, Key

ABSENT = -1e30  # the log-weight of an expert whose view is missing


class ExpertsCode(NamedTuple):
    """A draw from q(z | x), a mixture of diagonal Gaussians with fixed weights."""

    z: Array  # f32[B, L]
    means: Array  # f32[B, V, L]
    log_stds: Array  # f32[B, V, L]
    log_weights: Array  # f32[B, V]

    @property
    def latent(self) -> Array:
        """Returns z, the value whose density the prior evaluates, f32[B, L]."""
        return self.z

    def log_q(self, stick: bool = False) -> Array:
        """Computes log q(z | x), f32[B], the log-density of the mixture.

        Args:
          stick: whether to stop the gradient through the parameters of q but not through z.
        """
        parameters = self[1:]
        if stick:
            parameters = jax.lax.stop_gradient(parameters)
        means, log_stds, log_weights = parameters
        return _log_mixture(self.z[:, None], means, log_stds, log_weights)

    def log_prob(self, values: Array) -> Array:
        """Computes log q(values_n | x_b) of all pairs, f32[N, B], for values f32[N, L]."""
        return _log_mixture(
            values[:, None, None], self.means[None], self.log_stds[None], self.log_weights[None]
        )

    def redraw(self, key: Key) -> Array:
        """Draws another z for each example, f32[B, L]: first an expert, then its value."""
        choice_key, noise_key = jax.random.split(key)
        chosen = jax.random.categorical(choice_key, self.log_weights)[:, None, None]
        mean = jnp.take_along_axis(self.means, chosen, axis=1)[:, 0]
        log_std = jnp.take_along_axis(self.log_stds, chosen, axis=1)[:, 0]
        return mean + jnp.exp(log_std) * jax.random.normal(noise_key, mean.shape)


class ProductOfExperts(VectorBottleneck):
    """The posterior q(z | x) proportional to N(z; 0, 1) times the experts of the views present.

    See Wu and Goodman 2018, section 2.1; use the prior `priors.Standard`. Without any view q is the
    standard normal. The result is a diagonal Gaussian, so the KL has a closed form.
    """

    @nn.compact
    def __call__(
        self, features: Mapping[str, Any], key: Key | None, given: Given = NOTHING
    ) -> GaussianCode:
        """Draws the code of the views' features; if key is None, z is the mean."""
        precision, weighted = jnp.ones(()), jnp.zeros(())
        for name, (values, present) in _views(self, features):
            mean, log_std = _expert(self.latents, name, values)
            own = present[:, None] * jnp.exp(-2.0 * log_std)
            precision, weighted = precision + own, weighted + own * mean
        mean = weighted / precision
        code = GaussianCode(mean, mean, -0.5 * jnp.log(precision))
        return code if key is None else code._replace(z=code.redraw(key))


class MixtureOfExperts(VectorBottleneck):
    """The posterior q(z | x), the mean of the experts of the views present (Shi et al. 2019).

    A draw is one of an expert chosen at random, and its density is that of the whole mixture; with
    several draws, use `bounds.iwae` or `bounds.dreg`, as the paper does. The KL has no closed form,
    so use elbo(rate=losses.rate()). Without any view q is the standard normal.
    """

    @nn.compact
    def __call__(
        self, features: Mapping[str, Any], key: Key | None, given: Given = NOTHING
    ) -> ExpertsCode:
        """Draws the code of the views' features; if key is None, z is the mean of the means."""
        views = _views(self, features)
        experts = [_expert(self.latents, name, values) for name, (values, _) in views]
        present = jnp.stack([there for _, (_, there) in views], axis=1)
        count = jnp.sum(present, axis=1, keepdims=True)
        # The last expert is the standard normal; it is there if no view is.
        present = jnp.concatenate([present, (count == 0).astype(jnp.float32)], axis=1)
        zeros = jnp.zeros_like(experts[0][0])
        means = jnp.stack([*(mean for mean, _ in experts), zeros], axis=1)
        log_stds = jnp.stack([*(log_std for _, log_std in experts), zeros], axis=1)
        share = present / jnp.maximum(count, 1.0)
        log_weights = jnp.where(present > 0, jnp.log(jnp.where(present > 0, share, 1.0)), ABSENT)
        code = ExpertsCode(jnp.sum(share[..., None] * means, 1), means, log_stds, log_weights)
        return code if key is None else code._replace(z=code.redraw(key))


def _views(part: nn.Module, features: Any) -> list[tuple[str, Any]]:
    """Returns the features of the views, in the order of their names.

    Raises:
      UserError: if the features are not a mapping.
    """
    if not isinstance(features, Mapping):
        raise UserError(
            f"{type(part).__name__} reads the features of several views, but the encoder returns "
            f"{type(features).__name__}: use the encoder nets.Views"
        )
    return sorted(features.items())


def _expert(latents: int, name: str, values: Array) -> tuple[Array, Array]:
    """Computes the mean and log_std of a view's expert, both f32[B, L], in a bottleneck's scope."""
    layer = nn.Dense(2 * latents, name=name)
    return mean_and_log_std(layer(flatten(values).astype(jnp.float32)))


def _log_mixture(values: Array, means: Array, log_stds: Array, log_weights: Array) -> Array:
    """Computes the log-density of mixtures over axis -2 of the means, at values that broadcast."""
    scaled = (values - means) * jnp.exp(-log_stds)
    each = -jnp.sum(0.5 * jnp.square(scaled) + log_stds + 0.5 * LOG_2PI, axis=-1)
    return jax.nn.logsumexp(log_weights + each, axis=-1)
