"""Trains SAELens' SAEs on the tokens of a finished synth-sae run, and scores them like the run's.

    python -m experiments peers runs/synth-sae --peer-python PATH

Each code that SAELens has is trained by SAELens' trainer, with the same seeds, batches and learning
rate as the run, and with the run's first number of active latents. The SAEs are read from the files
that SAELens writes, and scored like the run's own dictionaries. Their figures are added to
result.json as `CODE at L0, SAELens`, the differences as `CODE less SAELens`, and the report is
written again.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
from collections.abc import Mapping
from typing import Any

import numpy as np

import aejax as ae
from aejax import interop, losses
from aejax.data.synthetic.store import HOOK
from aejax.dictionaries.recipe import default_rate
from aejax.errors import UserError
from aejax.files import read_json, write_json
from aejax.runs.folder import read_result
from experiments.peers import __path__ as scripts
from experiments.shared import synth
from experiments.shared.experiment import Splits, named, recorded, recorded_data
from experiments.shared.pages import write_page
from experiments.shared.place import say
from experiments.shared.training import streams, summary

# Name of a code in the run -> its name in SAELens. SAELens' standard code is the April recipe, and
# its TopK ranks latents by the norm of what they add to the reconstruction.
CODES = {
    "topk-by-norm": "topk",
    "batchtopk": "batchtopk",
    "matryoshka": "matryoshka",
    "jumprelu": "jumprelu",
    "gated": "gated",
    "april": "standard",
}
JUDGED = {"explained_variance": 1, "mcc": 1, "f1": 1, "dead": -1}  # -1: less is better
EQUAL = 0.05  # the most that L0 may differ from its target, relative to it, to count as equal


def command(
    run_dir: pathlib.Path, peer_python: str | None = None, data_dir: str | None = None
) -> None:
    """Trains SAELens' SAEs with --peer-python, scores them and adds them to the run's results.

    Args:
      run_dir: folder of a finished run of synth-sae.
      peer_python: path of a Python interpreter with sae-lens and torch, to train SAEs that are not
        in the folder yet.
      data_dir: folder of prepared data sets; that of tensorflow-datasets by default.
    """
    experiment = named(run_dir)
    if experiment.name != "synth-sae":
        raise UserError(
            f"{run_dir} is a run of {experiment.name}: give the folder of a run of synth-sae"
        )
    result = read_result(run_dir)
    config = recorded(run_dir, experiment)
    splits = recorded_data(run_dir, data_dir)
    folder = run_dir / "peers"
    if peer_python is not None:
        prepare(folder, experiment.build(config, splits[0].event), config, splits)
        train_peer(peer_python, folder)
    elif not (folder / "versions.json").exists():
        raise UserError(
            f"{folder} holds no trained SAEs yet: give --peer-python the path of a Python "
            "interpreter with sae-lens and torch"
        )
    for own, theirs in CODES.items():
        rows = []
        for seed in range(config.seed, config.seed + config.seeds):
            model, variables = ae.unfold(interop.load(folder / f"{theirs}-{seed}"))
            rows.append(synth.judged(model, variables, splits[2]))
        figures = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        result[f"{own} at {config.l0[0]}, SAELens"] = summary(figures)
    result |= compared(result, config.l0[0])
    result["peer_versions"] = read_json(folder / "versions.json", {})
    write_json(run_dir / "result.json", result)
    say(f"report: {write_page(run_dir, data_dir)}")


def prepare(folder: pathlib.Path, jobs: Mapping[str, Any], config: Any, splits: Splits) -> None:
    """Writes what the program that trains SAELens' SAEs reads, into a folder.

    These are the tokens, the indices of each batch's tokens, and the settings.
    """
    folder.mkdir(exist_ok=True)
    rows = streams(next(iter(jobs.values())), config, splits[0]).rows(0, config.steps)
    np.save(folder / "tokens.npy", np.asarray(splits[0].arrays[HOOK]), allow_pickle=False)
    np.save(folder / "rows.npy", rows, allow_pickle=False)
    task = {
        "codes": list(CODES.values()),
        "seeds": list(range(config.seed, config.seed + config.seeds)),
        "l0": config.l0[0],
        "latents": config.latents,
        "prefixes": list(losses.fractions(config.latents)),
        "learning_rate": config.learning_rate or default_rate(splits[0].event),
        "decay_steps": config.steps // 5,
        "descent": max(config.steps // 2, 1),
    }
    write_json(folder / "task.json", task)


def train_peer(
    python: str,
    folder: pathlib.Path,
    script: str = "saelens_synth.py",
    needed: str = "sae-lens and torch",
) -> None:
    """Trains the models that a folder's task.json names, in another Python interpreter.

    Args:
      python: the path of the interpreter.
      folder: the folder.
      script: the file of experiments/peers that trains them.
      needed: the packages that the script imports, for error messages.

    Raises:
      UserError: if the interpreter cannot be started, or ends with an error.
    """
    path = pathlib.Path(scripts[0]) / script
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        done = subprocess.run([python, str(path), str(folder)], env=variables, check=False)
    except OSError as error:
        raise UserError(
            f"--peer-python {python} cannot be started ({error.strerror}): give the path of a "
            f"Python interpreter with {needed}"
        ) from error
    if done.returncode:
        raise UserError(
            f"--peer-python {python} ended with the error printed above: check that it has {needed}"
        )


def compared(result: Mapping[str, Any], l0: float) -> dict[str, Any]:
    """Subtracts SAELens' results from aejax's, and prints which library is better.

    Both libraries train on the same batches for a seed, so the differences are paired by seed. A
    mean difference is a win or a loss if it exceeds two standard errors. If the mean L0 of either
    library is too far from the target `l0`, this is printed instead, since codes of unequal L0
    cannot be compared.

    Returns:
      "CODE less SAELens" -> the mean differences, also of L0, with their standard errors as `std`.
    """
    found: dict[str, Any] = {}
    for code in CODES:
        own, other = result[f"{code} at {l0}"], result[f"{code} at {l0}, SAELens"]
        cells = found[f"{code} less SAELens"] = {}
        off = max(abs(row["l0"]["mean"] / l0 - 1.0) for row in (own, other))
        for name in ("l0", *JUDGED):
            apart = np.subtract(own[name]["values"], other[name]["values"])
            mean, count = float(np.mean(apart)), len(apart)
            error = float(np.std(apart, ddof=1) / count**0.5) if count > 1 else float("nan")
            cells[name] = {"mean": mean, "std": error, "values": apart.tolist()}
            better = mean * JUDGED.get(name, 1)
            verdict = "a tie"
            if abs(mean) > 2.0 * error:
                verdict = "a win" if better > 0 else "a loss"
            verdict = f"not at equal L0 ({off:.0%} off)" if off > EQUAL else verdict
            if name in JUDGED:
                say(f"{code:<12} {name:<18} {mean:+.4f} ± {error:.4f}, {verdict}")
    return found
