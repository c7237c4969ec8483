"""Trains SAELens' SAEs on the tokens of a finished lm-sae run, and scores them like the run's own.

    python -m experiments lm-peers runs/lm-sae --peer-python PATH

Each dictionary of the run that SAELens has is trained by SAELens' trainer, with the same seeds,
batches and learning rate, and the same number of active latents. The SAEs are read from the files
that SAELens writes and spliced into the language model as the run's own dictionaries are. Their
figures are added to result.json as `CODE, SAELens`, and the differences as `CODE less SAELens`.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from aejax import interop, losses
from aejax.dictionaries.recipe import RATE
from aejax.errors import UserError
from aejax.files import read_json, write_json
from aejax.runs.folder import read_result
from experiments.shared import inside
from experiments.shared.finished_lm import open_dictionary
from experiments.shared.pages import write_page
from experiments.shared.place import Place, say
from experiments.shared.training import streams, summary
from experiments.tools.peers import EQUAL, train_peer

CODES = ("topk", "batchtopk", "jumprelu", "matryoshka")
JUDGED = ("explained_variance", "ce_recovered", "nats_lost")


def command(
    run: pathlib.Path,
    peer_python: str | None = None,
    model: pathlib.Path | None = None,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    own: bool = False,
) -> None:
    """Trains SAELens' SAEs with --peer-python, measures them and adds them to the results.

    Args:
      run: the folder of a finished run of lm-sae.
      peer_python: path of a Python interpreter with sae-lens and torch, to train SAEs that are not
        in the folder yet.
      model: the language model, if it is no longer where the run found it.
      data_dir: the folder of prepared data sets; that of tensorflow-datasets by default.
      manual_dir: the folder with the raw files of the corpora.
      own: trusts the run: follows the paths in its config.json.
    """
    opened = open_dictionary(run, model, own=own)
    config, experiment = opened.config, opened.experiment
    if experiment.name != "lm-sae":
        raise UserError(f"{run} is a run of {experiment.name}: give the folder of a run of lm-sae")
    place = Place(data_dir=data_dir, manual_dir=manual_dir)
    splits = experiment.data(config, place)
    folder = run / "peers"
    codes = [code for code in CODES if code in config.kinds]
    if peer_python is not None:
        prepare(folder, experiment.build(config, splits[0].event), codes, config, splits[0])
        train_peer(peer_python, folder)
    elif not (folder / "versions.json").exists():
        raise UserError(
            f"{folder} holds no trained SAEs yet: give --peer-python the path of a Python "
            "interpreter with sae-lens and torch"
        )
    seeds = range(config.seed, config.seed + config.seeds)
    found = {
        f"{code}, SAELens": [
            inside.of_dictionary(interop.load(folder / f"{code}-{seed}"), config.hook)
            for seed in seeds
        ]
        for code in codes
    }
    hooks = inside.Hooks(config.hook, config.hook)
    result = read_result(run)
    rows = inside.judged(config, found, splits, hooks)
    result |= {name: summary(rows[name]) for name in found}
    result |= {f"{code} less SAELens": compared(result, code) for code in codes}
    result["peer_versions"] = read_json(folder / "versions.json", {})
    write_json(run / "result.json", result)
    say(f"report: {write_page(run, data_dir, manual_dir, own)}")


def prepare(folder: pathlib.Path, jobs: Any, codes: list[str], config: Any, train: Any) -> None:
    """Writes what the program that trains SAELens' SAEs reads, into a folder.

    These are the tokens, the indices of each batch's tokens, and the settings.
    """
    folder.mkdir(exist_ok=True)
    order = np.asarray(streams(next(iter(jobs.values())), config, train).rows(0, config.steps))
    tokens = np.asarray(train.arrays[config.hook], np.float32)
    np.save(folder / "tokens.npy", tokens, allow_pickle=False)
    # Seeds have batches of their own; SAELens' seeds all take those of the first.
    np.save(folder / "rows.npy", order[0] if order.ndim == 3 else order, allow_pickle=False)
    task = {
        "codes": codes,
        "seeds": list(range(config.seed, config.seed + config.seeds)),
        "l0": config.l0,
        "latents": config.latents,
        "prefixes": list(losses.fractions(config.latents)),
        "learning_rate": RATE / tokens.shape[1] ** 0.5,
        "decay_steps": config.steps // 5,
        "descent": max(config.steps // 2, 1),
    }
    write_json(folder / "task.json", task)


def compared(result: Any, code: str) -> dict[str, Any]:
    """Subtracts SAELens' results of one code from aejax's, and prints who is better.

    A difference is a win or a loss if it exceeds two standard errors over the seeds. If the L0s of
    the two are too far apart to compare them, it prints this instead.

    Returns:
      name of a result -> the mean difference, its standard error as `std`, and each seed's
      difference.
    """
    own, other = result[code], result[f"{code}, SAELens"]
    apart = abs(own["l0"]["mean"] / other["l0"]["mean"] - 1.0)
    cells = {}
    for name in JUDGED:
        values = np.subtract(own[name]["values"], other[name]["values"])
        n = len(values)
        error = float(np.std(values, ddof=1) / n**0.5) if n > 1 else 0.0
        mean = float(values.mean())
        better = -mean if name == "nats_lost" else mean
        verdict = "a loss" if better < -2 * error else "a win" if better > 2 * error else "a tie"
        verdict += "" if n > 1 else " of one seed"
        verdict = f"not at equal L0 ({apart:.0%} off)" if apart > EQUAL else verdict
        say(f"{code:<12} {name:<20} {mean:+.4f} ± {error:.4f}, {verdict}")
        cells[name] = {"mean": mean, "std": error, "values": values.tolist()}
    return cells
