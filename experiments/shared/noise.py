"""Noise on images: its types and levels, and at which levels one model is better than another."""

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
# The level of each noise during training.
TRAINED = {"gaussian": 0.4, "salt-and-pepper": 0.3, "masking": 0.5}
# The levels of noise at test time: standard deviations, or shares of the pixels.
LEVELS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
OTHERS = ("plain", "flow", "pca")  # the models with which the VAE is compared
NOISE_SEED = 13  # seed of the noise on test images


def noised(split: Split, kind: str, level: float) -> np.ndarray:
    """Returns the images of a split with noise that is the same for every model, f32[N, *event]."""
    noise = NOISES[kind](level)
    return np.asarray(noise(jax.random.key(NOISE_SEED), pictures(split)))


def row_name(setting: str, kind: str, model: str) -> str:
    """Returns the name under which result.json has a model's errors with a type of noise."""
    return f"{setting}, {kind}: {model}"


def job_name(name: str, setting: str, kind: str) -> str:
    """Returns the name of the job that trains a model in a setting for a type of noise.

    In the setting "clean", a job has no noise, and is tested with all types of noise.
    """
    return f"{name}-clean" if setting == "clean" else f"{name}-{setting}-{kind}"


def denoiser(model: ae.Autoencoder) -> Callable[[Variables, Any], Array]:
    """Returns a compiled function (variables, noisy images) -> their reconstructions.

    Codes are not drawn from the posterior, so that the model itself adds no noise.
    """

    def run(bound: Any, x: Array) -> Array:
        return bound.mean(bound(Batch(x, x)).prediction)

    return jax.jit(lambda variables, x: model.apply(variables, x, method=run))


def differences(rows: Mapping[str, Any], setting: str, kind: str, other: str) -> list[float]:
    """Returns the error of the VAE minus that of `other` at each level of noise."""
    own, its = (rows[row_name(setting, kind, name)] for name in ("vae", other))
    return [mean(own[f"{level:g}"]) - mean(its[f"{level:g}"]) for level in LEVELS]


def crossings(gaps: Sequence[float]) -> list[float]:
    """Returns the levels of noise at which differences change sign, by linear interpolation.

    Args:
      gaps: the differences between two models at each of LEVELS.
    """
    found = []
    for i in range(1, len(LEVELS)):
        if gaps[i - 1] * gaps[i] < 0:
            share = gaps[i - 1] / (gaps[i - 1] - gaps[i])
            found.append(LEVELS[i - 1] + share * (LEVELS[i] - LEVELS[i - 1]))
    return found


def mean(value: Any) -> float:
    """Returns the mean over seeds of a result, given as an array or as an entry of result.json."""
    return float(value["mean"]) if isinstance(value, Mapping) else float(np.mean(value))
