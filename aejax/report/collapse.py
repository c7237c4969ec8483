"""Posterior collapse: said first where it has happened."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from aejax.evaluation.usage import ACTIVE, LEAST, collapsed
from aejax.report.page import Section, Table
from aejax.report.results import number, spoken

PREFIX = "validation_"  # of the figures that `usage` gives, in metrics.jsonl
Columns = Mapping[
    str, np.ndarray
]  # of one run's metrics.jsonl: name -> f[n], f[n, S] or f[n, S, L]


def last(columns: Columns) -> dict[str, np.ndarray]:
    """What `usage` gave at the end of a run, f[S] and f[S, L]; empty where it gave nothing."""
    found = {}
    names = ("mutual_information", "mutual_information_of_top", "active_units", "kl_per_dimension")
    for name in names:
        values = columns.get(PREFIX + name)
        if values is not None:
            there = ~np.isnan(values.reshape(len(values), -1)).all(axis=1)
            found[name] = np.atleast_1d(values[there][-1])
    return found


def verdict(runs: Mapping[str, Columns]) -> str:
    """A sentence for each part that has collapsed members, or "".

    Args:
      runs: part -> its metrics.
    """
    said = []
    for label, columns in runs.items():
        found = last(columns)
        gone = collapsed(found)
        if gone.any():
            said.append(
                f"{label} has collapsed{_of(gone)}: its code tells nothing of x, and the decoder "
                "does without it."
            )
        silent = found.get("mutual_information_of_top", np.zeros(0)) < LEAST
        if silent.any() and not gone.any():
            said.append(
                f"The top level of {label} has collapsed{_of(silent)}: it tells nothing of x, and "
                "the levels below do without it."
            )
    return " ".join(said)


def _of(which: np.ndarray) -> str:
    """Which members, from bool[S]."""
    members = np.flatnonzero(which)
    listed = ", ".join(map(str, members))
    return "" if len(which) == 1 else f" ({len(members)} of {len(which)} seeds: {listed})"


def collapse_section(runs: Mapping[str, Columns]) -> Section | None:
    """What the codes of each part carry at the end, collapse first; None where none is random.

    Args:
      runs: part -> its metrics.
    """
    rows = []
    for label, columns in runs.items():
        found = last(columns)
        for i, gone in enumerate(collapsed(found)):
            top = found.get("mutual_information_of_top")
            information, kl = found.get("mutual_information", top), found.get("kl_per_dimension")
            rows.append(
                (
                    spoken(label),
                    i,
                    "" if kl is None else number(kl[i].sum(), 2),
                    "" if information is None else number(information[i], 2),
                    int(found["active_units"][i]),
                    "" if kl is None else number(kl[i].max(), 2),
                    "collapsed" if gone else "",
                )
            )
    if not rows:
        return None
    header = ("model", "seed", "KL", "mutual information", "active units", "largest KL", "")
    text = (
        "KL and mutual information in nats on the validation examples that training looks at, the "
        "latter under these examples alone and so at most the log of their number; of levels drawn "
        "from the top down it is the top level's alone. A unit is "
        f"active if the variance of its mean exceeds {ACTIVE:g}; a code that tells less than "
        f"{LEAST:g} nats of x has collapsed."
    )
    said = verdict(runs)
    title = "Posterior collapse" if said else "What the codes carry"
    return Section(title, f"{said}\n\n{text}" if said else text, table=Table(header, rows))
