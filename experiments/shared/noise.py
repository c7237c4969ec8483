"""Noise on pictures: its kinds and levels, and which of two models is better at which level."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

import aejax as ae
from aejax.data import Split, changes
from aejax.types import Array, Batch, Variables
from experiments.shared.images import pictures

SETTINGS = ("clean", "noisy", "denoising")
MODELS = ("vae", "plain", "flow")
NOISES: dict[str, Any] = {
    "gaussian": changes.GaussianNoise,
    "salt-and-pepper": changes.SaltAndPepper,
    "masking": changes.Masking,
}
TRAINED = {"gaussian": 0.4, "salt-and-pepper": 0.3, "masking": 0.5}
LEVELS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)  # standard deviations, or shares of the pixels
OTHERS = ("plain", "flow", "pca")  # whom the VAE is compared with
NOISE_SEED = 13  # of the noise on test images


def noised(split: Split, kind: str, level: float) -> np.ndarray:
    """The split's pictures with noise that is the same for every model, f32[N, *event]."""
    noise = NOISES[kind](level)
    return np.asarray(noise(jax.random.key(NOISE_SEED), pictures(split)))


def row_name(setting: str, kind: str, model: str) -> str:
    """Of one row of the table."""
    return f"{setting}, {kind}: {model}"


def part_name(name: str, setting: str, kind: str) -> str:
    """Of the part that is trained for a setting and a noise; clean ones know of no noise."""
    return f"{name}-clean" if setting == "clean" else f"{name}-{setting}-{kind}"


def denoiser(model: ae.Autoencoder) -> Callable[[Variables, Any], Array]:
    """(variables, noisy pictures) -> what the model makes of them, without noise of its own."""

    def run(bound: Any, x: Array) -> Array:
        return bound.mean(bound(Batch(x, x)).prediction)

    return jax.jit(lambda variables, x: model.apply(variables, x, method=run))


def differences(rows: Mapping[str, Any], setting: str, kind: str, other: str) -> list[float]:
    """The VAE's error less another's at each level: negative where the VAE is better."""
    own, its = (rows[row_name(setting, kind, name)] for name in ("vae", other))
    return [mean(own[f"{level:g}"]) - mean(its[f"{level:g}"]) for level in LEVELS]


def crossings(gaps: Sequence[float]) -> list[float]:
    """The levels at which differences change their sign, linear between LEVELS."""
    found = []
    for i in range(1, len(LEVELS)):
        if gaps[i - 1] * gaps[i] < 0:
            share = gaps[i - 1] / (gaps[i - 1] - gaps[i])
            found.append(LEVELS[i - 1] + share * (LEVELS[i] - LEVELS[i - 1]))
    return found


def mean(value: Any) -> float:
    """Of a figure over seeds, as measured or as read from result.json."""
    return float(value["mean"]) if isinstance(value, Mapping) else float(np.mean(value))
