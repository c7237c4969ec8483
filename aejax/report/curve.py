"""Learning curves: the metrics of a run, averaged so that a plot can show all points."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from aejax.runs import metrics

Curve: TypeAlias = tuple[np.ndarray, np.ndarray]  # steps i[n], values f[n] or f[n, S]
History: TypeAlias = Mapping[str, Curve]
# The prefixes that name the split on which a metric was computed, as in validation_loss.
SPLITS = ("train", "validation", "test")


class Line(NamedTuple):
    """A curve of n points to plot, each of which averages several logged steps."""

    steps: np.ndarray  # f[n], the steps, counted from 1, averaged over the steps of a point
    mean: np.ndarray  # f[n], the mean over seeds
    low: np.ndarray  # f[n], the minimum over seeds
    high: np.ndarray  # f[n], the maximum over seeds


def history(path: str | os.PathLike) -> dict[str, Curve]:
    """Reads the learning curves of a run.

    Args:
      path: the run's folder, or its metrics.jsonl.

    Returns:
      name of a metric -> (steps i64[n], values f64[n] or f64[n, S]). A curve contains only those
      steps at which its metric was logged. Metrics with more axes, such as a KL per latent, are
      left out.

    Raises:
      UserError: if the folder has no metrics, or a line of metrics.jsonl is not JSON.
    """
    folder = Path(path).parent if Path(path).name == metrics.NAME else Path(path)
    columns = metrics.read(folder)
    steps = columns["step"]
    curves = {}
    for name, values in columns.items():
        if name in ("step", "time", "epoch") or values.ndim > 2:
            continue
        there = ~np.isnan(values.reshape(len(values), -1)).all(axis=1)
        curves[name] = (steps[there], values[there])
    return curves


def binned(curve: Curve, log_steps: bool = True, bins: int = 160) -> Line:
    """Averages neighbouring steps, so that a curve has at most `bins` points.

    Args:
      curve: steps i[n] and values f[n] or f[n, S].
      log_steps: whether the bins are equally wide on a logarithmic axis; otherwise they are equally
        wide on a linear axis.
      bins: the maximum number of points.

    Returns:
      A Line, whose steps are counted from 1 so that they can be shown on a logarithmic axis.
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
    """Groups curves by metric, so that `loss` and `validation_loss` are drawn in one plot.

    Args:
      history: name of a logged metric, with or without the prefix of a split -> curve.

    Returns:
      name of a metric without a prefix -> name of a split -> curve. A metric that was logged
      without a prefix is found under "training batches". The loss comes first and the gradient norm
      last.
    """
    found: dict[str, dict[str, Curve]] = {}
    for name, curve in history.items():
        split, _, rest = name.partition("_")
        base, label = (rest, split) if split in SPLITS and rest else (name, "training batches")
        found.setdefault(base, {})[label] = curve
    names = sorted(found, key=lambda name: (name != "loss", name == "grad_norm"))
    return {name: found[name] for name in names}
