"""Disentanglement metrics that hold one factor fixed and predict which one it was."""

from __future__ import annotations

import numpy as np

from aejax.errors import UserError
from aejax.evaluation.disentanglement.arrays import check_counts, checked, scikit_learn, subset


def beta_vae_score(
    codes: np.ndarray,
    factors: np.ndarray,
    *,
    train: int = 10_000,
    test: int = 5_000,
    batch: int = 64,
    seed: int = 0,
) -> float:
    """Computes the BetaVAE score (Higgins et al. 2017, section 3).

    A data point is the mean of |z - z'| over `batch` pairs of examples that agree in one randomly
    chosen factor. A logistic regression predicts from the data point which factor was chosen, and
    the score is its test accuracy; guessing scores 1 / F.

    Args:
      codes: f[N, L], the posterior means.
      factors: i[N, F], the factors of a data set in which they vary independently.
      train: the number of data points that the classifier is trained on.
      test: the number of data points that the classifier is tested on.
      batch: the number of pairs per data point.
      seed: the seed of the choice of examples.
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

    classifier = scikit_learn("linear_model").LogisticRegression(max_iter=1000)
    learned, which = points(train)
    if len(np.unique(which)) < 2:
        raise UserError(
            f"train is {train}, and by chance all these data points fix the same factor: give more"
        )
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
    """Computes the FactorVAE score (Kim and Mnih 2018).

    For a data point, `batch` examples are drawn that agree in one randomly chosen factor. The point
    is a vote of one latent for this factor: of the latent whose variance over these examples,
    relative to its variance over the data, is smallest. Each latent is assigned the factor for
    which it has most votes among the training points. The score is the accuracy of this assignment
    on the test points; guessing scores 1 / F.

    Args:
      codes: f[N, L], the posterior means.
      factors: i[N, F], the factors of a data set in which they vary independently.
      train: the number of data points from which latents are assigned to factors.
      test: the number of data points on which the assignment is tested.
      batch: the number of examples per data point, 2 or more.
      prune: latents with a standard deviation below this value are ignored.
      seed: the seed of the choice of examples.

    Returns:
      The accuracy, or 0.0 if all latents are ignored.
    """
    codes, factors = checked(codes, factors)
    check_counts(train=train, test=test)
    if batch < 2:
        raise UserError(f"batch is {batch}, but a variance needs 2 examples: give 2 or more")
    generator = np.random.default_rng(seed)
    rows = _Rows(factors)
    some = subset(len(codes), 10_000, generator)
    variance = codes[some].var(axis=0, ddof=1)
    asked = np.sqrt(variance) >= prune
    if not asked.any():
        return 0.0

    def votes(count: int) -> np.ndarray:
        """Draws `count` data points, and counts how often each latent has the smallest variance.

        The counts i64[L, F] are kept separately for each factor in which the examples agree.
        """
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
        """Draws, for each of n values of factor k, an example that has this value.

        Returns:
          The indices of the examples, i64[n].
        """
        place = (generator.random(len(values)) * self.counts[k][values]).astype(np.int64)
        return self.order[self.starts[k][values] + place, k]
