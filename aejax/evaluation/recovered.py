"""How much of a language model's loss, and of its activations by position, a dictionary recovers.

    share = recovered(clean, spliced, ablated, counted)   # losses by token, f64[...], nats
    share.share, share.lost, share.lost_error
    explained_by_position(x, rebuilt, position)           # f64[P]

In the spliced model, the dictionary's reconstructions replace activations; in the ablated model,
zeros or mean activations do. The recovered share is 1 if the spliced model's loss is that of the
unchanged ("clean") model, and 0 if it is that of the ablated model. With zeros the ablated loss is
larger than with mean activations, so that the same dictionary scores higher.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aejax.errors import UserError


class Recovered(NamedTuple):
    """The loss that a dictionary recovers, over N tokens."""

    share: float  # (ablated - spliced) / (ablated - clean), of the mean losses
    clean: float  # nats, the mean loss of the unchanged model
    spliced: float  # nats, the mean loss with the dictionary's reconstructions
    ablated: float  # nats, the mean loss with the values ablated
    lost: float  # nats, spliced - clean
    lost_error: float  # nats, the standard error of `lost`, from the differences of the R texts
    tokens: int  # N, the number of tokens that are counted


def recovered(
    clean: np.ndarray, spliced: np.ndarray, ablated: np.ndarray, counted: np.ndarray
) -> Recovered:
    """Computes the share of a loss that a dictionary recovers, compared with an ablation.

    Args:
      clean: the loss of each of P tokens of R texts in the unchanged model, f[R, P], nats; zeros if
        the losses are KL divergences from the unchanged model.
      spliced: the loss of each token with reconstructions, f[R, P], nats.
      ablated: the loss of each token with zeros, or mean activations, in place of the activations,
        f[R, P], nats.
      counted: whether a token counts, bool[R, P]: False for padding, and for attention sinks if
        they are to be left out.

    Raises:
      UserError: if the shapes differ, or no token counts.
    """
    arrays = [np.asarray(a, np.float64) for a in (clean, spliced, ablated)]
    counted = np.asarray(counted, bool)
    if any(a.shape != counted.shape or a.ndim != 2 for a in arrays):
        shapes = [a.shape for a in (*arrays, counted)]
        raise UserError(f"losses and mask have the shapes {shapes}: give four arrays [R, P]")
    if not counted.any():
        raise UserError("no token counts, so no loss can be measured: set `counted` True for some")
    means = [float(a[counted].mean()) for a in arrays]
    room = means[2] - means[0]
    share = (means[2] - means[1]) / room if room else float("nan")
    rows = counted.sum(axis=1)
    sums = np.where(counted, arrays[1] - arrays[0], 0.0).sum(axis=1)
    lost = means[1] - means[0]
    # `lost` is a ratio of two sums over texts. Its error is computed from whole texts, because the
    # tokens of a text are not independent of each other.
    used = rows > 0
    apart = (sums - lost * rows)[used]
    error = np.sqrt(np.sum(np.square(apart)) * used.sum() / max(used.sum() - 1, 1)) / rows.sum()
    clean_, spliced_, ablated_ = means
    return Recovered(share, clean_, spliced_, ablated_, lost, float(error), int(counted.sum()))


def explained_by_position(
    target: np.ndarray, prediction: np.ndarray, position: np.ndarray
) -> np.ndarray:
    """Computes the explained variance at each position, f64[P], NaN where there is no token.

    It is 1 - sum ||x - x_hat||^2 / sum ||x - mean||^2 over the tokens at one position, where mean
    is the mean of these tokens, so that predicting the mean of each position scores 0.

    Args:
      target: f[N, D], the activations.
      prediction: f[N, D], their reconstructions.
      position: i[N], the position of each token, from 0.
    """
    x, y = np.asarray(target, np.float64), np.asarray(prediction, np.float64)
    where = np.asarray(position, np.int64)
    if x.shape != y.shape or x.ndim != 2 or where.shape != x.shape[:1]:
        raise UserError(
            f"target {x.shape}, prediction {y.shape} and position {where.shape} do not belong "
            "together: give [N, D], [N, D] and [N]"
        )
    found = np.full(int(where.max(initial=-1)) + 1, np.nan)
    for p in np.unique(where):
        own = x[where == p]
        total = np.square(own - own.mean(axis=0)).sum()
        if total > 0:
            found[p] = 1.0 - np.square(own - y[where == p]).sum() / total
    return found
