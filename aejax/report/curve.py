"""Learning curves: a run's metrics as columns, thinned to what a plot can show."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from aejax.runs import metrics

Curve: TypeAlias = tuple[np.ndarray, np.ndarray]  # steps i[n], values f[n] or f[n, S]
History: TypeAlias = Mapping[str, Curve]
PARTS = ("train", "validation", "test")


class Line(NamedTuple):
    """A curve as it is drawn."""

    steps: np.ndarray  # f[n]
    mean: np.ndarray  # f[n], over seeds
    low: np.ndarray  # f[n], the least over seeds
    high: np.ndarray  # f[n], the greatest over seeds


def history(path: str | os.PathLike) -> dict[str, Curve]:
    """Reads the metrics of a run.

    Args:
      path: the run's folder, or its metrics.jsonl.

    Returns:
      name -> (steps i64[n], values f64[n] or f64[n, S]), with the lines alone that have the name;
      figures that are vectors have no curve and are left out.

    Raises:
      UserError: the folder has no metrics, or a line is no JSON.
    """
    folder = Path(path).parent if Path(path).name == metrics.NAME else Path(path)
    columns = metrics.read(folder)
    steps = columns["step"]
    curves = {}
    for name, values in columns.items():
        if name in ("step", "time") or values.ndim > 2:
            continue
        there = ~np.isnan(values.reshape(len(values), -1)).all(axis=1)
        curves[name] = (steps[there], values[there])
    return curves


def binned(curve: Curve, log_steps: bool = True, bins: int = 160) -> Line:
    """Averages neighbouring steps, so that a curve has at most `bins` points.

    Args:
      curve: steps i[n] and values f[n] or f[n, S].
      log_steps: whether bins are equally wide on a logarithmic axis.
      bins: the most points.

    Returns:
      A Line; its steps count from 1, the number of steps taken.
    """
    steps, values = np.asarray(curve[0], float) + 1, np.asarray(curve[1], float)
    values = values.reshape(len(steps), -1)
    if len(steps) > bins:
        spaced = np.geomspace if log_steps else np.linspace
        edges = spaced(steps[0], steps[-1], bins + 1)[1:-1]
        index = np.searchsorted(edges, steps, side="left")
        first = np.flatnonzero(np.r_[True, np.diff(index) > 0])
        count = np.diff(np.r_[first, len(steps)])
        steps = np.add.reduceat(steps, first) / count
        values = np.add.reduceat(values, first, axis=0) / count[:, None]
    return Line(steps, values.mean(axis=1), values.min(axis=1), values.max(axis=1))


def grouped(history: History) -> dict[str, dict[str, Curve]]:
    """Puts the parts of one figure together: loss, validation_loss -> loss: train, validation.

    Args:
      history: name -> curve.

    Returns:
      figure -> part -> curve: the loss first, the gradient norm last.
    """
    found: dict[str, dict[str, Curve]] = {}
    for name, curve in history.items():
        part, _, rest = name.partition("_")
        base, label = (rest, part) if part in PARTS and rest else (name, "training batches")
        found.setdefault(base, {})[label] = curve
    names = sorted(found, key=lambda name: (name != "loss", name == "grad_norm"))
    return {name: found[name] for name in names}
