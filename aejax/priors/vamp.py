"""The VampPrior: a mixture of the model's own posteriors of learned pseudo-inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.checks import check_count
from aejax.errors import UserError
from aejax.normal import LOG_2PI
from aejax.types import Array, Batch, Key


class Vamp(nn.Module):
    """p(z) = 1/K sum_k q(z | u_k) with learned pseudo-inputs u_k (Tomczak and Welling 2018, eq. 9).

    Costs K passes of the encoder a batch, whatever its size and number of draws. No data is read:
    the pseudo-inputs are parameters, and samples come from them. Sampling does need the encoder's
    parameters, as the density does. There is no closed form of the KL: sample the rate.

    Attributes:
      event: shape of one input x.
      pseudo_inputs: K.
      start: mean of the pseudo-inputs before training.
      spread: their standard deviation then.
      bounds: the range of x, that pseudo-inputs are clipped to; None where there is none.
    """

    event: Sequence[int]
    pseudo_inputs: int = 500
    start: float = 0.05
    spread: float = 0.01
    bounds: tuple[float, float] | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Raises UserError for numbers that there cannot be."""
        check_count(self, 1, "pseudo_inputs")
        super().__post_init__()

    def setup(self) -> None:
        """Declares the pseudo-inputs.

        Raises:
          UserError: for bounds that hold no number between them.
        """
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise UserError(f"Vamp has bounds = {self.bounds}: give the lower one first, or None")
        size = (self.pseudo_inputs, *self.event)

        def start(key: Key) -> Array:
            return self.start + self.spread * jax.random.normal(key, size)

        self.inputs = self.param("inputs", start)

    def log_prob(self, z: Array, context: Any = None, posterior: Any = None) -> Array:
        """f32[B, L] -> f32[B].

        Raises:
          UserError: without a posterior, with a context, or if the posterior's density is not
            known everywhere.
        """
        each = component_log_prob(self._code(context, posterior), z)
        return jax.nn.logsumexp(each, axis=-1) - math.log(self.pseudo_inputs)

    def sample(
        self, key: Key, n: int, shape: Sequence[int], context: Any = None, posterior: Any = None
    ) -> Array:
        """Draws f32[n, *shape]: a pseudo-input each, then a point of its posterior.

        Raises:
          UserError: as `log_prob`.
        """
        del shape
        choice_key, noise_key = jax.random.split(key)
        code = self._code(context, posterior)
        chosen = jax.random.randint(choice_key, (n,), 0, self.pseudo_inputs)
        return redraw(noise_key, jax.tree.map(lambda leaf: leaf[chosen], code))

    def kl(self, code: Any, context: Any = None, posterior: Any = None) -> None:
        """None: there is no closed form."""
        del code, context, posterior

    def _code(self, context: Any, posterior: Any) -> Any:
        """The code of the pseudo-inputs, leaves [K, ...]."""
        if posterior is None:
            raise UserError(
                "a VampPrior is made of the model's posterior: use it in an Autoencoder, or pass "
                "posterior, a function from a Batch to a code"
            )
        if context is not None:
            raise UserError(
                "a VampPrior has pseudo-inputs and no pseudo-contexts, so it is no prior given a "
                "context: use priors.Conditional, or priors.Flow, which reads the context"
            )
        inputs = self.inputs if self.bounds is None else jnp.clip(self.inputs, *self.bounds)
        return posterior(Batch(inputs, inputs))


def component_log_prob(code: Any, z: Array) -> Array:
    """log q(z_b | u_k) of all pairs, f32[B, L] and a code of K examples -> f32[B, K].

    Raises:
      UserError: if the code's density is known at its own draw alone.
    """
    if hasattr(code, "mean") and hasattr(code, "log_std"):
        # An exponential a component, not one a pair: of a thousand draws these would cost more than
        # the decoder.
        scaled = (z[:, None] - code.mean[None]) * jnp.exp(-code.log_std)[None]
        constant = -jnp.sum(code.log_std + 0.5 * LOG_2PI, axis=-1)
        return -0.5 * jnp.sum(jnp.square(scaled), axis=-1) + constant[None]
    _check(code, "log_prob")
    return code.log_prob(z)


def redraw(key: Key, code: Any) -> Array:
    """Another draw from each example's posterior, f32[B, L]."""
    if hasattr(code, "mean") and hasattr(code, "log_std"):
        return code.mean + jnp.exp(code.log_std) * jax.random.normal(key, code.mean.shape)
    _check(code, "redraw")
    return code.redraw(key)


def _check(code: Any, method: str) -> None:
    if not hasattr(code, method):
        raise UserError(
            f"a VampPrior needs a posterior whose density is known at any latent, which "
            f"{type(code).__name__} has not: use the bottleneck Gaussian or FullGaussian"
        )
