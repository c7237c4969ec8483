"""Tables of result.json as text, with as many digits as the deviation over seeds justifies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from aejax.bottlenecks import sparse

ACRONYMS = ("elbo", "nll", "kl", "bce", "l0", "l1", "mse", "iwae", "auroc", "vae", "sae", "pca")
# A word that is a class of sparse code, such as topk, is spelled as the class is.
SPELLINGS = {name: name.upper() for name in ACRONYMS} | {
    name.lower(): name for name in sparse.__all__ if name != name.capitalize()
}
# In result.json, numbers that are not finite are written as these strings (see `aejax.files`).
NOT_FINITE = ("NaN", "Infinity", "-Infinity")
# Explanations of results whose name also stands elsewhere on the page, for other examples.
NOTES = {
    "dead": "dead: the share of units that no test example activates",
    "largest_kl": "largest KL: the largest KL of a latent, as the mean over all test examples",
}


class Figure(NamedTuple):
    """One result of result.json, such as the NLL, over all seeds."""

    mean: float  # the mean over seeds
    std: float  # the standard deviation over seeds; 0 for one seed
    values: list[float]  # the value of each seed

    @property
    def digits(self) -> int:
        """The number of decimals to show two digits of `std`, or four of the values if it is 0."""
        if self.std > 0 and math.isfinite(self.std):
            return max(0, 1 - math.floor(math.log10(self.std)))
        finite = [abs(value) for value in (self.mean, *self.values) if math.isfinite(value)]
        largest = max(finite, default=0.0)
        if largest == 0 or all(value.is_integer() for value in finite):
            return 0
        return max(0, 3 - math.floor(math.log10(largest)))


def figures(results: Mapping[str, Any]) -> dict[str, Figure]:
    """Returns name -> Figure for entries {"mean", "std", "values"} and for single numbers.

    All other entries are left out.
    """
    read = ((name, _figure(entry)) for name, entry in results.items())
    return {name: figure for name, figure in read if figure is not None}


def groups(results: Mapping[str, Any]) -> dict[str, dict[str, Figure]]:
    """Returns name -> figures for entries that are mappings, such as results of another model."""
    read = (
        (name, figures(entry))
        for name, entry in results.items()
        if isinstance(entry, Mapping) and _figure(entry) is None
    )
    return {name: found for name, found in read if found}


def together(rows: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Mapping[str, Any]]]:
    """Splits rows into tables; a row that shares no column with the current table begins a new one.

    Args:
      rows: name of a row -> column -> cell, in order.
    """
    tables: list[dict[str, Mapping[str, Any]]] = []
    columns: set[str] = set()
    for name, row in rows.items():
        if not tables or not columns & row.keys():
            tables.append({})
            columns = set()
        tables[-1][name] = row
        columns |= row.keys()
    return tables


def by_seed(found: Mapping[str, Figure]) -> tuple[list[str], list[list[str]]]:
    """Returns a table with a row for each result: its mean, deviation and the value of each seed.

    Args:
      found: name of a result -> Figure, at least one.

    Returns:
      The header and the rows.
    """
    members = max(len(figure.values) for figure in found.values())
    columns: list[list[str]] = [[] for _ in range(2 + members)]
    for figure in found.values():
        missing = [math.nan] * (members - len(figure.values))
        # Counts are written without decimals for each seed, even if their mean has some.
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
    """Returns a table with a row for each model: the means and deviations of its results.

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
    """Returns the explanations in NOTES of these results, as sentences."""
    return " ".join(f"{note[0].upper()}{note[1:]}." for note in map(NOTES.get, names) if note)


def _digits(column: Sequence[Figure]) -> int:
    """Returns the number of decimals of a column, one for all cells, so that points align.

    Every deviation has at least two digits; if there is no deviation, the largest value has four
    digits and the smallest two.
    """
    spread = [figure.digits for figure in column if figure.std > 0]
    if spread:
        return max(spread)
    sizes = [abs(f.mean) for f in column if math.isfinite(f.mean) and not f.mean.is_integer()]
    if not sizes:
        return 0
    return max(0, 3 - math.floor(math.log10(max(sizes))), 1 - math.floor(math.log10(min(sizes))))


def aligned(cells: Sequence[str]) -> list[str]:
    """Pads numbers with digit-wide and point-wide spaces, so that their decimal points align."""
    tails = [len(cell.partition(".")[2]) for cell in cells]
    point = any("." in cell for cell in cells)
    return [
        cell + ("\u2008" if point and "." not in cell else "") + "\u2007" * (max(tails) - tail)
        for cell, tail in zip(cells, tails, strict=True)
    ]


def number(value: float, digits: int) -> str:
    """Writes a number with this many decimals; "" if it is not finite."""
    if not math.isfinite(value):
        return ""
    # A real minus sign is as wide as a digit; a hyphen is not.
    return f"{value:,.{digits}f}".replace("-", "\u2212")


def spoken(name: str) -> str:
    """Spells a name for readers: active_units -> active units, nll -> NLL, l1-mean -> L1 mean."""
    return " ".join(SPELLINGS.get(word, word) for word in name.replace("-", "_").split("_"))


def _figure(entry: Any) -> Figure | None:
    """Returns an entry as a Figure, or None if it has another form.

    A seed's value that is not a number becomes NaN.
    """
    if not isinstance(entry, Mapping):
        return Figure(float(entry), 0.0, [float(entry)]) if _is_number(entry) else None
    if not _is_number(entry.get("mean")):
        return None
    values = [float(value) if _is_number(value) else math.nan for value in entry.get("values", [])]
    std = float(entry["std"]) if _is_number(entry.get("std")) else 0.0
    return Figure(float(entry["mean"]), std, values)


def _is_number(value: Any) -> bool:
    """Returns whether a value of result.json is a number, or the text of one that is not finite."""
    if isinstance(value, str):
        return value in NOT_FINITE
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
