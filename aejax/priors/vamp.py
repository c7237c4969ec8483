"""The VampPrior: a mixture of the model's own posteriors of learned pseudo-inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aejax.checks import check_count
from aejax.contracts import DensityCode, Prior
from aejax.errors import UserError
from aejax.types import Array, Batch, Key


class Vamp(Prior):
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
        each = self._code(context, posterior).log_prob(z)
        return jax.nn.logsumexp(each, axis=-1) - math.log(self.pseudo_inputs)

    def sample(
        self, key: Key, n: int, shape: Sequence[int], context: Any = None, posterior: Any = None
    ) -> Array:
        """Draws f32[n, *shape]: a pseudo-input each, then a point of its posterior.

        Raises:
          UserError: as `log_prob`.
        """
        choice_key, noise_key = jax.random.split(key)
        code = self._code(context, posterior)
        chosen = jax.random.randint(choice_key, (n,), 0, self.pseudo_inputs)
        return jax.tree.map(lambda leaf: leaf[chosen], code).redraw(noise_key)

    def check_event(self, event: tuple[int, ...]) -> None:
        """Raises UserError if x has another shape than the pseudo-inputs."""
        if tuple(self.event) != event:
            raise UserError(
                f"the prior Vamp is made of inputs of shape {tuple(self.event)}, but the data's "
                f"is {event}: give priors.Vamp the shape of one x"
            )

    def _code(self, context: Any, posterior: Any) -> DensityCode:
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
        code = posterior(Batch(inputs, inputs))
        if not isinstance(code, DensityCode):
            raise UserError(
                "a VampPrior needs a posterior whose density is known at any latent, which "
                f"{type(code).__name__} has not: use the bottleneck Gaussian or FullGaussian"
            )
        return code
