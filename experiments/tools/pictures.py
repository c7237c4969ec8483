"""Draws the pictures of the READMEs from the files in experiments/results.

    python -m experiments pictures
    python -m experiments pictures --samples runs/conditional   # first stores samples of this run

It writes experiments/results/NAME.png. Samples given a label are drawn from NAME.npz. Plots of the
metrics of sparse codes against their L0, of probes against the number of labels, and of detection
against active latents are made from NAME.json.
"""

from __future__ import annotations

import io
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import aejax as ae
from aejax.files import read_json, write_bytes
from aejax.optional import needs
from aejax.report.drawing import style
from aejax.report.drawing.grids import image_grid
from aejax.report.frontier import frontier, points
from aejax.runs.folder import read_environment
from experiments import inspect, transfer
from experiments.shared.experiment import Finished
from experiments.shared.labels import samples as drawn
from experiments.shared.place import say
from experiments.shared.variational import SAMPLE_SEED
from experiments.tools.keep import RESULTS, portable

SAMPLES = "conditional"
COUNT = 8  # the number of samples of each label
TILE = 42  # the side of one sample in the picture, in pixels
# A results file with sparse codes -> the metrics that its picture shows, one panel each.
FRONTIERS = {
    "images-sae-mnist": ("explained_variance", "label_entropy"),
    "synth-sae": ("explained_variance",),
    "toy-superposition": ("explained_variance", "mcc"),
}
PROBES = "transfer-mnist"  # the results file with the accuracy of probes
SWEEP = "inspect-texture-brick"  # the results file with detection against active latents
# The name of a row of results, such as "topk at 16, SAELens".
CODE = re.compile(r"(?P<code>.+) at [\d.]+(?P<peer>, SAELens)?")


def command(samples: pathlib.Path | None = None) -> None:
    """Draws the pictures of the READMEs from kept results.

    Args:
      samples: the folder of a finished run of `conditional`; its samples are first written to
        experiments/results.
    """
    if samples is not None:
        keep_samples(samples)
    for name, figure in figures().items():
        path = RESULTS / f"{name}.png"
        write_bytes(path, few_colours(style.png(figure)))
        say(f"picture: {path}")


def keep_samples(run_dir: pathlib.Path) -> None:
    """Writes samples of each label, u8[10, COUNT, H, W, 1], and the command that made the run."""
    model, variables, _ = ae.load(run_dir, seed=0)
    means = drawn(model, variables, jax.random.key(SAMPLE_SEED), COUNT)
    facts = read_environment(run_dir)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        allow_pickle=False,
        samples=np.round(255 * means).astype(np.uint8),
        command=np.asarray(portable(facts["command"])),
    )
    write_bytes(RESULTS / f"{SAMPLES}.npz", buffer.getvalue())
    say(f"kept: {RESULTS / SAMPLES}.npz")


def figures() -> dict[str, Any]:
    """Draws all pictures and returns each one's name -> its matplotlib Figure."""
    with np.load(RESULTS / f"{SAMPLES}.npz", allow_pickle=False) as kept:
        images = kept["samples"].swapaxes(0, 1) / 255.0  # one column for each label
    found = {SAMPLES: image_grid(images, column_labels="0123456789", tile=TILE)}
    for name, panels in FRONTIERS.items():
        found[name] = frontiers(read_json(RESULTS / f"{name}.json", {}), panels)
    probes = Finished(read_json(RESULTS / f"{PROBES}.json", {}), {})
    found[PROBES] = transfer.findings(transfer.Config(), probes)[0].figures[0].draw()
    swept = Finished(read_json(RESULTS / f"{SWEEP}.json", {}), {})
    found[SWEEP] = inspect.findings(inspect.Config(), swept)[0].figures[0].draw()
    return found


def few_colours(png: bytes) -> bytes:
    """Converts a PNG file to one with a palette of 64 colours, which is a third as large."""
    image = needs("PIL.Image", "drawing a picture")
    with image.open(io.BytesIO(png)) as picture:
        reduced = picture.convert("RGB").quantize(64, dither=image.Dither.NONE)
    buffer = io.BytesIO()
    reduced.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def frontiers(result: Mapping[str, Any], panels: tuple[str, ...]) -> Any:
    """Plots the metrics of sparse codes against L0; points of another library are hollow.

    Args:
      result: the content of a results file.
      panels: the metrics to plot, one in each panel.
    """
    own: dict[str, list[Any]] = {}
    peers: dict[str, list[Any]] = {}
    for name, row in result.items():
        if match := CODE.fullmatch(name):
            group = peers if match["peer"] else own
            group.setdefault(match["code"], []).append(row)
    series, hollow = (
        {panel: {code: points(rows, panel) for code, rows in group.items()} for panel in panels}
        for group in (own, peers)
    )
    return frontier(series, hollow)
