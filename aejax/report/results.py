"""The final figures as rows of text: result.json made readable, digits by the spread over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

ACRONYMS = {"elbo", "nll", "kl", "bce", "l0", "l1", "mse", "iwae", "auroc", "vae", "sae", "pca"}


class Figure(NamedTuple):
    """One figure of result.json."""

    mean: float
    std: float  # over seeds; 0 for one seed
    values: list[float]  # of each seed

    @property
    def digits(self) -> int:
        """Decimals that show two digits of the deviation, or four of a value without one."""
        if self.std > 0 and math.isfinite(self.std):
            return max(0, 1 - math.floor(math.log10(self.std)))
        finite = [abs(value) for value in (self.mean, *self.values) if math.isfinite(value)]
        largest = max(finite, default=0.0)
        if largest == 0 or all(value.is_integer() for value in finite):
            return 0
        return max(0, 3 - math.floor(math.log10(largest)))


def figures(results: Mapping[str, Any]) -> dict[str, Figure]:
    """The entries that are figures: {"mean": ..., "std": ..., "values": [...]}, or one number."""
    read = ((name, _figure(entry)) for name, entry in results.items())
    return {name: figure for name, figure in read if figure is not None}


def groups(results: Mapping[str, Any]) -> dict[str, dict[str, Figure]]:
    """The entries that hold figures of their own: another model's, say."""
    read = (
        (name, figures(entry))
        for name, entry in results.items()
        if isinstance(entry, Mapping) and _figure(entry) is None
    )
    return {name: found for name, found in read if found}


def together(rows: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Mapping[str, Any]]]:
    """Rows as one or several tables, in order: rows stay together while they share a column."""
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
    """Header and rows: each figure's mean, deviation and the value of each seed.

    Args:
      found: not empty.
    """
    members = max(len(figure.values) for figure in found.values())
    columns: list[list[str]] = [[] for _ in range(2 + members)]
    for figure in found.values():
        missing = [math.nan] * (members - len(figure.values))
        # Counts of each seed stay whole beside a mean that is none.
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
    """Header and rows: each group's figures side by side, mean and deviation.

    Args:
      found: not empty.
    """
    header, columns = ["model"], [[spoken(name) for name in found]]
    for name in dict.fromkeys(name for group in found.values() for name in group):
        cells = [group.get(name) for group in found.values()]
        header.append(spoken(name))
        columns.append(aligned([number(c.mean, c.digits) if c else "" for c in cells]))
        if any(cell and cell.std > 0 for cell in cells):
            header.append("")
            stds = aligned([number(c.std, c.digits) if c and c.std > 0 else "" for c in cells])
            columns.append([f"± {std}" if std.strip() else "" for std in stds])
    return header, [list(row) for row in zip(*columns, strict=True)]


def aligned(cells: Sequence[str]) -> list[str]:
    """Pads numbers at the right with spaces as wide as a digit or a point, so that points align."""
    tails = [len(cell.partition(".")[2]) for cell in cells]
    point = any("." in cell for cell in cells)
    return [
        cell + ("\u2008" if point and "." not in cell else "") + "\u2007" * (max(tails) - tail)
        for cell, tail in zip(cells, tails, strict=True)
    ]


def number(value: float, digits: int) -> str:
    """A number with so many decimals; what is not finite is left blank."""
    if not math.isfinite(value):
        return ""
    # A real minus sign is as wide as a digit; a hyphen is not.
    return f"{value:,.{digits}f}".replace("-", "\u2212")


def spoken(name: str) -> str:
    """A figure's name as people write it: active_units -> active units, nll -> NLL."""
    return " ".join(word.upper() if word in ACRONYMS else word for word in name.split("_"))


def _figure(entry: Any) -> Figure | None:
    """None where the entry is no figure; a value that is no number, as NaN in JSON, is NaN."""
    if not isinstance(entry, Mapping):
        return Figure(float(entry), 0.0, [float(entry)]) if _is_number(entry) else None
    if not _is_number(entry.get("mean")):
        return None
    values = [float(value) if _is_number(value) else math.nan for value in entry.get("values", [])]
    std = float(entry["std"]) if _is_number(entry.get("std")) else 0.0
    return Figure(float(entry["mean"]), std, values)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
