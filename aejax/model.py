"""The model: its five modules, and the order in which they are called.

training    x -> features -> code -> prediction
encoding    x -> features -> code
generation  prior -> latent -> prediction; this path needs no encoder
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from aejax.checks import check_is_key, check_rows, whole
from aejax.contracts import Bottleneck, Given, Likelihood, Prior
from aejax.errors import UserError
from aejax.events import as_batch, check_filled, without_missing
from aejax.nets.call import call, check_net, fitting
from aejax.types import Array, Batch, Forward, Key


class Autoencoder(nn.Module):
    """An autoencoder of any kind, made of five Linen modules.

    Attributes:
      encoder: maps (x, context), or x alone, to features.
      bottleneck: maps (features, key, given) to a Code; it determines the kind of autoencoder.
      decoder: maps (z, context), or z alone, to a prediction.
      prior: the distribution of the latents; None for standard and sparse autoencoders.
      likelihood: the distribution of the target given the prediction; None: the prediction itself
        is the expected target.
      parts: name -> a further module whose parameters a loss term needs, such as a critic.

    Raises:
      UserError: if the bottleneck, prior or likelihood does not derive from the class of that name
        in `aejax.contracts`.
    """

    encoder: nn.Module
    bottleneck: Bottleneck
    decoder: nn.Module
    prior: Prior | None = None
    likelihood: Likelihood | None = None
    parts: Mapping[str, nn.Module] = flax.core.FrozenDict()

    def __post_init__(self) -> None:
        """Checks the modules' classes, and that encoder and decoder have no module in common."""
        for part, contract in (
            (self.bottleneck, Bottleneck),
            (self.prior, Prior),
            (self.likelihood, Likelihood),
        ):
            if part is not None and not isinstance(part, contract):
                kind, name = contract.__name__, type(part).__name__
                if isinstance(part, type):
                    raise UserError(
                        f"the {kind.lower()} of this model is the class {part.__name__}: give an "
                        f"object of it, as {part.__name__}(...)"
                    )
                raise UserError(
                    f"the {kind.lower()} of this model is a {name}, which is not a {kind}: derive "
                    f"{name} from aejax.contracts.{kind}, which lists what it must define"
                )
        for role in ("encoder", "bottleneck", "decoder", "prior", "likelihood", "parts"):
            if wrong := check_net(getattr(self, role), role):
                raise UserError(wrong)
        encoding, decoding = _modules(self.encoder), _modules(self.decoder)
        if shared := encoding.keys() & decoding.keys():
            name = type(encoding[shared.pop()]).__name__
            raise UserError(
                f"one {name} is in both the encoder and the decoder, and Flax would store its "
                f"parameters under the encoder only: give each of the two its own {name}"
            )
        super().__post_init__()

    def __call__(self, batch: Any, key: Key | None = None, step: Array | int = 0) -> Forward:
        """Runs one forward pass: encodes the batch, draws a code, and decodes it.

        Args:
          batch: a Batch, an array f32[B, *event] that is both x and target, or a split.
          key: the key of the bottleneck's noise; None: no noise.
          step: the training step, i32[], which schedules read.
        """
        batch = as_batch(batch)
        features = self.features(batch)
        code = self.code(batch, features, key, step)
        return self.explain(batch, features, code, step, key)

    def features(self, batch: Batch) -> Any:
        """Computes the encoder's output, which all K draws of a code share, also its Dropout."""
        with fitting("encoder", self.encoder, batch.x, batch.context):
            features = call(self.encoder, batch.x, batch.context)
        seen = jnp.shape(jax.tree.leaves(batch.x)[0])
        check_filled(batch.x, features, f"the encoder {type(self.encoder).__name__}")
        if not jax.tree.leaves(features):
            raise UserError(
                f"the encoder {type(self.encoder).__name__} returns {features!r}: return the "
                "features, [B, ...]"
            )
        for leaf in jax.tree.leaves(features):
            if jnp.shape(leaf)[:1] != seen[:1]:
                raise UserError(
                    f"the encoder {type(self.encoder).__name__} returns shape {jnp.shape(leaf)} "
                    f"for x of shape {seen}, whose first axis is the batch: give x the axes that "
                    "the encoder expects, such as [B, height, width, channels] for pictures"
                )
        return features

    def code(self, batch: Batch, features: Any, key: Key | None, step: Array | int = 0) -> Any:
        """Returns the Code that the bottleneck computes from features.

        Args:
          batch: the batch that the features were computed from.
          features: the encoder's output, as the method `features` returns it.
          key: the key of the noise; None: no noise.
          step: the training step, i32[].
        """
        self._check_latents()
        if self.prior is not None:
            self.prior.check_event(tuple(batch.x.shape[1:]))
        given = Given(step, batch.context, self.prior, self.decoder, self._joint_of(batch))
        with fitting("bottleneck", self.bottleneck, features, batch.context):
            return self.bottleneck(features, key, given)

    def explain(
        self, batch: Batch, features: Any, code: Any, step: Array | int = 0, key: Key | None = None
    ) -> Forward:
        """Decodes a code and returns the `Forward`, the record from which loss terms are computed.

        Targets that are NaN where the mask is 0 are missing values, which are replaced by 0.

        Args:
          batch: the batch that was encoded.
          features: the encoder's output, as the method `features` returns it.
          code: the code of the batch, as the method `code` returns it.
          step: the training step, i32[].
          key: the key that was passed to `code`; the keys of the loss terms are derived from it.
        """
        prediction = self.decode(code.z, batch.context)
        self._check_shape(prediction, batch.target)
        batch = without_missing(batch)
        return Forward(batch, features, code, prediction, jnp.asarray(step), key)

    def posterior(self, batch: Any) -> Any:
        """Encodes a batch to a code without noise; a VampPrior calls this on its pseudo-inputs.

        The batch is a Batch, an array f32[B, *event], its x, or a split.
        """
        batch = as_batch(batch)
        return self.code(batch, self.features(batch), None, 0)

    def decode(self, z: Any, context: Any = None) -> Any:
        """Decodes z to a prediction: the likelihood's parameters, such as logits, not its mean."""
        with fitting("decoder", self.decoder, z, context):
            return call(self.decoder, z, context)

    def lift(self, latent: Any, context: Any = None) -> Any:
        """Converts a latent, as the prior draws it, to the decoder's input z."""
        return self.bottleneck.lift(latent, Given(context=context, prior=self.prior))

    def mean(self, prediction: Any) -> Array:
        """Computes the expected target, [B, *event]."""
        return prediction if self.likelihood is None else self.likelihood.mean(prediction)

    def encode(self, batch: Any) -> Any:
        """Encodes a batch to its latent without noise; for a Gaussian bottleneck, to the mean.

        The batch is a Batch, an array f32[B, *event], its x, or a split.
        """
        return self.posterior(batch).latent

    def sample(self, key: Key, n: int, context: Any = None) -> Any:
        """Draws n latents from the prior and decodes them to predictions.

        The encoder's parameters are not needed unless the prior is a VampPrior.

        Raises:
          UserError: if there is no prior to draw from, or n < 1.
        """
        return self.decode(self.lift(self.sample_latent(key, n, context), context), context)

    def sample_latent(self, key: Key, n: int, context: Any = None) -> Any:
        """Draws n latents from the prior.

        Raises:
          UserError: if there is no prior to draw from, if n is not 1 or more, or if `key` is not a
            random key.
        """
        check_is_key(key)
        if n < 1 or not whole(n):
            raise UserError(f"sample was asked for n = {n} draws: give 1 or more")
        n = int(n)
        if self.prior is None:
            raise UserError(
                "this model has no prior to draw latents from: give Autoencoder a prior, or fit "
                "one to its codes"
            )
        check_rows(self.prior, n, context)
        with fitting("prior", self.prior, None, context):
            return self.prior.sample(key, n, self.bottleneck.shape, context, self.posterior)

    def _joint_of(self, batch: Batch) -> Any:
        """Returns the function log p(target, z) of the latents, or None if the model has none."""
        if self.prior is None or self.likelihood is None:
            return None

        def log_joint(latent: Any) -> Array:
            # The bottleneck differentiates the function, so the model is a pure function in it.
            model, variables = self.unbind()
            found: Any = model.apply(variables, without_missing(batch), latent, method=_log_joint)
            return found

        return log_joint

    def _check_latents(self) -> None:
        """Raises UserError if a latent's size is below 1, or the prior does not suit the latents.

        A hierarchical bottleneck and a prior of levels need each other.
        """
        shape, name = self.bottleneck.shape, type(self.bottleneck).__name__
        if any(size < 1 or not whole(size) for size in jax.tree.leaves(shape)):
            raise UserError(
                f"the bottleneck {name} has latents of shape {shape}: give whole numbers, 1 or more"
            )
        levels = any(isinstance(size, tuple) for size in shape)
        if self.prior is not None and levels != self.prior.of_levels:
            raise UserError(
                f"the prior {type(self.prior).__name__} does not suit latents of shape {shape}, "
                f"which the bottleneck {name} has: use priors.Levels or priors.Ladder with the "
                "bottlenecks Levels and UpwardLevels, and other priors with other bottlenecks"
            )

    def _check_shape(self, prediction: Any, target: Array) -> None:
        """Raises UserError unless the decoder's output has the shape that the likelihood needs."""
        event = tuple(target.shape[1:])
        wanted = event if self.likelihood is None else self.likelihood.shape(event)
        reader = type(self.likelihood).__name__ if self.likelihood is not None else "the target"
        need = f"{reader} needs {(target.shape[0], *wanted)} for a target of shape {target.shape}"
        name = f"the decoder {type(self.decoder).__name__}"
        if not isinstance(prediction, jax.Array | np.ndarray):
            raise UserError(
                f"{name} returns a {type(prediction).__name__} instead of one array, but {need}: "
                "return one array, whose last axis may hold several parameters of each element"
            )
        if prediction.shape != (target.shape[0], *wanted):
            raise UserError(
                f"{name} returns shape {prediction.shape}, but {need}: change the decoder's shape, "
                "or the event of its recipe"
            )


def _log_joint(model: Any, batch: Batch, latent: Any) -> Array:
    """Computes log p(z) + log p(target | z), f32[B], for the model's latents z."""
    prediction = model.decode(model.lift(latent, batch.context), batch.context)
    log_prior = model.prior.log_prob(latent, batch.context, model.posterior)
    return log_prior + model.likelihood.log_prob(prediction, batch.target, batch.mask)


def _modules(part: Any) -> dict[int, nn.Module]:
    """Returns a module and, recursively, the modules in its fields, by their Python ids."""
    if not isinstance(part, nn.Module):
        return {}
    found = {id(part): part}
    for field in dataclasses.fields(part):
        if field.name != "parent":
            found |= _modules(getattr(part, field.name, None))
    return found
