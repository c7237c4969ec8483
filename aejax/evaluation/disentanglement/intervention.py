"""Metrics that hold one factor still and ask which one it was."""

from __future__ import annotations

import numpy as np

from aejax.errors import UserError
from aejax.evaluation.disentanglement.arrays import check_counts, checked, learn, subset


def beta_vae_score(
    codes: np.ndarray,
    factors: np.ndarray,
    *,
    train: int = 10_000,
    test: int = 5_000,
    batch: int = 64,
    seed: int = 0,
) -> float:
    """Test accuracy of telling the factor that two examples share (Higgins et al. 2017, section 3).

    One point is the mean over `batch` pairs of |z - z'|, where all pairs agree in one factor; a
    logistic regression tells which. 1 / F by chance.

    Args:
      codes: f[N, L], posterior means.
      factors: i[N, F], of a data set in which factors vary independently.
      train: points that the classifier learns from.
      test: points that it is judged by.
      batch: pairs a point.
      seed: of the choice of examples.
    """
    codes, factors = checked(codes, factors)
    check_counts(train=train, test=test, batch=batch)
    generator = np.random.default_rng(seed)
    rows = _Rows(factors)

    def points(count: int) -> tuple[np.ndarray, np.ndarray]:
        which = generator.integers(0, factors.shape[1], count)
        found = np.zeros((count, codes.shape[1]))
        for i, k in enumerate(which):
            first = generator.integers(0, len(codes), batch)
            second = rows.draw(k, factors[first, k], generator)
            found[i] = np.abs(codes[first] - codes[second]).mean(axis=0)
        return found, which

    classifier = learn("linear_model").LogisticRegression(max_iter=1000)
    learned, which = points(train)
    if len(np.unique(which)) < 2:
        raise UserError(f"train is {train}, and all points hold one factor still: draw more")
    classifier.fit(learned, which)
    return float(classifier.score(*points(test)))


def factor_vae_score(
    codes: np.ndarray,
    factors: np.ndarray,
    *,
    train: int = 10_000,
    test: int = 5_000,
    batch: int = 64,
    prune: float = 0.05,
    seed: int = 0,
) -> float:
    """Accuracy of the latent that varies least in naming the factor held still (Kim and Mnih 2018).

    One point is the latent whose variance over `batch` examples with one factor held still is the
    least share of its variance over all; each latent votes for the factor it most often goes with.
    1 / F by chance.

    Args:
      codes: f[N, L], posterior means.
      factors: i[N, F], of a data set in which factors vary independently.
      train: points that vote.
      test: points that the votes are judged by.
      batch: examples a point, 2 or more.
      prune: latents whose standard deviation over all is below this are not asked.
      seed: of the choice of examples.

    Returns:
      The accuracy, 0.0 where no latent is left to be asked.
    """
    codes, factors = checked(codes, factors)
    check_counts(train=train, test=test)
    if batch < 2:
        raise UserError(f"batch is {batch}, but a variance needs 2 examples or more")
    generator = np.random.default_rng(seed)
    rows = _Rows(factors)
    some = subset(len(codes), 10_000, generator)
    variance = codes[some].var(axis=0, ddof=1)
    asked = np.sqrt(variance) >= prune
    if not asked.any():
        return 0.0

    def votes(count: int) -> np.ndarray:
        """How often each latent goes with each factor, i64[L, F]."""
        found = np.zeros((codes.shape[1], factors.shape[1]), np.int64)
        for k in generator.integers(0, factors.shape[1], count):
            value = factors[generator.integers(len(codes)), k]
            chosen = rows.draw(k, np.full(batch, value), generator)
            share = codes[chosen].var(axis=0, ddof=1) / np.where(asked, variance, 1.0)
            found[np.argmin(np.where(asked, share, np.inf)), k] += 1
        return found

    named = np.argmax(votes(train), axis=1)
    judged = votes(test)
    return float(judged[np.arange(len(named)), named].sum() / test)


class _Rows:
    """Finds examples with a given value of a factor."""

    def __init__(self, factors: np.ndarray):
        self.order = np.argsort(factors, axis=0, kind="stable")
        self.counts = [np.bincount(column) for column in factors.T]
        self.starts = [np.cumsum(count) - count for count in self.counts]

    def draw(self, k: int, values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """One example for each of values i64[n] of factor k, i64[n]."""
        place = (generator.random(len(values)) * self.counts[k][values]).astype(np.int64)
        return self.order[self.starts[k][values] + place, k]
