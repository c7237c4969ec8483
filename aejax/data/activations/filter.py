"""Token filters: they drop and count attention sinks, the few tokens with very large norms."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from aejax.checks import at_least
from aejax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TokenFilter:
    """The tokens that a writer does not store.

    Attributes:
      first_positions: the number of tokens to drop at the start of each sequence, such as 1 for a
        BOS token.
      norm_quantile: a quantile of the norm; tokens with a larger norm at any hook are dropped. The
        limit is computed once, from the first append, and kept in the index. None drops no token.
    """

    first_positions: int = 0
    norm_quantile: float | None = None

    def __post_init__(self):
        at_least(0, "first_positions", self.first_positions)
        if self.norm_quantile is not None and not 0.0 < self.norm_quantile < 1.0:
            raise UserError(
                f"norm_quantile is {self.norm_quantile}: give a number above 0 and below 1"
            )

    def limits(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Returns the largest norm to keep for each hook, or {} if there is no `norm_quantile`.

        Args:
          rows: hook -> [n, d], the tokens of the first append that no other reason drops.

        Raises:
          UserError: if there are too few tokens to compute the quantile.
        """
        if self.norm_quantile is None:
            return {}
        tokens = len(next(iter(rows.values())))
        needed = round(1.0 / (1.0 - self.norm_quantile))
        if tokens < needed:
            raise UserError(
                f"norm_quantile {self.norm_quantile} is computed from the first append, which has "
                f"only {tokens} tokens: append at least {needed} at once"
            )
        return {
            name: float(np.quantile(norm(values), self.norm_quantile))
            for name, values in rows.items()
        }


def norm(rows: np.ndarray) -> np.ndarray:
    """Returns the Euclidean norms f64[n] of rows [n, d]."""
    return np.linalg.norm(rows.astype(np.float64), axis=1)


def above(limit: Mapping[str, float], rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns which tokens exceed the limit of the norm at any hook, bool[n].

    Args:
      limit: hook -> the largest norm to keep.
      rows: hook -> [n, d].
    """
    found = np.zeros(len(next(iter(rows.values()))), bool)
    for name, value in limit.items():
        found |= norm(rows[name]) > value
    return found
