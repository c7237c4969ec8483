"""Random numbers that are the same on every machine and with every version of numpy."""

from __future__ import annotations

import numpy as np

from aejax.data.words import random_words


def uniform(seed: int, stream: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Draws uniform numbers f64[shape] from the open interval (0, 1).

    Args:
      seed: the seed, 0 or more.
      stream: integers that identify one of the independent streams of numbers of this seed.
      shape: the shape of the result.
    """
    words = random_words(seed, stream, int(np.prod(shape)))
    return (((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52).reshape(shape)


def normal(seed: int, stream: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Draws standard normal numbers f64[shape] as the quantiles of uniform numbers.

    The arguments are those of `uniform`.
    """
    from scipy.special import ndtri

    return ndtri(uniform(seed, stream, shape))


def directions(seed: int, stream: tuple[int, ...], features: int, size: int) -> np.ndarray:
    """Draws unit vectors f64[features, size], uniformly distributed on the sphere."""
    draws = normal(seed, stream, (features, size))
    return draws / np.linalg.norm(draws, axis=1, keepdims=True)


def correlated_draws(
    seed: int, stream: tuple[int, ...], probability: np.ndarray, factor: np.ndarray, rows: int
) -> np.ndarray:
    """Draws which features are active, with correlations given by a Gaussian copula of low rank.

    Feature i is active if factor_i . g + sqrt(1 - ||factor_i||^2) e_i exceeds the normal quantile
    of 1 - probability_i, where g and e are standard normal and all features of a token share g.
    Given g, the features are independent. Their probabilities given g are therefore computed, and e
    is not drawn.

    Args:
      seed: the seed, 0 or more.
      stream: integers that identify one of the seed's streams.
      probability: the probability of each feature to be active, f64[G], above 0 and below 1.
      factor: f64[G, rank], each row shorter than 1; with rank 0 the features are independent.
      rows: the number of tokens, n.

    Returns:
      Positive values f64[n, G]. A feature is active if its value is below 1. Given that it is
      active, the value is uniform on (0, 1), so it can be used as a second, independent draw.
    """
    given = probability[None, :]
    if factor.shape[1]:
        from scipy.special import ndtr, ndtri

        shared = normal(seed, (*stream, 0), (rows, factor.shape[1]))
        own = np.sqrt(1.0 - np.sum(np.square(factor), axis=1))
        given = ndtr((shared @ factor.T + ndtri(probability)[None, :]) / own[None, :])
    return uniform(seed, (*stream, 1), (rows, len(probability))) / np.maximum(given, 1e-300)


def factors(
    seed: int, stream: tuple[int, ...], features: int, rank: int, scale: float
) -> np.ndarray:
    """Draws the argument `factor` of `correlated_draws`, normal numbers f64[G, rank].

    Rows with a norm above sqrt(0.99) are shortened to this norm.

    Args:
      seed: the seed, 0 or more.
      stream: integers that identify one of the seed's streams.
      features: the number of features, G.
      rank: the rank of the correlations.
      scale: the standard deviation of an entry before rows are shortened.
    """
    draws = scale * normal(seed, stream, (features, rank)) if rank else np.zeros((features, 0))
    length = np.linalg.norm(draws, axis=1, keepdims=True)
    return draws * np.minimum(1.0, np.sqrt(0.99) / np.maximum(length, 1e-12))
