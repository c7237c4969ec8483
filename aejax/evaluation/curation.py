"""Finds probably wrong labels, near duplicates and clusters in a data set, from its codes.

    suspects = label_suspects(codes, labels)           # suspects.order lists the worst first
    pairs = near_duplicates(pictures, codes)           # also between splits that were joined
    groups = dominant(sparse_codes)                    # i64[N], each picture's strongest latent

All functions take arrays of numpy; codes may be the means of a variational autoencoder, the
activations of a sparse one, or raw pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from aejax.errors import UserError

BLOCK = 1_000  # rows whose distances to all others are in memory at a time
CLASHES = 0.01  # the largest share of pixels that are white in one duplicate, dark in the other
SMALL = 14  # the height and width of the thumbnails that are compared to find near duplicates


class Suspects(NamedTuple):
    """How probably each of N labels is wrong, judged by the labels of similar examples."""

    score: np.ndarray  # f64[N], from -1 (all neighbours agree) to 1 (all have one other label)
    suggested: np.ndarray  # i64[N], the most frequent label among the neighbours

    @property
    def order(self) -> np.ndarray:
        """The indices of all examples, the most suspicious first, i64[N]."""
        return np.argsort(-self.score, kind="stable")


class Pairs(NamedTuple):
    """P pairs of near duplicates, the most similar first; `first` is the smaller index."""

    first: np.ndarray  # i64[P]
    second: np.ndarray  # i64[P]
    similarity: np.ndarray  # f64[P], the correlation of the best alignment


def neighbours(
    codes: np.ndarray, count: int, queries: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Finds for each example the nearest other examples by L2 distance.

    Args:
      codes: f[N, D].
      count: the number of neighbours, less than N.
      queries: f[N, D], what is compared with the codes of all other examples; None: the codes.

    Returns:
      Their indices i64[N, count], the nearest first, and distances f32[N, count].

    Raises:
      UserError: if there are not that many other examples.
    """
    flat = np.asarray(codes, np.float32).reshape(len(codes), -1)
    asked = flat if queries is None else np.asarray(queries, np.float32).reshape(flat.shape)
    if not 1 <= count < len(flat):
        raise UserError(
            f"{len(flat)} examples do not have {count} neighbours: give a number from 1 to "
            f"{len(flat) - 1}"
        )
    found = [_of_block(flat, asked, rows, count) for rows in _blocks(len(flat))]
    return np.concatenate([i for i, _ in found]), np.concatenate([d for _, d in found])


def _of_block(
    flat: np.ndarray, asked: np.ndarray, rows: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    own, norms = np.square(asked[rows]).sum(axis=1), np.square(flat).sum(axis=1)
    square = own[:, None] - 2.0 * asked[rows] @ flat.T + norms[None]
    square[np.arange(len(rows)), rows] = np.inf
    near = np.argpartition(square, count - 1, axis=1)[:, :count]
    least = np.take_along_axis(square, near, axis=1)
    order = np.argsort(least, axis=1, kind="stable")
    near, least = (np.take_along_axis(a, order, axis=1) for a in (near, least))
    return near, np.sqrt(np.maximum(least, 0.0))


def label_suspects(codes: np.ndarray, labels: np.ndarray, count: int = 20) -> Suspects:
    """Judges each label by the labels of the nearest other examples.

    The score is the weighted share of the most frequent other label among the neighbours, minus
    that of the example's own. A neighbour's weight falls with its distance, relative to the median
    distance of the example's neighbours.

    Args:
      codes: f[N, D].
      labels: i[N], from 0.
      count: the number of neighbours.

    Raises:
      UserError: if there are not that many other examples, or not a label for each.
    """
    labels = np.asarray(labels, np.int64)
    if labels.shape != (len(codes),):
        raise UserError(
            f"there are {len(codes)} codes and labels {labels.shape}: give one for each"
        )
    near, distance = neighbours(codes, count)
    middle = np.maximum(np.median(distance, axis=1, keepdims=True), 1e-12)
    weight = np.exp(-np.square(distance / middle) / 2)
    votes = np.zeros((len(labels), int(labels.max()) + 1))
    for i in range(count):
        votes[np.arange(len(labels)), labels[near[:, i]]] += weight[:, i]
    return suspects_of(votes / weight.sum(axis=1, keepdims=True), labels)


def suspects_of(probability: np.ndarray, labels: np.ndarray) -> Suspects:
    """Judges labels by the probabilities f[N, classes] of a classifier not trained on them."""
    rows = np.arange(len(labels))
    own = probability[rows, labels]
    others = probability.copy()
    others[rows, labels] = -np.inf
    return Suspects(others.max(axis=1) - own, probability.argmax(axis=1))


def near_duplicates(
    pictures: np.ndarray,
    codes: np.ndarray,
    least: float = 0.99,
    shift: int = 2,
    candidates: int = 20,
) -> Pairs:
    """Finds pairs of pictures that are equal but for a small shift, brightness and contrast.

    The nearest examples by their codes are candidates, and so are those by thumbnails of equal mean
    and contrast, also of the picture moved by a pixel. For each candidate the correlation of the
    pixels is computed for all shifts up to a few pixels, on the part where both overlap.

    Args:
      pictures: f[N, H, W, C].
      codes: f[N, D], for which near duplicates are close together.
      least: the smallest correlation of near duplicates.
      shift: the largest shift in pixels, in each direction.
      candidates: the number of nearest examples of either kind that are compared with each.

    Raises:
      UserError: if there are not that many other examples, or pictures are not larger than shifts.
    """
    if shift < 0 or min(pictures.shape[1:3]) <= 2 * shift:
        raise UserError(
            f"a shift of {shift} pixels does not fit pictures of {pictures.shape[1:3]}: give less"
        )
    count = min(candidates, len(codes) - 1)
    near = np.concatenate([neighbours(codes, count)[0], _candidates(pictures, count)], axis=1)
    pairs = np.stack([np.repeat(np.arange(len(near)), near.shape[1]), near.reshape(-1)], axis=1)
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    similarity = _aligned(pictures, pairs, shift)
    order = np.flatnonzero(similarity >= least)
    order = order[np.argsort(-similarity[order], kind="stable")]
    return Pairs(pairs[order, 0], pairs[order, 1], similarity[order])


def _candidates(pictures: np.ndarray, count: int) -> np.ndarray:
    """Returns the nearest pictures by thumbnails, i64[N, n], where n is about `count` or 5."""
    base, each = _thumbnails(pictures), max(count // 5, 1)
    found = []
    for move in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)):
        moved = _thumbnails(np.roll(pictures, move, axis=(1, 2)))
        found.append(neighbours(base, each, moved)[0])
    return np.concatenate(found, axis=1)


def _thumbnails(pictures: np.ndarray) -> np.ndarray:
    """Returns small pictures of equal mean and norm, f32[N, D]."""
    edges = [
        np.linspace(0, side, min(SMALL, side) + 1).astype(int)[:-1] for side in pictures.shape[1:3]
    ]
    small = np.add.reduceat(np.add.reduceat(pictures, edges[0], axis=1), edges[1], axis=2)
    small = small.reshape(len(pictures), -1).astype(np.float32)
    small -= small.mean(axis=1, keepdims=True)
    return small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-6)


def _aligned(pictures: np.ndarray, pairs: np.ndarray, shift: int) -> np.ndarray:
    """Returns the largest correlation of each pair of pictures over all shifts, f64[P].

    Pixels that are white in either picture are left out, because a brightened picture is clipped
    there; pictures are different if more than a few of these are dark in the other. All sums over
    the pixels of a pair are inner products, of which these are the factors.
    """
    white = pictures.max() if len(np.unique(pictures[:100])) > 2 else np.inf
    kept = (pictures < white).astype(np.float32)
    middle = pictures - pictures.mean(axis=(1, 2, 3), keepdims=True)
    once = middle.astype(np.float32) * kept
    factors = (kept, once, np.square(once), 1 - kept, (pictures < white / 2).astype(np.float32))
    best = np.full(len(pairs), -1.0)
    moves = range(-shift, shift + 1)
    for rows in _blocks(len(pairs)):
        a, b = ([factor[pairs[rows, side]] for factor in factors] for side in (0, 1))
        for down in moves:
            for right in moves:
                (ya, yb), (xa, xb) = _overlap(down), _overlap(right)
                left, other = [x[:, ya, xa] for x in a], [x[:, yb, xb] for x in b]
                best[rows] = np.maximum(best[rows], _correlation(left, other))
    return best


def _overlap(by: int) -> tuple[slice, slice]:
    """Returns the parts of two axes that lie on each other if the second is moved by `by`."""
    return (slice(by, None), slice(0, -by or None)) if by >= 0 else (slice(0, by), slice(-by, None))


def _correlation(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the correlations of pairs f64[n] over the pixels that both pictures keep.

    A pair that keeps less than half of its pixels, or is flat there, or has more than CLASHES white
    pixels where the other is dark, has -1.

    Args:
      a, b: which pixels are kept, their values and the squares of these, which pixels are white and
        which are dark, f32[n, H, W, C] each.
    """

    def over(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.einsum("nhwc,nhwc->n", x, y).astype(np.float64)

    count = over(a[0], b[0])
    some = np.maximum(count, 1.0)
    mean_a, mean_b = over(a[1], b[0]) / some, over(a[0], b[1]) / some
    spread_a = over(a[2], b[0]) - some * np.square(mean_a)
    spread_b = over(a[0], b[2]) - some * np.square(mean_b)
    size = np.sqrt(np.maximum(spread_a * spread_b, 0.0))
    apart = over(a[1], b[1]) - some * mean_a * mean_b
    pixels = a[0][0].size
    clashes = over(a[3], b[4]) + over(a[4], b[3])
    sure = (size > 1e-6 * some) & (count > pixels / 2) & (clashes <= CLASHES * pixels)
    return np.where(sure, apart / np.maximum(size, 1e-12), -1.0)


def dominant(codes: np.ndarray) -> np.ndarray:
    """Returns the latent that is strongest in each example, i64[N]; -1 where none is active.

    A latent's activation is divided by its mean over the examples that activate it, so that latents
    with large activations do not win everywhere.

    Args:
      codes: f[N, m], activations, 0 or more.
    """
    codes = np.asarray(codes)
    active = codes > 0
    mean = codes.sum(axis=0) / np.maximum(active.sum(axis=0), 1)
    share = codes / np.where(mean > 0, mean, 1.0)[None]
    return np.where(active.any(axis=1), share.argmax(axis=1), -1)


def _blocks(count: int) -> Iterator[np.ndarray]:
    for start in range(0, count, BLOCK):
        yield np.arange(start, min(start + BLOCK, count))
