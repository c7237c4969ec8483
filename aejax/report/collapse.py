"""Posterior collapse: the warning and the table about it on the report page."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from aejax.evaluation.usage import ACTIVE, LEAST, collapsed
from aejax.report.page import Section, Table
from aejax.report.results import number, spoken

PREFIX = "validation_"  # the prefix that results of evaluation.usage have in metrics.jsonl
# The columns of one run's metrics.jsonl: name -> f[n], f[n, S] or f[n, S, L].
Columns = Mapping[str, np.ndarray]


def last(columns: Columns) -> dict[str, np.ndarray]:
    """Returns the last logged results of `evaluation.usage` by name, f[S] or f[S, L].

    Args:
      columns: the columns of a run's metrics.jsonl; if they have no such results, {} is returned.
    """
    found = {}
    names = ("mutual_information", "mutual_information_of_top", "active_units", "kl_per_dimension")
    for name in names:
        values = columns.get(PREFIX + name)
        if values is not None:
            there = ~np.isnan(values.reshape(len(values), -1)).all(axis=1)
            found[name] = np.atleast_1d(values[there][-1])
    return found


def verdict(runs: Mapping[str, Columns]) -> str:
    """Returns a warning for each trained model whose posterior has collapsed; "" if none has.

    Args:
      runs: name of a model -> the columns of its metrics.jsonl.
    """
    said = []
    for label, columns in runs.items():
        found = last(columns)
        gone = collapsed(found)
        if gone.any():
            said.append(
                f"{label} has collapsed{_of(gone)}: its code carries no information about x, and "
                "the decoder ignores it."
            )
        silent = found.get("mutual_information_of_top", np.zeros(0)) < LEAST
        if silent.any() and not gone.any():
            said.append(
                f"The top level of {label} has collapsed{_of(silent)}: it carries no information "
                "about x, and the levels below ignore it."
            )
    return " ".join(said)


def _of(which: np.ndarray) -> str:
    """Returns a text in brackets that lists the seeds for which `which`, bool[S], is True.

    For a run with one seed it returns "".
    """
    members = np.flatnonzero(which)
    listed = ", ".join(map(str, members))
    return "" if len(which) == 1 else f" ({len(members)} of {len(which)} seeds: {listed})"


def collapse_section(runs: Mapping[str, Columns]) -> Section | None:
    """Builds the section on how much information the codes carry about x.

    Its table has a row for each model and seed, and it begins with a warning if a posterior has
    collapsed. The result is None if `evaluation.usage` was logged for no model.

    Args:
      runs: name of a model -> the columns of its metrics.jsonl.
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
        "KL and mutual information are in nats, on the validation examples that are evaluated "
        "during training. The mutual information is estimated among these examples alone, so it is "
        "at most the log of their number; for levels drawn from the top down it is that of the top "
        f"level. A unit is active if the variance of its posterior mean exceeds {ACTIVE:g}. A code "
        f"has collapsed if its mutual information with x is below {LEAST:g} nats."
    )
    said = verdict(runs)
    title = "Posterior collapse" if said else "What the codes carry"
    return Section(title, f"{said}\n\n{text}" if said else text, table=Table(header, rows))
