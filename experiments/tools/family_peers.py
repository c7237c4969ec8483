"""Trains pythae's models on the batches of a finished run of families, and judges them alike.

    python -m experiments family-peers runs/families --peer-python PATH

pythae's classes are trained on the same batches with the same seeds, optimiser and learning rate.
Their weights are read into the run's models, whose reconstructions must then be pythae's, and are
judged by the same estimates. The figures are added to result.json as `NAME, pythae`, and the
differences as `NAME less pythae`. A command that was interrupted continues with the models that it
has not trained yet.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from aejax.errors import UserError
from aejax.files import read_json, write_json
from aejax.runs.folder import read_result
from aejax.types import Variables
from experiments import families
from experiments.shared.experiment import named, recorded, recorded_data
from experiments.shared.pages import write_page
from experiments.shared.paired import paired
from experiments.shared.place import say
from experiments.shared.training import streams, summary
from experiments.tools.peers import train_peer

Arrays = Mapping[str, np.ndarray]
SAME = 1e-4  # the largest difference of a pixel's reconstruction by equal weights
# The share of digits that may differ by more with VQVAE: rounding decides between two codes that
# are almost equally near, and each digit has 16 codes.
TIES = 0.05


def command(
    run_dir: pathlib.Path,
    peer_python: str | None = None,
    data_dir: str | None = None,
    manual_dir: str | None = None,
) -> None:
    """Trains pythae's models with --peer-python, judges them and adds them to the run's results.

    Args:
      run_dir: folder of a finished run of families.
      peer_python: path of a Python interpreter with pythae and torch, to train models that are not
        in the folder yet.
      data_dir: folder of prepared data sets; that of tensorflow-datasets by default.
      manual_dir: folder with the raw files of the data set.
    """
    experiment = named(run_dir)
    if experiment.name != "families":
        raise UserError(
            f"{run_dir} is a run of {experiment.name}: give the folder of a run of families"
        )
    config, result = recorded(run_dir, experiment), read_result(run_dir)
    splits = recorded_data(run_dir, data_dir, manual_dir)
    jobs = families.build(config, splits[0].event)
    folder = run_dir / "peers"
    if peer_python is not None:
        prepare(folder, jobs, config, splits)
        train_peer(peer_python, folder, "pythae_families.py", "pythae and torch")
    elif not (folder / "versions.json").exists():
        raise UserError(
            f"{folder} holds no trained models yet: give --peer-python the path of a Python "
            "interpreter with pythae and torch"
        )
    for name, job in jobs.items():
        rows = []
        for seed in range(config.seed, config.seed + config.seeds):
            with np.load(folder / f"{name}-{seed}.npz", allow_pickle=False) as arrays:
                variables, own = converted(name, arrays), arrays["reconstructed"]
            check_same(name, job.model, variables, splits[2], own)
            rows.append(families.judged(name, job.model, variables, splits[2], config.draws))
        figures = {key: np.array([row[key] for row in rows]) for key in rows[0]}
        result[f"{name}, pythae"] = summary(figures)
        result[f"{name} less pythae"] = paired(result, name, f"{name}, pythae")
    result["peer_versions"] = read_json(folder / "versions.json", {})
    write_json(run_dir / "result.json", result)
    say(f"report: {write_page(run_dir, data_dir, manual_dir)}")


def prepare(folder: pathlib.Path, jobs: Mapping[str, Any], config: Any, splits: Any) -> None:
    """Writes what the program that trains pythae's models reads: digits, batches and settings.

    Models that were trained with other settings are removed; the program keeps the others.
    """
    folder.mkdir(exist_ok=True)
    for part, split in (("train", splits[0]), ("test", splits[2])):
        flat = np.asarray(split.arrays["x"], np.float32).reshape(len(split), -1)
        np.save(folder / f"{part}.npy", flat, allow_pickle=False)
    rows = np.asarray(streams(jobs["VAE"], config, splits[0]).rows(0, config.steps), np.int64)
    np.save(folder / "rows.npy", rows, allow_pickle=False)
    task = {
        "models": list(jobs),
        "seeds": list(range(config.seed, config.seed + config.seeds)),
        "side": splits[0].event[0],
        "latents": config.latents,
        "draws": config.iwae_draws,
        "pseudo_inputs": families.PSEUDO_INPUTS,
        "codes": families.CODES,
        "learning_rate": config.learning_rate,
        "steps": config.steps,
    }
    path = folder / "task.json"
    if path.exists() and read_json(path, {}) != task:
        for trained in folder.glob("*.npz"):
            trained.unlink()
    write_json(path, task)


def converted(name: str, arrays: Arrays) -> Variables:
    """Returns a model's variables from the state of pythae's model of that name.

    pythae predicts log-variances, and half of one is a log standard deviation.
    """

    def dense(*layers: str, scale: float = 1.0) -> dict[str, np.ndarray]:
        scales = [1.0, scale][: len(layers)]
        kernels = [arrays[f"{layer}.weight"].T * s for layer, s in zip(layers, scales, strict=True)]
        biases = [arrays[f"{layer}.bias"] * s for layer, s in zip(layers, scales, strict=True)]
        return {"kernel": np.concatenate(kernels, 1), "bias": np.concatenate(biases)}

    params: dict[str, Any] = {
        "encoder": {"hidden_0": dense("encoder.layers.0.0")},
        "decoder": {
            "hidden_0": dense("decoder.layers.0.0"),
            "output": dense("decoder.layers.1.0"),
        },
    }
    if name == "VQVAE":
        codebook = arrays["quantizer.embeddings"]
        memory = {
            "counts": np.ones(len(codebook), np.float32),
            "sums": codebook,
            "chosen": np.zeros(len(codebook), np.float32),
            "last": np.zeros(len(codebook), np.float32),
            "steps": np.zeros((), np.int32),
        }
        params["bottleneck"] = {"encode": {"dense": dense("encoder.embedding")}}
        return {"params": params, "memory": {"bottleneck": memory}}
    params["bottleneck"] = {"statistics": dense("encoder.embedding", "encoder.log_var", scale=0.5)}
    if name == "VAMP":
        weight, bias = arrays["pseudo_inputs.0.weight"], arrays["pseudo_inputs.0.bias"]
        inputs = (weight + bias[:, None]).T
        side = round(inputs.shape[1] ** 0.5)
        params["prior"] = {"inputs": inputs.reshape((-1, side, side, 1))}
    return {"params": params}


def check_same(name: str, model: Any, variables: Variables, test: Any, own: np.ndarray) -> None:
    """Raises UserError unless the model reconstructs the test digits as pythae's does."""
    made = families.reconstructed(model, variables, test.arrays["x"]).reshape(own.shape)
    each = np.max(np.abs(made - own), axis=1)
    apart = float(np.quantile(each, 1.0 - (TIES if name == "VQVAE" else 0.0)))
    if apart > SAME:
        raise UserError(
            f"the weights of pythae's {name} give reconstructions that differ by {apart:.2g} from "
            "pythae's own: use the version of pythae that versions.json names"
        )
