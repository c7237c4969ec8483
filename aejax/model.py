"""The model: encoder, bottleneck, decoder, prior and likelihood, and the paths through them.

training    x -> features -> code -> prediction
encoding    x -> features -> code
generation  prior -> latent -> prediction: needs no encoder
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.core
import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.checks import whole
from aejax.contracts import Bottleneck, Given, Likelihood, Prior
from aejax.errors import UserError
from aejax.events import without_missing
from aejax.types import Array, Batch, Forward, Key


class Autoencoder(nn.Module):
    """Five parts, each a Linen module; only what the bottleneck does tells the kinds apart.

    Attributes:
      encoder: (x, context) -> features.
      bottleneck: (features, key, given) -> Code.
      decoder: (z, context) -> prediction.
      prior: of the latents; None for plain and sparse autoencoders.
      likelihood: of the target under the prediction; None reads the prediction as the target.
      parts: further modules that a term needs, such as a critic.

    Raises:
      UserError: for a bottleneck, prior or likelihood that does not derive from the class of
        `aejax.contracts` of that name.
    """

    encoder: nn.Module
    bottleneck: Bottleneck
    decoder: nn.Module
    prior: Prior | None = None
    likelihood: Likelihood | None = None
    parts: Mapping[str, nn.Module] = flax.core.FrozenDict()

    def __post_init__(self) -> None:
        """Raises UserError for a part that does not derive from the class of its contract."""
        for part, contract in (
            (self.bottleneck, Bottleneck),
            (self.prior, Prior),
            (self.likelihood, Likelihood),
        ):
            if part is not None and not isinstance(part, contract):
                kind, name = contract.__name__, type(part).__name__
                raise UserError(
                    f"the {kind.lower()} of this model is a {name}, which is no {kind}: derive "
                    f"{name} from aejax.contracts.{kind}, which says what it must have"
                )
        super().__post_init__()

    def __call__(self, batch: Batch, key: Key | None = None, step: Array | int = 0) -> Forward:
        """One pass: features, code, explain."""
        features = self.features(batch)
        code = self.code(batch, features, key, step)
        return self.explain(batch, features, code, step, key)

    def features(self, batch: Batch) -> Any:
        """What the encoder makes of x; needs no key, so K draws share it."""
        return self.encoder(batch.x, batch.context)

    def code(self, batch: Batch, features: Any, key: Key | None, step: Array | int = 0) -> Any:
        """A Code drawn with the key, or without noise where there is none."""
        self._check_latents()
        if self.prior is not None:
            self.prior.check_event(tuple(batch.x.shape[1:]))
        given = Given(step, batch.context, self.prior, self.decoder)
        return self.bottleneck(features, key, given)

    def explain(
        self, batch: Batch, features: Any, code: Any, step: Array | int = 0, key: Key | None = None
    ) -> Forward:
        """Decodes a code and gathers all that the terms may read.

        A target that is NaN where the mask is 0 is missing, and reads as 0.
        """
        prediction = self.decode(code.z, batch.context)
        self._check_shape(prediction, batch.target)
        batch = without_missing(batch)
        return Forward(batch, features, code, prediction, jnp.asarray(step), key)

    def posterior(self, batch: Batch) -> Any:
        """x -> code without noise; priors that are made of posteriors receive it."""
        return self.code(batch, self.features(batch), None, 0)

    def decode(self, z: Any, context: Any = None) -> Any:
        """z -> prediction, in the likelihood's own parametrisation."""
        return self.decoder(z, context)

    def lift(self, latent: Any, context: Any = None) -> Any:
        """What the decoder sees of a latent that the prior gives a probability to."""
        return self.bottleneck.lift(latent, Given(context=context, prior=self.prior))

    def mean(self, prediction: Any) -> Array:
        """The expected target, [B, *event]."""
        return prediction if self.likelihood is None else self.likelihood.mean(prediction)

    def encode(self, batch: Batch) -> Any:
        """The latent without noise: the mean of a Gaussian posterior."""
        return self.posterior(batch).latent

    def sample(self, key: Key, n: int, context: Any = None) -> Any:
        """Draws n predictions from the prior; reads neither encoder nor posterior parameters.

        Raises:
          UserError: if there is no prior to draw from, or n < 1.
        """
        return self.decode(self.lift(self.sample_latent(key, n, context), context), context)

    def sample_latent(self, key: Key, n: int, context: Any = None) -> Any:
        """Draws n latents from the prior.

        Raises:
          UserError: if there is no prior to draw from, or n < 1.
        """
        if n < 1:
            raise UserError(f"a sample of n = {n}: draw 1 or more")
        if self.prior is None:
            raise UserError(
                "this model has no prior to draw latents from: give Autoencoder a prior, or fit "
                "one to its codes"
            )
        return self.prior.sample(key, n, self.bottleneck.shape, context, self.posterior)

    def _check_latents(self) -> None:
        """Raises UserError for a bottleneck that lets nothing through, or not to this prior."""
        shape, name = self.bottleneck.shape, type(self.bottleneck).__name__
        if any(size < 1 or not whole(size) for size in jax.tree.leaves(shape)):
            raise UserError(
                f"the bottleneck {name} has latents of shape {shape}: give whole numbers, 1 or more"
            )
        levels = any(isinstance(size, tuple) for size in shape)
        if self.prior is not None and levels != self.prior.of_levels:
            raise UserError(
                f"the prior {type(self.prior).__name__} is none of latents of shape {shape}, which "
                f"the bottleneck {name} has: pair the bottlenecks Levels and UpwardLevels with "
                "priors.Levels or priors.Ladder, and any other with any other prior"
            )

    def _check_shape(self, prediction: Any, target: Array) -> None:
        """Raises UserError unless the decoder ends in the shape that the likelihood reads."""
        event = tuple(target.shape[1:])
        wanted = event if self.likelihood is None else self.likelihood.shape(event)
        if not isinstance(prediction, jax.Array) or prediction.shape[1:] == wanted:
            return
        reader = type(self.likelihood).__name__ if self.likelihood is not None else "the target"
        raise UserError(
            f"the decoder {type(self.decoder).__name__} ends in shape {prediction.shape[1:]}, but "
            f"{reader} needs {wanted} for a target of shape {event}: change the decoder's shape"
        )
