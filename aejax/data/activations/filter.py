"""Token filters: they keep tokens such as attention sinks, whose norms are huge, out of a store."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from aejax.checks import at_least
from aejax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TokenFilter:
    """States which tokens an `ActivationWriter` does not store.

    The largest norm to keep is computed for each hook from the first append, and stored in the
    store's index; a token is dropped if its norm exceeds this limit at any hook. If both
    norm_quantile and norm_median are given, the smaller limit applies.

    Attributes:
      first_positions: the number of tokens to drop at the start of each sequence, such as 1 for a
        BOS token.
      norm_quantile: a quantile of the norm; tokens with a larger norm are dropped. None: no limit.
      tokens: the ids of tokens to drop, such as those of BOS, EOS and newlines; the writer then
        needs the column "token".
      norm_median: a multiple of the median norm, such as 10; tokens with a larger norm are dropped.
        None: no limit.
    """

    first_positions: int = 0
    norm_quantile: float | None = None
    tokens: tuple[int, ...] = ()
    norm_median: float | None = None

    def __post_init__(self):
        at_least(0, "first_positions", self.first_positions)
        if self.norm_quantile is not None and not 0.0 < self.norm_quantile < 1.0:
            raise UserError(
                f"norm_quantile is {self.norm_quantile}: give a number above 0 and below 1"
            )
        if self.norm_median is not None and not 1.0 <= self.norm_median < np.inf:
            raise UserError(
                f"norm_median is {self.norm_median}, but it is a multiple of the median norm: give "
                "a number of 1 or more"
            )

    def settings(self) -> dict[str, object]:
        """Returns the attributes as a mapping, which the store's index records.

        They are compared when a store is continued. Attributes that older stores lack are included
        only if they differ from their defaults.
        """
        older = ("first_positions", "norm_quantile")
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name in older or getattr(self, field.name) != field.default
        }

    def limits(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Returns the largest norm to keep for each hook, or {} if the norm has no limit.

        Args:
          rows: hook -> [n, d], the tokens of the first append that first_positions and tokens keep.

        Raises:
          UserError: if there are too few tokens to compute the quantile or the median.
        """
        if self.norm_quantile is None and self.norm_median is None:
            return {}
        tokens = len(next(iter(rows.values())))
        needed = 1 if self.norm_quantile is None else round(1.0 / (1.0 - self.norm_quantile))
        if tokens < needed:
            raise UserError(
                f"norm_quantile {self.norm_quantile} is computed from the first append, which has "
                f"only {tokens} tokens: append at least {needed} at once"
            )
        return {name: self._limit(norm(values)) for name, values in rows.items()}

    def _limit(self, norms: np.ndarray) -> float:
        """Returns the largest norm to keep at one hook, from the norms f64[n] of its tokens."""
        quantile = 1.0 if self.norm_quantile is None else self.norm_quantile
        limit = float(np.quantile(norms, quantile)) if quantile < 1.0 else np.inf
        multiple = np.inf if self.norm_median is None else self.norm_median
        return min(limit, multiple * float(np.median(norms)) if multiple < np.inf else np.inf)


def norm(rows: np.ndarray) -> np.ndarray:
    """Returns the Euclidean norms f64[n] of rows [n, d]."""
    return np.linalg.norm(rows.astype(np.float64), axis=1)


def above(limit: Mapping[str, float], rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns bool[n], whether each token's norm exceeds the limit at one or more hooks.

    Args:
      limit: hook -> the largest norm to keep.
      rows: hook -> [n, d].
    """
    found = np.zeros(len(next(iter(rows.values()))), bool)
    for name, value in limit.items():
        found |= norm(rows[name]) > value
    return found
