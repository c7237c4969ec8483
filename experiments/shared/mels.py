"""Models of log-mel spectrograms, and conversions between spectrograms and sounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import aejax as ae
from aejax.data import Split, changed
from aejax.data.sound import changes
from aejax.data.sound.changes import Duration
from aejax.data.sound.files import SCALE as FULL_SCALE
from aejax.evaluation.generation import taken
from aejax.sound import Mel
from aejax.types import Array, Batch, Key, Variables

# The approximate mean and standard deviation of log-mel values, by which they are standardised.
SCALE = (-5.0, 1.6)
SOUND_SEED = 15  # seed of the initial phases of Griffin-Lim


class Sizes(NamedTuple):
    """The sizes of a convolutional model of spectrograms."""

    frames: int  # time frames of a spectrogram
    bands: int  # mel bands of a spectrogram
    width: int  # channels of the encoder's first stage, which halves the picture
    latents: int


def vae(sizes: Sizes) -> ae.Autoencoder:
    """Builds a conditional VAE with a flow prior and a likelihood with a learned deviation."""
    prior = ae.priors.Flow(4, (64,))
    return _model(sizes, ae.Gaussian(sizes.latents), prior)


def plain(sizes: Sizes) -> ae.Autoencoder:
    """Builds an autoencoder with the nets of `vae`, a deterministic code and no prior."""
    return _model(sizes, ae.Point(sizes.latents), None)


def _model(sizes: Sizes, bottleneck: Any, prior: Any) -> ae.Autoencoder:
    width = sizes.width
    widths, smooth = (width, 2 * width, 4 * width), jax.nn.silu
    encoder = ae.nets.Strided((*widths, widths[-1]), (4,) * 4, 16 * width, smooth)
    decoder = ae.nets.Transposed(
        (sizes.frames, sizes.bands, 1), widths[::-1], features=16 * width, activation=smooth
    )
    likelihood = ae.likelihoods.Standardised(ae.likelihoods.LearnedGaussian(start=1.0), *SCALE)
    return ae.Autoencoder(
        ae.nets.Standardised(encoder, *SCALE), bottleneck, decoder, prior, likelihood
    )


def objective(beta: Any) -> ae.Objective:
    """Returns the negative ELBO with the rate at the drawn z: the flow's KL has no closed form."""
    return ae.merge(
        ae.elbo(beta, ae.losses.rate()), ae.watch(squared_error=ae.losses.squared_error)
    )


def view(mel: Mel, *context: Any) -> Callable[[Split], Split]:
    """Returns a function from a split of sounds to one of spectrograms.

    The context of the new split is what the changes in `context` set, followed by the duration.
    """
    return lambda split: changed(changes.spectrograms(split, mel), *context, Duration())


def waves(split: Split) -> np.ndarray:
    """Returns all sounds of a split, f32[N, T], in [-1, 1]."""
    return np.asarray(split.arrays["sound"], np.float32)[..., 0] / np.float32(FULL_SCALE)


def spectrograms(mel: Mel, sounds: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Computes log-mel spectrograms f32[N, frames, bands, 1] of sounds f32[N, T] in [-1, 1].

    Samples after the end of a sound count as silence.
    """

    def run(both: tuple[Array, Array]) -> Array:
        x, length = both
        inside = jnp.arange(x.shape[-1])[None] < length[:, None]
        return mel.log_mel(jnp.where(inside, x, 0.0))[..., None]

    return _in_parts(jax.jit(run), sounds.astype(np.float32), lengths.astype(np.int32))


def sounds(mel: Mel, spectra: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Turns log-mel spectrograms f32[N, frames, bands, 1] into sounds f32[N, T] by Griffin-Lim.

    Frames and samples after the end of a sound are silent.
    """

    def run(both: tuple[Array, Array]) -> Array:
        found, length = both
        inside = jnp.arange(found.shape[1])[None] < mel.frames(length)[:, None]
        found = jnp.where(inside[..., None], found[..., 0], np.float32(np.log(mel.floor)))
        made = jnp.clip(mel.sound(found, jax.random.key(SOUND_SEED)), -1.0, 1.0)
        return jnp.where(jnp.arange(made.shape[-1])[None] < length[:, None], made, 0.0)

    return _in_parts(jax.jit(run), spectra.astype(np.float32), lengths.astype(np.int32))


def _in_parts(run: Any, *arrays: np.ndarray, size: int = 100) -> np.ndarray:
    """Applies `run` to `size` rows of arrays [N, ...] at a time, and concatenates the results."""
    count = len(arrays[0])
    padded = [np.concatenate([a, np.repeat(a[-1:], -count % size, axis=0)]) for a in arrays]
    parts = [
        np.asarray(run(tuple(a[start : start + size] for a in padded)))
        for start in range(0, count, size)
    ]
    return np.concatenate(parts)[:count]


def means(model: Any, variables: Variables, key: Key, context: np.ndarray) -> np.ndarray:
    """Draws a latent for each row of the context and decodes it, f32[N, frames, bands, 1]."""
    count = len(context)

    def run(bound: Any, key: Key, context: Array) -> Array:
        return bound.mean(bound.sample(key, count, context))

    return np.asarray(
        jax.jit(lambda v, k, c: model.apply(v, k, c, method=run))(variables, key, context)
    )


def recoded(model: Any, variables: Variables, batch: Batch, context: np.ndarray) -> np.ndarray:
    """Encodes spectrograms and decodes them with another context, f32[N, frames, bands, 1].

    Codes depend on the context. The prior, a flow, therefore maps each code to noise given its own
    context, and the noise to a code given the new context.
    """

    def run(bound: Any, batch: Batch, context: Array) -> Array:
        noise, _ = bound.prior.noise(bound.encode(batch), batch.context)
        return bound.mean(bound.decode(bound.prior.latent(noise, context), context))

    return np.asarray(
        jax.jit(lambda v, b, c: model.apply(v, b, c, method=run))(variables, batch, context)
    )


def between(
    model: Any, variables: Variables, first: Batch, second: Batch, shares: np.ndarray
) -> np.ndarray:
    """Decodes points between each pair of two recordings, f32[N, len(shares), ...].

    The prior, a flow, maps both codes to noise. Noise and contexts are interpolated linearly.
    """

    def run(bound: Any, first: Batch, second: Batch, share: Array) -> Array:
        codes = [bound.prior.noise(bound.encode(b), b.context)[0] for b in (first, second)]
        mixed = (1.0 - share) * codes[0] + share * codes[1]
        context = (1.0 - share) * first.context + share * second.context
        return bound.mean(bound.decode(bound.prior.latent(mixed, context), context))

    step = jax.jit(lambda v, a, b, s: model.apply(v, a, b, s, method=run))
    made = [np.asarray(step(variables, first, second, jnp.float32(s))) for s in shares]
    return np.stack(made, axis=1)


def features_of(classifier: Any, spectra: np.ndarray) -> np.ndarray:
    """Returns the classifier's features of spectrograms, f64[N, FEATURES]."""
    return taken(classifier.features, spectra)
