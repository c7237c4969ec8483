"""Trains scVI on the cells of the experiment `counts`, and writes its held-out likelihood.

    python -m experiments.peers.scvi_counts runs/counts/scvi.jsonl --rates 0.001 0.01

It needs an interpreter with scvi-tools. Split, latents, hidden units and batch size are those of
the experiment's defaults, and 91 epochs are its number of steps; scVI has its own optimiser, batch
normalisation and warm-up. Each model is trained with each learning rate; that of scvi-tools is
0.001. The likelihood is scvi-tools' importance-weighted estimate given the observed sizes, in nats
per cell. Each line of the file is one JSON object: the versions and settings, then a line for each
model. If the file has the same first line, models whose lines are there are not trained again.
"""

import argparse
import json
import pathlib

import anndata
import numpy as np
import scvi

from experiments.shared.made_counts import Recipe, parts


def one(task: dict, arguments: argparse.Namespace) -> dict:
    """Trains one model; returns its task and the mean of -log p over the test cells."""
    scvi.settings.seed = task["seed"]
    recipe = Recipe(arguments.cells, arguments.genes)
    made = recipe.made()
    train, _, test = (anndata.AnnData(made.counts[rows]) for rows in parts(recipe.cells))
    scvi.model.SCVI.setup_anndata(train)
    numbers = {"n_hidden": 128, "n_latent": 8, "n_layers": 1, "dropout_rate": 0.0}
    model = scvi.model.SCVI(train, gene_likelihood=task["likelihood"], **numbers)
    model.train(
        max_epochs=arguments.epochs,
        accelerator="cpu",
        train_size=1.0,
        batch_size=128,
        enable_progress_bar=False,
        plan_kwargs={"lr": task["rate"], "n_epochs_kl_warmup": 15},
    )
    found = model.get_marginal_ll(test, n_mc_samples=arguments.draws, n_mc_samples_per_pass=20)
    value = next(iter(found.values())) if isinstance(found, dict) else found
    return {**task, "nll": -float(np.mean(np.asarray(value)))}


def main() -> None:
    """Trains each likelihood with each learning rate and seed, and writes a line for each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=91)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--cells", type=int, default=6_000)
    parser.add_argument("--genes", type=int, default=100)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.001])
    arguments = parser.parse_args()
    settings = {name: getattr(arguments, name) for name in ("epochs", "draws", "cells", "genes")}
    head = {"scvi-tools": scvi.__version__, **settings}
    path = arguments.path
    lines = path.read_text().splitlines() if path.exists() else []
    if not lines or json.loads(lines[0]) != head:
        lines = [json.dumps(head)]
        path.write_text(f"{lines[0]}\n")
    done = [{k: v for k, v in json.loads(line).items() if k != "nll"} for line in lines[1:]]
    for likelihood in ("nb", "zinb"):
        for rate in arguments.rates:
            for seed in range(arguments.seeds):
                task = {"likelihood": likelihood, "rate": rate, "seed": seed}
                if task not in done:
                    with path.open("a") as file:
                        file.write(json.dumps(one(task, arguments)) + "\n")


if __name__ == "__main__":
    main()
