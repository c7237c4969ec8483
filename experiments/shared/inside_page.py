"""Report sections of the experiments on dictionaries of a language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import aejax as ae
from aejax import evaluation
from aejax.data.split import Split
from aejax.evaluation.recovered import explained_by_position
from aejax.report import Section, Table
from aejax.report.frontier import frequency_section, frontier_section
from aejax.report.side_by_side import side_by_side_section
from experiments.shared.experiment import Finished, Models, first_curves
from experiments.shared.inside import of_dictionary
from experiments.shared.lm import rows_of

POSITIONS = (1, 2, 3, 4, 8, 16, 32, 64, 127)  # the positions in a row whose variance is shown


def by_position(hook: str, models: Models, split: Split) -> Section:
    """Builds the table of the variance that each dictionary explains at positions in a row.

    Args:
      hook: the hook whose values the dictionaries encode and reconstruct.
      models: the trained models.
      split: the test split.
    """
    test = rows_of(split)
    x = test.values(hook)
    position = np.broadcast_to(np.arange(x.shape[1]), x.shape[:2])[test.kept]
    shown = [p for p in POSITIONS if p < x.shape[1]]
    rows = []
    for name, (model, variables) in models.items():
        reading = of_dictionary(ae.fold(model, variables), hook)
        assert reading.rebuild is not None
        values = x[test.kept]
        found = explained_by_position(values, reading.rebuild(values), position)
        rows.append((name, *(f"{found[p]:.3f}" for p in shown)))
    return Section(
        "Explained variance by position",
        "The variance of the activations at one position in the row of tokens that each "
        "dictionary explains, without attention sinks.",
        table=Table(("", *(f"position {p}" for p in shown)), rows),
    )


def frequencies(models: Models, split: Split) -> Section:
    """Builds the section on how often latents are active for test tokens."""
    found = {
        name: evaluation.sparsity(model, variables, split).frequency
        for name, (model, variables) in models.items()
    }
    return frequency_section(found)


def findings(config: Any, finished: Finished) -> list[Any]:
    """Builds the section that plots explained variance and recovered cross-entropy against L0."""
    names = ("explained_variance", "ce_recovered")
    rows = {
        name: [row]
        for name, row in finished.result.items()
        if isinstance(row, dict) and all(figure in row for figure in names)
    }
    text = (
        "The variance of test activations that each row explains, and the share of the language "
        "model's cross-entropy that it recovers against zero ablation."
    )
    return [frontier_section(rows, {}, names, text)]


def curves(histories: Mapping[str, Any]) -> Section:
    """Builds the section on the learning curves of all dictionaries, in shared plots."""
    section = side_by_side_section(histories, " over seeds")
    return first_curves(histories) if section is None else section
