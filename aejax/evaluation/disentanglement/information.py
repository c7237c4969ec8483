"""Disentanglement metrics based on the mutual information between each latent and each factor."""

from __future__ import annotations

import numpy as np

from aejax.errors import UserError
from aejax.evaluation.disentanglement.arrays import check_counts, checked, gap


def mig_of_means(codes: np.ndarray, factors: np.ndarray, *, bins: int = 20) -> float:
    """Computes the mutual information gap (MIG) from histograms, as disentanglement_lib does.

    It is the mean over the factors of (I(z_1; v) - I(z_2; v)) / H(v), where z_1 and z_2 are the two
    latents with the highest mutual information with v. It is 1 for perfect codes of factors with at
    most `bins` evenly spaced values, and about 0 for codes that are independent of the factors. It
    is widely used, although it differs from the definition of Chen et al. 2018 (`mig_of_samples`).

    Args:
      codes: f[N, L], the posterior means.
      factors: i[N, F], the factors of variation.
      bins: the number of bins of equal width, between a latent's smallest and largest value.
    """
    codes, factors = checked(codes, factors)
    return float(np.mean(gap(_histogram_information(codes, factors, bins)) / _entropies(factors)))


def modularity(codes: np.ndarray, factors: np.ndarray, *, bins: int = 20) -> float:
    """Computes the modularity, which is 1 if each latent depends on one factor only.

    It is the mean over the latents of 1 - r / (b (F - 1)), where b is the largest I(z; v)^2 of the
    latent with any factor and r is the sum of I(z; v)^2 over the other factors (Ridgeway and Mozer
    2018, equation 2). Even codes that are independent of the factors score above 0 if the factors
    have different numbers of values, because the noise of I(z; v) in histograms grows with that
    number.

    Args:
      codes: f[N, L], the posterior means.
      factors: i[N, F], the factors of variation.
      bins: the number of bins of equal width, between a latent's smallest and largest value.
    """
    codes, factors = checked(codes, factors)
    squares = np.square(_histogram_information(codes, factors, bins))
    best = squares.max(axis=1)
    informative = best > 0
    others = (squares.sum(axis=1) - best) / (
        np.where(informative, best, 1.0) * (squares.shape[1] - 1)
    )
    return float(np.mean(np.where(informative, 1.0 - others, 0.0)))


def mig_of_samples(
    mean: np.ndarray,
    log_std: np.ndarray,
    factors: np.ndarray,
    *,
    samples: int = 10_000,
    seed: int = 0,
) -> float:
    """Computes the mutual information gap of posterior samples (Chen et al. 2018, equation 6).

    I(z; v) = E[log q(z | v) - log q(z)], where q(z | v) is the mean of the posteriors of all
    examples with that value of v, so no histogram is needed.

    Args:
      mean: f[N, L], the means of the diagonal Gaussian posteriors of the whole data set.
      log_std: f[N, L], the logarithms of their standard deviations.
      factors: i[N, F], the factors of variation; of dSprites, Chen et al. leave out "shape".
      samples: the largest number of examples to sample, with one draw from each. The cost grows
        with samples * N * L.
      seed: the seed of the draws.

    Raises:
      UserError: if the arrays are not [N, L], [N, L] and [N, F], a mean or log_std is not finite,
        or samples < 1.
    """
    mean, factors = checked(mean, factors)
    log_std = np.asarray(log_std, np.float64)
    if log_std.shape != mean.shape:
        raise UserError(
            f"log_std has shape {log_std.shape}, but mean {mean.shape}: give both [N, L]"
        )
    if not np.all(np.isfinite(log_std)):
        raise UserError(
            "some values of log_std are not finite: use a model whose training succeeded"
        )
    check_counts(samples=samples)
    generator = np.random.default_rng(seed)
    rows = generator.permutation(len(mean))[:samples]
    noise = generator.normal(size=(len(rows), mean.shape[1]))
    z = mean[rows] + np.exp(log_std[rows]) * noise
    information = np.stack(
        [_sampled_information(z[:, j], mean[:, j], log_std[:, j], factors, rows)
         for j in range(mean.shape[1])]
    )  # fmt: skip
    return float(np.mean(gap(information) / _entropies(factors)))


def _sampled_information(
    z: np.ndarray, mean: np.ndarray, log_std: np.ndarray, factors: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Returns the mutual information of one latent with each factor in nats, f64[F].

    Args:
      z: f64[n], draws of the latent, one for each of the examples `rows`.
      mean: f64[N], the posterior means of the latent.
      log_std: f64[N], the logarithms of the standard deviations.
      factors: i64[N, F], whose values are indices from 0.
      rows: i64[n], the indices of the examples that z was drawn for.
    """
    found = np.zeros(factors.shape[1])
    ones = [np.eye(column.max() + 1)[column] for column in factors.T]  # [N, values] each
    step = max(1, 2**23 // len(mean))
    for start in range(0, len(z), step):
        part = slice(start, start + step)
        scaled = (z[part, None] - mean[None]) * np.exp(-log_std[None])
        log_density = -0.5 * np.square(scaled) - log_std[None]
        density = np.exp(log_density - log_density.max(axis=1, keepdims=True))
        marginal = np.log(density.mean(axis=1))
        for k, one in enumerate(ones):
            own = factors[rows[part], k]
            given = (density @ one)[np.arange(len(own)), own] / one.sum(axis=0)[own]
            found[k] += np.sum(np.log(given) - marginal)
    return found / len(z)


def _histogram_information(codes: np.ndarray, factors: np.ndarray, bins: int) -> np.ndarray:
    """Returns the mutual information of each latent with each factor in nats, f64[L, F]."""
    if bins < 2:
        raise UserError(f"bins is {bins}, but a histogram needs at least 2: give 2 or more")
    found = np.zeros((codes.shape[1], factors.shape[1]))
    for j, column in enumerate(codes.T):
        edges = np.histogram_bin_edges(column, bins)
        binned = np.digitize(column, edges[1:-1])
        for k, values in enumerate(factors.T):
            joint = np.zeros((bins, values.max() + 1))
            np.add.at(joint, (binned, values), 1.0 / len(values))
            independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
            some = joint > 0
            found[j, k] = np.sum(joint[some] * np.log(joint[some] / independent[some]))
    # Values that are only rounding errors are set to 0, so that constant latents score exactly 0.
    return np.where(found > 1e-12, found, 0.0)


def _entropies(factors: np.ndarray) -> np.ndarray:
    """Returns the entropy H(v) of each factor in nats, f64[F]."""
    shares = [np.bincount(column) / len(column) for column in factors.T]
    return np.array([-np.sum(share * np.log(share)) for share in shares])
