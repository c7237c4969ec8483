"""Describes each latent of a dictionary by its contexts, its histogram and its neighbours.

found = profiles(active, sentence_place, rows)
found[17].contexts[0].token            # the token at which latent 17 is most active
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aejax.errors import UserError
from aejax.evaluation.features import cosines
from aejax.evaluation.firings import Firings

TOP = 6  # the number of contexts at the largest activations
BANDS = (0.9, 0.7, 0.5, 0.3, 0.1)  # quantiles of a latent's activations near which it is shown too
EACH = 2  # the number of contexts near each of these quantiles
BINS = 20  # the number of bins of the histogram of activations, from 0 to their maximum
NEAR = 6  # the number of nearest latents, and of co-active latents, in a profile
PLACES = 12  # the number of places in a sentence that are counted; the last is for all later ones
COUNTED = 20_000  # the number of tokens from which co-activity is computed


class Context(NamedTuple):
    """One token at which a latent is active."""

    token: int  # the index of the token
    value: float  # the latent's activation
    band: float  # the quantile of the latent's activations near which it was drawn; 1.0: the top


class Profile(NamedTuple):
    """Statistics of one latent, computed from the tokens at which it is active."""

    frequency: float  # the share of the tokens at which it is active
    most: float  # its largest activation
    histogram: np.ndarray  # i64[BINS], activations from 0 to `most`
    places: np.ndarray  # i64[PLACES], how often it is active at each place in a sentence
    contexts: tuple[Context, ...]  # the largest activations, then those of lower quantiles
    near: tuple[tuple[int, float], ...]  # the latents with the nearest decoder rows, and cosines
    together: tuple[tuple[int, float], ...]  # the most co-active latents, and phi coefficients


def profiles(
    active: Firings, place: np.ndarray, rows: np.ndarray | None, spread: int = 8, seed: int = 0
) -> list[Profile]:
    """Describes each latent by tokens at which it is active and by related latents; see `Profile`.

    Args:
      active: the nonzero activations of the latents.
      place: i[N], the place of each token in its sentence, from 0; -1 if it has none.
      rows: f[m, D], the decoder's rows, which determine the nearest latents; None: the profiles
        have no nearest latents.
      spread: the least distance, in tokens, between two contexts that are drawn near the same
        quantile of a latent's activations.
      seed: the seed with which contexts near the quantiles of BANDS are drawn; the contexts with
        the largest activations are not drawn at random.

    Raises:
      UserError: if `place` does not have one entry for each token, or `rows` one row for each
        latent.
    """
    if np.shape(place) != (active.tokens,) or (rows is not None and len(rows) != active.latents):
        given = "" if rows is None else f", and rows has {len(rows)} decoder rows"
        raise UserError(
            f"there are activations of {active.latents} latents on {active.tokens} tokens, but "
            f"place, the place of each token in its sentence, has shape {np.shape(place)}{given}: "
            "give one place for each token and one row for each latent"
        )
    near = nearest_rows(rows) if rows is not None else [()] * active.latents
    together = coactive(active)
    bounded = np.minimum(place, PLACES - 1)
    found = []
    for latent in range(active.latents):
        token, value = active.of(latent)
        most = float(value.max(initial=0.0))
        there = bounded[token]
        found.append(
            Profile(
                float(len(token) / active.tokens),
                most,
                np.histogram(value, BINS, (0.0, most or 1.0))[0],
                np.bincount(there[there >= 0], minlength=PLACES),
                contexts(token, value, spread, np.random.default_rng([seed, latent])),
                near[latent],
                together[latent],
            )
        )
    return found


def contexts(
    token: np.ndarray, value: np.ndarray, spread: int, random: np.random.Generator
) -> tuple[Context, ...]:
    """Chooses the tokens that show a latent: the strongest, and some near lower quantiles.

    Args:
      token: i64[n], the tokens at which the latent is active.
      value: f[n], its activations.
      spread: the least distance of two chosen tokens.
      random: the generator that chooses the tokens near the lower quantiles.
    """
    order = np.argsort(-value, kind="stable")
    chosen: list[int] = []
    found: list[Context] = []

    def take(candidates: np.ndarray, count: int, band: float) -> None:
        for i in candidates:
            if count == 0:
                return
            if all(abs(int(token[i]) - other) >= spread for other in chosen):
                chosen.append(int(token[i]))
                found.append(Context(int(token[i]), float(value[i]), band))
                count -= 1

    take(order, TOP, 1.0)
    n = len(order)
    for band in BANDS:
        # The band reaches a tenth of all activations to both sides of its quantile.
        low, high = int(n * (1.0 - band - 0.1)), int(np.ceil(n * (1.0 - band + 0.1)))
        some = random.permutation(order[max(low, 0) : high])
        take(some, EACH, band)
    return tuple(found)


def nearest_rows(rows: np.ndarray, count: int = NEAR) -> list[tuple[tuple[int, float], ...]]:
    """Returns for each row the indices of its nearest other rows and the cosines, largest first."""
    cosine = cosines(rows, rows)
    np.fill_diagonal(cosine, -np.inf)
    return _largest(cosine, count)


def coactive(
    active: Firings, count: int = NEAR, most: int = COUNTED
) -> list[tuple[tuple[int, float], ...]]:
    """Returns for each latent the other latents that are most often active at the same tokens.

    Two latents are compared by the phi coefficient over the first `most` tokens: the correlation of
    the two variables that are 1 where a latent is active and 0 elsewhere.

    Args:
      active: the nonzero activations of the latents.
      count: the largest number of other latents for each latent.
      most: the number of tokens to use, from the first on.

    Returns:
      For each latent, pairs of another latent's index and the phi coefficient, largest first.
    """
    n, m = min(active.tokens, most), active.latents
    both = np.zeros((m, m), np.float32)
    latent = np.repeat(np.arange(m), np.diff(active.start))
    for start in range(0, n, 2_048):
        inside = (active.token >= start) & (active.token < min(start + 2_048, n))
        on = np.zeros((min(2_048, n - start), m), np.float32)
        on[active.token[inside] - start, latent[inside]] = 1.0
        both += on.T @ on
    own = np.diag(both).astype(np.float64)
    spread = np.sqrt(own * (n - own))
    scale = np.where(spread > 0, spread, np.inf)
    phi = (both * n - np.outer(own, own)) / scale[:, None] / scale[None]
    np.fill_diagonal(phi, -np.inf)
    return _largest(phi, count)


def _largest(scores: np.ndarray, count: int) -> list[tuple[tuple[int, float], ...]]:
    """Returns for each row the indices of its largest positive scores, with the scores."""
    count = min(count, scores.shape[1])
    part = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    found = []
    for row, columns in zip(scores, part, strict=True):
        order = columns[np.argsort(-row[columns], kind="stable")]
        found.append(tuple((int(j), float(row[j])) for j in order if row[j] > 0))
    return found
