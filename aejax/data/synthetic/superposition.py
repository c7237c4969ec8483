"""Toy superposition: more features than dimensions, some commoner than others, correlated."""

from __future__ import annotations

import dataclasses

import numpy as np

from aejax.data.synthetic.random import directions, factors, lots
from aejax.data.synthetic.store import ROWS, Active, sparse
from aejax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Superposition:
    """Sharkey, Braun and Millidge 2022, "Taking features out of superposition".

    x = sum_i a_i d_i with unit d_i uniform on the sphere; a_i is uniform on (0, 1) where feature i
    is active, which it is with a probability that falls as decay^i; activity is correlated by a
    Gaussian copula, here of low rank.

    Attributes:
      features: G, the paper's toy has 512.
      size: d, the paper's 256.
      active: features of a token that are active, in the mean.
      decay: of the probability from one feature to the next.
      rank: of the correlations, 0 for none.
      correlation: standard deviation of a factor's entry; rank times its square is the mean of
        what the features share.
      seed: 0 or more.
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
            raise UserError(f"{self}: features and size are 1 or more, rank and seed 0 or more")
        if not 0.0 < self.decay <= 1.0 or self.active <= 0.0 or self.correlation < 0.0:
            raise UserError(f"{self}: 0 < decay <= 1, active > 0 and correlation >= 0 are needed")
        if self.probability().max() >= 1.0:
            raise UserError(f"active {self.active}: the first feature would always be active")

    def probability(self) -> np.ndarray:
        """Of each feature to be active, f64[G]."""
        weight = self.decay ** np.arange(self.features, dtype=np.float64)
        return self.active * weight / weight.sum()

    def dictionary(self) -> np.ndarray:
        """The features' directions, f32[G, d], unit rows."""
        return directions(self.seed, (0,), self.features, self.size).astype(np.float32)

    def constant(self) -> np.ndarray:
        """Nothing is added, f32[d]."""
        return np.zeros(self.size, np.float32)

    def block(self, number: int) -> Active:
        """The features of tokens number * ROWS to (number + 1) * ROWS - 1."""
        factor = factors(self.seed, (1,), self.features, self.rank, self.correlation)
        drawn = lots(self.seed, (2, number), self.probability(), factor, ROWS)
        return sparse(np.where(drawn < 1.0, drawn, 0.0))
