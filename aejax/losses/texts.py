"""Terms for texts, which keep a strong decoder from ignoring the code.

word_dropout(0.3)     in place of losses.distortion: the decoder sees only some earlier tokens
bag_of_words()        a further net predicts the words of the text from the code alone
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from aejax.checks import sensible
from aejax.errors import UserError
from aejax.losses.marks import ratio
from aejax.types import Array, Forward, Term


def word_dropout(share: float) -> Term:
    """Returns the distortion where each token is hidden from the later ones with a probability.

    It is -log p(text | z) of a decoder that sees a random part of the earlier tokens (Bowman et al.
    2016, section 3.2). Use it in training in place of `losses.distortion`; evaluations, where all
    tokens are seen, do not use it. Without a key no token is hidden.

    Args:
      share: the probability with which a token is hidden, from 0 to 1.

    Raises:
      UserError: if the share is out of range; when first used, if the likelihood is not
        `likelihoods.Text`.
    """
    if not sensible(share, lambda share: 0.0 <= share <= 1.0):
        raise UserError(f"word_dropout has share = {share}: give a probability, from 0 to 1")

    @ratio()
    def word_dropout(model: Any, forward: Forward) -> Array:
        if not hasattr(model.likelihood, "log_prob_seen"):
            raise UserError(
                f"word_dropout hides tokens of a text, but the likelihood is a "
                f"{type(model.likelihood).__name__}: use it with likelihoods.Text"
            )
        batch, hidden = forward.batch, None
        if forward.key is not None:
            hidden = jax.random.bernoulli(forward.key, share, batch.target.shape)
        return -model.likelihood.log_prob_seen(forward.prediction, batch.target, batch.mask, hidden)

    return word_dropout


def bag_of_words(part: str = "words") -> Term:
    """Returns the term -sum_t log softmax(net(z))[token t], f32[B], in nats (Zhao et al. 2017).

    The net sees the code alone, so the term is small only if the code tells the words of the text.

    Args:
      part: the name of the net in the model's `parts`, such as nets.MLP((), shape=(size,)), with an
        output for each token id.

    Raises:
      UserError: when first used, if the model has no such part.
    """

    def bag_of_words(model: Any, forward: Forward) -> Array:
        if part not in model.parts:
            raise UserError(
                f"the model has no net named {part!r} in its parts: give Autoencoder "
                f"parts={{{part!r}: nets.MLP((), shape=(size,))}} with the number of token ids"
            )
        logits = jax.nn.log_softmax(model.parts[part](forward.code.z))
        target = forward.batch.target
        chosen = jnp.take_along_axis(logits, target, axis=-1)
        return -jnp.sum(jnp.where(target > 0, chosen, 0.0), axis=-1)

    return bag_of_words


def mean_distance(least: float) -> Term:
    """Returns the term max(0, least - mean_B ||mean - mean_B mean||^2 / 2), f32[B].

    The value is repeated for all examples. The term keeps the means of the posteriors apart: half
    their mean squared distance from their centre is a lower bound of the mean KL from a standard
    normal prior, in nats (mu-forcing, Liu et al. 2019, equation 6).

    Args:
      least: the distance, in nats, below which the means are pushed apart.

    Raises:
      UserError: if `least` is negative.
    """
    if not sensible(least, lambda least: least >= 0):
        raise UserError(f"mean_distance has least = {least}: give a number of nats, 0 or more")

    def mean_distance(model: Any, forward: Forward) -> Array:
        mean = forward.code.mean
        apart = 0.5 * jnp.mean(
            jnp.sum(jnp.square(mean - jnp.mean(mean, axis=0, keepdims=True)), axis=-1)
        )
        return jnp.full(mean.shape[:1], jnp.maximum(least - apart, 0.0))

    return mean_distance
