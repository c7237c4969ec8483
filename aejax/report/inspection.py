"""Report sections on detectors of anomalies: heat maps, false alarms and misses, and sweeps."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aejax.errors import UserError
from aejax.evaluation import anomaly
from aejax.report.drawing.grids import image_grid
from aejax.report.drawing.pictures import in_colour, signed
from aejax.report.drawing.style import (
    LIGHT,
    SIZE,
    WIDTH,
    Theme,
    canvas,
    legend,
    panel,
    title,
)
from aejax.report.page import Picture, Section, Table
from aejax.report.results import spoken

SHARES = (0.2, 0.1, 0.05, 0.02, 0.01)  # shares of false alarms for which a threshold is shown
HOT = 2.0  # the map's value that gets the last colour, in thresholds
ATOMS, ATOMS_ROW = 48, 16  # atoms that are shown, and in a row
MARGINS = (0.62, 0.12, 0.5, 0.38)  # inches left, right, below and above a plot

Row = Mapping[str, Any]  # name of a figure -> {"mean", "std", "values"}
DefectTable = Mapping[str, Row]  # name of a detector -> kind of defect -> AUROC


def heat(maps: np.ndarray, limit: float) -> np.ndarray:
    """Colours maps f[..., H, W] from black through red to pale yellow, f[..., H, W, 3].

    A map's value at the threshold is red: below it colours are dark, above it they are bright.

    Args:
      maps: the maps.
      limit: the threshold of the pictures' scores.
    """
    share = np.clip(np.asarray(maps, np.float64) / max(HOT * limit, 1e-30), 0.0, 1.0)
    places = [0.0, 0.25, 0.5, 0.75, 1.0]
    colours = np.array(
        [
            [0.02, 0.02, 0.09],
            [0.29, 0.06, 0.42],
            [0.80, 0.20, 0.25],
            [0.98, 0.62, 0.12],
            [1, 1, 0.7],
        ]
    )
    return np.stack([np.interp(share, places, colours[:, c]) for c in range(3)], axis=-1)


def heat_section(
    title: str,
    pictures: np.ndarray,
    maps: Mapping[str, np.ndarray],
    limits: Mapping[str, float],
    masks: np.ndarray | None = None,
) -> Section:
    """Builds the section with pictures, the masks of their defects, and their maps.

    Args:
      title: the title of the section.
      pictures: f[N, H, W, C] in [0, 1].
      maps: name of a detector -> f[N, H, W].
      limits: name of a detector -> its threshold.
      masks: bool[N, H, W], or None if they are not known.
    """
    rows = [in_colour(pictures)]
    labels = ["picture"]
    if masks is not None and masks.any():
        rows.append(in_colour(masks[..., None].astype(np.float64)))
        labels.append("defect")
    rows += [heat(values, limits[name]) for name, values in maps.items()]
    labels += [spoken(name) for name in maps]
    draw = functools.partial(image_grid, np.stack(rows), labels, tile=96)
    caption = (
        "Each column is one picture. A map is red where it reaches the detector's threshold, "
        "darker below it and brighter above."
    )
    name = f"maps-{title.lower().replace(' ', '-')}"
    return Section(title, "", [Picture(name, caption, draw)])


def line_section(
    detector: str, held_out: np.ndarray, scores: np.ndarray, anomalous: np.ndarray
) -> Section:
    """Builds the section on what a detector would do in production, at several thresholds.

    Args:
      detector: the name of the detector.
      held_out: f[n], the scores of the good parts from which thresholds are taken.
      scores: f[N], the scores of test parts.
      anomalous: bool[N].
    """
    rows, limits = [], []
    for share in SHARES:
        try:
            limit = anomaly.threshold(held_out, share)
        except UserError:  # there are too few held-out parts for so small a share
            continue
        line = anomaly.on_the_line(scores, anomalous, limit)
        limits.append(limit)
        cells = [(line.false_alarms, line.false_alarms_error), (line.misses, line.misses_error)]
        rows.append([f"{1000 * share:g}", f"{limit:.4g}", *(_pair(*cell) for cell in cells)])
    header = ("promised false alarms", "threshold", "false alarms", "misses")
    caption = (
        f"{spoken(detector)}, in a thousand good and a thousand defective parts, with standard "
        f"errors; {np.sum(~anomalous)} good and {np.sum(anomalous)} defective test parts"
    )
    text = (
        f"Each threshold is a quantile of the scores of {len(held_out)} held-out good parts, so no "
        "defect was needed to choose it. The false alarms were measured on other good parts."
    )
    draw = functools.partial(_histograms, held_out, scores[~anomalous], scores[anomalous], limits)
    figure = Picture("line", "The scores of parts; dotted lines are the thresholds.", draw)
    return Section("On the line", text, [figure], Table(header, rows, caption))


def code_section(
    pictures: np.ndarray,
    residual: np.ndarray,
    surprise: np.ndarray,
    atoms: np.ndarray,
    usage: np.ndarray,
) -> Section:
    """Builds the section that shows the residual of a sparse detector beside its code.

    Args:
      pictures: f[N, H, W, C] in [0, 1].
      residual: f[N, h, w], the squared residuals of the patches.
      surprise: f[N, h, w], how rare the active atoms of a patch are among good patches, in nats.
      atoms: f[m, side, side, C], the atoms as patches.
      usage: f[m], the share of good patches that use each atom.
    """
    size = pictures.shape[1:3]
    rows = [in_colour(pictures)]
    for values in (residual, surprise):
        each = np.stack([_enlarged(values[i], size) for i in range(len(values))])
        rows.append(heat(each, float(np.quantile(values, 0.995)) / HOT))
    labels = ("picture", "residual", "rarity of\nits atoms")
    maps = functools.partial(image_grid, np.stack(rows), labels, tile=96)
    order = np.argsort(-usage, kind="stable")[:ATOMS]
    blank = np.full((-len(order) % ATOMS_ROW, *atoms.shape[1:3], 3), np.nan)
    shown = np.concatenate([signed(atoms[order]), blank])
    shown = shown.reshape(-1, ATOMS_ROW, *shown.shape[1:])
    grid = functools.partial(image_grid, shown, tile=44)
    text = (
        "A dictionary of patches of good parts reconstructs each patch from a few atoms. Its "
        "residual is large where these do not suffice. Where a defect is reconstructed after all, "
        "it may need atoms that good parts rarely use: the last row is the mean of -log(share of "
        "good patches that use an atom) over the active atoms, in nats."
    )
    figures = [
        Picture("code", "Each map has a scale of its own.", maps),
        Picture(
            "atoms",
            f"The {len(order)} atoms that good parts use most, from {usage[order[0]]:.0%} to "
            f"{usage[order[-1]]:.1%} of their patches: orange adds brightness, blue removes it.",
            grid,
        ),
    ]
    return Section("The residual and the code", text, figures)


def chosen_section(
    detector: str,
    pictures: np.ndarray,
    scores: np.ndarray,
    kinds: Sequence[str],
    limit: float,
) -> Section:
    """Builds the section with the pictures whose scores are nearest to the threshold.

    Args:
      detector: the name of the detector.
      pictures: f[N, H, W, C] in [0, 1].
      scores: f[N].
      kinds: the true kind of each picture.
      limit: the threshold.
    """
    text = (
        f"These test parts are the hardest to judge for {spoken(detector)} with the threshold "
        f"{limit:.4g}. Above each stands what it is and its score in thresholds."
    )
    figures = []
    for start in range(0, len(pictures), 6):
        part = slice(start, start + 6)
        labels = [
            f"{kind} {score / limit:.2f}"
            for kind, score in zip(kinds[part], scores[part], strict=True)
        ]
        draw = functools.partial(image_grid, in_colour(pictures[part])[None], (), labels, tile=120)
        figures.append(Picture(f"near-{start // 6}", "", draw))
    return Section("Nearest to the threshold", text, figures)


def sweep_section(swept: Mapping[int, Row], lines: Mapping[str, Row], table: DefectTable) -> list:
    """Builds the sections on the sweep over active latents, and on detectors by defect.

    Args:
      swept: number of active latents k -> the figures of a dictionary with it.
      lines: name of another detector -> its figures, drawn as a horizontal line.
      table: name of a detector -> kind of defect -> AUROC.
    """
    sections = []
    if len(swept) > 1 and all("sweep_auroc" in row for row in swept.values()):
        draw = functools.partial(_sweep, swept, lines, "sweep_auroc", "AUROC of pictures")
        other = functools.partial(
            _sweep, swept, {}, "contrast", "largest residual, defective / good parts"
        )
        text = (
            "Dictionaries of patches of good parts, with k active latents of a patch. With few, "
            "good patches have large residuals too; with many, a dictionary also reconstructs what "
            "it never saw. The band is one standard deviation over seeds."
        )
        pictures = [
            Picture("sweep", "Detection against the number of active latents.", draw),
            Picture("sweep-contrast", "The ratio of medians of the maps' largest values.", other),
        ]
        sections.append(Section("Active latents", text, pictures))
    if table:
        kinds = list(next(iter(table.values())))
        means = {name: [float(row[kind]["mean"]) for kind in kinds] for name, row in table.items()}
        best = np.max(list(means.values()), axis=0)
        rows = [
            [spoken(name), *(_marked(v, v >= b) for v, b in zip(values, best, strict=True))]
            for name, values in means.items()
        ]
        text = (
            "The AUROC of pictures with one kind of defect against good ones, as the mean over "
            "seeds; a star marks the best detector of each kind."
        )
        sections.append(Section("By defect", text, (), Table(("detector", *kinds), rows)))
    return sections


def _enlarged(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Returns a map f[h, w] at a larger size, each place repeated."""
    rows = np.arange(size[0]) * values.shape[0] // size[0]
    columns = np.arange(size[1]) * values.shape[1] // size[1]
    return values[rows][:, columns]


def _marked(value: float, best: bool) -> str:
    return f"{value:.3f}{'*' if best else ''}"


def _pair(value: float, error: float) -> str:
    return "" if math.isnan(value) else f"{value:.0f} ± {error:.0f}"


def _histograms(
    held_out: np.ndarray,
    good: np.ndarray,
    bad: np.ndarray,
    limits: Sequence[float],
    theme: Theme = LIGHT,
) -> Any:
    figure = canvas(1.6 * WIDTH, 2.9, theme)
    axes = panel(figure, MARGINS, theme)
    every = np.concatenate([held_out, good, bad])
    low, high = every.min(), np.quantile(every, 0.995)
    edges = np.linspace(low, high if high > low else low + 1, 46)
    for name, values, colour in (
        ("good, held out", held_out, theme.series[2]),
        ("good, test", good, theme.series[0]),
        ("defective, test", bad, theme.series[1]),
    ):
        if len(values):
            share = np.full(len(values), 1 / len(values))
            found = np.clip(values, edges[0], edges[-1])
            axes.hist(found, edges, weights=share, color=colour, alpha=0.55, label=name)
    for limit in limits:
        axes.axvline(limit, color=theme.muted, lw=0.9, ls=":")
    axes.set_xlabel("score", color=theme.muted, fontsize=SIZE - 1)
    title(axes, "share of parts", theme)
    legend(axes, theme, loc="lower right", bbox_to_anchor=(1.01, 0.98), ncols=3)
    return figure


def _sweep(
    swept: Mapping[int, Row], lines: Mapping[str, Row], name: str, what: str, theme: Theme = LIGHT
) -> Any:
    figure = canvas(WIDTH, 2.9, theme)
    axes = panel(figure, MARGINS, theme)
    k = sorted(swept)
    mean = np.array([float(swept[i][name]["mean"]) for i in k])
    std = np.array([float(swept[i][name]["std"]) for i in k])
    colour = theme.series[0]
    axes.fill_between(k, mean - std, mean + std, color=colour, alpha=0.22, lw=0)
    axes.plot(k, mean, color=colour, lw=1.5, marker="o", ms=4, label="dictionary of patches")
    for line, row in lines.items():
        if "auroc" in row:
            level = float(row["auroc"]["mean"])
            axes.axhline(level, color=theme.series[1], lw=1.2, ls="--", label=spoken(line))
    axes.set_xscale("log", base=2)
    axes.set_xticks(k, [str(i) for i in k])
    axes.minorticks_off()
    axes.grid(axis="y", color=theme.rule, lw=0.6)
    axes.set_xlabel("active latents k", color=theme.muted, fontsize=SIZE - 1)
    title(axes, what, theme)
    if lines:
        legend(axes, theme, loc="lower right", bbox_to_anchor=(1.01, 0.98), ncols=2)
    return figure
