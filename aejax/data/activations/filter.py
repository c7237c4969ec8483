"""Token filters: attention sinks, the few tokens with huge norms, are dropped and counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from aejax.checks import at_least
from aejax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TokenFilter:
    """Which tokens a writer leaves out.

    Attributes:
      first_positions: tokens dropped at the start of each sequence: 1 for a BOS token.
      norm_quantile: tokens whose norm at any hook is above this quantile are dropped, or None. The
        limit is measured once, on the first append, and stands in the index.
    """

    first_positions: int = 0
    norm_quantile: float | None = None

    def __post_init__(self):
        at_least(0, "first_positions", self.first_positions)
        if self.norm_quantile is not None and not 0.0 < self.norm_quantile < 1.0:
            raise UserError(f"norm_quantile {self.norm_quantile}: give more than 0, less than 1")

    def limits(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The largest norm that stays, for each hook; {} where norms do not matter.

        Args:
          rows: hook -> [n, d], of the first append, without what other reasons drop.

        Raises:
          UserError: too few tokens to tell the quantile.
        """
        if self.norm_quantile is None:
            return {}
        tokens = len(next(iter(rows.values())))
        needed = round(1.0 / (1.0 - self.norm_quantile))
        if tokens < needed:
            raise UserError(
                f"norm_quantile {self.norm_quantile} is measured on the first append, which has "
                f"{tokens} tokens: append {needed} or more first"
            )
        return {
            name: float(np.quantile(norm(values), self.norm_quantile))
            for name, values in rows.items()
        }


def norm(rows: np.ndarray) -> np.ndarray:
    """The norms f64[n] of rows [n, d]."""
    return np.linalg.norm(rows.astype(np.float64), axis=1)


def above(limit: Mapping[str, float], rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """bool[n], tokens whose norm exceeds the limit at any hook; rows: hook -> [n, d]."""
    found = np.zeros(len(next(iter(rows.values()))), bool)
    for name, value in limit.items():
        found |= norm(rows[name]) > value
    return found
