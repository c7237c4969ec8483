"""Measures whether a dictionary has found the known features of synthetic data.

pairs = matched(atoms, truth.dictionary)              # pairs latents and features one to one
mcc(pairs)                                            # mean |cos| of the pairs
found = detection(zip(chunks_of_codes, chunks_of_features), pairs)
found.f1.mean()                                       # F1 of the latents as detectors
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from aejax.dictionaries.folding import check_member, raw_atoms
from aejax.errors import UserError
from aejax.evaluation.batches import Data, Static, full_batches, in_blocks
from aejax.evaluation.sparsity import tokens
from aejax.types import Array, Batch, Variables


class Pairs(NamedTuple):
    """Pairs of a latent and the feature with which it is compared."""

    latents: np.ndarray  # i64[P], the indices of the latents in the dictionary
    features: np.ndarray  # i64[P], the indices of the features in the truth
    cosine: np.ndarray  # f64[P], the signed cosine of the two directions


class Detection(NamedTuple):
    """For each pair, how well the activity of the latent predicts the activity of its feature."""

    # f64[P], the share of the latent's active tokens at which the feature is active too.
    precision: np.ndarray
    # f64[P], the share of the feature's active tokens at which the latent is active too.
    recall: np.ndarray
    f1: np.ndarray  # f64[P], the harmonic mean of precision and recall
    examples: int  # N, the number of tokens


class Recovery(NamedTuple):
    """Scores of how well a dictionary has found the true features."""

    mcc: float  # mean |cosine| over a one-to-one matching
    mmcs: float  # mean over the features of the largest cosine with any latent
    unique: float  # number of features that are nearest to some latent / number of latents
    precision: float  # mean precision over the matched pairs
    recall: float  # mean recall over the matched pairs
    f1: float  # mean F1 over the matched pairs
    examples: int  # N, the number of tokens


def cosines(dictionary: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns all cosines between two sets of directions.

    Args:
      dictionary: f[m, d], one latent per row.
      truth: f[G, d], one feature per row.

    Returns:
      f64[m, G]; the cosine with a row of norm 0, which has no direction, is 0.

    Raises:
      UserError: if the arrays are empty or not matrices, or their rows differ in length.
    """
    a, b = np.asarray(dictionary, np.float64), np.asarray(truth, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not a.size or not b.size:
        raise UserError(
            f"the dictionary has shape {a.shape} and the true directions {b.shape}: give [m, d] "
            "and [G, d]"
        )
    return _unit(a) @ _unit(b).T


def matched(dictionary: np.ndarray, truth: np.ndarray) -> Pairs:
    """Matches latents with features one to one, so that the sum of |cosine| is largest.

    Args:
      dictionary: f[m, d], one latent per row.
      truth: f[G, d], one feature per row.

    Returns:
      P = min(m, G) pairs in the order of the latents; the other latents or features are left out.
    """
    from scipy.optimize import linear_sum_assignment

    cosine = cosines(dictionary, truth)
    rows, columns = linear_sum_assignment(np.abs(cosine), maximize=True)
    return Pairs(rows, columns, cosine[rows, columns])


def nearest(dictionary: np.ndarray, truth: np.ndarray) -> Pairs:
    """Pairs each latent with the feature of largest |cosine|; a feature may have several latents.

    SynthSAEBench computes precision, recall and F1 of these P = m pairs, but `recovery` computes
    them of the pairs of `matched`.
    """
    cosine = cosines(dictionary, truth)
    features = np.argmax(np.abs(cosine), axis=1)
    rows = np.arange(len(cosine))
    return Pairs(rows, features, cosine[rows, features])


def mcc(pairs: Pairs) -> float:
    """Returns the mean correlation coefficient: the mean |cosine| of pairs (arXiv 2505.20254)."""
    return float(np.mean(np.abs(pairs.cosine)))


def mmcs(dictionary: np.ndarray, truth: np.ndarray) -> float:
    """Returns the mean maximum cosine similarity (MMCS) of Sharkey et al. 2022.

    It is the mean over the features of the largest signed cosine with any latent.
    """
    return float(np.mean(np.max(cosines(dictionary, truth), axis=0)))


def detection(chunks: Iterable[tuple[np.ndarray, np.ndarray]], pairs: Pairs) -> Detection:
    """Computes precision, recall and F1 of latents as detectors of their features.

    A ratio with a zero denominator, such as the precision of a dead latent, is set to 0. The counts
    are integers, so the result does not depend on how the tokens are divided into chunks.

    Args:
      chunks: for each chunk, a group of n tokens, their codes f[n, m] (a latent is active if it is
        not zero) and their features f[n, G] (a feature is active if it is above zero).
      pairs: the pairs of latents and features.

    Raises:
      UserError: if there is no chunk, or if a chunk has different numbers of codes and features.
    """
    both, fired, present = (np.zeros(len(pairs.latents), np.int64) for _ in range(3))
    examples = 0
    for codes, features in chunks:
        if len(codes) != len(features):
            raise UserError(
                f"a chunk has the codes of {len(codes)} tokens but the features of "
                f"{len(features)}: give the codes and features of the same tokens"
            )
        on = np.asarray(codes)[:, pairs.latents] != 0
        real = np.asarray(features)[:, pairs.features] > 0
        both += np.sum(on & real, axis=0)
        fired += np.sum(on, axis=0)
        present += np.sum(real, axis=0)
        examples += len(codes)
    if examples == 0:
        raise UserError("there are no tokens to evaluate: give one chunk of tokens or more")
    share = both / np.maximum(fired, 1), both / np.maximum(present, 1)
    return Detection(*share, 2.0 * both / np.maximum(fired + present, 1), examples)


def recovery(
    model: Any,
    variables: Variables,
    data: Any,
    truth: np.ndarray,
    features: Callable[[int, int], np.ndarray] | np.ndarray,
    *,
    dictionary: np.ndarray | None = None,
    batch: int = 500,
) -> Recovery:
    """Computes MCC, MMCS and detection scores of a sparse autoencoder on synthetic data.

    Args:
      model: a sparse autoencoder.
      variables: the variables of one model, without a leading axis of seeds.
      data: N tokens: a split, an array f[N, d] or f[B, T, d], or a Batch.
      truth: f[G, d], the directions of the features.
      features: the features of the tokens, f[N, G] or f[B, T, G]; or a function (start, stop) ->
        f[stop - start, G] that returns the features of tokens start to stop - 1.
      dictionary: f[m, d], the directions to compare with the truth; None: the decoder's atoms, in
        the units of the data.
      batch: the number of tokens at a time.

    Raises:
      UserError: if the variables have a leading axis of seeds, the model has no dictionary, or the
        number of tokens or of features is not the same in all arguments.
    """
    check_member(variables)
    known, data = _features(features, len(truth)), tokens(data, model, variables)
    atoms = raw_atoms(variables) if dictionary is None else np.asarray(dictionary)
    pairs = matched(atoms, truth)
    found = detection(_chunks(model, variables, data, known, batch), pairs)
    return Recovery(
        mcc=mcc(pairs),
        mmcs=mmcs(atoms, truth),
        unique=len(np.unique(nearest(atoms, truth).features)) / len(atoms),
        precision=float(np.mean(found.precision)),
        recall=float(np.mean(found.recall)),
        f1=float(np.mean(found.f1)),
        examples=found.examples,
    )


def _features(features: Any, count: int) -> Callable[[int, int], np.ndarray]:
    """Returns a function (start, stop) -> the features of tokens start to stop - 1, f[n, G].

    Args:
      features: the features of all tokens, f[N, G] or f[B, T, G], or such a function already.
      count: G, the number of true directions; the function raises UserError for another number of
        features.
    """

    def rows(start: int, stop: int) -> np.ndarray:
        if callable(features):
            found = np.asarray(features(start, stop))
        else:
            found = np.reshape(features, (-1, np.shape(features)[-1]))[start:stop]
        if found.shape[-1] != count:
            raise UserError(
                f"the features of a token are {found.shape[-1]}, but there are {count} true "
                "directions: give one column of features for each direction"
            )
        return found

    return rows


def _chunks(
    model: Any, variables: Variables, data: Data, features: Callable, batch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    start = 0
    for full in full_batches(data, batch):
        stop = start + int(full.valid.sum())
        codes = np.asarray(_codes(Static(model), variables, full.batch))
        yield codes[: stop - start], features(start, stop)
        start = stop


@functools.partial(jax.jit, static_argnums=0)
def _codes(static: Static, variables: Variables, batch: Batch) -> Array:
    """Returns the sparse codes of a batch without noise, as a dense array f32[B, m]."""

    def block(batch: Batch, within: Array) -> Array:
        return static.model.apply(variables, batch, method="posterior").dense()

    codes = in_blocks(block, batch)
    return codes.reshape(-1, codes.shape[-1])[: batch.x.shape[0]]


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0)
