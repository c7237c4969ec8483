"""How well a sparse code reconstructs the data, and with how many latents."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax.bottlenecks import SparseCode
from aejax.data.fixed import Data, as_data
from aejax.dictionaries.folding import check_member, input_size
from aejax.errors import UserError
from aejax.evaluation.batches import Static, full_batches, in_blocks
from aejax.evaluation.fidelity import Fidelity, added, fidelity
from aejax.types import Array, Batch, Variables


class Sparsity(NamedTuple):
    """The results of evaluating a sparse code on N examples."""

    explained_variance: float  # 1 is perfect, 0 is predicting the mean
    l0: float  # mean number of active latents per example
    dead: float  # share of the latents that are active for no example
    frequency: np.ndarray  # f64[m], the share of examples for which each latent is active
    examples: int  # N; with more examples, fewer latents are dead
    fvu: float  # 1 - explained_variance, the fraction of variance unexplained
    cosine: float  # mean cosine of target and prediction
    l2_ratio: float  # mean ||x_hat|| / ||x||
    relative_bias: float  # E||x_hat||^2 / E<x, x_hat>: below 1 if reconstructions are too short
    # f64[layers], the FVU of each layer if a target has shape [layers, size], as for a crosscoder;
    # else None. The FVU of all layers together hardly depends on layers with small norms.
    fvu_layers: np.ndarray | None = None


class Variance(NamedTuple):
    """Statistics of a set of examples, from which the explained variance is computed."""

    weight: np.ndarray  # f64[D], the number of examples, or the sum of their masks
    mean: np.ndarray  # f64[D], the mean of the target
    total: np.ndarray  # f64[D], the sum of (target - mean)^2
    residual: np.ndarray  # f64[D], the sum of (target - prediction)^2

    def explained(self) -> float:
        """Returns 1 - sum ||x - x_hat||^2 / sum ||x - mean||^2; NaN if the target is constant."""
        total = float(self.total.sum())
        return 1.0 - float(self.residual.sum()) / total if total > 0 else float("nan")

    def unexplained(self, layers: int) -> np.ndarray:
        """Returns the FVU of each layer, f64[layers], for targets [layers, size], flattened."""
        parts = (np.reshape(sums, (layers, -1)).sum(axis=1) for sums in (self.residual, self.total))
        residual, total = parts
        return np.where(total > 0, residual / np.where(total > 0, total, 1.0), np.nan)


def sparsity(model: Any, variables: Variables, data: Any, *, batch: int = 500) -> Sparsity:
    """Computes explained variance, L0, dead latents and other measures of a sparse autoencoder.

    Differences and sums are computed in float64 on the host, so that the results depend neither on
    the batch size nor, by cancellation, on a large mean of the data.

    Args:
      model: a model whose code is a SparseCode.
      variables: the variables of one model, without a leading axis of seeds.
      data: N examples: a split; an array f[N, d] or f[B, T, d]; or a Batch, which is needed if the
        target differs from the input or the model has a context.
      batch: the number of examples at a time.

    Raises:
      UserError: if the code is not sparse, the variables have a leading axis of seeds, or the size
        of an example is not the input size of the model.
    """
    sums, alike, used, l0 = None, Fidelity(*[0.0] * 5), np.zeros((), np.int64), 0.0
    check_member(variables)
    examples, event = 0, ()
    for full in full_batches(tokens(data, model, variables), batch):
        count = int(full.valid.sum())
        examples, event = examples + count, full.batch.target.shape[1:]
        prediction, uses, active = _pass(Static(model), variables, full.batch, full.valid)
        chunk = _chunk(full.batch, prediction, count)
        seen = variance(*chunk)
        sums = seen if sums is None else merged(sums, seen)
        alike = added(alike, fidelity(*chunk))
        used = used + np.asarray(uses, np.int64)
        l0 += float(np.sum(np.asarray(active, np.float64)[:count]))
    assert sums is not None  # full_batches() raises if there are no examples
    dead = float(np.mean(used == 0))
    return Sparsity(
        explained_variance=sums.explained(),
        l0=l0 / examples,
        dead=dead,
        frequency=used / examples,
        examples=examples,
        fvu=1.0 - sums.explained(),
        cosine=alike.mean_cosine(),
        l2_ratio=alike.l2_ratio(),
        relative_bias=alike.relative_bias(),
        fvu_layers=sums.unexplained(event[0]) if len(event) == 2 else None,
    )


def tokens(data: Any, model: Any, variables: Variables) -> Data:
    """Returns data as examples of the model's input size; each vector of an array is one example.

    Args:
      data: a split, an array f[N, d] or f[B, T, d], or a Batch.
      model: the sparse autoencoder that is evaluated on the examples.
      variables: the variables of the model, whose encoder kernel determines the input size.
    """
    shape = getattr(model.decoder, "shape", None)
    event = tuple(shape) if isinstance(shape, Sequence) else None
    return as_data(data, input_size(variables), event)


def variance(
    target: np.ndarray, prediction: np.ndarray, mask: np.ndarray | None = None
) -> Variance:
    """Computes the statistics of B examples, in float64, from which explained variance follows.

    Args:
      target: [B, *event], the values to reconstruct.
      prediction: [B, *event], their reconstructions.
      mask: weights that broadcast to target, 0 for missing elements; or None.
    """
    flat = (len(target), -1)
    x = np.asarray(target, np.float64).reshape(flat)
    error = x - np.asarray(prediction, np.float64).reshape(flat)
    w = np.ones_like(x)
    if mask is not None:
        w = np.broadcast_to(np.asarray(mask, np.float64), target.shape).reshape(flat)
    weight = w.sum(axis=0)
    mean = (w * x).sum(axis=0) / np.where(weight > 0, weight, 1.0)
    total = (w * np.square(x - mean)).sum(axis=0)
    return Variance(weight, mean, total, (w * np.square(error)).sum(axis=0))


def merged(a: Variance, b: Variance) -> Variance:
    """Combines the statistics of two sets of examples (Chan et al. 1983).

    The result is accurate even if the mean is large.
    """
    weight = a.weight + b.weight
    share = b.weight / np.where(weight > 0, weight, 1.0)
    apart = b.mean - a.mean
    total = a.total + b.total + np.square(apart) * a.weight * share
    return Variance(weight, a.mean + apart * share, total, a.residual + b.residual)


def _chunk(
    batch: Batch, prediction: Array, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Returns targets, predictions and mask of the first `count` examples, on the host."""
    mask = None if batch.mask is None else np.asarray(batch.mask)[:count]
    return np.asarray(batch.target)[:count], np.asarray(prediction)[:count], mask


@functools.partial(jax.jit, static_argnums=0)
def _pass(
    static: Static, variables: Variables, batch: Batch, valid: Array
) -> tuple[Array, Array, Array]:
    """Runs a model on a batch.

    It runs on blocks of equal size, so that the results do not depend on B. Without blocks, mean
    norms of batches of 7 and of 4096 differed in the ninth digit.

    Returns:
      The reconstructions f32[B, *event], the number of valid examples in which each latent is
      active, i32[m], and L0, f32[B].
    """
    count = valid.shape[0]

    def block(batch: Batch, valid: Array, within: Array) -> tuple[Array, Array, Array]:
        return _block(static.model.bind(variables), batch, valid & within)

    prediction, used, l0 = in_blocks(block, batch, valid)
    whole = prediction.reshape(-1, *prediction.shape[2:])
    return whole[:count], jnp.sum(used, axis=0), l0.reshape(-1)[:count]


def _block(bound: Any, batch: Batch, valid: Array) -> tuple[Array, Array, Array]:
    """Returns what `_pass` returns, for one block of ROWS examples."""
    forward = bound(batch)
    code = forward.code
    if not isinstance(code, SparseCode):
        raise UserError(
            f"a {type(code).__name__} has no l0, so it is not a sparse code: evaluate this model "
            "with evaluation.reconstruction and evaluation.active_units"
        )
    return bound.mean(forward.prediction), code.uses(valid), code.l0
