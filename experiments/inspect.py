"""Detectors of anomalies in pictures, trained on good pictures alone.

    python -m experiments inspect --dataset elpv-mono --manual-dir DIR --seeds 3

`DIR` holds the wheel of `pip download --no-deps --dest DIR elpv-dataset`; `--dataset` may also be
elpv-poly, texture-brick, -grass, -gravel, -china or -flower (painted defects with masks), a data
set with classes, of which `--good` is the good one, or the path of a folder in the layout of MVTec
AD (train/good, test/DEFECT, ground_truth/DEFECT), or of good pictures alone. A threshold is the
quantile of held-out good pictures; test labels choose nothing. `python -m experiments score` scores
new pictures by a finished run, and `python -m experiments.peers.anomalib_parts`, where anomalib is
installed, adds its PaDiM and PatchCore to a run's results. Three seeds with
`--steps 150 --dictionary-steps 150` take about 5 minutes of two processors; with textures and
clothes so do those without likelihood regrets (`--regret-steps 0`), which take most of the time.
Expect an AUROC of 0.94 by PaDiM and 0.92 by PCA for monocrystalline cells; polycrystalline ones,
whose grains differ from cell to cell, are harder.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
import optax

import aejax as ae
from aejax import evaluation, inspection
from aejax.data import npz
from aejax.evaluation import anomaly
from aejax.files import writing
from aejax.report import Section
from aejax.report.inspection import (
    DefectTable,
    chosen_section,
    code_section,
    heat_section,
    line_section,
    sweep_section,
)
from experiments.shared import parts
from experiments.shared.experiment import Experiment, Finished, Members, Models, Page, Splits
from experiments.shared.numbers import Count, Share
from experiments.shared.training import Job, Numbers
from experiments.shared.variational import named

SHOWN = 6  # pictures of a kind in the section of heat maps


@dataclasses.dataclass(frozen=True)
class Config(Numbers):
    """The settings of the experiment; each of them is a flag of the command."""

    steps: Count = 300  # optimiser steps of the plain and the variational autoencoder
    batch: Count = 16  # pictures, or tiles, in a batch
    chunk: Count = 100  # steps in one compiled call
    dataset: str = "elpv-mono"  # name of a data set, or path of a folder
    good: int = 0  # the class of good pictures, for a data set with classes
    size: Count | None = None  # height and width to which pictures are resized
    tile: Count | None = None  # side of the tiles into which pictures are cut
    overlap: int = 0  # least number of pixels that neighbouring tiles have in common
    channels: Literal["grey", "rgb"] | None = None  # converts all pictures of a folder
    even: bool = False  # scales each picture of a folder to the same mean, against exposure
    held_out: Share = 0.2  # share of good pictures for thresholds, and for test if it has none
    aligned: bool | None = None  # whether parts always lie alike; None: but for textures and tiles
    components: Count = 32  # principal components of whole pictures
    patch: Count = 8  # side of a patch
    stride: Count = 4  # distance between neighbouring patches
    features: Count = 40  # principal components of patch features that are kept
    remembered: Count = 1_000  # patches that the nearest-neighbour detector keeps
    atoms: Count = 512  # latents of each dictionary
    k: tuple[Count, ...] = (2, 4, 8, 16, 32, 64)  # numbers of active latents that are compared
    k_used: Count = 8  # the number of active latents of the detectors sparse and sparse-net
    dictionary_steps: Count = 300  # training steps of a dictionary
    width: Count = 8  # channels of the first convolution
    latents: Count = 32  # latents of the plain and the variational autoencoder
    regret_steps: int = 10  # optimiser steps of a picture's likelihood regret; 0: not computed
    learning_rate: float = 1e-3  # learning rate of Adam, which falls to 0
    false_alarms: Share = 0.05  # share of good pictures that may be called anomalous
    onnx: str | None = None  # path of a feature net in the ONNX format, for two more detectors


def build(config: Config, event: tuple[int, ...]) -> dict[str, Job]:
    """Returns name -> `Job`: a plain and a variational autoencoder with convolutional encoders.

    Raises:
      UserError: if height or width is not divisible by 4, or a setting is out of range.
    """
    if event[0] % 4 or event[1] % 4:
        raise ae.UserError(
            f"inspect needs pictures whose height and width are multiples of 4, not {event[:2]}: "
            "give --size or --tile"
        )
    if max((config.k_used, *config.k)) > config.atoms:
        raise ae.UserError(
            f"--k is {config.k} and --k-used {config.k_used}: give numbers from 1 to "
            f"{config.atoms}, the number of atoms"
        )
    narrow = config.width

    def nets() -> tuple[Any, Any]:
        encoder = ae.nets.SpatialEncoder((narrow, 2 * narrow))
        return encoder, ae.nets.Deconv(event, (2 * narrow, narrow))

    encoder, decoder = nets()
    plain = ae.Autoencoder(encoder, ae.Point(config.latents), decoder)
    encoder, decoder = nets()
    likelihood = ae.likelihoods.LearnedGaussian()
    vae = ae.Autoencoder(
        encoder, ae.Gaussian(config.latents), decoder, ae.priors.Standard(), likelihood
    )
    tx = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))
    error: ae.Objective = {"error": (1.0, ae.losses.squared_error)}
    return {"plain": Job(plain, error, tx), "vae": Job(vae, ae.elbo(), tx)}


def figures(config: Config, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Measures all detectors on the test split, for each seed."""
    each = {name: evaluation.each(done.variables, done.seeds) for name, done in trained.items()}
    rows: list[dict[str, dict[str, float]]] = []
    for i in range(config.seeds):
        models = {name: (trained[name].job.model, next(each[name])) for name in trained}
        found = {}
        for name, fitted in parts.fit_all(config, models, splits, config.seed + i).items():
            found[name] = _measured(config, fitted, splits)
            by_kind = _by_kind(fitted, splits)
            if len(by_kind) > 1:
                found[f"{name} by defect"] = by_kind
        rows.append(found | _swept(config, models, splits, config.seed + i))
    return {
        name: {key: np.array([row[name][key] for row in rows]) for key in rows[0][name]}
        for name in rows[0]
    }


def _measured(config: Config, fitted: parts.Fitted, splits: Splits) -> dict[str, float]:
    """Returns the results of one detector of one seed that its good and bad pictures allow."""
    kinds, found = parts.kinds(splits[2]), {}
    bad = kinds > 0
    if bad.any() and not bad.all():
        cells = anomaly.image_measures(fitted.test.score, bad, draws=0)
        found = {name: cell.value for name, cell in cells.items()}
    masks = parts.masks(splits[2])
    if masks is not None:
        pixels = anomaly.pixel_measures(fitted.test.maps, masks, draws=0)
        found |= {name: cell.value for name, cell in pixels.items()}
    limit = anomaly.threshold(fitted.held_out.score, config.false_alarms)
    line = anomaly.on_the_line(fitted.test.score, bad, limit)
    rates = {"false_alarms": line.false_alarms / 1000, "misses": line.misses / 1000}
    return found | {name: rate for name, rate in rates.items() if np.isfinite(rate)}


def _by_kind(fitted: parts.Fitted, splits: Splits) -> dict[str, float]:
    """Returns kind of defect -> AUROC of the pictures with it against the good ones."""
    kinds, names = parts.kinds(splits[2]), splits[2].classes
    found = {}
    for kind in np.unique(kinds[kinds > 0]):
        chosen = (kinds == 0) | (kinds == kind)
        if (kinds == 0).any():
            found[names[kind]] = anomaly.auroc(fitted.test.score[chosen], kinds[chosen] > 0)
    return found


def _swept(
    config: Config, models: Mapping[str, Any], splits: Splits, seed: int
) -> dict[str, dict[str, float]]:
    """Returns the scores of dictionaries trained on raw patches, one for each k of `config.k`."""
    features = inspection.patches(config.patch, config.stride)
    fit = inspection.sparse_sweep(features, config.k, config.atoms, config.dictionary_steps)
    states = fit(jax.random.key(seed), splits[0].arrays["image"])
    detector, bad = _on_patches(features), parts.kinds(splits[2]) > 0
    found = {}
    for k, state in zip(config.k, states, strict=True):
        held_out, test = (parts.judge(detector, state, parts.tiles_of(s)) for s in splits[1:])
        row = {"good_residual": float(np.mean([m.mean() for m in held_out.maps]))}
        if bad.any() and not bad.all():
            row["sweep_auroc"] = anomaly.auroc(test.score, bad)
            anomalous = [m.max() for m, b in zip(test.maps, bad, strict=True) if b]
            good = [m.max() for m, b in zip(test.maps, bad, strict=True) if not b]
            row["contrast"] = float(np.median(anomalous) / np.median(good))
        found[f"k = {k}"] = row
    return found


@functools.cache
def _on_patches(features: inspection.Features) -> inspection.Detector:
    """Returns the detector of dictionaries, made once, so that all seeds share what it compiles."""
    return inspection.sparse(features)


def store(config: Config, models: Models, splits: Splits, folder: pathlib.Path) -> None:
    """Writes fitted.npz for the tool score: the states of all detectors, and good pictures' scores.

    The names of arrays are DETECTOR/ARRAY; the scores of held-out good pictures are
    DETECTOR/held_out, and the largest values of their maps DETECTOR/peaks.
    """
    stored: dict[str, np.ndarray] = {"event": np.asarray(splits[0].event, np.int32)}
    for name, done in parts.fit_all(config, models, splits, config.seed).items():
        stored |= {f"{name}/{key}": np.asarray(value) for key, value in done.state.items()}
        stored[f"{name}/held_out"] = done.held_out.score
        stored[f"{name}/peaks"] = np.array([m.max() for m in done.held_out.maps], np.float32)
    with writing(folder):
        npz.save(folder / parts.FITTED, stored, {})


def page(config: Config, models: Models, splits: Splits) -> Page:
    """Builds the report page: heat maps, false alarms and misses, and doubtful pictures."""
    test = splits[2]
    kinds, marked = parts.kinds(test), parts.masks(test)
    done = parts.fit_all(config, models, splits, config.seed)
    sections = []
    names = [name for name in ("pca", "padim", "patchcore-net", "plain", "sparse") if name in done]
    for title, rows in _shown(kinds, test.classes):
        sections.append(
            heat_section(
                title,
                np.stack(parts.wholes(test, rows)),
                {n: np.stack([done[n].test.maps[i] for i in rows]) for n in names},
                {n: anomaly.threshold(done[n].held_out.score, config.false_alarms) for n in names},
                None if marked is None else np.stack([marked[i] for i in rows]),
            )
        )
    sections.append(_code(config, done["sparse"], splits))
    best = preferred(done)
    sections.append(line_section(best, done[best].held_out.score, done[best].test.score, kinds > 0))
    limit = anomaly.threshold(done[best].held_out.score, config.false_alarms)
    near = anomaly.nearest_to(done[best].test.score, limit, 12)
    sections.append(
        chosen_section(
            best,
            np.stack(parts.wholes(test, near)),
            done[best].test.score[near],
            [test.classes[kind] for kind in kinds[near]],
            limit,
        )
    )
    return Page(f"Inspection of {named(splits)}", __doc__ or "", sections)


def _code(config: Config, done: parts.Fitted, splits: Splits) -> Section:
    """Builds the section on the residual and the code of the detector `sparse`."""
    features, state = parts.sparse_features(config, {})["sparse"], done.state
    kinds = splits[2].arrays["label"]
    rows = [indices for _, indices in _shown(kinds, splits[2].classes)][-1]
    tiles = splits[2].arrays["image"][rows]
    codes, residual = inspection.explain(features, state, tiles)
    active, rarity = codes > 0, -np.log(np.maximum(state["usage"], 1e-4))
    surprise = (active * rarity).sum(axis=-1) / np.maximum(active.sum(axis=-1), 1)
    # The pixels of a patch come channel by channel.
    shape = (-1, tiles.shape[-1], config.patch, config.patch)
    atoms = np.asarray(state["W_dec"]).reshape(shape).transpose(0, 2, 3, 1)
    return code_section(tiles / 255.0, residual, surprise, atoms, np.asarray(state["usage"]))


def preferred(names: Mapping[str, Any]) -> str:
    """Returns the name of the default detector, which does not depend on test labels."""
    return "padim" if "padim" in names else next(iter(names))


def _shown(kinds: np.ndarray, classes: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """Returns title -> pictures to show: some good ones, and some of each kind of defect."""
    defects = [kind for kind in np.unique(kinds) if kind > 0]
    each = max(1, SHOWN // max(1, len(defects)))
    rows = [np.flatnonzero(kinds == kind)[:each] for kind in defects]
    found = [("Good parts", np.flatnonzero(kinds == 0)[:SHOWN])]
    if rows:
        found.append(("Defects", np.concatenate(rows)[:SHOWN]))
    return [(title, indices) for title, indices in found if len(indices)]


def findings(config: Config, finished: Finished) -> list[Any]:
    """Builds the sections that need no model.

    They show the scores of dictionaries for each number of active latents k, and the AUROC of each
    detector for each kind of defect.
    """
    rows = {name: row for name, row in finished.result.items() if isinstance(row, dict)}
    by_defect: DefectTable = {
        name.removesuffix(" by defect"): row
        for name, row in rows.items()
        if name.endswith(" by defect")
    }
    swept = {k: rows[f"k = {k}"] for k in config.k if f"k = {k}" in rows}
    return sweep_section(swept, {"pca": rows.get("pca", {})}, by_defect)


EXPERIMENT = Experiment(
    name="inspect",
    config=Config,
    data=parts.load,
    build=build,
    figures=figures,
    page=page,
    findings=findings,
    store=store,
)
