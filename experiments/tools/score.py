"""Scores new pictures by the detectors of a finished run of inspect.

    python -m experiments score runs/inspect new/ part.png --maps heat --json scores.json
    python -m experiments score runs/inspect new/ --fail     # exit status 1 if one is anomalous

It prints a table. A picture that cannot be read is named, and the others are scored. For detectors
without a net (pca, padim, patchcore, sparse), the files config.json and fitted.npz of the run are
enough; the others also need its newest checkpoint.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import pathlib
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

import aejax as ae
from aejax import inspection
from aejax.data import npz
from aejax.data.class_folder import paths_in
from aejax.data.pictures.folder import SUFFIXES, header
from aejax.data.pictures.inspection import Reading
from aejax.data.pictures.tiles import Tiles, cut
from aejax.errors import UserError
from aejax.evaluation import anomaly
from aejax.files import write_bytes, write_json, writing
from aejax.inspection import Detector, Features
from aejax.optional import needs
from aejax.report.inspection import heat
from experiments.shared import parts
from experiments.shared.experiment import named, recorded
from experiments.shared.place import say

AT_ONCE = 64  # pictures that are read and scored at a time
ATOMS = 5  # atoms that explain a picture


class Opened(NamedTuple):
    """A detector of a finished run, and how new pictures are read for it."""

    detector: Detector
    state: dict[str, np.ndarray]
    reading: Reading
    tile: tuple[int, int]  # the height and width of a tile
    overlap: int
    held_out: np.ndarray  # f[n], the scores of held-out good pictures
    peaks: np.ndarray  # f[n], the largest values of their maps
    features: Features | None  # those of a sparse detector
    false_alarms: float  # the share of good pictures that may be called anomalous


class Scored(NamedTuple):
    """One scored picture."""

    path: pathlib.Path
    score: float
    share: float  # the share of held-out good pictures with a score at least as high
    map: np.ndarray  # f32[H, W], at the size of the file
    atoms: list[dict[str, Any]]  # the most active atoms at the worst place; [] for other detectors


def command(
    run_dir: pathlib.Path,
    path: tuple[pathlib.Path, ...],
    detector: str = "padim",
    false_alarms: float | None = None,
    json: pathlib.Path | None = None,
    maps: pathlib.Path | None = None,
    fail: bool = False,
    onnx: str | None = None,
) -> None:
    """Scores pictures.

    Args:
      run_dir: folder of a finished run of inspect.
      path: paths of pictures, or of folders of pictures.
      detector: the name of the detector, as in the run's table.
      false_alarms: share of good pictures that may be called anomalous; that of the run by default.
      json: a file to which the scores are written.
      maps: a folder to which a heat map of each picture is written, at the picture's own size.
      onnx: path of the feature net in the ONNX format, for the detectors padim-onnx and
        patchcore-onnx; the path that a run's files name is not followed.
      fail: whether the exit status is 1 if a picture is anomalous, and 3 if one cannot be read.
    """
    opened, share = open_detector(run_dir, detector, onnx), false_alarms
    if share is None:
        share = opened.false_alarms
    limit = anomaly.threshold(opened.held_out, share)
    paths = _paths(path)
    say(f"{detector}, threshold {limit:.4g}: {1000 * share:g} false alarms in 1,000 good parts")
    say(f"{'score':>10}  {'good above':>10}  {'':9}  picture")
    rows, unread, used = [], [], set[str]()
    for found in scored(opened, paths):
        if isinstance(found, UserError):
            unread.append(str(found))
            print(f"not scored: {found}", file=sys.stderr, flush=True)
            continue
        anomalous = found.score > limit
        rows.append(
            {
                "path": str(found.path),
                "score": found.score,
                "anomalous": anomalous,
                "good_share": found.share,
                **({"atoms": found.atoms} if found.atoms else {}),
            }
        )
        verdict = "ANOMALOUS" if anomalous else "good"
        say(f"{found.score:>10.4g}  {found.share:>10.3f}  {verdict:9}  {found.path}")
        if maps is not None:
            # In a map's units the threshold is the quantile of the largest values of good maps.
            limits = anomaly.threshold(opened.peaks, share)
            rows[-1]["map"] = _write_map(maps, found, limits, used)
    bad = sum(row["anomalous"] for row in rows)
    say(f"{bad} of {len(rows)} pictures are anomalous; {len(unread)} could not be read")
    if json is not None:
        about = {"detector": detector, "threshold": limit, "false_alarms": share}
        write_json(json, {**about, "pictures": rows, "not_scored": unread})
    if fail and (bad or unread):
        raise SystemExit(1 if bad else 3)


def open_detector(run_dir: pathlib.Path, name: str, onnx: str | None = None) -> Opened:
    """Opens a detector of a finished run.

    Raises:
      UserError: if the folder is not that of a finished run of inspect, or it has no such detector.
    """
    experiment = named(run_dir)
    if experiment.name != "inspect":
        raise UserError(
            f"{run_dir} is a run of {experiment.name}, which has no detectors: give a run of "
            "inspect"
        )
    if not (run_dir / parts.FITTED).is_file():
        raise UserError(
            f"{run_dir} has no {parts.FITTED}, because the run is not finished: start its command "
            "again"
        )
    arrays = npz.load(run_dir / parts.FITTED, {})[0]
    known = sorted({key.split("/")[0] for key in arrays if "/" in key})
    if name not in known:
        raise UserError(
            f"{run_dir} has no detector {name!r}: choose one of {', '.join(known)} by --detector"
        )
    config = dataclasses.replace(recorded(run_dir, experiment), onnx=onnx)
    if name.endswith("-onnx") and onnx is None:
        raise UserError(f"the detector {name} needs its feature net: give its path by --onnx")
    event = _event(run_dir, arrays)
    models = {}
    if name in parts.NETS:
        job = parts.NETS[name]
        first = next(iter(experiment.build(config, event)))
        opened = ae.load(run_dir if job == first else run_dir / job, seed=0)
        models[job] = (opened.model, opened.variables)
    own = {
        key.partition("/")[2]: value for key, value in arrays.items() if key.startswith(f"{name}/")
    }
    if not {"held_out", "peaks"} <= own.keys():
        raise UserError(
            f"{run_dir / parts.FITTED} lacks the scores of held-out good pictures for {name}: "
            "train the run again"
        )
    held_out, peaks = own.pop("held_out"), own.pop("peaks")
    detector = parts.detectors(config, models)[name]
    reading = parts.reading(config, event)
    features = parts.sparse_features(config, models).get(name)
    return Opened(
        detector=detector,
        state=own,
        reading=reading,
        tile=(event[0], event[1]),
        overlap=config.overlap,
        held_out=held_out,
        peaks=peaks,
        features=features,
        false_alarms=config.false_alarms,
    )


def _event(run_dir: pathlib.Path, arrays: dict[str, np.ndarray]) -> tuple[int, int, int]:
    """Returns the shape of a tile, after checking it."""
    found = arrays.get("event", np.zeros(0))
    if (
        found.shape != (3,)
        or found.dtype.kind != "i"
        or not 0 < found.min() <= found.max() < 10_000
    ):
        raise UserError(
            f"{run_dir / parts.FITTED} does not hold the shape of pictures: train the run again"
        )
    height, width, channels = (int(n) for n in found)
    return height, width, channels


def scored(opened: Opened, paths: list[pathlib.Path]) -> Iterator[Scored | UserError]:
    """Yields each picture's score, or the error that tells why it could not be read."""
    for start in range(0, len(paths), AT_ONCE):
        found: list[UserError | pathlib.Path] = []
        pictures, sizes = [], []
        for path in paths[start : start + AT_ONCE]:
            try:
                picture = opened.reading.picture(path)
                cut([picture], opened.tile, opened.overlap)  # refuses too small pictures
                sizes.append(header(path)[0][::-1])
                pictures.append(picture)
                found.append(path)
            except UserError as error:
                found.append(error)
        if not pictures:
            yield from (error for error in found if isinstance(error, UserError))
            continue
        tiles = cut(pictures, opened.tile, opened.overlap)
        judged = parts.judge(opened.detector, opened.state, tiles)
        i = 0
        for entry in found:
            if isinstance(entry, UserError):
                yield entry
                continue
            share = float((opened.held_out >= judged.score[i]).mean())
            whole = _at_size(judged.maps[i], sizes[i])
            atoms = _atoms(opened, tiles, i)
            yield Scored(entry, float(judged.score[i]), share, whole, atoms)
            i += 1


def _atoms(opened: Opened, tiles: Tiles, picture: int) -> list[dict[str, Any]]:
    """Returns the most active atoms at the worst patch of a picture, for a sparse detector."""
    if opened.features is None:
        return []
    own = tiles.values[tiles.picture == picture]
    codes, rest = inspection.explain(opened.features, opened.state, own)
    place = np.unravel_index(int(rest.argmax()), rest.shape)
    active, usage = codes[place], opened.state["usage"]
    order = np.argsort(-active)[:ATOMS]
    return [
        {
            "atom": int(i),
            "activation": float(active[i]),
            "share_of_good_patches": float(usage[i]),
        }
        for i in order
        if active[i] > 0
    ]


def _paths(given: tuple[pathlib.Path, ...]) -> list[pathlib.Path]:
    """Returns the paths of all pictures; folders are searched.

    Raises:
      UserError: if a path does not exist, or a folder holds no pictures.
    """
    if not given:
        raise UserError("there is nothing to score: give pictures, or folders of pictures")
    found = []
    for path in given:
        if path.is_dir():
            found += [p for p in paths_in_any(path)]
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"there is no {path}: give pictures, or folders of pictures")
    return found


def paths_in_any(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns all pictures below a folder, also where some lie beside subfolders."""
    every = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    found = [path for path in every if not path.name.startswith(".")]
    return found or paths_in(folder, SUFFIXES, "pictures")


def _at_size(found: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    image = needs("PIL.Image", "writing heat maps")
    if found.shape == size:
        return found
    resample = image.Resampling.BILINEAR
    return np.asarray(image.fromarray(found.astype(np.float32)).resize(size[::-1], resample))


def _write_map(folder: pathlib.Path, found: Scored, limit: float, used: set[str]) -> str:
    """Writes a heat map, and returns the name of its file, which is in none of `used`."""
    image = needs("PIL.Image", "writing heat maps")

    buffer = io.BytesIO()
    pixels = np.round(255 * heat(found.map, limit)).astype(np.uint8)
    image.fromarray(pixels).save(buffer, "PNG")
    stem = "-".join(found.path.with_suffix("").parts[-2:]).strip("/-")
    names = itertools.chain((stem,), (f"{stem}-{i}" for i in itertools.count(2)))
    name = next(name for name in names if name not in used)
    used.add(name)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / f"{name}.png", buffer.getvalue())
    return f"{name}.png"
