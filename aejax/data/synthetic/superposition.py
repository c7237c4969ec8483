"""Toy superposition: more features than dimensions, which are correlated and unequally frequent."""

from __future__ import annotations

import dataclasses

import numpy as np

from aejax.data.synthetic.random import correlated_draws, directions, factors
from aejax.data.synthetic.store import ROWS, Active, sparse
from aejax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Superposition:
    """The toy model of "Taking features out of superposition" (Sharkey et al. 2022).

    A token is x = sum_i a_i d_i. The directions d_i are unit vectors, drawn uniformly from the
    sphere. If feature i is active, a_i is uniform on (0, 1), and otherwise it is 0. The probability
    that feature i is active is proportional to decay^i, and a Gaussian copula, here of low rank,
    correlates which features are active.

    Attributes:
      features: the number of features, G; 512 in the paper.
      size: the dimension of a token, d; 256 in the paper.
      active: the mean number of active features of a token.
      decay: the ratio of the probabilities of feature i + 1 and feature i.
      rank: the rank of the correlations; 0 makes the features independent.
      correlation: the standard deviation of an entry of the copula's loadings f64[G, rank]. A
        feature is active if its Gaussian variable exceeds a threshold; the mean share of this
        variable's variance that is due to variables common to all features is
        rank * correlation^2.
      seed: the seed, 0 or more.
    """

    features: int = 512
    size: int = 256
    active: float = 5.0
    decay: float = 0.99
    rank: int = 10
    correlation: float = 0.2
    seed: int = 0

    def __post_init__(self):
        if self.features < 1 or self.size < 1 or self.rank < 0 or self.seed < 0:
            raise UserError(
                f"{self} is out of range: give features and size of 1 or more, rank and seed of 0 "
                "or more"
            )
        if not 0.0 < self.decay <= 1.0 or self.active <= 0.0 or self.correlation < 0.0:
            raise UserError(
                f"{self} is out of range: give 0 < decay <= 1, active > 0 and correlation >= 0"
            )
        if self.probability().max() >= 1.0:
            raise UserError(
                f"active is {self.active}, so that the first feature would have a probability of 1 "
                "or more: give a smaller number, more features or a larger decay"
            )

    def probability(self) -> np.ndarray:
        """Returns the probability that each feature is active, f64[G]."""
        weight = self.decay ** np.arange(self.features, dtype=np.float64)
        return self.active * weight / weight.sum()

    def dictionary(self) -> np.ndarray:
        """Returns the features' directions, f32[G, d], whose rows have norm 1."""
        return directions(self.seed, (0,), self.features, self.size).astype(np.float32)

    def constant(self) -> np.ndarray:
        """Returns the vector that is added to every token, f32[d], which is zero."""
        return np.zeros(self.size, np.float32)

    def block(self, number: int) -> Active:
        """Draws the active features of tokens number * ROWS to (number + 1) * ROWS - 1."""
        factor = factors(self.seed, (1,), self.features, self.rank, self.correlation)
        drawn = correlated_draws(self.seed, (2, number), self.probability(), factor, ROWS)
        return sparse(np.where(drawn < 1.0, drawn, 0.0))
