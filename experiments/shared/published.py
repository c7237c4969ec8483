"""Published results to which experiments/README.md compares ours, and the commands for ours.

All are NLLs in nats with K = 5000 importance samples. If a row of mnist-iwae has two numbers, the
first is from Burda et al. 2016 and the second from a later implementation, called "nbip"; a number
after "nbip" is from that implementation only. The rows of image-priors are from the table of
Norouzi et al. 2020 (Exemplar VAE).
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple


class Row(NamedTuple):
    """A published result, the file of our result, and the settings that reproduce it."""

    model: str  # a description of the model for the table
    published: str  # the published NLL, or two of them
    results: str  # the name, without .json, of the file in experiments/results with our result
    experiment: str  # the name of the experiment
    settings: Mapping[str, Any]  # the settings that differ from those of the experiment
    epochs: float  # passes over the train images in `python -m experiments reproduce`

    @property
    def command(self) -> str:
        """Returns the command of three seeds with the experiment's own schedule."""
        flags = " ".join(f"--{name} {value}" for name, value in self.settings.items())
        return f"python -m experiments {self.experiment} {flags} --seeds 3"


class Task(NamedTuple):
    """One row with its schedule: what its process needs to train it."""

    name: str  # the name of the kept result
    row: Row
    settings: dict[str, Any]  # all settings that differ from those of the experiment
    folder: pathlib.Path

    @property
    def words(self) -> list[str]:
        """Returns the words of the command that trains the same models."""
        pairs = [(f"--{name.replace('_', '-')}", str(v)) for name, v in self.settings.items()]
        flags = [word for pair in pairs for word in pair]
        return ["python", "-m", "experiments", self.row.experiment, *flags]


def _burda(layers: int, objective: str, draws: int, published: str) -> Row:
    model = f"{objective.upper() if objective != 'dreg' else 'DReG'}, {layers} layer, k={draws}"
    return Row(
        model if layers == 1 else model.replace("layer", "layers"),
        published,
        f"mnist-iwae-{layers}-{objective}-{draws}",
        "mnist-iwae",
        {"layers": layers, "objective": objective, "draws": draws},
        epochs=906.0,
    )


def _prior(model: str, prior: str, dataset: str, published: str) -> Row:
    names = {"vae": "VAE", "hvae": "HVAE", "convhvae": "ConvHVAE"}
    of = "VampPrior" if prior == "vamp" else "standard normal"
    data = "MNIST" if dataset == "mnist" else "Fashion-MNIST"
    return Row(
        f"{names[model]} + {of}, {data}",
        published,
        f"image-priors-{model}-{prior}-{dataset.replace('_', '-')}",
        "image-priors",
        {"model": model, "prior": prior, "dataset": dataset},
        epochs=100.0,
    )


TABLES: dict[str, list[Row]] = {
    "mnist-iwae": [
        _burda(1, "vae", 1, "86.76, 86.35"),
        _burda(1, "vae", 5, "86.47, 86.10"),
        _burda(1, "vae", 50, "86.35, 86.06"),
        _burda(1, "iwae", 5, "85.54, 85.18"),
        _burda(1, "iwae", 50, "84.78, 84.59"),
        _burda(1, "dreg", 1, "nbip 86.08"),
        _burda(1, "dreg", 5, "nbip 84.90"),
        _burda(1, "dreg", 50, "nbip 84.32"),
        _burda(2, "vae", 1, "85.33, 84.83"),
        _burda(2, "vae", 5, "85.01, 84.08"),
        _burda(2, "vae", 50, "84.78, 83.89"),
        _burda(2, "iwae", 5, "83.89, 83.48"),
        _burda(2, "iwae", 50, "82.90, 82.82"),
    ],
    "image-priors": [
        _prior("vae", "standard", "mnist", "84.45"),
        _prior("vae", "vamp", "mnist", "82.43"),
        _prior("hvae", "standard", "mnist", "82.39"),
        _prior("hvae", "vamp", "mnist", "81.56"),
        _prior("convhvae", "standard", "mnist", "80.52"),
        _prior("convhvae", "vamp", "mnist", "79.67"),
        _prior("vae", "standard", "fashion_mnist", "228.70"),
        _prior("vae", "vamp", "fashion_mnist", "227.35"),
        _prior("hvae", "standard", "fashion_mnist", "227.37"),
        _prior("hvae", "vamp", "fashion_mnist", "226.72"),
        _prior("convhvae", "standard", "fashion_mnist", "225.38"),
        _prior("convhvae", "vamp", "fashion_mnist", "224.67"),
    ],
}

# The rows that `python -m experiments reproduce` fills first, in this order.
FIRST = (
    "mnist-iwae-1-vae-1",
    "mnist-iwae-1-iwae-5",
    "mnist-iwae-1-iwae-50",
    "mnist-iwae-1-dreg-50",
    "image-priors-vae-vamp-mnist",
    "image-priors-hvae-vamp-mnist",
    "mnist-iwae-2-vae-50",
    "mnist-iwae-2-iwae-50",
    "image-priors-convhvae-vamp-mnist",
    "image-priors-vae-vamp-fashion-mnist",
    "image-priors-hvae-vamp-fashion-mnist",
    "image-priors-convhvae-vamp-fashion-mnist",
)


def in_order() -> dict[str, Row]:
    """Returns all rows by the names of their results files, the most wanted ones first."""
    rows = {row.results: row for table in TABLES.values() for row in table}
    return {name: rows[name] for name in (*FIRST, *(name for name in rows if name not in FIRST))}
