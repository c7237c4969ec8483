"""Reconstructions, samples, interpolations and traversals of a trained model.

All functions are pure. Their argument `variables` holds the variables of one model. If S models
were trained together by `seeds`, so that leaves are [S, ...], `member(variables, i)` returns the
variables of model i.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax.data import Split
from aejax.events import joined
from aejax.types import Array, Batch, Key, Variables

SIZE = 500  # examples per batch


class Latents(NamedTuple):
    """The codes of N examples without noise, and a number for how much each latent is used."""

    mean: np.ndarray  # f[N, L], the latents without noise
    activity: np.ndarray  # f[L], the mean KL of each latent in nats, or the variance of `mean`
    nats: bool  # True if the activity is a KL, False if it is a variance
    labels: np.ndarray | None  # i[N], the labels of the examples


def member(variables: Variables, i: int) -> Variables:
    """Returns the variables of model i, given those of S models, whose leaves are [S, ...]."""
    return jax.tree.map(lambda leaf: leaf[i], variables)


def reconstruct(model: Any, variables: Variables, batch: Batch) -> np.ndarray:
    """Returns the model's reconstruction of x without noise, f[B, *event]."""

    def run(model: Any, batch: Batch) -> Array:
        return model.mean(model(batch, None).prediction)

    return np.asarray(_jit(model, run)(variables, batch))


def samples(model: Any, variables: Variables, key: Key, n: int, context: Any = None) -> np.ndarray:
    """Draws n latents from the prior and returns the means that the decoder predicts, f[n, *event].

    The parameters of the encoder and the bottleneck are not used.

    Raises:
      UserError: if the model has no prior.
    """

    def run(model: Any, key: Key) -> Array:
        return model.mean(model.sample(key, n, context))

    return np.asarray(_jit(model, run)(variables, key))


def encode(model: Any, variables: Variables, split: Split, n: int = 5000) -> Latents:
    """Returns the codes of the first n examples without noise, and how much each latent is used.

    Args:
      model: a model with codes f32[B, L], or levels of such codes, which are concatenated.
      variables: the variables of one model, without a leading axis of seeds.
      split: the split that holds the examples.
      n: the largest number of examples to encode.

    Returns:
      Latents. Its field `activity` is the mean KL of each latent from the prior if the KL has a
      closed form, and otherwise the variance of the codes over the examples.
    """

    def run(model: Any, batch: Batch) -> tuple[Array, Array | None]:
        code = model.posterior(batch)
        mean = joined(code.latent)
        if model.prior is None:
            return mean, None
        kl = model.prior.kl(code, batch.context, model.posterior)
        return mean, None if kl is None else jnp.sum(kl, axis=0)

    taken = split.take(n)
    step = _jit(model, run)
    outputs = [step(variables, batch) for batch in taken.batches(SIZE)]
    mean = np.concatenate([np.asarray(mean) for mean, _ in outputs])
    kls = [np.asarray(kl) for _, kl in outputs if kl is not None]
    activity = np.sum(kls, axis=0) / len(mean) if kls else mean.var(axis=0)
    return Latents(mean, activity, bool(kls), taken.labels)


def latent(model: Any, variables: Variables, batch: Batch) -> Any:
    """Returns the codes of a batch without noise: f[B, L], or a pytree with leaves [B, ...]."""
    return _jit(model, lambda model, batch: model.encode(batch))(variables, batch)


def parted(shape: Any, latent: Array) -> Any:
    """Splits a latent f[B, L] of a hierarchical model into the latents of its levels, f[B, L_l].

    The latent of any other model is returned unchanged.

    Args:
      shape: `Bottleneck.shape`, the shape of one example's latent: (L,), or ((L1,), (L2,), ...).
      latent: f[B, L], the latents of a hierarchy's levels, concatenated.
    """
    if isinstance(shape[0], int):
        return latent
    ends = np.cumsum([size for (size,) in shape])[:-1]
    return tuple(jnp.split(latent, ends, axis=-1))


def decode(model: Any, variables: Variables, latent: Any, context: Any = None) -> np.ndarray:
    """Decodes latents [N, ...] and returns the means of the predictions, f[N, *event]."""

    def run(model: Any, latent: Any) -> Array:
        return model.mean(model.decode(model.lift(latent, context), context))

    return np.asarray(_jit(model, run)(variables, latent))


def interpolate(
    model: Any, variables: Variables, start: Batch, end: Batch, steps: int
) -> np.ndarray:
    """Decodes points on straight lines in latent space between the codes of two batches.

    Args:
      model: a model whose latent is a pytree of floats.
      variables: the variables of one model, without a leading axis of seeds.
      start: P examples, where the lines start.
      end: P examples of the same shapes, where the lines end.
      steps: the number of points on each line, including both ends.

    Returns:
      f[P, steps, *event]; the ends of each line are the reconstructions of its two examples.
    """

    def run(model: Any, pair: tuple[Batch, Batch]) -> Array:
        share = jnp.linspace(0.0, 1.0, steps)
        latent = _between(model.encode(pair[0]), model.encode(pair[1]), share)
        context = _between(pair[0].context, pair[1].context, share)
        mean = model.mean(model.decode(model.lift(latent, context), context))
        return mean.reshape((-1, steps, *mean.shape[1:]))

    return np.asarray(_jit(model, run)(variables, (start, end)))


def traverse(
    model: Any,
    variables: Variables,
    latent: np.ndarray,
    dimensions: Sequence[int] | np.ndarray,
    values: np.ndarray,
    context: Any = None,
) -> np.ndarray:
    """Decodes copies of one latent; in each copy, one dimension is set to another value.

    Args:
      model: a model with latents f32[B, L], or levels of such latents.
      variables: the variables of one model, without a leading axis of seeds.
      latent: f[L], the latent to start from; the levels of a hierarchy are concatenated.
      dimensions: the R dimensions to change.
      values: f[C], the same values for every dimension, or f[R, C], values for each dimension.
      context: the context of one example, leaves [1, ...], or None.

    Returns:
      f[R, C, *event], the decoded means.
    """
    rows, columns = len(dimensions), np.shape(values)[-1]
    moved = np.tile(np.asarray(latent, np.float32), (rows, columns, 1))
    moved[np.arange(rows)[:, None], np.arange(columns)[None], np.asarray(dimensions)[:, None]] = (
        np.broadcast_to(values, (rows, columns))
    )
    repeated = jax.tree.map(lambda a: jnp.repeat(a, rows * columns, axis=0), context)
    points = parted(model.bottleneck.shape, jnp.asarray(moved.reshape(rows * columns, -1)))
    flat = decode(model, variables, points, repeated)
    return flat.reshape(rows, columns, *flat.shape[1:])


def fitted_samples(
    model: Any, variables: Variables, codes: np.ndarray, key: Key, n: int, context: Any = None
) -> np.ndarray:
    """Draws n codes from a Gaussian fitted to `codes` f[N, L] and decodes them: f[n, *event].

    In this way an autoencoder without a prior can generate samples (Ghosh et al. 2020).
    """
    noise = np.asarray(jax.random.normal(key, (n, codes.shape[1])), np.float64)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(codes, rowvar=False)))
    # Rounding can make the zero eigenvalues of a singular covariance slightly negative.
    drawn = codes.mean(axis=0) + noise * np.sqrt(np.maximum(values, 0)) @ vectors.T
    return decode(model, variables, jnp.asarray(drawn, jnp.float32), context)


def generated(
    model: Any, variables: Variables, train: Split, key: Key, n: int, context: Any = None
) -> np.ndarray:
    """Draws n latents and returns the means that the decoder predicts from them, f[n, *event].

    The latents come from the prior or, if the model has none, from a Gaussian that is fitted to the
    codes of the training examples.
    """
    if model.prior is not None:
        return samples(model, variables, key, n, context)
    return fitted_samples(model, variables, encode(model, variables, train).mean, key, n, context)


def _between(start: Any, end: Any, share: Array) -> Any:
    """Interpolates linearly between two pytrees with leaves [P, ...]; returns leaves [P T, ...].

    Each of the P pairs gives T results, (1 - t) start + t end for each t in `share`, f[T]. Leaves
    that are not floats cannot be interpolated, so the values of `start` are repeated.
    """

    def mix(a: Array, b: Array) -> Array:
        t = share.reshape((1, -1) + (1,) * (a.ndim - 1))
        if jnp.issubdtype(a.dtype, jnp.floating):
            path = (1.0 - t) * a[:, None] + t * b[:, None]
        else:
            path = jnp.repeat(a[:, None], share.size, axis=1)
        return path.reshape((-1, *a.shape[1:]))

    return jax.tree.map(mix, start, end)


def _jit(model: Any, run: Any) -> Any:
    """Returns a compiled function (variables, argument) -> run(bound model, argument).

    The model is bound to the variables.
    """
    return jax.jit(lambda variables, value: model.apply(variables, value, method=run))
