"""Steering: the report section on how far the L0 of a run is from the target of its controller.

A steered run is one whose sparsity coefficient a controller adjusts to reach a target L0.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from aejax.report.page import Section, Table
from aejax.report.results import spoken
from aejax.training import steering

# The columns of one run's metrics.jsonl: name -> f[n], f[n, S] or f[n, S, L].
Columns = Mapping[str, np.ndarray]


def reached(runs: Mapping[str, Columns]) -> dict[str, np.ndarray]:
    """Returns how far the L0 of each steered run is from its target.

    Args:
      runs: name of a run -> the columns of its metrics.jsonl.

    Returns:
      name of a steered run -> L0 / target - 1 of its S models, f[S].
    """
    found = {}
    for label, columns in runs.items():
        held = columns.get(f"validation_{steering.METRIC}")
        if held is not None:
            there = ~np.isnan(held.reshape(len(held), -1)).any(axis=1)
            found[label] = np.atleast_1d(held[there][-1])
        elif steering.METRIC in columns:
            found[label] = steering.off(columns[steering.METRIC])
    return found


def steering_verdict(runs: Mapping[str, Columns]) -> str:
    """Returns a text with a sentence for each run that missed its target L0, or "".

    A run misses the target if L0 differs from it by more than a tenth.
    """
    said = (steering.verdict(shares, spoken(label)) for label, shares in reached(runs).items())
    return " ".join(f"{sentence}." for sentence in said if sentence)


def steering_section(runs: Mapping[str, Columns]) -> Section | None:
    """Builds the section on steered runs; the result is None if no run was steered.

    Args:
      runs: name of a run -> the columns of its metrics.jsonl.
    """
    found = reached(runs)
    if not found:
        return None
    rows = []
    for label, shares in found.items():
        low, high = 100 * float(shares.min()), 100 * float(shares.max())
        missed = int(np.sum(np.abs(shares) > steering.MOST))
        rows.append((spoken(label), f"{low:+.1f} %", f"{high:+.1f} %", f"{missed} missed it"))
    said = steering_verdict(runs)
    text = (
        "By how much the number of active latents differs from the target of its controller, at "
        "the end of training, on validation examples if they were evaluated."
    )
    header = ("code", "lowest", "highest", f"of {max(map(len, found.values()))} models")
    title = "Active latents miss their target" if said else "Active latents and their target"
    return Section(title, f"{said}\n\n{text}" if said else text, table=Table(header, rows))
