"""Checks whether a run has reached the target number of active latents (L0) when it ends."""

from __future__ import annotations

import numpy as np

METRIC = "off_target"  # the logged value of `losses.off_target`, mean(L0) / target - 1
TAIL = 10  # the number of last steps over which L0 is averaged; more would hide an oscillation
MOST = 0.1  # a run has missed its target L0 if its mean L0 differs by more than this share of it


def off(values: np.ndarray) -> np.ndarray:
    """Returns each model's relative difference of L0 from its target over the last steps, f[S].

    Args:
      values: the metric METRIC of the last steps, f[n] or f[n, S].
    """
    return np.atleast_1d(np.mean(values[-TAIL:], axis=0))


def verdict(shares: np.ndarray, label: str = "the run") -> str:
    """Returns a warning that lists the models which missed their target L0, or "" if none has.

    Args:
      shares: the result of `off`, f[S].
      label: the name of the run.
    """
    missed = np.flatnonzero(np.abs(shares) > MOST)
    if not missed.size:
        return ""
    worst = shares[missed[np.argmax(np.abs(shares[missed]))]]
    members = "" if len(shares) == 1 else f" in {len(missed)} of {len(shares)} members"
    listed = "" if len(shares) == 1 else f" (members {', '.join(map(str, missed))})"
    if worst > 0:
        side, advice = "above", "or give the recipe their number as `steps` if it has not got it"
    else:
        side = "below"
        advice = "or ask for a smaller l0: a code may use fewer latents even without a penalty"
    return (
        f"{label} ends {abs(worst):.0%} {side} its target L0{members}{listed}: train for more "
        f"steps, {advice}"
    )
