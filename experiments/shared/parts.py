"""The data and the detectors of the experiment inspect, and how they judge whole pictures."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

import aejax as ae
from aejax import inspection
from aejax.data import Split
from aejax.data.data_dir import check_trusted
from aejax.data.pictures.inspection import Reading, tiles_of
from aejax.data.pictures.inspection import inspection as folder_of_parts
from aejax.data.pictures.solar_cells import solar_cells
from aejax.data.pictures.textures import TEXTURES, textures
from aejax.data.pictures.tiles import Tiles, merged
from aejax.data.split import fingerprint
from aejax.errors import UserError
from aejax.inspection import Detector, Features
from aejax.inspection.detector import State
from aejax.runs.leaves import params_sha256
from experiments.shared.experiment import Splits
from experiments.shared.place import Place

SOLAR = {"elpv-mono": "mono", "elpv-poly": "poly"}
FITTED = "fitted.npz"  # the file of a run with its fitted detectors
# The settings that say how a folder of parts is read; other data take few of them, or none.
FOLDER = ("size", "tile", "overlap", "channels", "even", "held_out")
SIDE = 64  # the height and width of solar cells, unless --size says otherwise
# The detectors that need a trained net -> the name of its job.
NETS = {"padim-net": "plain", "patchcore-net": "plain", "sparse-net": "plain", "plain": "plain"}
NETS |= {"vae": "vae", "vae-elbo": "vae", "vae-regret": "vae"}


def load(config: Any, place: Place) -> Splits:
    """Loads the splits that a config of the experiment inspect names.

    Raises:
      UserError: if the data cannot be read, do not take a setting that is given, or have too few
        good pictures for the settings.
    """
    return _checked(config, _read(config, place))


def _read(config: Any, place: Place) -> Splits:
    name = config.dataset
    if config.onnx is not None:
        check_trusted(config.onnx, place.prepared_only)
    manual = None if place.manual_dir is None else pathlib.Path(place.manual_dir)
    given = {key: getattr(config, key) for key in FOLDER}
    if os.sep in name or name.startswith("."):
        check_trusted(name, place.prepared_only)
        return folder_of_parts(name, **given)
    taken = ("size", "held_out") if name in SOLAR else ()
    default = {field.name: field.default for field in dataclasses.fields(config)}
    ignored = [key for key in FOLDER if key not in taken and given[key] != default[key]]
    if ignored:
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in ignored)
        raise UserError(f"--dataset {name} does not take {flags}: leave them out, or give a folder")
    if name in SOLAR:
        size, share = config.size or SIDE, config.held_out
        kind: Any = SOLAR[name]
        return solar_cells(kind, manual, size=size, held_out=share)
    if _is_texture(name):
        return textures(name.removeprefix("texture-"))
    found = ae.data.images(
        name,
        binarise="none",
        data_dir=place.data_dir,
        manual_dir=place.manual_dir,
        prepared_only=place.prepared_only,
    )
    return one_class(found, config.good)


def _checked(config: Any, splits: Splits) -> Splits:
    """Returns the splits, unless a threshold or a detector would fail after all training.

    Raises:
      UserError: if there are too few good pictures for the settings of the run.
    """
    train, validation = (len(_first(split)) for split in splits[:2])
    tiles, needed = len(splits[0]), math.ceil(1 / config.false_alarms) - 1
    if validation < needed:
        least = math.ceil(100 / (validation + 1)) / 100
        raise UserError(
            f"{validation} held-out good pictures do not determine a threshold for a share of "
            f"{config.false_alarms:g} false alarms, which takes {needed}: give more than "
            f"{train + validation} good pictures, --false-alarms {least:g} or more, "
            "or a larger --held-out"
        )
    if config.components >= tiles:
        raise UserError(
            f"{tiles} good pictures to train on do not have {config.components} principal "
            f"components: give --components {tiles - 1} or less"
        )
    return splits


def one_class(splits: Splits, good: int) -> Splits:
    """Makes one class the good pictures: train and validation hold it alone, test all classes.

    Raises:
      UserError: if there is no such class.
    """
    found = []
    for i, split in enumerate(splits):
        labels = split.labels
        if labels is None or not (labels == good).any():
            raise UserError(
                f"{split.name} has no class {good}, which --good names: choose a data set with "
                "classes, and one of them"
            )
        rows = np.arange(len(split)) if i == 2 else np.flatnonzero(labels == good)
        arrays = split.rows(rows)
        count = np.arange(len(rows), dtype=np.int32)
        zero = np.zeros_like(count)
        own = {
            "image": arrays["image"],
            "label": np.where(labels[rows] == good, 0, labels[rows] + 1).astype(np.int32),
            "picture": count,
            "top": zero,
            "left": zero,
        }
        names = split.classes or tuple(map(str, range(int(labels.max()) + 1)))
        found.append(
            dataclasses.replace(
                split, arrays=own, fingerprint=fingerprint(own), classes=("good", *names)
            )
        )
    return found[0], found[1], found[2]


def reading(config: Any, event: tuple[int, ...]) -> Reading:
    """Returns the `Reading` by which new pictures are read as the data of a run were."""
    channels = "grey" if event[-1] == 1 else "rgb"
    tiled = config.tile is not None or _is_texture(config.dataset)
    size = (config.size, config.size) if config.size else None if tiled else event[:2]
    even = config.even or config.dataset in SOLAR
    return Reading(size, channels, even)  # type: ignore[arg-type]


def aligned(config: Any) -> bool:
    """Returns whether parts always lie the same way, so that each place has its own Gaussian."""
    if config.aligned is not None:
        return config.aligned
    return not _is_texture(config.dataset) and config.tile is None


def _is_texture(dataset: str) -> bool:
    return dataset.startswith("texture-") and dataset.removeprefix("texture-") in TEXTURES


def raw(config: Any) -> Features:
    """Returns the features that need no net: the pixels of patches of two sizes."""
    return inspection.joined(
        inspection.patches(config.patch, config.stride),
        inspection.patches(2 * config.patch, config.stride),
    )


def detectors(config: Any, models: Mapping[str, tuple[Any, Any]]) -> dict[str, Detector]:
    """Returns name -> detector; those that need a job missing from `models` are left out.

    Args:
      config: the settings of the experiment.
      models: name of a job -> its model and the variables of one seed.
    """
    by_place, k = aligned(config), config.k_used
    coded = sparse_features(config, models)
    made = {
        "pca": inspection.principal(config.components),
        "padim": inspection.gaussian(raw(config), config.features, by_place),
        "patchcore": inspection.neighbours(raw(config), config.features, config.remembered),
        "sparse": inspection.sparse(coded["sparse"], config.atoms, k, config.dictionary_steps),
    }
    if "plain" in models:
        net = coded["sparse-net"]
        made |= {
            "plain": inspection.reconstruction(*models["plain"]),
            "padim-net": inspection.gaussian(net, config.features, by_place),
            "patchcore-net": inspection.neighbours(net, config.features, config.remembered),
            "sparse-net": inspection.sparse(net, config.atoms, k, config.dictionary_steps),
        }
    if "vae" in models:
        made |= {
            "vae": inspection.reconstruction(*models["vae"]),
            "vae-elbo": inspection.negative_elbo(*models["vae"]),
        }
        if config.regret_steps:
            made["vae-regret"] = inspection.regret(*models["vae"], config.regret_steps)
    if config.onnx is not None:
        given = inspection.onnx(config.onnx)
        made["padim-onnx"] = inspection.gaussian(given, config.features, by_place)
        made["patchcore-onnx"] = inspection.neighbours(given, config.features, config.remembered)
    return made


def sparse_features(config: Any, models: Mapping[str, tuple[Any, Any]]) -> dict[str, Features]:
    """Returns name of a sparse detector -> the features of its patches."""
    found = {"sparse": inspection.patches(config.patch, config.stride)}
    if "plain" in models:
        found["sparse-net"] = inspection.pooled(inspection.encoded(*models["plain"]))
    return found


class Judged(NamedTuple):
    """A detector's scores and maps of N whole pictures."""

    score: np.ndarray  # f32[N], the largest score of a picture's tiles
    maps: list[np.ndarray]  # N arrays f32[H, W]


def judge(detector: Detector, state: State, tiles: Tiles) -> Judged:
    """Scores whole pictures, given their tiles u8[M, h, w, C]."""
    found = inspection.detect(detector, state, tiles.values)
    score = np.full(int(tiles.picture.max()) + 1, -np.inf, np.float32)
    np.maximum.at(score, tiles.picture, found.score)
    return Judged(score, merged(found.map, tiles))


def kinds(split: Split) -> np.ndarray:
    """Returns the label of each whole picture, i32[N]; 0: good."""
    return split.arrays["label"][_first(split)]


def masks(split: Split) -> list[np.ndarray] | None:
    """Returns the mask of each whole picture, bool[H, W], or None if they are not known."""
    if "defect" not in split.arrays:
        return None
    tiles = tiles_of(split)
    return [mask > 0 for mask in merged(split.arrays["defect"].astype(np.float32), tiles)]


def wholes(split: Split, indices: Sequence[int] | np.ndarray) -> list[np.ndarray]:
    """Returns whole pictures by index, f32[H, W, C] in [0, 1]."""
    tiles = tiles_of(split)
    found = []
    for i in indices:
        rows = tiles.picture == i
        part = Tiles(*(column[rows] for column in tiles))
        channels = [merged(part.values[..., c], part)[0] for c in range(part.values.shape[-1])]
        found.append(np.stack(channels, axis=-1) / 255.0)
    return found


def _first(split: Split) -> np.ndarray:
    return np.unique(split.arrays["picture"], return_index=True)[1]


class Fitted(NamedTuple):
    """A fitted detector, and what it says of the held-out good pictures and of the test split."""

    detector: Detector
    state: State
    held_out: Judged
    test: Judged


def fit(detector: Detector, splits: Splits, seed: int) -> Fitted:
    """Fits a detector on train, and judges the other splits."""
    train, validation, test = splits
    state = detector.fit(jax.random.key(seed), train.arrays["image"])
    held_out, found = (judge(detector, state, tiles_of(split)) for split in (validation, test))
    return Fitted(detector, state, held_out, found)


_FIRST: dict[Any, dict[str, Fitted]] = {}  # what `fit_all` returned for the first seed of a run
_MADE: dict[Any, dict[str, Detector]] = {}  # the detectors of the first call of `fit_all`


def _sharing(config: Any, event: tuple[int, ...], made: dict[str, Detector]) -> dict[str, Detector]:
    """Gives detectors the functions of those of the first seed, so that these compile only once.

    The functions depend on the settings and on the shape of a picture alone: what a seed has
    trained is in `Detector.given`.
    """
    first = _MADE.setdefault((config, event), made)
    return {
        name: own._replace(map=first[name].map, score=first[name].score)
        for name, own in made.items()
    }


def fit_all(
    config: Any, models: Mapping[str, tuple[Any, Any]], splits: Splits, seed: int
) -> dict[str, Fitted]:
    """Returns name -> fitted detector, for all detectors.

    The results, the stored file and the page of a run all need those of its first seed, so these
    are kept in memory.
    """
    proof = params_sha256({name: variables for name, (_, variables) in models.items()})
    key = (config, splits[0].fingerprint, splits[2].fingerprint, proof)
    if key in _FIRST:
        return _FIRST[key]
    made = _sharing(config, splits[0].event, detectors(config, models))
    found = {name: fit(detector, splits, seed) for name, detector in made.items()}
    if seed == config.seed:
        _FIRST.clear()
        _FIRST[key] = found
    return found
