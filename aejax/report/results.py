"""Converts result.json to tables of text.

The number of digits of a result depends on its standard deviation over seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from aejax.bottlenecks import sparse
from aejax.files import json_fields

ACRONYMS = ("elbo", "nll", "kl", "bce", "l0", "l1", "mse", "iwae", "auroc", "vae", "sae", "pca")
ACRONYMS += ("mcc", "mmcs", "f1", "fvu", "aupr", "aupro", "bleu")
# The spelling of words that are not written in lower case: acronyms, and names of sparse codes,
# such as TopK for topk.
SPELLINGS = {name: name.upper() for name in ACRONYMS} | {
    name.lower(): name for name in sparse.__all__ if name not in ("Rows", "Sparse")
}
SPELLINGS |= {"april": "April", "matryoshka": "Matryoshka", "auxk": "AuxK"}
SPELLINGS |= {"f1max": "F1max", "padim": "PaDiM", "patchcore": "PatchCore"}
# Explanations of results whose names appear elsewhere on the page with another meaning.
NOTES = {
    "dead": "dead: the share of units that no test example activates",
    "largest_kl": "largest KL: the largest KL of a latent, as the mean over all test examples",
}


class Figure(NamedTuple):
    """One result in result.json, such as the NLL, for all seeds."""

    mean: float  # the mean over seeds
    std: float  # the standard deviation over seeds; 0 for one seed
    values: list[float]  # the value of each seed

    @property
    def digits(self) -> int:
        """Returns the number of decimals that shows two significant digits of `std`.

        If `std` is 0, it shows four significant digits of the largest value.
        """
        if self.std > 0 and math.isfinite(self.std):
            return max(0, 1 - math.floor(math.log10(self.std)))
        finite = [abs(value) for value in (self.mean, *self.values) if math.isfinite(value)]
        largest = max(finite, default=0.0)
        if largest == 0 or all(value.is_integer() for value in finite):
            return 0
        return max(0, 3 - math.floor(math.log10(largest)))


def figures(results: Mapping[str, Any]) -> dict[str, Figure]:
    """Returns all results in result.json by name, as Figures.

    A result is a number, or a mapping with the entries mean, std and values. Other entries of
    result.json are left out.
    """
    read = ((name, _figure(entry)) for name, entry in results.items())
    return {name: figure for name, figure in read if figure is not None}


def groups(results: Mapping[str, Any]) -> dict[str, dict[str, Figure]]:
    """Returns the results of several models: name of a model -> name of a result -> Figure.

    A model's entry in result.json is a mapping of its results; other entries are left out.
    """
    read = (
        (name, figures(entry))
        for name, entry in results.items()
        if isinstance(entry, Mapping) and _figure(entry) is None
    )
    return {name: found for name, found in read if found}


def together(rows: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Mapping[str, Any]]]:
    """Splits the rows of a table into several tables, so that few cells are empty.

    A row joins the first table that has one of its columns. If there is none, it starts a table.

    Args:
      rows: name of a row -> column -> cell, in order.
    """
    tables: list[dict[str, Mapping[str, Any]]] = []
    columns: list[set[str]] = []
    for name, row in rows.items():
        place = next((i for i, own in enumerate(columns) if own & row.keys()), len(tables))
        if place == len(tables):
            tables.append({})
            columns.append(set())
        tables[place][name] = row
        columns[place] |= row.keys()
    return tables


def by_seed(found: Mapping[str, Figure]) -> tuple[list[str], list[list[str]]]:
    """Returns a table with a row for each result: its mean, its std and the value of each seed.

    Args:
      found: name of a result -> Figure, at least one.

    Returns:
      The header and the rows.
    """
    members = max(len(figure.values) for figure in found.values())
    columns: list[list[str]] = [[] for _ in range(2 + members)]
    for figure in found.values():
        missing = [math.nan] * (members - len(figure.values))
        # The values of the seeds are written without decimals if they are whole numbers, even if
        # their mean is not.
        whole = all(value.is_integer() for value in figure.values)
        for i, value in enumerate([figure.mean, figure.std, *figure.values, *missing]):
            columns[i].append(number(value, 0 if whole and i > 1 else figure.digits))
    means, deviations, *each = map(aligned, columns)
    names = [spoken(name) for name in found]
    if members == 1:
        return ["figure", "value"], [list(row) for row in zip(names, means, strict=True)]
    header = ["figure", "mean", "std", *(f"seed {i}" for i in range(members))]
    spread = [len(figure.values) > 1 for figure in found.values()]
    deviations = [
        f"± {std}" if shown else "" for std, shown in zip(deviations, spread, strict=True)
    ]
    return header, [list(row) for row in zip(names, means, deviations, *each, strict=True)]


def by_group(found: Mapping[str, Mapping[str, Figure]]) -> tuple[list[str], list[list[str]]]:
    """Returns a table with a row for each model: the means and stds of its results.

    Args:
      found: name of a model -> name of a result -> Figure; at least one model.

    Returns:
      The header and the rows.
    """
    header, columns = ["model"], [[spoken(name) for name in found]]
    for name in dict.fromkeys(name for group in found.values() for name in group):
        cells = [group.get(name) for group in found.values()]
        digits = _digits([cell for cell in cells if cell])
        means = [number(cell.mean, digits) if cell else "" for cell in cells]
        header.append(spoken(name))
        columns.append(means)
        if any(cell and cell.std > 0 for cell in cells):
            stds = [number(cell.std, digits) if cell and cell.std > 0 else "" for cell in cells]
            header.append("± std")
            columns.append([f"± {std}" if std else "" for std in stds])
    return header, [list(row) for row in zip(*columns, strict=True)]


def notes(names: Iterable[str]) -> str:
    """Returns the explanations in NOTES of the results with these names, as sentences."""
    return " ".join(f"{note[0].upper()}{note[1:]}." for note in map(NOTES.get, names) if note)


def _digits(column: Sequence[Figure]) -> int:
    """Returns the number of decimals with which a table shows a column of results.

    At least half of the standard deviations above 0 show two significant digits or more. If all are
    0, the largest value shows at least four significant digits, and the smallest at least two.
    """
    spread = [figure.digits for figure in column if figure.std > 0]
    if spread:
        return statistics.median_high(spread)
    sizes = [abs(f.mean) for f in column if math.isfinite(f.mean) and not f.mean.is_integer()]
    if not sizes:
        return 0
    return max(0, 3 - math.floor(math.log10(max(sizes))), 1 - math.floor(math.log10(min(sizes))))


def aligned(cells: Sequence[str]) -> list[str]:
    """Pads numbers, given as text, with spaces so that their decimal points are aligned.

    The spaces are as wide as a digit or a point.
    """
    tails = [len(cell.partition(".")[2]) for cell in cells]
    point = any("." in cell for cell in cells)
    return [
        cell + ("\u2008" if point and "." not in cell else "") + "\u2007" * (max(tails) - tail)
        for cell, tail in zip(cells, tails, strict=True)
    ]


def number(value: float, digits: int) -> str:
    """Returns a number as text with `digits` decimals; "" if it is not finite."""
    if not math.isfinite(value):
        return ""
    # A minus sign is used instead of a hyphen, because it is as wide as a digit.
    return f"{value:,.{digits}f}".replace("-", "\u2212")


def spoken(name: str) -> str:
    """Returns a name as the page shows it, such as "active units" for "active_units"."""
    words = name.replace("-", " ").replace("_", " ").split(" ")
    return " ".join(SPELLINGS.get(word, word) for word in words)


def _figure(entry: Any) -> Figure | None:
    """Returns an entry of result.json as a Figure.

    The result is None if the entry is neither a number nor a mapping with a mean. A seed's value
    that is not a number becomes NaN.
    """
    if not isinstance(entry, Mapping):
        return Figure(float(entry), 0.0, [float(entry)]) if _is_number(entry) else None
    if not _is_number(entry.get("mean")):
        return None
    each = entry.get("values")
    each = each if isinstance(each, list | tuple | np.ndarray) else []
    values = [float(value) if _is_number(value) else math.nan for value in each]
    std = float(entry["std"]) if _is_number(entry.get("std")) else 0.0
    return Figure(float(entry["mean"]), std, values)


def _is_number(value: Any) -> bool:
    """Returns whether a value in result.json is a number or stands for one that is not finite."""
    if isinstance(value, np.number):
        return True
    return json_fields.written(value) or isinstance(value, float)
