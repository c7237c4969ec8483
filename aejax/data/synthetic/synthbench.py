"""A smaller SynthSAEBench: features with Zipf frequencies, a hierarchy and correlations."""

from __future__ import annotations

import dataclasses

import numpy as np

from aejax.data.synthetic.random import correlated_draws, directions, factors, normal
from aejax.data.synthetic.store import ROWS, Active, sparse
from aejax.errors import UserError


@dataclasses.dataclass(frozen=True)
class SynthBench:
    """The data of SynthSAEBench (Chanin and Garriga-Alonso 2026, arXiv 2602.14687).

    The defaults are small enough for a CPU. The published SynthSAEBench-16k (`published()`) has
    16,384 features, size 768, 128 roots, and otherwise the same settings; with them this class
    draws 34.8 active features per token (published: about 34).

    A Gaussian copula of low rank determines which features are active, with probabilities that
    follow Zipf's law. Features form trees: a child is set inactive if its parent is inactive, and
    of the active children of one parent only one, chosen at random, stays active. To compensate,
    children are drawn active with a higher probability. The magnitude of an active feature is drawn
    from a normal distribution, and negative magnitudes are set to zero.

    Attributes:
      features: the number of features, G, ordered by frequency; feature 0 is the most frequent. The
        trees are filled with features in this order, level by level.
      size: the dimension of a token, d.
      exponent: the exponent of Zipf's law for the probability of a feature by its index.
      most: the probability that the most frequent feature is active.
      least: the probability that the least frequent feature is active.
      roots: the number of trees; 0: there is no hierarchy.
      branching: the number of children of a feature.
      depth: the number of levels below the roots; features beyond the last level are in no tree.
      rank: the rank of the correlations; 0 makes the features independent.
      correlation: the standard deviation of an entry of the copula's loadings f64[G, rank].
      large: the mean magnitude of the most frequent feature; the mean falls linearly to `small`.
      small: the mean magnitude of the least frequent feature.
      spread: the standard deviation of a feature's magnitude is |s|, where s is drawn from a normal
        distribution whose mean and standard deviation are both `spread`.
      orthogonal_steps: the number of gradient descent steps that make the directions more
        orthogonal, by reducing their squared inner products.
      offset: the norm of a constant vector that is added to every token.
      seed: the seed, 0 or more.
    """

    features: int = 1024
    size: int = 128
    exponent: float = 0.5
    most: float = 0.4
    least: float = 5e-4
    roots: int = 8
    branching: int = 4
    depth: int = 3
    rank: int = 25
    correlation: float = 0.1
    large: float = 5.0
    small: float = 4.0
    spread: float = 0.5
    orthogonal_steps: int = 100
    offset: float = 0.0
    seed: int = 0

    def __post_init__(self):
        if min(self.features, self.size, self.branching) < 1:
            raise UserError(
                f"{self} is out of range: give features, size and branching of 1 or more"
            )
        if min(self.roots, self.depth, self.rank, self.orthogonal_steps, self.seed) < 0:
            raise UserError(
                f"{self} is out of range: give roots, depth, rank, orthogonal_steps and seed of 0 "
                "or more"
            )
        if not 0.0 < self.least <= self.most < 1.0 or self.exponent <= 0.0:
            raise UserError(f"{self} is out of range: give 0 < least <= most < 1 and exponent > 0")

    @classmethod
    def published(cls, seed: int = 0) -> SynthBench:
        """Returns the settings of the published SynthSAEBench-16k."""
        return cls(features=16_384, size=768, roots=128, seed=seed)

    @classmethod
    def sae_lens(cls, features: int, size: int, seed: int = 0) -> SynthBench:
        """Returns the settings of `SyntheticModelConfig(features, size)` of SAELens 6.54.

        Features are active independently of each other, each with activation 1 along a random
        direction. A constant vector of norm 1 is added to each token.

        Args:
          features: the number of features, G.
          size: the dimension of a token, d.
          seed: the seed, 0 or more.
        """
        return cls(
            features,
            size,
            exponent=1.0,
            most=0.3,
            least=0.01,
            roots=0,
            rank=0,
            orthogonal_steps=0,
            large=1.0,
            small=1.0,
            spread=0.0,
            offset=1.0,
            seed=seed,
        )

    def probability(self) -> np.ndarray:
        """Returns the intended probability that each feature is active, f64[G], by Zipf's law.

        If there is a hierarchy, the actual probabilities are only close to these; see `fires`.
        """
        power = np.arange(1, self.features + 1, dtype=np.float64) ** -self.exponent
        share = (power - power[-1]) / max(power[0] - power[-1], 1e-12)
        return self.least + (self.most - self.least) * share

    def levels(self) -> list[tuple[range, range]]:
        """Returns the indices of parent features and of their children, for each level of trees.

        The children of one parent have consecutive indices. Levels without children are left out.
        """
        found, level = [], range(min(self.roots, self.features))
        for _ in range(self.depth):
            stop = min(self.features, level.stop + len(level) * self.branching)
            found.append((level, range(level.stop, stop)))
            level = found[-1][1]
        return [(parents, children) for parents, children in found if children]

    def fires(self) -> np.ndarray:
        """Returns the probability with which each feature is drawn active, f64[G], at most 0.99.

        The hierarchy then sets some features inactive. To compensate, a child's probability is
        divided by that of its parent, and multiplied by 1 + n, where n is the mean number of
        siblings that are active together with it.
        """
        p = self.probability()
        raised = p.copy()
        for parents, children in self.levels():
            parent = parents.start + np.arange(len(children)) // self.branching
            given = p[children.start : children.stop] / p[parent]
            siblings = np.bincount(parent, given)[parent] - given
            raised[children.start : children.stop] = given * (1.0 + siblings)
        return np.minimum(raised, 0.99)

    def dictionary(self) -> np.ndarray:
        """Returns the features' directions, f32[G, d], whose rows have norm 1."""
        rows = directions(self.seed, (0,), self.features, self.size)
        # Gradient descent is stable for step sizes below a limit, which depends on the largest
        # eigenvalue of the matrix of inner products.
        rate = 0.25 / (1.0 + np.sqrt(self.features / self.size)) ** 2
        for _ in range(self.orthogonal_steps):
            overlap = rows @ rows.T
            np.fill_diagonal(overlap, 0.0)
            rows = rows - rate * overlap @ rows
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows.astype(np.float32)

    def constant(self) -> np.ndarray:
        """Returns the vector that is added to every token, f32[d], of norm `offset`."""
        return (self.offset * directions(self.seed, (5,), 1, self.size)[0]).astype(np.float32)

    def block(self, number: int) -> Active:
        """Draws the active features of tokens number * ROWS to (number + 1) * ROWS - 1."""
        factor = factors(self.seed, (1,), self.features, self.rank, self.correlation)
        drawn = correlated_draws(self.seed, (2, number), self.fires(), factor, ROWS)
        on = drawn < 1.0
        for parents, children in self.levels():
            _gate(on, drawn, parents, children, self.branching)
        mean = np.linspace(self.large, self.small, self.features)
        deviation = np.abs(self.spread * (1.0 + normal(self.seed, (3,), (self.features,))))
        rows, columns = np.nonzero(on)
        drawn = normal(self.seed, (4, number), (len(rows),))
        values = np.zeros(on.shape)
        values[rows, columns] = np.maximum(0.0, mean[columns] + deviation[columns] * drawn)
        return sparse(values)


def _gate(
    on: np.ndarray, drawn: np.ndarray, parents: range, children: range, branching: int
) -> None:
    """Sets children of inactive parents inactive, and all but one child of each active parent.

    Args:
      on: bool[n, G], whether each feature is active, which is changed in place. The values of the
        parents must be final.
      drawn: f64[n, G] from `correlated_draws`; of active siblings, the one with the largest value
        stays active.
      parents: the indices of the features of one level.
      children: the indices of their children: first `branching` children of the first parent, and
        so on; the last parent may have fewer.
      branching: the number of children of a parent.
    """
    rows, count = len(on), len(children)
    families = -(-count // branching)
    inside = slice(children.start, children.stop)
    lot = np.full((rows, families * branching), -1.0)
    lot[:, :count] = np.where(on[:, inside], drawn[:, inside], -1.0)
    lot = lot.reshape(rows, families, branching)
    kept = (lot >= 0.0) & (lot == lot.max(axis=2, keepdims=True))
    kept &= on[:, parents.start : parents.start + families, None]
    on[:, inside] = kept.reshape(rows, -1)[:, :count]
