"""Made counts: a matrix of cells and genes with the structure of single-cell data, by a recipe.

A cell belongs to one of several types, which is a point in a latent space; cells of a type lie
around it. The shares of the genes are the softmax of a random two-layer map of this point, the
sizes of cells are log-normal, and counts are negative binomial with an inverse dispersion for each
gene. Only numpy is imported, so that programs of other libraries read the same numbers.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np


class Counts(NamedTuple):
    """Counts, and what they were drawn from."""

    counts: np.ndarray  # f32[cells, genes]
    kinds: np.ndarray  # i32[cells], the types
    means: np.ndarray  # f64[cells, genes], the expected counts
    thetas: np.ndarray  # f64[genes], the inverse dispersions


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The numbers of the recipe."""

    cells: int = 6_000
    genes: int = 100
    kinds: int = 6  # types of cells
    latents: int = 4  # dimensions of the space of cells
    size: float = 600.0  # median of the sizes, the sums of the expected counts
    spread: float = 0.5  # standard deviation of the logarithm of the sizes
    dispersion: float = 2.0  # median of the inverse dispersions

    def made(self, seed: int = 0) -> Counts:
        """Draws the matrix; one seed gives the same numbers."""
        random = np.random.default_rng([seed, 22])
        centres = 2.0 * random.normal(size=(self.kinds, self.latents))
        kinds = random.integers(0, self.kinds, self.cells)
        points = centres[kinds] + 0.5 * random.normal(size=(self.cells, self.latents))
        first = random.normal(size=(self.latents, 16)) / self.latents**0.5
        second = random.normal(size=(16, self.genes)) / 4.0
        logits = 2.0 * np.tanh(points @ first) @ second + random.normal(size=self.genes)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        sizes = self.size * np.exp(self.spread * random.normal(size=(self.cells, 1)))
        thetas = self.dispersion * np.exp(random.normal(size=self.genes))
        means = sizes * shares
        rates = random.gamma(np.broadcast_to(thetas, means.shape), means / thetas)
        counts = random.poisson(rates).astype(np.float32)
        return Counts(counts, kinds.astype(np.int32), means, thetas)


def parts(cells: int) -> tuple[slice, slice, slice]:
    """Returns the rows of train (70 %), validation (10 %) and test (20 %); cells have no order."""
    first, second = round(0.7 * cells), round(0.8 * cells)
    return slice(0, first), slice(first, second), slice(second, cells)
