"""Trains scVI on the cells of the experiment `counts`, and prints its held-out likelihood.

    python -m experiments.peers.scvi_counts --seeds 3 --epochs 91

It needs an interpreter with scvi-tools. Split, latents, hidden units, batch size and learning rate
are those of the experiment's defaults, and 91 epochs are its number of steps; scVI has its own
optimiser, batch normalisation and warm-up. The likelihood is scvi-tools' importance-weighted
estimate given the observed sizes, in nats per cell. Each line of the output is one JSON object.
"""

import argparse
import json
import sys

import anndata
import numpy as np
import scvi

from experiments.shared.made_counts import Recipe, parts


def one(likelihood: str, seed: int, arguments: argparse.Namespace) -> dict:
    """Trains one model; returns its name, its seed and the mean of -log p over the test cells."""
    scvi.settings.seed = seed
    recipe = Recipe(arguments.cells, arguments.genes)
    made = recipe.made()
    train, _, test = (anndata.AnnData(made.counts[rows]) for rows in parts(recipe.cells))
    scvi.model.SCVI.setup_anndata(train)
    numbers = {"n_hidden": 128, "n_latent": 8, "n_layers": 1, "dropout_rate": 0.0}
    model = scvi.model.SCVI(train, gene_likelihood=likelihood, **numbers)
    model.train(
        max_epochs=arguments.epochs,
        accelerator="cpu",
        train_size=1.0,
        batch_size=128,
        enable_progress_bar=False,
        plan_kwargs={"lr": 1e-3, "n_epochs_kl_warmup": 15},
    )
    found = model.get_marginal_ll(test, n_mc_samples=arguments.draws, n_mc_samples_per_pass=20)
    value = next(iter(found.values())) if isinstance(found, dict) else found
    return {"likelihood": likelihood, "seed": seed, "nll": -float(np.mean(np.asarray(value)))}


def main() -> None:
    """Trains each likelihood with each seed, and prints a line for each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=91)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--cells", type=int, default=6_000)
    parser.add_argument("--genes", type=int, default=100)
    arguments = parser.parse_args()
    sys.stdout.write(json.dumps({"scvi-tools": scvi.__version__}) + "\n")
    for likelihood in ("nb", "zinb", "poisson"):
        for seed in range(arguments.seeds):
            sys.stdout.write(json.dumps(one(likelihood, seed, arguments)) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
