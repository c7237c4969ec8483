"""The mean, variance and mean norm of vectors, accumulated over any number of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# The number of rows that are converted to float64 together.
ROWS = 4096


class Moments(NamedTuple):
    """Statistics of vectors, called tokens; two records merge accurately however large the mean."""

    tokens: int  # the number of tokens
    mean: np.ndarray  # f64[d], the mean over tokens of x
    squares: float  # the sum over tokens of ||x - mean||^2
    norms: float  # the sum over tokens of ||x||

    @property
    def scale(self) -> float:
        """The root mean square of the elements of x - mean, used to scale centred activations."""
        return float(np.sqrt(self.squares / max(1, self.tokens * len(self.mean))))

    @property
    def mean_norm(self) -> float:
        """The mean of ||x||; SAELens' `expected_average_only_in` is sqrt(d) / mean_norm."""
        return self.norms / max(1, self.tokens)

    @property
    def gamma(self) -> float:
        """||mean|| / ||std||; if it is large, latents die (arXiv 2605.31518). 0 if all x are 0."""
        spread = np.sqrt(self.squares / max(1, self.tokens))
        length = float(np.linalg.norm(self.mean))
        return float(length / spread) if spread > 0 else (np.inf if length > 0 else 0.0)


def empty(size: int) -> Moments:
    """Returns the moments before any token is added, for tokens of d = size numbers."""
    return Moments(0, np.zeros(size), 0.0, 0.0)


def with_rows(moments: Moments, rows: np.ndarray) -> Moments:
    """Updates moments with further rows [n, d], of any float dtype, and returns the new ones."""
    for start in range(0, len(rows), ROWS):
        x = rows[start : start + ROWS].astype(np.float64)
        norms = float(np.sum(np.sqrt(np.einsum("nd,nd->n", x, x))))
        mean = x.mean(axis=0)
        x -= mean
        squares = float(np.einsum("nd,nd->", x, x))
        moments = merged(moments, Moments(len(x), mean, squares, norms))
    return moments


def with_examples(moments: tuple[Moments, ...] | None, values: np.ndarray) -> tuple[Moments, ...]:
    """Updates moments with further examples and returns the new ones.

    Args:
      moments: the moments of earlier examples; None: there are none.
      values: the examples, [N, *event].

    Returns:
      A tuple of Moments: one for each layer if the examples are [N, layers, size], otherwise one.
    """
    layers = values.shape[1] if values.ndim == 3 else 1
    parts = np.moveaxis(values.reshape(len(values), layers, -1), 1, 0)
    before = moments or (empty(parts.shape[2]),) * layers
    return tuple(with_rows(m, part) for m, part in zip(before, parts, strict=True))


def agree(a: Moments, b: Moments) -> bool:
    """Returns whether two records of moments are equal up to rounding.

    The moments of the same tokens are equal up to rounding, whatever the order of the tokens.
    """
    x, y = (np.append(m.mean, [m.mean_norm, m.scale]) for m in (a, b))
    # The tolerance is relative to the size of a token, since single elements may be near zero.
    return bool(np.allclose(x, y, rtol=0.0, atol=1e-9 * (b.mean_norm + b.scale)))


def merged(a: Moments, b: Moments) -> Moments:
    """Returns the moments of two sets of tokens together (Chan et al. 1983)."""
    tokens = a.tokens + b.tokens
    if tokens == 0:
        return a
    share = b.tokens / tokens
    apart = b.mean - a.mean
    squares = a.squares + b.squares + float(np.sum(np.square(apart))) * a.tokens * share
    return Moments(tokens, a.mean + apart * share, squares, a.norms + b.norms)
