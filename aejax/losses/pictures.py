"""Loss terms of decoded pictures beside the likelihood: a perceptual one, and a critic of patches.

    latent diffusion    merge(elbo(1e-3), {"perceptual": (200.0, perceptual()),
                                           "critic": (1.0, patch_critic()),
                                           "deceive": (schedule, patches_deceive())})

The nets are modules in the model's `parts`. Each term moves one player alone, as those of
`losses.adversarial` do: give the critic its own optimiser by optax.multi_transform, and the weight
of `deceive` a schedule that is 0 until pictures have a form.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from aejax.errors import UserError
from aejax.losses.frozen import frozen, part_of
from aejax.types import Array, Forward, Term

EPSILON = 1e-8


def perceptual(part: str = "features") -> Term:
    """Returns the distance of decoded pictures from their targets in a net's features, f32[B].

    The features of each position are scaled to norm 1; their squared differences are summed over
    channels, averaged over positions, and summed over layers. This is LPIPS with all weights 1
    (Zhang et al. 2018, equation 1). The net is held constant: the gradient flows to encoder and
    decoder.

    Args:
      part: the net's name in the model's `parts`. It maps pictures to maps [B, h, w, channels], or
        to a tuple with such maps of several layers; any module will do, such as one that calls a
        function f: `class F(nn.Module): __call__ = lambda self, pictures: f(pictures)`.
    """

    def perceptual(model: Any, forward: Forward) -> Array:
        features = frozen(part_of(model, part))
        real = jax.lax.stop_gradient(features(forward.batch.target))
        return feature_distance(real, features(model.mean(forward.prediction)))

    return perceptual


def feature_distance(real: Any, decoded: Any) -> Array:
    """Computes the distance of `perceptual` between two lists of maps [B, h, w, channels], f32[B].

    Raises:
      UserError: if the features are not maps.
    """

    def one(a: Array, b: Array) -> Array:
        if a.ndim != 4:
            raise UserError(
                f"the perceptual term needs maps [B, h, w, channels], but features have the shape "
                f"{a.shape}: let the net return the output of a convolution"
            )
        apart = jnp.sum(jnp.square(_unit(a) - _unit(b)), axis=-1)
        return jnp.mean(apart, axis=(1, 2))

    each = jax.tree.map(one, real, decoded)
    return jnp.sum(jnp.stack(jax.tree.leaves(each)), axis=0)


def patch_critic(part: str = "critic") -> Term:
    """Returns the hinge loss of a critic that tells targets from decoded pictures, f32[B].

    It is the mean over patches of (max(0, 1 - D(target)) + max(0, 1 + D(decoded))) / 2 (Lim and Ye
    2017; Isola et al. 2017, section 3.2.2). The gradient flows to the critic only.

    Args:
      part: the critic's name in the model's `parts`, such as a `nets.PatchCritic`; it maps pictures
        to a logit for each patch, f32[B, ...].
    """

    def patch_critic(model: Any, forward: Forward) -> Array:
        critic = part_of(model, part)
        decoded = jax.lax.stop_gradient(model.mean(forward.prediction))
        real, fake = critic(forward.batch.target), critic(decoded)
        return 0.5 * (_mean(jax.nn.relu(1.0 - real)) + _mean(jax.nn.relu(1.0 + fake)))

    return patch_critic


def patches_deceive(part: str = "critic") -> Term:
    """Returns the mean over patches of -D(decoded), f32[B], the other half of `patch_critic`.

    The gradient flows to encoder and decoder only (Esser et al. 2021, section 3.1).

    Args:
      part: the critic's name in the model's `parts`.
    """

    def patches_deceive(model: Any, forward: Forward) -> Array:
        return -_mean(frozen(part_of(model, part))(model.mean(forward.prediction)))

    return patches_deceive


def _mean(values: Array) -> Array:
    return jnp.mean(values.reshape((values.shape[0], -1)), axis=1)


def _unit(values: Array) -> Array:
    """Returns maps whose vectors over channels have norm 1; a vector of zeros stays one."""
    return values / jnp.sqrt(jnp.sum(jnp.square(values), axis=-1, keepdims=True) + EPSILON)
