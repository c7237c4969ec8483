"""Feature absorption on the first-letter task (Chanin et al. 2024, as SAEBench measures it).

    found = absorption(x, letters, codes, plain.W_dec, train)
    found.full             # the share of test words whose letter is absorbed by another latent
    found.probe            # mean F1 of dense probes of the letters; if it is low, ignore `full`

A dictionary may have a latent for "starts with L" that is silent for some words with L, because a
latent of these words alone has absorbed its direction. The test finds the letter's main latents by
sparse probes, and looks for words at which none of them is active, while one other latent adds much
along the direction of a dense probe for the letter.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aejax.errors import UserError
from aejax.evaluation.logistic import logistic
from aejax.evaluation.probing import best_columns

# SAEBench's thresholds.
GAIN = 0.03  # the least gain in F1 for which another latent counts as a main latent of the letter
MOST = 10  # the most main latents of a letter
COSINE = 0.025  # the least cosine of an absorbing latent's decoder row with the probe
SHARE = 0.4  # the least share of the probe's projection that the absorbing latent carries
CLEAR = 0.6  # letters whose dense probe has a smaller F1 are left out
FEWEST = 10  # letters with fewer test words are left out


class Absorption(NamedTuple):
    """How often the latents of C letters are absorbed, and how well dense probes read letters."""

    full: float  # the mean over the letters of the share of absorbed words
    each: np.ndarray  # f64[C], the share of a letter's words that are absorbed
    letters: np.ndarray  # i64[C], the letters that are measured
    main: tuple[np.ndarray, ...]  # for each letter the indices of its main latents
    probe: float  # the mean F1 of the dense probes of all letters with enough words
    latents: float  # the mean F1 of the sparse probes, which read a letter's main latents alone
    words: int  # the number of test words of the measured letters


def absorption(
    x: np.ndarray,
    letters: np.ndarray,
    codes: np.ndarray,
    rows: np.ndarray,
    train: np.ndarray,
    fewest: int = FEWEST,
) -> Absorption:
    """Measures how often the latents of a first letter are absorbed by other latents.

    A test word is absorbed if the dense probe recognises its letter, all main latents of the letter
    are silent, and one other latent explains this: of all latents it adds most to the projection of
    the activation on the probe, namely at least 0.4 of it, and the cosine of its decoder row with
    the probe is at least 0.025.

    Args:
      x: f[N, D], the activations at the last token of each word.
      letters: i[N], the first letter of each word, from 0.
      codes: f[N, m], the latents of the same activations.
      rows: f[m, D], the decoder's rows.
      train: bool[N], whether the probes are fitted on a word; the others are the test words.
      fewest: letters with fewer words in train or test are left out.

    Raises:
      UserError: if the shapes do not fit, or no letter has enough words.
    """
    x, codes, rows = (np.asarray(a, np.float64) for a in (x, codes, rows))
    letters, train = np.asarray(letters, np.int64), np.asarray(train, bool)
    n = len(x)
    if (len(letters), len(codes), len(train)) != (n, n, n) or rows.shape != (
        codes.shape[1],
        x.shape[1],
    ):
        raise UserError(
            f"activations {x.shape}, letters {letters.shape}, latents {codes.shape} and decoder "
            f"rows {rows.shape} do not belong together: give [N, D], [N], [N, m] and [m, D]"
        )
    scores: list[float] = []
    measured = []
    for letter in range(int(letters.max(initial=-1)) + 1):
        y = letters == letter
        if min((y & train).sum(), (y & ~train).sum()) < fewest:
            continue
        fit = logistic(x[train], y[train])
        score = fit.score(x) > 0
        scores.append(f1(score[~train], y[~train]))
        if scores[-1] < CLEAR:
            continue
        main = _main(codes, y, train)
        few = logistic(codes[train][:, main], y[train]).score(codes[~train][:, main]) > 0
        tested = y & ~train
        unit = fit.weights / max(np.linalg.norm(fit.weights), 1e-30)
        full = absorbed(x[tested], codes[tested], rows, unit, main) & score[tested]
        measured.append((letter, main, full, f1(few, y[~train])))
    if not scores:
        raise UserError(f"no letter has {fewest} words in train and in test: give more words")
    each = np.array([full.mean() for _, _, full, _ in measured])
    return Absorption(
        float(each.mean()) if len(each) else float("nan"),
        each,
        np.array([letter for letter, *_ in measured], np.int64),
        tuple(main for _, main, _, _ in measured),
        float(np.mean(scores)),
        float(np.mean([score for *_, score in measured])) if measured else float("nan"),
        sum(len(full) for _, _, full, _ in measured),
    )


def absorbed(
    x: np.ndarray, codes: np.ndarray, rows: np.ndarray, unit: np.ndarray, main: np.ndarray
) -> np.ndarray:
    """Returns for each word whether one other latent absorbed its letter's main latents, bool[n].

    The main latents must be silent, and the latent that adds most along the probe's direction must
    fulfil the conditions that `absorption` states.

    Args:
      x: f64[n, D], the activations.
      codes: f64[n, m], their latents.
      rows: f64[m, D], the decoder's rows.
      unit: f64[D], the direction of the dense probe, of norm 1.
      main: i64[k], the indices of the main latents.
    """
    along = rows @ unit
    cosine = along / np.maximum(np.linalg.norm(rows, axis=1), 1e-30)
    added = codes * along[None]
    strongest = added.argmax(axis=1)
    projection = x @ unit
    silent = (codes[:, main] == 0).all(axis=1)
    carried = added[np.arange(len(x)), strongest] >= SHARE * projection
    return silent & (cosine[strongest] >= COSINE) & (projection > 0) & carried


def _main(codes: np.ndarray, y: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Returns the indices of the latents that together predict whether a word has the letter.

    The best single latent is taken first. The next best are added one by one, as long as each of
    them raises by at least GAIN the F1 of a logistic regression of the latents.

    Args:
      codes: f64[N, m], the latents of all words.
      y: bool[N], whether each word has the letter.
      train: bool[N], whether the regression is fitted on a word.
    """
    fitted = codes[train]
    order = best_columns(fitted, y[train], min(MOST, codes.shape[1]))
    best = f1(logistic(fitted[:, order[:1]], y[train]).score(fitted[:, order[:1]]) > 0, y[train])
    for k in range(2, len(order) + 1):
        some = fitted[:, order[:k]]
        new = f1(logistic(some, y[train]).score(some) > 0, y[train])
        if new < best + GAIN:
            return order[: k - 1]
        best = new
    return order


def f1(found: np.ndarray, truth: np.ndarray) -> float:
    """Returns the harmonic mean of precision and recall of bool[n]; 0 if both arrays are False."""
    both = np.sum(found & truth)
    return float(2.0 * both / max(np.sum(found) + np.sum(truth), 1))
