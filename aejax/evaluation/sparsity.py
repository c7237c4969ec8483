"""What a sparse code explains, and with how many of its latents."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax.bottlenecks import SparseCode
from aejax.dictionaries.folding import check_member
from aejax.errors import UserError
from aejax.evaluation.fidelity import Fidelity, added, fidelity
from aejax.evaluation.parts import Data, Static, in_blocks, parts
from aejax.types import Array, Batch, Variables

# Examples that are computed together.


class Sparsity(NamedTuple):
    """The figures of a sparse code over N examples."""

    explained_variance: float  # 1 is perfect, 0 is predicting the mean
    l0: float  # active latents of an example, mean
    dead: float  # share of the latents that no example uses
    density: np.ndarray  # f64[m], share of the examples that use each latent
    examples: int  # N, without which `dead` says nothing
    fvu: float  # 1 - explained_variance, the fraction of variance unexplained
    cosine: float  # of target and prediction, mean
    l2_ratio: float  # ||x_hat|| / ||x||, mean
    relative_bias: float  # E||x_hat||^2 / E<x, x_hat>: below 1 where the reconstruction shrinks


class Variance(NamedTuple):
    """Sums for the explained variance, of the examples seen so far; all f64."""

    weight: np.ndarray  # [D], examples (or their mask) that count
    mean: np.ndarray  # [D], of the target
    total: np.ndarray  # [D], sum of (target - mean)^2
    residual: np.ndarray  # [D], sum of (target - prediction)^2

    def explained(self) -> float:
        """1 - sum ||x - x_hat||^2 / sum ||x - mean||^2; NaN where the target does not vary."""
        total = float(self.total.sum())
        return 1.0 - float(self.residual.sum()) / total if total > 0 else float("nan")


def sparsity(model: Any, variables: Variables, data: Data, *, batch: int = 500) -> Sparsity:
    """What a sparse autoencoder explains, how faithfully, and with which latents.

    Differences and sums are taken in float64 on the host, so that neither the size of the batch
    nor a large mean of the data shows in the figures.

    Args:
      model: whose code has `l0`.
      variables: of one member.
      data: N examples.
      batch: examples at a time.

    Raises:
      UserError: if the code is not sparse.
    """
    sums, alike, used, l0 = None, Fidelity(*[0.0] * 5), np.zeros((), np.int64), 0.0
    check_member(variables)
    for part in parts(data, batch):
        count = int(part.valid.sum())
        prediction, uses, active = _pass(Static(model), variables, part.batch, part.valid)
        chunk = _chunk(part.batch, prediction, count)
        seen = variance(*chunk)
        sums = seen if sums is None else merged(sums, seen)
        alike = added(alike, fidelity(*chunk))
        used = used + np.asarray(uses, np.int64)
        l0 += float(np.sum(np.asarray(active, np.float64)[:count]))
    assert sums is not None  # parts() raises where there are no examples
    examples, dead = len(data), float(np.mean(used == 0))
    return Sparsity(
        explained_variance=sums.explained(),
        l0=l0 / examples,
        dead=dead,
        density=used / examples,
        examples=examples,
        fvu=1.0 - sums.explained(),
        cosine=alike.mean_cosine(),
        l2_ratio=alike.l2_ratio(),
        relative_bias=alike.relative_bias(),
    )


def variance(
    target: np.ndarray, prediction: np.ndarray, mask: np.ndarray | None = None
) -> Variance:
    """The sums of one chunk, differences taken in float64.

    Args:
      target, prediction: [B, *event].
      mask: broadcasts to target, or None.
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
    """The sums of two chunks together (Chan et al. 1983): exact however large the mean is."""
    weight = a.weight + b.weight
    share = b.weight / np.where(weight > 0, weight, 1.0)
    apart = b.mean - a.mean
    total = a.total + b.total + np.square(apart) * a.weight * share
    return Variance(weight, a.mean + apart * share, total, a.residual + b.residual)


def _chunk(
    batch: Batch, prediction: Array, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Targets, predictions and mask of the first `count` examples, on the host."""
    mask = None if batch.mask is None else np.asarray(batch.mask)[:count]
    return np.asarray(batch.target)[:count], np.asarray(prediction)[:count], mask


@functools.partial(jax.jit, static_argnums=0)
def _pass(
    static: Static, variables: Variables, batch: Batch, valid: Array
) -> tuple[Array, Array, Array]:
    """Predictions f32[B, *event], uses of each latent i32[m] and l0 f32[B].

    Computed in blocks of one size whatever B is: at batch 7 and 4096 mean norms differed in the
    ninth digit.
    """
    count = valid.shape[0]

    def block(batch: Batch, valid: Array, within: Array) -> tuple[Array, Array, Array]:
        return _block(static.model.bind(variables), batch, valid & within)

    prediction, used, l0 = in_blocks(block, batch, valid)
    whole = prediction.reshape(-1, *prediction.shape[2:])
    return whole[:count], jnp.sum(used, axis=0), l0.reshape(-1)[:count]


def _block(bound: Any, batch: Batch, valid: Array) -> tuple[Array, Array, Array]:
    """The same for one block of ROWS examples."""
    forward = bound(batch)
    code = forward.code
    if not isinstance(code, SparseCode):
        raise UserError(
            f"a {type(code).__name__} has no l0, so it is no sparse code: evaluate it with "
            "reconstruction and active_units"
        )
    return bound.mean(forward.prediction), code.uses(valid), code.l0
