"""Whether a dictionary has found the features that synthetic data is made of.

pairs = matched(atoms, truth.dictionary)              # one latent a feature, Hungarian
mcc(pairs)                                            # mean |cos| of the pairs
found = detection(zip(chunks_of_codes, chunks_of_features), pairs)
found.f1.mean()                                       # of the latents as detectors
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from aejax.dictionaries.folding import check_member, raw_atoms
from aejax.errors import UserError
from aejax.evaluation.parts import Data, Static, in_blocks, parts
from aejax.types import Array, Batch, Variables


class Pairs(NamedTuple):
    """Latents beside the features that they are compared with."""

    latents: np.ndarray  # i64[P], rows of the dictionary
    features: np.ndarray  # i64[P], rows of the truth
    cosine: np.ndarray  # f64[P], of the two directions, with its sign


class Detection(NamedTuple):
    """How well a latent's being active tells that its feature is, for each pair."""

    precision: np.ndarray  # f64[P], share of a latent's activations that are its feature's
    recall: np.ndarray  # f64[P], share of a feature's activations that its latent answers to
    f1: np.ndarray  # f64[P], their harmonic mean
    examples: int  # N


class Recovery(NamedTuple):
    """How much of the truth a dictionary has found."""

    mcc: float  # mean |cosine| over a one-to-one matching
    mmcs: float  # mean over the features of the largest cosine of any latent
    unique: float  # features that are the nearest of some latent, over the latents
    precision: float  # these three are means over the matched pairs
    recall: float
    f1: float
    examples: int


def cosines(dictionary: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """All cosines between two sets of directions.

    Args:
      dictionary: f[m, d], a latent a row.
      truth: f[G, d], a feature a row.

    Returns:
      f64[m, G]; 0 for a row of norm 0, which points nowhere.

    Raises:
      UserError: shapes that do not belong together.
    """
    a, b = np.asarray(dictionary, np.float64), np.asarray(truth, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not a.size or not b.size:
        raise UserError(f"a dictionary {a.shape} and a truth {b.shape}: give [m, d] and [G, d]")
    return _unit(a) @ _unit(b).T


def matched(dictionary: np.ndarray, truth: np.ndarray) -> Pairs:
    """The one-to-one matching with the largest sum of |cosine| (Hungarian algorithm).

    Args:
      dictionary: f[m, d].
      truth: f[G, d].

    Returns:
      Pairs, P = min(m, G), in the order of the latents; the rest of the larger set is left out.
    """
    from scipy.optimize import linear_sum_assignment

    cosine = cosines(dictionary, truth)
    rows, columns = linear_sum_assignment(np.abs(cosine), maximize=True)
    return Pairs(rows, columns, cosine[rows, columns])


def nearest(dictionary: np.ndarray, truth: np.ndarray) -> Pairs:
    """The feature with the largest |cosine| for every latent, P = m; one may stand often.

    SynthSAEBench measures precision, recall and F1 on these pairs.
    """
    cosine = cosines(dictionary, truth)
    features = np.argmax(np.abs(cosine), axis=1)
    rows = np.arange(len(cosine))
    return Pairs(rows, features, cosine[rows, features])


def mcc(pairs: Pairs) -> float:
    """Mean correlation coefficient: the mean |cosine| of matched pairs (arXiv 2505.20254)."""
    return float(np.mean(np.abs(pairs.cosine)))


def mmcs(dictionary: np.ndarray, truth: np.ndarray) -> float:
    """Mean over the features of the largest cosine, with its sign (Sharkey et al. 2022)."""
    return float(np.mean(np.max(cosines(dictionary, truth), axis=0)))


def detection(chunks: Iterable[tuple[np.ndarray, np.ndarray]], pairs: Pairs) -> Detection:
    """Precision, recall and F1 of latents as detectors of their features.

    A figure without a case is 0: the precision of a latent that is never active, for one. Counts
    are whole numbers, so chunks of any size give the same figures.

    Args:
      chunks: pairs of codes f[n, m] (active where not zero) and features f[n, G] (active where
        above zero) of the same tokens.
      pairs: which latent is to tell which feature.

    Raises:
      UserError: no chunk, or codes and features of different tokens.
    """
    both, told, there = (np.zeros(len(pairs.latents), np.int64) for _ in range(3))
    examples = 0
    for codes, features in chunks:
        if len(codes) != len(features):
            raise UserError(f"codes of {len(codes)} tokens, features of {len(features)}")
        on = np.asarray(codes)[:, pairs.latents] != 0
        real = np.asarray(features)[:, pairs.features] > 0
        both += np.sum(on & real, axis=0)
        told += np.sum(on, axis=0)
        there += np.sum(real, axis=0)
        examples += len(codes)
    if examples == 0:
        raise UserError("there are no tokens to detect features in: give one chunk or more")
    share = both / np.maximum(told, 1), both / np.maximum(there, 1)
    return Detection(*share, 2.0 * both / np.maximum(told + there, 1), examples)


def recovery(
    model: Any,
    variables: Variables,
    data: Data,
    truth: np.ndarray,
    features: Callable[[int, int], np.ndarray],
    *,
    dictionary: np.ndarray | None = None,
    batch: int = 500,
) -> Recovery:
    """MCC, MMCS and the detection figures of a sparse autoencoder on synthetic data.

    Args:
      model: a sparse autoencoder.
      variables: of one member.
      data: N tokens.
      truth: f[G, d], the features' directions.
      features: (start, stop) -> f[stop - start, G], the features of data's tokens.
      dictionary: f[m, d]; by default the decoder's atoms in the data's units.
      batch: tokens at a time.

    Raises:
      UserError: variables of several members, or no dictionary.
    """
    check_member(variables)
    atoms = raw_atoms(variables) if dictionary is None else np.asarray(dictionary)
    pairs = matched(atoms, truth)
    found = detection(_chunks(model, variables, data, features, batch), pairs)
    return Recovery(
        mcc=mcc(pairs),
        mmcs=mmcs(atoms, truth),
        unique=len(np.unique(nearest(atoms, truth).features)) / len(atoms),
        precision=float(np.mean(found.precision)),
        recall=float(np.mean(found.recall)),
        f1=float(np.mean(found.f1)),
        examples=found.examples,
    )


def _chunks(
    model: Any, variables: Variables, data: Data, features: Callable, batch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    start = 0
    for part in parts(data, batch):
        stop = start + int(part.valid.sum())
        codes = np.asarray(_codes(Static(model), variables, part.batch))
        yield codes[: stop - start], features(start, stop)
        start = stop


@functools.partial(jax.jit, static_argnums=0)
def _codes(static: Static, variables: Variables, batch: Batch) -> Array:
    """The codes without noise, f32[B, m]."""

    def block(batch: Batch, within: Array) -> Array:
        return static.model.apply(variables, batch, method="posterior").dense()

    codes = in_blocks(block, batch)
    return codes.reshape(-1, codes.shape[-1])[: batch.x.shape[0]]


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0)
