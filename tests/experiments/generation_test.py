"""Tests of the experiments on generation and noise: their own scores, and small runs."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

import aejax as ae
from aejax.data import changes
from experiments import conditional, denoise, faces, generation
from experiments.denoise import verdict
from experiments.shared.course import drive
from experiments.shared.labels import correlation_within, ink, slant
from experiments.shared.noise import LEVELS, crossings
from experiments.shared.numbers import check
from experiments.shared.place import Place
from experiments.shared.recognition import view


def bar(lean: float, thick: int = 2) -> np.ndarray:
    """Draws a bar f[1, 21, 21, 1] that moves `lean` pixels right with each row upwards."""
    image = np.zeros((1, 21, 21, 1))
    for row in range(4, 17):
        column = 10 + round(lean * (10 - row))
        image[0, row, column : column + thick] = 1.0
    return image


def test_slant_and_ink_are_those_of_bars():
    """Fails if slant counts downwards, or ink is a mean."""
    found = [slant(bar(lean))[0] for lean in (0.0, 0.5, -0.5, 1.0)]
    np.testing.assert_allclose(found, [0.0, 0.5, -0.5, 1.0], atol=0.05)
    np.testing.assert_allclose(slant(3 * bar(0.5)), slant(bar(0.5)))
    np.testing.assert_allclose(ink(np.concatenate([bar(0.0), bar(0.0, 4)])), [26, 52])


def test_kept_style_is_correlated_within_groups_alone():
    """Fails if the means of groups, which correlate too, are not subtracted."""
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 50)
    offset = generator.normal(scale=10, size=20)[groups]
    noise, style = generator.normal(size=(2, 1000))
    assert abs(correlation_within(offset + noise, offset + style, groups)) < 0.1
    assert correlation_within(offset + style, style, groups) > 1 - 1e-9


def test_who_wins_is_said_with_the_level_of_the_crossing():
    """Fails if the sign of differences is reversed, or a crossing is not interpolated."""
    levels = np.asarray(LEVELS)
    assert crossings(levels + 1) == []
    np.testing.assert_allclose(crossings(0.25 - levels), [0.25])
    assert verdict(list(levels - 1), "PCA") == "beats PCA at every level"
    assert verdict(list(levels + 1), "PCA") == "loses to PCA at every level"
    assert verdict(list(0.25 - levels), "PCA") == "loses to PCA below 0.25 and wins above"
    assert verdict(list(levels - 0.25), "PCA") == "beats PCA below 0.25 and loses above"
    twice = [-1.0, 1.0, -1.0, *[-1.0] * (len(LEVELS) - 3)]
    np.testing.assert_allclose(crossings(twice), [0.05, 0.15])
    assert verdict(twice, "PCA") == "beats PCA below 0.05, loses up to 0.15 and wins above"


def test_noise_trains_only_the_parts_that_ask_for_it():
    """Fails if a noisy target is clean, or clean training sees noise."""
    x = np.random.default_rng(0).random((20, 4, 4, 1)).astype(np.float32)
    train = ae.data.arrays(x)[0]
    parts = denoise.build(denoise.Config(width=8, latents=2), train.event)
    assert len(parts) == 3 * (1 + 3 * 2)
    for label, part in parts.items():
        batch = next(part.view(train).batches(len(train)))
        clean = np.array_equal(batch.x, train.arrays["x"])
        assert clean == label.endswith("-clean")
        same = np.array_equal(batch.x, batch.target)
        assert same == ("denoising" not in label)


def test_a_level_that_is_only_seen_once_has_its_bits():
    """Pixels with two equally frequent levels cost one bit, as the number of examples grows."""
    generator = np.random.default_rng(0)
    images = (generator.integers(0, 2, (30_000, 2, 2, 1)) * 255).astype(np.uint8) / np.float32(255)
    train, _, test = ae.data.arrays(images, validation=10, test=1_000)
    bits = faces._histogram_bits(train, test, rows=len(train))
    np.testing.assert_allclose(bits, 1.0, atol=0.03)


@pytest.mark.parametrize("experiment", [conditional, generation], ids=lambda e: e.__name__[12:])
def test_data_without_labels_are_refused_before_anything_is_trained(experiment, tmp_path):
    """Fails if missing labels raise only when the classifier, the last job, is trained."""
    for i in range(12):
        Image.fromarray(np.full((8, 8), 20 * i, np.uint8)).save(tmp_path / f"{i}.png")
    with pytest.raises(ae.UserError, match="does not have labels from 0 to 9"):
        experiment.EXPERIMENT.data(experiment.Config(dataset=str(tmp_path)), Place())


SMALL = {"chunk": 2, "log_every": 1, "steps": 4}
RUNS = {
    "conditional": (
        conditional.EXPERIMENT,
        conditional.Config(
            **SMALL, dataset="digits", width=8, latents=2, classifier_steps=4, quadrant_steps=4,
            quadrant_width=8, quadrant_latents=2, quadrant_draws=2, samples=12, seeds=2,
        ),
        ("recognised", "set_label_recognised", "label 9", "3 of 4 quadrants seen"),
    ),
    "generation": (
        generation.EXPERIMENT,
        generation.Config(
            **SMALL, dataset="digits", width=8, latents=2, classifier_steps=4, few=200,
            few_steps=4, compared=50, paths=5, seeds=2,
        ),
        ("samples: real", "paths: plain", "fit: vae-few", "classifier_test_accuracy"),
    ),
    "denoise": (
        denoise.EXPERIMENT,
        denoise.Config(**SMALL, dataset="digits", width=8, latents=2, tested=50, fitted=100),
        ("clean, gaussian: vae", "noisy, masking: pca", "denoising, salt-and-pepper: flow"),
    ),
    "faces": (
        faces.EXPERIMENT,
        faces.Config(**SMALL, dataset="digits", width=8, latents=2, nll_draws=2, seeds=2),
        ("bits_per_dimension", "plain", "histogram", "test from train"),
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_each_runs_to_its_report(name, tmp_path):
    """Trains a few steps with two seeds, evaluates and reports; all figures are finite."""
    experiment, config, promised = RUNS[name]
    place = Place(out=str(tmp_path / "run"), data_dir=str(tmp_path / "data"))
    result = drive(experiment, config, place)
    assert (tmp_path / "run" / "report.html").stat().st_size > 0
    assert set(promised) <= set(result)
    text = json.dumps({k: v for k, v in result.items() if k not in ("steps_per_second",)})
    assert name == "denoise" or "NaN" not in text
    if config.seeds == 2:
        own = next(value for key, value in result.items() if key == promised[0])
        cell = own if "values" in own else next(iter(own.values()))
        assert len(cell["values"]) in (1, 2)


def test_celeb_a_is_cut_to_squares_of_colour(tmp_path):
    """Faces of 218x178 pixels, as tfds gives them, are cropped to the size of the model."""
    from aejax.data import changed

    x = np.random.default_rng(0).integers(0, 256, (3, 218, 178, 3)).astype(np.uint8) / np.float32(
        255
    )
    split = changed(ae.data.arrays(x, validation=1, test=1)[0], faces.CELEBA)
    assert split.event == (64, 64, 3)
    part = faces.build(faces.Config(width=8, latents=2, components=2), split.event)["vae"]
    assert isinstance(part.model.likelihood, ae.likelihoods.ColourLogisticMixture)
    assert part.model.decoder.shape == (64, 64, 20)
    assert isinstance(faces.CELEBA, changes.Squares)


def test_the_classifier_sees_labels_as_targets():
    x = np.zeros((20, 8, 8, 1), np.float32)
    train = ae.data.arrays(x, np.arange(20) % 10)[0]
    target = next(view(train).batches(len(train))).target
    np.testing.assert_array_equal(target, train.labels)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (dataclasses.replace(conditional.Config(), samples=0), "--samples"),
        (dataclasses.replace(generation.Config(), few=0), "--few"),
        (dataclasses.replace(denoise.Config(), fitted=0), "--fitted"),
        (dataclasses.replace(faces.Config(), components=0), "--components"),
    ],
)
def test_numbers_below_one_are_named(config, named):
    with pytest.raises(ae.UserError, match=named):
        check(config)
