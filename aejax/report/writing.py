"""Writes a report: figures/*.png and report.html, each whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from aejax.errors import UserError
from aejax.files import write_bytes, writing
from aejax.report.curve import Curve, History, grouped
from aejax.report.drawing import plots
from aejax.report.page import Picture, Section, draw, render
from aejax.report.results import spoken

WINDOW = 1_000  # steps of silence after which `losses.dead` calls a unit dead, unless told
# What may fall on training batches and rise on others because a model overfits.
FITTED = {"loss", "distortion", "error", "squared_error"}
# What the curves of the library's own terms say.
MEANINGS = {
    "loss": "what training minimises, a weighted sum of the terms",
    "distortion": "how badly the decoder explains the input, −log p(x | z), in nats",
    "rate": "what the code costs under the prior, in nats",
    "kl": "what the code costs under the prior, KL(q(z | x) ‖ p(z)), in nats",
    "squared_error": "the squared error, summed over one example",
    "error": "the squared error, summed over one example",
    "l1": "the sum of a code's magnitudes",
    "l0": "how many units are active for one example",
    "dead": "the share of units that no example of a training batch has activated for more than "
    f"{WINDOW:,} steps, unless the term was given another number",
    "active_units": "how many latents tell examples apart, by the variance of their mean",
    "mutual_information": "what the code tells of x, I(x; z) among the held-out examples, in nats",
    "mutual_information_of_top": "what the top level alone tells of x, in nats",
    "grad_norm": "the length of the gradient; spikes are steps that shook the parameters",
}


def write(
    directory: str | os.PathLike,
    title: str,
    sections: Sequence[Section],
    summary: str = "",
    results: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
) -> Path:
    """Draws the figures and writes them into `directory`, then the page that holds them all.

    Args:
      directory: usually a run's folder; made where it is missing.
      title: the experiment's name.
      sections: what to show, in order.
      summary: one sentence below the title.
      results: figure -> {"mean": ..., "std": ..., "values": [per seed]}, or one number, as in
        result.json; or another model's name -> such a mapping. Anything else is left out.
      config: field -> value, nested or not.
      environment: field -> value, nested or not.

    Returns:
      The path of report.html.

    Raises:
      UserError: the folder cannot be written, matplotlib is missing, or two figures have one name.
    """
    directory = Path(directory)
    pictures = [picture for section in sections for picture in section.figures]
    _check(pictures)
    with writing(directory):
        (directory / "figures").mkdir(parents=True, exist_ok=True)
    drawn = {}
    for picture in pictures:
        drawn[picture.name] = draw(picture)
        write_bytes(directory / "figures" / f"{picture.name}.png", drawn[picture.name].light)
    page = render(title, sections, drawn, summary, results, config, environment)
    path = directory / "report.html"
    write_bytes(path, page.encode())
    return path


def curves_section(history: History, log_steps: bool = True) -> Section:
    """Learning curves of all figures: training beside validation and test, spread over seeds.

    Args:
      history: name -> (steps i[n], values f[n] or f[n, S]); `validation_loss` is drawn with `loss`.
      log_steps: whether the step axis is logarithmic.

    Returns:
      A Section with one figure for each quantity.
    """
    groups = grouped(history)
    members = max((curve[1].shape[1] for curve in history.values() if curve[1].ndim > 1), default=1)
    text = "Each point is the mean over neighbouring steps."
    if members > 1:
        text += (
            f" The line is the mean over {members} seeds, the band reaches from the least to the "
            "greatest of them."
        )
    if "dead" in groups:
        groups["dead"] = counted = _counted(groups["dead"])
        if not any(np.any(values) for _, values in counted.values()) and _last(counted) < WINDOW:
            del groups["dead"]
            text += f" No unit can be called dead within {WINDOW:,} steps: there is no curve of it."
    pictures = [
        Picture(
            f"curve-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}",
            _caption(name, parts),
            partial(plots.curves, series=parts, name=spoken(name), log_steps=log_steps),
        )
        for name, parts in groups.items()
    ]
    return Section("Learning curves", text, pictures)


def _caption(name: str, parts: Mapping[str, Any]) -> str:
    meaning = MEANINGS.get(name)
    what = spoken(name)
    what = what[0].upper() + what[1:]
    caption = f"{what}: {meaning}." if meaning else f"{what}, on {' and '.join(parts)}."
    if len(parts) > 1 and name in FITTED:
        caption += " Where training still falls while the other rises, the model overfits."
    return caption


def _counted(parts: Mapping[str, Curve]) -> dict[str, Curve]:
    """Without validation: the silence of a unit is counted in training, whatever is looked at."""
    first = next(iter(parts))
    return {first: parts[first]}


def _last(parts: Mapping[str, Curve]) -> int:
    """The last step of any curve."""
    return max((int(steps[-1]) for steps, _ in parts.values() if len(steps)), default=0)


def _check(pictures: Sequence[Picture]) -> None:
    names = [picture.name for picture in pictures]
    for name in names:
        if not re.fullmatch("[a-z0-9][a-z0-9-]*", name):
            raise UserError(f"the figure name {name!r}: give lower-case letters, digits, hyphens")
        if names.count(name) > 1:
            raise UserError(f"two figures are called {name!r}: give each its own name")
