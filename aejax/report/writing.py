"""Writes a report: figures/*.png, sounds/*.wav and report.html; each is replaced atomically."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from aejax.errors import UserError
from aejax.files import subfolder, write_bytes
from aejax.report.clips import Clip, wav
from aejax.report.curve import Curve, History, grouped
from aejax.report.drawing import plots
from aejax.report.page import Picture, Section, draw, render
from aejax.report.results import spoken

WINDOW = 1_000  # the default number of steps without activation after which a unit is dead
# Metrics that fall on training batches and rise on validation data when a model overfits.
FITTED = {"loss", "distortion", "error", "squared_error"}
# Explanations of the learning curves of the library's loss terms.
MEANINGS = {
    "loss": "the weighted sum of the terms, which training minimises",
    "distortion": "the reconstruction error, −log p(x | z), in nats",
    "rate": "the cost of the code under the prior, in nats",
    "kl": "the cost of the code under the prior, KL(q(z | x) ‖ p(z)), in nats",
    "squared_error": "the squared error, summed over one example",
    "error": "the squared error, summed over one example",
    "l1": "the sum of the magnitudes of a code",
    "l0": "the number of units that are active for one example",
    "off_target": "by which share L0, the number of active latents, exceeds its target",
    "dead": "the share of units that no training batch has activated for more than "
    f"{WINDOW:,} steps, unless the term was given another number",
    "active_units": "the number of latents whose posterior mean varies between examples",
    "mutual_information": "the information of the code about x, I(x; z), among the validation "
    "examples, in nats",
    "mutual_information_of_top": "the information of the top level alone about x, in nats",
    "grad_norm": "the norm of the gradient; a spike is an unusually large update",
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
    """Draws all plots, and writes figures/*.png, sounds/*.wav and the page, report.html.

    Args:
      directory: the folder to write to, usually that of a run; it is created if it does not exist.
      title: the experiment's name.
      sections: the sections of the page, in order.
      summary: one sentence below the title.
      results: the tables of the page, as in result.json: name of a result, such as "nll" ->
        {"mean": ..., "std": ..., "values": [per seed]} or a number; or name of another model ->
        a mapping of its results, for comparison. Other entries are left out.
      config: the run's configuration: field -> value, which may be a nested mapping.
      environment: the versions and the machine: field -> value, which may be a nested mapping.

    Returns:
      The path of report.html.

    Raises:
      UserError: if the folder cannot be written, if matplotlib is not installed, or if the name of
        a picture or sound is malformed or used twice.
    """
    directory = Path(directory)
    pictures = [picture for section in sections for picture in section.figures]
    clips = [clip for section in sections for clip in section.clips]
    _check([*pictures, *clips])
    figures = subfolder(directory, "figures")
    drawn = {}
    for picture in pictures:
        drawn[picture.name] = draw(picture)
        write_bytes(figures / f"{picture.name}.png", drawn[picture.name].light)
    for clip in clips:
        write_bytes(subfolder(directory, "sounds") / f"{clip.name}.wav", wav(clip))
    page = render(title, sections, drawn, summary, results, config, environment)
    path = directory / "report.html"
    write_bytes(path, page.encode())
    return path


def curves_section(history: History, log_steps: bool = True) -> Section:
    """Builds the section of learning curves; a band shows the range over seeds.

    Args:
      history: name of a metric -> (steps i[n], values f[n] or f[n, S]); `validation_loss` is drawn
        in one plot with `loss`.
      log_steps: whether the step axis is logarithmic.

    Returns:
      A section with one plot for each metric.
    """
    groups = grouped(history)
    members = max((curve[1].shape[1] for curve in history.values() if curve[1].ndim > 1), default=1)
    text = "Each point is the mean over neighbouring steps."
    if members > 1:
        text += (
            f" The line is the mean over {members} seeds, and the band reaches from their minimum "
            "to their maximum."
        )
    if "dead" in groups:
        groups["dead"] = counted = _counted(groups["dead"])
        if not any(np.any(values) for _, values in counted.values()) and _last(counted) < WINDOW:
            del groups["dead"]
            text += (
                f" Dead units are not shown: none can be dead within the first {WINDOW:,} steps."
            )
    pictures: list[Picture] = []
    for name, parts in groups.items():
        of = f"curve-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-') or 'unnamed'}"
        if any(picture.name == of for picture in pictures):
            of += f"-{len(pictures)}"
        drawn = partial(plots.curves, series=parts, name=spoken(name), log_steps=log_steps)
        pictures.append(Picture(of, _caption(name, parts), drawn))
    return Section("Learning curves", text, pictures)


def _caption(name: str, parts: Mapping[str, Any]) -> str:
    meaning = MEANINGS.get(name)
    what = spoken(name) or "a metric without a name"
    what = what[0].upper() + what[1:]
    caption = f"{what}: {meaning}." if meaning else f"{what}, on {' and '.join(parts)}."
    if len(parts) > 1 and name in FITTED:
        caption += " Where the training curve falls while the other rises, the model overfits."
    return caption


def _counted(parts: Mapping[str, Curve]) -> dict[str, Curve]:
    """Returns a metric's curves (split -> curve), but only the first for the metric of dead units.

    Dead units are counted in training only, so that metric is the same for all splits.
    """
    first = next(iter(parts))
    return {first: parts[first]}


def _last(parts: Mapping[str, Curve]) -> int:
    """Returns the largest step of several curves; 0 if there is none."""
    return max((int(steps[-1]) for steps, _ in parts.values() if len(steps)), default=0)


def _check(shown: Sequence[Picture | Clip]) -> None:
    names = [each.name for each in shown]
    for name in names:
        if not re.fullmatch("[a-z0-9][a-z0-9-]*", name):
            raise UserError(
                f"the name {name!r} of a picture or sound cannot be the name of a file: use "
                "lower-case letters, digits and hyphens, beginning with a letter or digit"
            )
        if names.count(name) > 1:
            raise UserError(
                f"two pictures or sounds are named {name!r}: give each a different name"
            )
