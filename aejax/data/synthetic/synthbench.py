"""A scaled-down SynthSAEBench: Zipf frequencies, a hierarchy of features, correlation."""

from __future__ import annotations

import dataclasses

import numpy as np

from aejax.data.synthetic.random import directions, factors, lots, normal
from aejax.data.synthetic.store import ROWS, Active, sparse
from aejax.errors import UserError


@dataclasses.dataclass(frozen=True)
class SynthBench:
    """Chanin and Garriga-Alonso 2026 (arXiv 2602.14687), by default a cut that a CPU can do.

    The published SynthSAEBench-16k is features 16,384, size 768, roots 128, the rest as here; 34.8
    features of a token are active then (published: about 34). Its model: features fire by a
    Gaussian copula of low rank with Zipf probabilities; a child is silenced where its parent is
    silent, and of the children that remain one, drawn at random, stays; to make up for that
    children fire the more often; magnitudes are normal, cut at zero.

    Attributes:
      features: G; the commonest first. Trees are filled level by level in that order.
      size: d.
      exponent: of Zipf's law for the probability over rank.
      most: probability of the commonest feature to be active.
      least: that of the rarest.
      roots: trees; 0 for no hierarchy.
      branching: children of a feature.
      depth: levels below the roots; features that no tree has room for stand alone.
      rank: of the correlations, 0 for none.
      correlation: standard deviation of a factor's entry.
      large: mean magnitude of the commonest feature, falling linearly to
      small: that of the rarest.
      spread: mean and standard deviation of the normal whose absolute value is a feature's
        standard deviation of magnitudes.
      orthogonal_steps: of gradient descent on the squared overlaps of directions.
      offset: norm of a constant that is added to every token; it sets ||mean|| / ||std||.
      seed: 0 or more.
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
            raise UserError(f"{self}: features, size and branching are 1 or more")
        if min(self.roots, self.depth, self.rank, self.orthogonal_steps, self.seed) < 0:
            raise UserError(f"{self}: roots, depth, rank, orthogonal_steps and seed are 0 or more")
        if not 0.0 < self.least <= self.most < 1.0 or self.exponent <= 0.0:
            raise UserError(f"{self}: 0 < least <= most < 1 and exponent > 0 are needed")

    def probability(self) -> np.ndarray:
        """Zipf's, f64[G]: of each feature to be active, but for what `fires` cannot make up for."""
        power = np.arange(1, self.features + 1, dtype=np.float64) ** -self.exponent
        share = (power - power[-1]) / max(power[0] - power[-1], 1e-12)
        return self.least + (self.most - self.least) * share

    def levels(self) -> list[tuple[range, range]]:
        """(parents, children) of each level of the trees; children of one parent are neighbours."""
        found, level = [], range(min(self.roots, self.features))
        for _ in range(self.depth):
            stop = min(self.features, level.stop + len(level) * self.branching)
            found.append((level, range(level.stop, stop)))
            level = found[-1][1]
        return [(parents, children) for parents, children in found if children]

    def fires(self) -> np.ndarray:
        """Of each feature to fire before the hierarchy silences any, f64[G], at most 0.99.

        A child is given 1 / p(parent), and 1 + the mean number of siblings that fire beside it.
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
        """The features' directions, f32[G, d], unit rows, pushed apart."""
        rows = directions(self.seed, (0,), self.features, self.size)
        # The largest eigenvalue of the overlaps bounds the steps that cannot overshoot.
        rate = 0.25 / (1.0 + np.sqrt(self.features / self.size)) ** 2
        for _ in range(self.orthogonal_steps):
            overlap = rows @ rows.T
            np.fill_diagonal(overlap, 0.0)
            rows = rows - rate * overlap @ rows
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows.astype(np.float32)

    def constant(self) -> np.ndarray:
        """What is added to every token, f32[d]: a random direction of length `offset`."""
        return (self.offset * directions(self.seed, (5,), 1, self.size)[0]).astype(np.float32)

    def block(self, number: int) -> Active:
        """The features of tokens number * ROWS to (number + 1) * ROWS - 1."""
        factor = factors(self.seed, (1,), self.features, self.rank, self.correlation)
        drawn = lots(self.seed, (2, number), self.fires(), factor, ROWS)
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
    """Silences children of silent parents, and all children of a parent but one, in place.

    Args:
      on: bool[n, G], what fires; of this level's parents already final.
      drawn: f64[n, G], lots; of the children that fire, the one with the largest lot stays.
      parents: of one level.
      children: theirs, `branching` for each parent in turn; the last ones may lack some.
      branching: children of a parent.
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
