"""Loss terms of adversarial autoencoders: critics of codes and of pictures, and who deceives them.

    AAE       merge(reconstruction(), {"critic": (1.0, latent_critic()),
                                       "deceive": (1.0, codes_deceive())})
    VAE-GAN   {"rate": (1.0, kl), "features": (1.0, feature_error()),
               "critic": (1.0, picture_critic()), "deceive": (0.1, pictures_deceive())}

A critic is a module in the model's `parts` that returns a logit for each example, which is high for
what is real. Each term moves one player alone, so that one objective trains both; give the critic
its own learning rate by optax.multi_transform.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from aejax.errors import UserError
from aejax.events import joined, sum_events
from aejax.losses.frozen import frozen, part_of
from aejax.types import Array, Forward, Key, Term


def latent_critic(part: str = "critic") -> Term:
    """Returns the loss of a critic that tells codes from draws of the prior, f32[B], in nats.

    It is the cross-entropy of its decisions. The gradient flows to the critic only (Makhzani et al.
    2016, section 2).

    Args:
      part: the critic's name in the model's `parts`; it maps f32[B, L] to f32[B, 1].
    """

    def latent_critic(model: Any, forward: Forward) -> Array:
        size, context = forward.batch.target.shape[0], forward.batch.context
        drawn = model.sample_latent(_key(forward), size, context)
        real, fake = jax.lax.stop_gradient((joined(drawn), joined(forward.code.latent)))
        critic = part_of(model, part)
        return _cross_entropy(_logit(critic(real)), _logit(critic(fake)))

    return latent_critic


def codes_deceive(part: str = "critic") -> Term:
    """Returns the encoder's loss against `latent_critic`, f32[B]: -log of what it takes for real.

    The gradient flows to the encoder only.

    Args:
      part: the critic's name in the model's `parts`.
    """

    def codes_deceive(model: Any, forward: Forward) -> Array:
        critic = frozen(part_of(model, part))
        return jax.nn.softplus(-_logit(critic(joined(forward.code.latent))))

    return codes_deceive


def picture_critic(part: str = "critic") -> Term:
    """Returns the loss of a critic that tells targets from decoded ones, f32[B], in nats.

    Decoded are the batch's codes and as many draws of the prior, each with half the weight (Larsen
    et al. 2016, algorithm 1). The gradient flows to the critic only.

    Args:
      part: the critic's name in the model's `parts`. It maps targets to (logits f32[B, 1], features
        [B, ...]), where the features are those of a hidden layer.
    """

    def picture_critic(model: Any, forward: Forward) -> Array:
        critic = part_of(model, part)
        fakes = jax.lax.stop_gradient(_decoded(model, forward))
        real = _logit(critic(forward.batch.target)[0])
        errors = [_cross_entropy(real, _logit(critic(fake)[0])) for fake in fakes]
        return 0.5 * functools.reduce(jnp.add, errors)

    return picture_critic


def pictures_deceive(part: str = "critic") -> Term:
    """Returns the decoder's loss against `picture_critic`, f32[B].

    The gradient flows to the decoder only, not to the encoder, as in Larsen et al. 2016.

    Args:
      part: the critic's name in the model's `parts`.
    """

    def pictures_deceive(model: Any, forward: Forward) -> Array:
        critic = frozen(part_of(model, part))
        fakes = _decoded(model, forward)
        losses = [jax.nn.softplus(-_logit(critic(fake)[0])) for fake in fakes]
        return 0.5 * functools.reduce(jnp.add, losses)

    return pictures_deceive


def feature_error(part: str = "critic") -> Term:
    """Returns ||f(target) - f(mean of the prediction)||^2 / 2, f32[B], for the critic's features f.

    It is -log p of the features under a Gaussian with standard deviation 1, without its constant
    (Larsen et al. 2016, equation 7). The gradient flows to encoder and decoder, not to the critic.

    Args:
      part: the critic's name in the model's `parts`, or that of any net with the same outputs, such
        as a trained classifier.
    """

    def feature_error(model: Any, forward: Forward) -> Array:
        critic = frozen(part_of(model, part))
        _, real = critic(forward.batch.target)
        _, decoded = critic(model.mean(forward.prediction))
        return 0.5 * sum_events(jnp.square(jax.lax.stop_gradient(real) - decoded))

    return feature_error


def _decoded(model: Any, forward: Forward) -> tuple[Array, Array]:
    """Returns the means decoded from the batch's codes, held constant, and from the prior."""
    size, context = forward.batch.target.shape[0], forward.batch.context
    codes = jax.lax.stop_gradient(forward.code.z)
    drawn = jax.lax.stop_gradient(model.sample_latent(_key(forward), size, context))
    lifted = model.lift(drawn, context)
    return tuple(model.mean(model.decode(z, context)) for z in (codes, lifted))


def _cross_entropy(real: Array, fake: Array) -> Array:
    return 0.5 * (jax.nn.softplus(-real) + jax.nn.softplus(fake))


def _key(forward: Forward) -> Key:
    # Without a key, as at the start, the draw is always the same.
    return jax.random.key(0) if forward.key is None else forward.key


def _logit(logits: Array) -> Array:
    """Returns the logits as f32[B]."""
    if logits.size != logits.shape[0]:
        raise UserError(
            f"the critic's output for each example has shape {logits.shape[1:]}, but one logit is "
            "needed: give the critic shape=(1,)"
        )
    return logits.reshape(logits.shape[0])
