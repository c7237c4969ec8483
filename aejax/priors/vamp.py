"""The VampPrior: a mixture of the model's posteriors of learned pseudo-inputs."""

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
    """The prior p(z) = 1/K sum_k q(z | u_k) with learned pseudo-inputs u_k.

    See Tomczak and Welling 2018, equation 9. The pseudo-inputs are parameters. Each call of
    log_prob or sample encodes all K pseudo-inputs, so both need the encoder. The KL has no closed
    form, so use elbo(rate=losses.rate()).

    Attributes:
      event: the shape of one input x.
      pseudo_inputs: the number of pseudo-inputs K.
      start: the mean of the pseudo-inputs' initial values.
      spread: the standard deviation of the pseudo-inputs' initial values.
      bounds: the range of x, to which pseudo-inputs are clipped; None: no clipping.
    """

    event: Sequence[int]
    pseudo_inputs: int = 500
    start: float = 0.05
    spread: float = 0.01
    bounds: tuple[float, float] | None = (0.0, 1.0)
    of_sphere = None

    def __post_init__(self) -> None:
        """Raises UserError if pseudo_inputs is not a whole number, 1 or more."""
        check_count(self, 1, "pseudo_inputs")
        super().__post_init__()

    def setup(self) -> None:
        """Declares the pseudo-inputs.

        Raises:
          UserError: if the lower bound is not below the upper one.
        """
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise UserError(
                f"Vamp has bounds = {self.bounds}: give a lower bound below the upper one, or None"
            )
        size = (self.pseudo_inputs, *self.event)

        def start(key: Key) -> Array:
            return self.start + self.spread * jax.random.normal(key, size)

        self.inputs = self.param("inputs", start)

    def log_prob(self, z: Array, context: Any = None, posterior: Any = None) -> Array:
        """Computes log p(z), f32[B], in nats, for z f32[B, L].

        Raises:
          UserError: if posterior is None, if there is a context, or if the density of the posterior
            can be computed only at its own draws, as for flows.
        """
        each = self._code(context, posterior).log_prob(z)
        return jax.nn.logsumexp(each, axis=-1) - math.log(self.pseudo_inputs)

    def sample(
        self, key: Key, n: int, shape: Sequence[int], context: Any = None, posterior: Any = None
    ) -> Array:
        """Draws n latents, f32[n, *shape], each from the posterior of a random pseudo-input.

        Raises:
          UserError: in the same cases as `log_prob`.
        """
        choice_key, noise_key = jax.random.split(key)
        code = self._code(context, posterior)
        chosen = jax.random.randint(choice_key, (n,), 0, self.pseudo_inputs)
        return jax.tree.map(lambda leaf: leaf[chosen], code).redraw(noise_key)

    def check_event(self, event: tuple[int, ...]) -> None:
        """Raises UserError unless the pseudo-inputs have the shape `event` of x."""
        if tuple(self.event) != event:
            raise UserError(
                f"the prior Vamp has pseudo-inputs of shape {tuple(self.event)}, but x has shape "
                f"{event}: give priors.Vamp the shape of one x as its event"
            )

    def _code(self, context: Any, posterior: Any) -> DensityCode:
        """Computes the posterior's code of the K pseudo-inputs, with leaves [K, ...].

        Raises:
          UserError: in the same cases as `log_prob`.
        """
        if posterior is None:
            raise UserError(
                "a VampPrior needs the model's posterior: use it in an Autoencoder, or pass "
                "posterior, a function from a Batch to a code"
            )
        if context is not None:
            raise UserError(
                "a VampPrior has pseudo-inputs but no pseudo-contexts, so it cannot depend on a "
                "context: use priors.Conditional or priors.Flow, which read the context"
            )
        inputs = self.inputs if self.bounds is None else jnp.clip(self.inputs, *self.bounds)
        code = posterior(Batch(inputs, inputs))
        if not isinstance(code, DensityCode):
            raise UserError(
                "a VampPrior needs a posterior whose density can be computed at any latent, but "
                f"{type(code).__name__} has no such density: use the bottleneck Gaussian or "
                "FullGaussian"
            )
        return code
