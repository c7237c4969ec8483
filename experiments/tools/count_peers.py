"""Trains scvi-tools' scVI on the cells of a finished run of counts, and adds its likelihoods.

    python -m experiments count-peers runs/counts --peer-python PATH

`experiments/peers/scvi_counts.py` says what is equal in both. The figures are added to result.json
as `LIKELIHOOD, scVI` for scVI's own learning rate and as `LIKELIHOOD, scVI at RATE` for that of the
run, and the differences as `LIKELIHOOD less scVI` and `LIKELIHOOD less scVI at RATE`. A command
that was interrupted continues with the models that it has not trained yet.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import subprocess

from aejax.errors import UserError
from aejax.files import write_json
from aejax.runs.folder import read_result
from experiments.shared.experiment import named, recorded
from experiments.shared.made_counts import parts
from experiments.shared.pages import write_page
from experiments.shared.paired import paired
from experiments.shared.place import say
from experiments.shared.training import summary

WRITTEN = "scvi.jsonl"  # the file of the run with the lines that the program writes
OWN_RATE = 1e-3  # scVI's learning rate


def command(run_dir: pathlib.Path, peer_python: str | None = None) -> None:
    """Trains scVI with --peer-python and adds its figures to the run's results.

    Args:
      run_dir: folder of a finished run of counts.
      peer_python: path of a Python interpreter with scvi-tools, to train models whose figures are
        not in the folder yet.
    """
    experiment = named(run_dir)
    if experiment.name != "counts":
        raise UserError(
            f"{run_dir} is a run of {experiment.name}: give the folder of a run of counts"
        )
    config, result = recorded(run_dir, experiment), read_result(run_dir)
    path = run_dir / WRITTEN
    if peer_python is not None:
        rows = parts(config.cells)[0]
        batches = math.ceil((rows.stop - rows.start) / config.batch)
        numbers = {
            "seeds": config.seeds,
            "epochs": math.ceil(config.steps / batches),
            "draws": config.draws,
            "cells": config.cells,
            "genes": config.genes,
        }
        flags = [word for name, value in numbers.items() for word in (f"--{name}", str(value))]
        rates = sorted({OWN_RATE, config.learning_rate})
        train(peer_python, [str(path.resolve()), *flags, "--rates", *map(str, rates)])
    elif not path.exists():
        raise UserError(
            f"{run_dir} holds no figures of scVI yet: give --peer-python the path of a Python "
            "interpreter with scvi-tools"
        )
    head, *lines = [json.loads(line) for line in path.read_text().splitlines()]
    for kind, rate in dict.fromkeys((line["likelihood"], line["rate"]) for line in lines):
        peer = "scVI" if rate == OWN_RATE else f"scVI at {rate:g}"
        rows = [line for line in lines if (line["likelihood"], line["rate"]) == (kind, rate)]
        found = [line["nll"] for line in sorted(rows, key=lambda line: line["seed"])]
        result[f"{kind}, {peer}"] = summary({"nll": found})
        result[f"{kind} less {peer}"] = paired(result, kind, f"{kind}, {peer}")
    result["peer_versions"] = {"scvi-tools": head["scvi-tools"]}
    write_json(run_dir / "result.json", result)
    say(f"report: {write_page(run_dir)}")


def train(python: str, words: list[str]) -> None:
    """Runs the program that trains scVI and writes a line for each model.

    Raises:
      UserError: if the interpreter cannot be started, or ends with an error.
    """
    root = pathlib.Path(__file__).parents[2]
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    program = [python, "-m", "experiments.peers.scvi_counts", *words]
    try:
        done = subprocess.run(program, env=variables, cwd=root, check=False)
    except OSError as error:
        raise UserError(
            f"--peer-python {python} cannot be started ({error.strerror}): give the path of a "
            "Python interpreter with scvi-tools"
        ) from error
    if done.returncode:
        raise UserError(
            f"--peer-python {python} ended with the error printed above: check that it has "
            "scvi-tools"
        )
