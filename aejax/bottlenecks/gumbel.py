"""The bottleneck of categorical latents: one of several classes at each position."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from aejax.bottlenecks.positions import check_indices
from aejax.checks import check, check_count
from aejax.contracts import NOTHING, Bottleneck, Given
from aejax.errors import UserError
from aejax.events import flatten
from aejax.types import Array, Key


class ClassCode(NamedTuple):
    """A draw of L classes from q(z | x), independent of each other given x."""

    z: Array  # f32[B, L, C], one-hot; its gradient is that of the softmax
    indices: Array  # i32[B, L], the classes
    logits: Array  # f32[B, L, C], the log-probabilities of the classes

    @property
    def latent(self) -> Array:
        """Returns the classes, i32[B, L], which are the variable that a prior models."""
        return self.indices

    def log_q(self, stick: bool = False) -> Array:
        """Computes log q(z | x), the log-probability of the classes, f32[B].

        Raises:
          UserError: if stick is True.
        """
        if stick:
            raise UserError(
                "the log q of classes cannot stick the landing, because classes are no smooth "
                "function of the noise: use losses.kl or losses.rate() without stick"
            )
        return jnp.sum(self.z * self.logits, axis=(1, 2))

    def entropy(self) -> Array:
        """Computes the entropy of q(z | x), f32[B], in nats."""
        return -jnp.sum(jnp.exp(self.logits) * self.logits, axis=(1, 2))


class GumbelSoftmax(Bottleneck):
    """Draws L classes, each one of C, by the straight-through Gumbel-softmax (Jang et al. 2017).

    z is one-hot, in training too, so that an ELBO and an importance-weighted bound are exact for
    the model that generates images from one-hot z. Its gradient is that of softmax((logits + noise)
    / temperature), which is biased. Use the prior `priors.Categorical`, with which the KL has a
    closed form, or `priors.Codes`. `evaluation.enumerated` computes log p(x) exactly if there are
    few codes.

    Attributes:
      latents: the number of positions L.
      classes: the number of classes C of each position.
      temperature: the temperature of the softmax, a number above 0 or a schedule of the step.
    """

    latents: int
    classes: int
    temperature: optax.ScalarOrSchedule = 1.0

    def __post_init__(self) -> None:
        """Raises UserError if a number is out of range."""
        check_count(self, 1, "latents")
        check_count(self, 2, "classes")
        if not callable(self.temperature):
            check(self, "temperature", lambda value: value > 0, "a number above 0, or a schedule")
        super().__post_init__()

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns the shape of one example's latent, the classes."""
        return (self.latents,)

    @nn.compact
    def __call__(self, features: Array, key: Key | None, given: Given = NOTHING) -> ClassCode:
        """Draws the code of features [B, ...]; if key is None, the most probable classes."""
        raw = nn.Dense(self.latents * self.classes, name="logits")(
            flatten(features).astype(jnp.float32)
        )
        logits = jax.nn.log_softmax(raw.reshape((-1, self.latents, self.classes)))
        noise = jnp.zeros(()) if key is None else jax.random.gumbel(key, logits.shape)
        noisy = logits + jnp.broadcast_to(noise, logits.shape)
        schedule = self.temperature
        soft = jax.nn.softmax(noisy / (schedule(given.step) if callable(schedule) else schedule))
        indices = jnp.argmax(noisy, axis=-1).astype(jnp.int32)
        z = self.lift(indices) + (soft - jax.lax.stop_gradient(soft))
        return ClassCode(z, indices, logits)

    def lift(self, latent: Array, given: Given = NOTHING) -> Array:
        """Converts classes i32[B, L] to the decoder's input, one-hot f32[B, L, C]."""
        check_indices(self, latent)
        return jax.nn.one_hot(latent, self.classes)
