"""What a model makes of examples and codes: reconstructions, samples, paths, traversals.

All are pure functions of (model, variables, data or key) that return arrays. `variables` are those
of one member, without a leading S: `member(variables, 0)` takes it out.
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

SIZE = 500  # examples that go through the model together


class Latents(NamedTuple):
    """The codes of some examples, without noise."""

    mean: np.ndarray  # f[N, L]
    activity: np.ndarray  # f[L]: KL per dimension in nats, or the variance of the mean over N
    nats: bool  # whether the activity is a KL
    labels: np.ndarray | None  # i[N]


def member(variables: Variables, i: int) -> Variables:
    """Member i of variables whose leaves lead with S."""
    return jax.tree.map(lambda leaf: leaf[i], variables)


def reconstruct(model: Any, variables: Variables, batch: Batch) -> np.ndarray:
    """What the model makes of x without noise: f[B, *event]."""

    def run(model: Any, batch: Batch) -> Array:
        return model.mean(model(batch, None).prediction)

    return np.asarray(_jit(model, run)(variables, batch))


def samples(model: Any, variables: Variables, key: Key, n: int, context: Any = None) -> np.ndarray:
    """The means of n draws from the prior, f[n, *event]; reads neither encoder nor bottleneck.

    Raises:
      UserError: if the model has no prior.
    """

    def run(model: Any, key: Key) -> Array:
        return model.mean(model.sample(key, n, context))

    return np.asarray(_jit(model, run)(variables, key))


def encode(model: Any, variables: Variables, split: Split, n: int = 5000) -> Latents:
    """Codes of the first n examples, and how much each dimension of the code carries.

    Args:
      model: its codes must be f32[B, L], or levels of such, which stand side by side.
      variables: of one member.
      split: where the examples come from.
      n: how many of them at most.

    Returns:
      Latents; the activity is the mean KL from the prior where that has a closed form.
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
    """The codes of a batch without noise: f[B, L], or a pytree of leaves [B, ...]."""
    return _jit(model, lambda model, batch: model.encode(batch))(variables, batch)


def parted(shape: Any, latent: Array) -> Any:
    """A latent f[B, L] of a bottleneck's shape: itself, or its levels."""
    if isinstance(shape[0], int):
        return latent
    ends = np.cumsum([size for (size,) in shape])[:-1]
    return tuple(jnp.split(latent, ends, axis=-1))


def decode(model: Any, variables: Variables, latent: Any, context: Any = None) -> np.ndarray:
    """The means that the decoder gives to latents: [N, ...] -> f[N, *event]."""

    def run(model: Any, latent: Any) -> Array:
        return model.mean(model.decode(model.lift(latent, context), context))

    return np.asarray(_jit(model, run)(variables, latent))


def interpolate(
    model: Any, variables: Variables, start: Batch, end: Batch, steps: int
) -> np.ndarray:
    """Straight lines in latent space from the codes of `start` to those of `end`, decoded.

    Args:
      model: any whose latent is a pytree of floats.
      variables: of one member.
      start: P examples.
      end: P examples, of the same shapes.
      steps: points of a line, both ends among them.

    Returns:
      f[P, steps, *event]; the ends are the reconstructions of the two examples.
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
    """Sets one latent at a time to each of some values, the others stay.

    Args:
      model: its latents must be f32[B, L], or levels of such.
      variables: of one member.
      latent: f[L], where to start; the levels of a hierarchy side by side.
      dimensions: R latents.
      values: f[C], or f[R, C] with values of each latent.
      context: of one example, leaves [1, ...], or None.

    Returns:
      f[R, C, *event].
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

    What a plain autoencoder, which has no prior, can offer as samples (Ghosh et al. 2020).
    """
    noise = np.asarray(jax.random.normal(key, (n, codes.shape[1])), np.float64)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(codes, rowvar=False)))
    # Round-off makes the eigenvalues of a singular covariance a little negative.
    drawn = codes.mean(axis=0) + noise * np.sqrt(np.maximum(values, 0)) @ vectors.T
    return decode(model, variables, jnp.asarray(drawn, jnp.float32), context)


def generated(
    model: Any, variables: Variables, train: Split, key: Key, n: int, context: Any = None
) -> np.ndarray:
    """n samples f[n, *event], from the prior or else from a Gaussian fitted to training codes."""
    if model.prior is not None:
        return samples(model, variables, key, n, context)
    return fitted_samples(model, variables, encode(model, variables, train).mean, key, n, context)


def _between(start: Any, end: Any, share: Array) -> Any:
    """(1 - t) start + t end for each t of f[T]: leaves [P, ...] -> [P T, ...].

    Leaves that are no floats stay those of the start.
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
    """run(bound model, argument) as a compiled function of (variables, argument)."""
    return jax.jit(lambda variables, value: model.apply(variables, value, method=run))
