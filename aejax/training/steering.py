"""Steering: whether a run ends at the number of active latents that it was steered to."""

from __future__ import annotations

import numpy as np

METRIC = "off_target"  # `losses.off_target`, which every steered objective watches
TAIL = 10  # the number of last steps over which L0 is averaged: few, or a swing is not seen
MOST = 0.1  # a run whose mean L0 differs from its target by more than this share has missed it


def off(values: np.ndarray) -> np.ndarray:
    """Returns by which share each member's L0 differs from its target at the end, f[S].

    Args:
      values: the metric METRIC of the last steps, f[n] or f[n, S].
    """
    return np.atleast_1d(np.mean(values[-TAIL:], axis=0))


def verdict(shares: np.ndarray, label: str = "the run") -> str:
    """Returns a sentence on the members that missed their target, "" if none has.

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
    side = "above" if worst > 0 else "below"
    return (
        f"{label} ends {abs(worst):.0%} {side} the L0 that it was steered to{members}{listed}: "
        "train for more steps, or tell the recipe how many there are by its argument steps"
    )
