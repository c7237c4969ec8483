"""Slow tests on the data of inspection: the promise of thresholds, and the contrast of defects."""

from __future__ import annotations

import os
import pathlib
import sys

import jax
import numpy as np
import pytest

from aejax import inspection
from aejax.data.pictures.solar_cells import solar_cells
from aejax.data.pictures.textures import TEXTURES, textures
from aejax.evaluation import anomaly
from experiments import inspect
from experiments.shared import parts

pytestmark = pytest.mark.slow
DIVISIONS, PROMISED = 20, 0.05
WHEEL = os.environ.get("ELPV_DIR")  # a folder with the wheel of elpv-dataset


@pytest.mark.skipif(WHEEL is None, reason="ELPV_DIR names no folder with solar cells")
@pytest.mark.parametrize("name", ["pca", "padim", "patchcore"])
def test_false_alarms_are_those_promised_over_divisions_of_the_solar_cells(name):
    """Fails if thresholds promise too few false alarms; every division has other good cells."""
    detector = parts.detectors(inspect.Config(dataset="elpv-poly"), {})[name]
    found = []
    for seed in range(DIVISIONS):
        train, validation, test = solar_cells("poly", pathlib.Path(str(WHEEL)), seed=seed)
        state = detector.fit(jax.random.key(0), train.arrays["image"])
        limit, score = (
            inspection.detect(detector, state, split.arrays["image"]).score
            for split in (validation, test)
        )
        good = score[test.arrays["label"] == 0]
        found.append(np.mean(good > anomaly.threshold(limit, PROMISED)))
    error = np.std(found, ddof=1) / DIVISIONS**0.5
    sys.stdout.write(f"{name}: {np.mean(found):.4f} +- {error:.4f}\n")
    assert abs(np.mean(found) - PROMISED) < 2 * error


@pytest.mark.parametrize("name", TEXTURES)
def test_principal_components_find_some_of_the_painted_defects(name):
    """Fails if the defects of a texture are invisible, or too easy to tell detectors apart."""
    train, _, test = textures(name)
    detector = inspection.principal(32)
    state = detector.fit(jax.random.key(0), train.arrays["image"])
    score = inspection.detect(detector, state, test.arrays["image"]).score
    assert 0.6 < anomaly.auroc(score, test.arrays["label"] > 0) < 0.9
