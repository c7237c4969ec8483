"""The difference between two rows of a result, seed by seed, and which of them is better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.shared.place import say


def paired(result: Mapping[str, Any], own: str, other: str) -> dict[str, Any]:
    """Subtracts one row of measures from another and prints which is better; less is better.

    A mean difference is a win or a loss if it exceeds two standard errors over the seeds. If one
    row has fewer seeds, the first seeds of the other are compared.

    Args:
      result: name of a row -> name of a measure -> its summary, as in result.json.
      own: the name of the row that wins if its measures are smaller.
      other: the name of the row that is subtracted; its measures are compared.

    Returns:
      name of a measure -> the mean difference, its standard error as `std`, and each seed's.
    """
    cells = {}
    for measure, row in result[other].items():
        mine, theirs = result[own][measure]["values"], row["values"]
        n = min(len(mine), len(theirs))
        values = np.subtract(mine[:n], theirs[:n])
        mean = float(values.mean())
        error = float(np.std(values, ddof=1) / n**0.5) if n > 1 else float("nan")
        verdict = "a tie" if abs(mean) <= 2.0 * error else "a win" if mean < 0 else "a loss"
        verdict += "" if n > 1 else " of one seed"
        say(f"{own:<12} less {other:<20} {measure:<6} {mean:+.3f} ± {error:.3f}, {verdict}")
        cells[measure] = {"mean": mean, "std": error, "values": values.tolist()}
    return cells
