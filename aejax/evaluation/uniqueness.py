"""Which latents two dictionaries, trained with different seeds, have in common.

    found = shared_latents(a.W_dec, b.W_dec)
    found.share            # the share of the first dictionary's latents that the second also has

After Paulo and Belrose 2025, "Sparse autoencoders trained on the same data learn different
features": the rows of both decoders are matched one to one, with the largest sum of cosines
(Hungarian matching), and a pair counts as the same feature if its cosine is at least 0.7.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aejax.errors import UserError
from aejax.evaluation.features import cosines

SAME = 0.7  # the least cosine of two rows that count as the same feature


class Shared(NamedTuple):
    """The matched latents of two dictionaries."""

    share: float  # the share of the first dictionary's m latents that have a partner
    unique: float  # 1 - share
    cosine: np.ndarray  # f64[m], the cosine of each latent with its match; NaN if it has none
    match: np.ndarray  # i64[m], the index of the match in the second dictionary; -1 if it has none


def shared_latents(first: np.ndarray, second: np.ndarray, same: float = SAME) -> Shared:
    """Matches the decoder rows of two dictionaries one to one.

    Args:
      first: f[m, D], the decoder rows of one dictionary.
      second: f[n, D], the decoder rows of another dictionary.
      same: the least cosine of a pair that counts as the same feature. The sign matters, because a
        latent of a nonnegative code and its opposite are different features.

    Raises:
      UserError: if an array is not a matrix, the rows of the two differ in length, or `same` is not
        a cosine.
    """
    from scipy.optimize import linear_sum_assignment

    if not -1.0 <= same <= 1.0:
        raise UserError(f"same is {same}, but it is a cosine: give a number from -1 to 1")
    cosine = cosines(first, second)
    # Negative cosines count as 0; otherwise the matching could give up another latent's perfect
    # match to avoid a pair of opposite rows.
    rows, columns = linear_sum_assignment(np.maximum(cosine, 0.0), maximize=True)
    match, found = np.full(len(cosine), -1), np.full(len(cosine), np.nan)
    match[rows], found[rows] = columns, cosine[rows, columns]
    share = float(np.sum(np.nan_to_num(found, nan=-np.inf) >= same) / len(cosine))
    return Shared(share, 1.0 - share, found, match)
