"""Random numbers that are the same on every machine and for every version of numpy."""

from __future__ import annotations

import numpy as np

from aejax.data.words import random_words


def uniform(seed: int, stream: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Uniform draws f64[shape] from the open interval (0, 1).

    Args:
      seed: 0 or more.
      stream: which of a seed's streams; different ones are independent.
      shape: of the draws.
    """
    words = random_words(seed, stream, int(np.prod(shape)))
    return (((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52).reshape(shape)


def normal(seed: int, stream: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal draws f64[shape], by the inverse of the distribution function."""
    from scipy.special import ndtri

    return ndtri(uniform(seed, stream, shape))


def directions(seed: int, stream: tuple[int, ...], features: int, size: int) -> np.ndarray:
    """Unit vectors f64[features, size], uniform on the sphere."""
    draws = normal(seed, stream, (features, size))
    return draws / np.linalg.norm(draws, axis=1, keepdims=True)


def lots(
    seed: int, stream: tuple[int, ...], probability: np.ndarray, factor: np.ndarray, rows: int
) -> np.ndarray:
    """Correlated Bernoulli draws by a Gaussian copula of low rank.

    Feature i is active where factor_i . g + sqrt(1 - ||factor_i||^2) e_i exceeds the normal
    quantile of 1 - probability_i, with g shared by the features of a token. Given g the features
    are independent, so only their probabilities given g are computed, never e.

    Args:
      seed: 0 or more.
      stream: which of a seed's streams.
      probability: f64[G], of each feature to be active, above 0 and below 1.
      factor: f64[G, rank], each row shorter than 1; rank 0 makes the features independent.
      rows: n.

    Returns:
      f64[n, G], above 0: a feature is active where its lot is below 1, and is then uniform on
      (0, 1), whatever else is known of it: one draw serves twice.
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
    """Normal factors f64[G, rank] times scale, none longer than sqrt(0.99), for `lots`."""
    draws = scale * normal(seed, stream, (features, rank)) if rank else np.zeros((features, 0))
    length = np.linalg.norm(draws, axis=1, keepdims=True)
    return draws * np.minimum(1.0, np.sqrt(0.99) / np.maximum(length, 1e-12))
