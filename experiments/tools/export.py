"""Exports a finished run's model, or a part of it, as one file that runs without aejax or flax.

    python -m experiments export runs/digits-vae                                # the decoder
    python -m experiments export runs/digits-vae --format onnx --weights int8
    python -m experiments export runs/digits-vae --part all --flagged 0.01      # with a threshold
    python -m experiments export runs/digits-vae --format web --runtime ort-web # a page
    python -m experiments export runs/images-sae --part dictionary --format safetensors

It writes RUN_DIR/exported/FORMAT/PART.stablehlo (or .onnx, .safetensors, .html). Next to a
.stablehlo or .onnx file it writes run_exported.py, which runs that file. For a model that is not a
run, call `aejax.interop.export`.
"""

from __future__ import annotations

import pathlib
from typing import Any, Literal

import jax
import numpy as np

import aejax as ae
from aejax import evaluation, interop
from aejax.data import Split
from aejax.errors import UserError
from aejax.interop.export import Part
from aejax.interop.programs import parts
from aejax.interop.programs.weights import Stored
from aejax.types import Batch, Variables
from experiments.shared.experiment import Splits, named, recorded, recorded_data
from experiments.shared.place import say

Format = Literal["stablehlo", "onnx", "safetensors", "web"]
ENDINGS = {"web": "html"}
EXAMPLES = 1_000  # number of test examples by which the web page finds the most variable latents
SCORED = 500  # number of validation examples in a batch


def command(
    run_dir: pathlib.Path,
    part: Part = "decoder",
    format: Format = "stablehlo",
    outputs: tuple[str, ...] = (),
    weights: Stored = "float32",
    out: pathlib.Path | None = None,
    member: int = 0,
    flagged: float | None = None,
    runtime: pathlib.Path | None = None,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    own: bool = False,
) -> None:
    """Exports the chosen part of the run's model.

    Args:
      run_dir: folder of a finished run.
      part: decoder (enough to generate), encoder, all (both), or dictionary (on raw inputs).
      format: stablehlo runs in jax, onnx in onnxruntime, web in a browser.
      outputs: names of the outputs to keep, such as mean; all by default.
      weights: how matrices are stored.
      out: folder of the files; RUN_DIR/exported/FORMAT by default.
      member: index of one of the run's seeds, from 0.
      flagged: for encoder and all, adds a threshold: this share of validation scores lies above.
      runtime: for web, the folder with the files of onnxruntime-web.
      data_dir: folder of prepared data sets; that of tensorflow-datasets by default.
      manual_dir: folder with a data set's raw files; then nothing is downloaded.
      own: trusts the run: follows the paths in its config.json, and prepares missing data.
    """
    reads = part in ("encoder", "all")
    if flagged is not None and not (reads and 0 < flagged < 1):
        raise UserError(
            f"--flagged is {flagged} for the part {part}: give a share between 0 and 1, for "
            "encoder or all"
        )
    if format == "web" and runtime is None:
        raise UserError(
            "a page runs on onnxruntime-web: give --runtime its folder, which `python -m "
            "experiments fetch-onnxruntime-web FOLDER` makes"
        )
    if runtime is not None and format != "web":
        raise UserError(f"--runtime is for --format web, but the format is {format}: leave it out")
    model, variables, _ = ae.load(run_dir, seed=member)
    example, labels, threshold = None, (), None
    if reads or format == "web" or (part == "decoder" and _needs_context(model, variables)):
        splits = _splits(run_dir, recorded_data(run_dir, data_dir, manual_dir, own))
        example, labels = _examples(splits[2])
        if flagged is not None:
            threshold = _threshold(model, variables, part, splits[1], flagged)
            say(f"threshold: {threshold:.6g}, above which {flagged:.2%} of validation lies")
    page = None
    if runtime is not None:
        experiment = named(run_dir)
        sound = experiment.sound(recorded(run_dir, experiment))
        page = interop.Page(runtime, _title(run_dir), labels, sound)
    suffix = "" if weights == "float32" else f"-{weights}"
    folder = run_dir / "exported" / format if out is None else out.expanduser()
    path = folder / f"{part}{suffix}.{ENDINGS.get(format, format)}"
    written = interop.export(
        model,
        variables,
        path,
        part=part,
        outputs=outputs,
        weights=weights,
        example=example,
        threshold=threshold,
        page=page,
    )
    for file in written:
        say(f"{file.stat().st_size:>12,} bytes  {file}")


def _splits(run_dir: pathlib.Path, splits: Splits) -> Splits:
    """Returns train, validation and test as the run's model read them (see `Job.view`)."""
    experiment = named(run_dir)
    train, validation, test = splits
    jobs = experiment.build(recorded(run_dir, experiment), train.event)
    job = jobs.get(run_dir.resolve().name) or next(iter(jobs.values()))
    return job.view(train), job.view(validation), job.view(test)


def _examples(test: Split) -> tuple[Batch, tuple[str, ...]]:
    """Returns test examples to store in a page, and the names of their classes.

    The first examples are of different classes, if there are classes.
    """
    kept = evaluation.varied(test.labels, 8, len(test))
    rest = np.setdiff1d(np.arange(min(EXAMPLES, len(test))), kept)
    batch = evaluation.chosen(test, np.concatenate([kept, rest]))
    if test.labels is None:
        return batch, ()
    classes = test.classes
    labels = [classes[i] if classes else str(i) for i in test.labels[kept]]
    return batch, tuple(f"{label} (test {i})" for i, label in zip(kept, labels, strict=True))


def _needs_context(model: Any, variables: Variables) -> bool:
    """Returns whether the decoder needs a context, so that its export needs an example."""
    try:
        parts.decoder(model, variables)
    except UserError:
        return True
    return False


def _threshold(
    model: Any, variables: Variables, part: str, validation: Split, flagged: float
) -> float:
    """Returns the score that the share `flagged` of validation examples exceeds."""
    example = next(validation.take(1).batches(1))
    program = (parts.encoder if part == "encoder" else parts.whole)(model, variables, example)
    run = jax.jit(program.run)
    scores = []
    for batch in validation.batches(SCORED):
        given = {"x": batch.x, "context": batch.context}
        given = {name: value for name, value in given.items() if name in program.inputs}
        found = run(variables, given)
        if "score" not in found:
            raise UserError(f"the {part} of this model has no score: leave out --flagged")
        scores.append(np.asarray(found["score"]))
    return float(np.quantile(np.concatenate(scores), 1.0 - flagged))


def _title(run_dir: pathlib.Path) -> str:
    return run_dir.resolve().name
