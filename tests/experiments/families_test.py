"""Tests of the experiments on families: their data, that models fit, and pythae's weights."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aejax as ae
from aejax.runs.folder import read_result
from experiments import counts, families, image_tokenizer, views
from experiments.shared import course
from experiments.shared.made_counts import Recipe
from experiments.shared.paired import paired
from experiments.shared.place import Place
from experiments.shared.training import learner
from experiments.tools import count_peers, family_peers


def traced(job, config, split):
    """Traces a job's start on a batch of the split; it goes through the pass and all terms."""
    own = ae.learner(job.model, job.objective, job.tx, job.draws, job.bound)
    batch = next(job.view(split).batches(4, jax.random.key(0)))
    state = jax.eval_shape(own.init, jax.random.key(0), batch)
    assert state.params
    assert learner(job, config).chunk == config.chunk


def test_the_gaussian_of_logs_is_a_distribution_of_counts():
    """Its masses add up to one. Fails if the mass of 0 leaves out what lies below -1/2, or if both
    ends are not mirrored above the mean.
    """
    likelihood = ae.likelihoods.LogGaussian()
    every = np.arange(40_000, dtype=np.float32)[:, None]

    @jax.jit
    def masses(mean, log_std):
        own = {"params": {"log_std": log_std}}
        wide = jnp.broadcast_to(mean, every.shape)
        return likelihood.apply(own, wide, every, method="log_prob")

    for mean, log_std in ((-0.5, 0.0), (0.7, -1.0), (3.0, 0.3)):
        mass = np.exp(np.float64(masses(np.float32(mean), np.float32(log_std))))
        assert mass.sum() == pytest.approx(1.0, abs=1e-4)


def test_made_counts_have_the_variance_of_the_recipe_and_repeat():
    """Fails if theta is the dispersion and not its inverse."""
    made = Recipe(cells=3000, genes=20).made(seed=1)
    again = Recipe(cells=3000, genes=20).made(seed=1)
    assert np.array_equal(made.counts, again.counts)
    variance = made.means + made.means**2 / made.thetas
    squares = (made.counts - made.means) ** 2 / variance
    spread = squares.std(0) / len(squares) ** 0.5
    assert np.all(np.abs(squares.mean(0) - 1.0) < 4.5 * spread)


def test_the_count_models_fit_their_data():
    config = counts.Config(cells=60, genes=12, width=8, latents=3)
    train, _, test = counts.data(config, Place())
    assert (len(train), len(test)) == (42, 12)
    batch = next(train.batches(4))
    assert np.array_equal(np.log1p(batch.target), batch.x)
    total = np.sum(np.asarray(batch.target), axis=1)
    np.testing.assert_allclose(np.exp(batch.context["log_size"][:, 0]), total, rtol=1e-5)
    for job in counts.build(config, train.event).values():
        traced(job, config, train)


def test_missing_halves_are_marked_and_left_out():
    """Fails if the encoder sees the means that fill missing pixels, or if a half digit is whole."""
    random = np.random.default_rng(0)
    x = random.integers(0, 2, (12, *views.EVENT)).astype(np.float32)
    x[::2, :, : views.HALF] = np.nan
    train, _, _ = ae.data.splits(
        (x, np.arange(12) % 10), None, (np.nan_to_num(x), np.arange(12) % 10)
    )
    batch = next(views.marked(train).batches(12))
    assert np.array_equal(np.isnan(batch.x), np.isnan(x))
    assert not np.isnan(batch.target).any()
    assert np.array_equal(np.broadcast_to(batch.mask, x.shape) == 0, np.isnan(x))
    assert len(views.complete(train)) == 6
    config = views.Config(width=8, latents=3)
    jobs = views.build(config, views.EVENT)
    for job in jobs.values():
        traced(job, config, train)


def test_a_difference_within_two_standard_errors_is_a_tie(capsys):
    """Fails if the differences are not paired by seed, or if the error is not that of the mean."""
    rows = {
        "own": {"nll": {"values": [1.0, 2.0, 3.0]}},
        "near": {"nll": {"values": [1.0, 1.9, 3.2]}},
        "far": {"nll": {"values": [2.0, 2.9, 4.2]}},
    }
    cell = paired(rows, "own", "near")["nll"]
    assert cell["values"] == pytest.approx([0.0, 0.1, -0.2])
    assert cell["std"] == pytest.approx(np.std([0.0, 0.1, -0.2], ddof=1) / 3**0.5)
    paired(rows, "own", "far")
    paired(rows, "far", "own")
    said = capsys.readouterr().out.splitlines()
    assert [line.rsplit(", ", 1)[1] for line in said] == ["a tie", "a win", "a loss"]


@pytest.mark.slow
def test_the_experiment_of_counts_runs(tmp_path):
    config = counts.Config(
        steps=20, chunk=20, batch=20, cells=80, genes=10, width=8, latents=3, draws=5
    )
    result = course.drive(counts.EXPERIMENT, config, Place(out=str(tmp_path / "counts")))
    assert np.isfinite(result["nb"]["nll"]["mean"])
    assert np.isfinite(result["truth"]["nll"]["mean"])
    out = tmp_path / "counts"
    assert (out / "report.html").exists()
    with pytest.raises(ae.UserError, match="no figures of scVI yet"):
        count_peers.command(out)
    lines = [{"scvi-tools": "1"}, {"likelihood": "nb", "rate": 1e-3, "seed": 0, "nll": 7.0}]
    (out / count_peers.WRITTEN).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    count_peers.command(out)
    cell = read_result(out)["nb less scVI"]["nll"]
    assert cell["mean"] == pytest.approx(result["nb"]["nll"]["mean"] - 7.0)


def test_the_tokenizer_has_its_frozen_net_and_its_critic():
    """Fails if the frozen net is trained, if what trains it has not its parameters, or if the
    critic's weight is not 0 at first.
    """
    config = image_tokenizer.Config(width=4, steps=9)
    jobs = image_tokenizer.build(config, (64, 64, 3))
    crops = (np.zeros((4, 64, 64, 3), np.float32), np.arange(4))
    split = ae.data.splits(crops, None, crops)[0]
    both = jobs["both"]
    own = ae.learner(both.model, both.objective, both.tx)
    state = jax.eval_shape(own.init, jax.random.key(0), next(both.view(split).batches(4)))
    assert {"parts_critic", "parts_features"} <= set(state.params)
    pooled = jax.eval_shape(image_tokenizer.Pooled().init, jax.random.key(0), crops[0])["params"]
    frozen = state.params["parts_features"]
    assert jax.tree.map(jnp.shape, pooled["trunk"]) == jax.tree.map(jnp.shape, frozen)
    few = {name: jnp.ones(1) for name in state.params}
    updates, _ = both.tx.update(few, both.tx.init(few), few)
    assert {name for name, update in updates.items() if not np.any(update)} == {"parts_features"}
    weight = both.objective["deceive"][0]
    assert [float(weight(step)) for step in (0, 2, 3)] == [0.0, 0.0, config.adversarial]


def test_detail_is_the_energy_of_differences():
    crops = np.random.default_rng(0).random((2, 5, 4, 3)).astype(np.float32)
    expected = np.mean((crops[:, 1:] - crops[:, :-1]) ** 2)
    expected += np.mean((crops[:, :, 1:] - crops[:, :, :-1]) ** 2)
    assert image_tokenizer.detail(crops) == pytest.approx(expected, rel=1e-5)


def test_weights_of_pythae_give_its_reconstructions():
    """Fails if a matrix is not transposed, or if the log-variance is not halved."""
    random = np.random.default_rng(0)

    def layer(name, out, size):
        weight = random.normal(size=(out, size)) / size**0.5
        return {
            f"{name}.weight": np.float32(weight),
            f"{name}.bias": random.random(out, np.float32),
        }

    latents, pixels = 5, 784
    arrays = {
        **layer("encoder.layers.0.0", families.WIDTH, pixels),
        **layer("encoder.embedding", latents, families.WIDTH),
        **layer("encoder.log_var", latents, families.WIDTH),
        **layer("decoder.layers.0.0", families.WIDTH, latents),
        **layer("decoder.layers.1.0", pixels, families.WIDTH),
    }

    def apply(name, x):
        return x @ arrays[f"{name}.weight"].T + arrays[f"{name}.bias"]

    x = (random.random((3, *views.EVENT)) < 0.3).astype(np.float32)
    hidden = np.maximum(apply("encoder.layers.0.0", x.reshape(3, -1)), 0)
    mean = apply("encoder.embedding", hidden)
    logits = apply("decoder.layers.1.0", np.maximum(apply("decoder.layers.0.0", mean), 0))
    job = families.build(families.Config(latents=latents), views.EVENT)["VAE"]
    variables = family_peers.converted("VAE", arrays)
    test = ae.data.splits((x, np.arange(3)), None, (x, np.arange(3)))[2]
    own = 1 / (1 + np.exp(-logits))
    family_peers.check_same("VAE", job.model, variables, test, own)
    code = job.model.bind(variables).posterior(ae.Batch(x, x))
    np.testing.assert_allclose(code.log_std, 0.5 * apply("encoder.log_var", hidden), rtol=1e-4)
    # Rounding may choose another code for a few of VQVAE's digits, and for those of no other model.
    many = ae.data.splits((x[:1], [0]), None, (np.tile(x, (20, 1, 1, 1)), np.arange(60)))[2]
    own = np.tile(own, (20, 1))
    own[0] += 0.01
    family_peers.check_same("VQVAE", job.model, variables, many, own)
    with pytest.raises(ae.UserError, match="differ by"):
        family_peers.check_same("VAE", job.model, variables, many, own)


def test_pythaes_models_of_other_settings_are_removed(tmp_path):
    """Fails if a model that was trained for fewer steps counts as one of the run."""
    x = np.zeros((6, *views.EVENT), np.float32)
    splits = ae.data.splits((x, np.arange(6)), None, (x, np.arange(6)))
    config = families.Config(steps=2, batch=3, seeds=2)
    jobs, model = families.build(config, views.EVENT), tmp_path / "VAE-0.npz"
    family_peers.prepare(tmp_path, jobs, config, splits)
    model.touch()
    family_peers.prepare(tmp_path, jobs, config, splits)
    assert model.exists()
    assert np.load(tmp_path / "rows.npy").shape == (2, 2, 3)
    family_peers.prepare(tmp_path, jobs, dataclasses.replace(config, steps=3), splits)
    assert not model.exists()


@pytest.mark.slow
def test_the_experiment_of_tokenizers_runs(tmp_path):
    pytest.importorskip("skimage")
    config = image_tokenizer.Config(
        steps=6, chunk=3, width=4, train=40, tested=20, batch=4, classifier_steps=4
    )
    out = tmp_path / "tokens"
    result = course.drive(image_tokenizer.EXPERIMENT, config, Place(out=str(out)))
    assert all(np.isfinite(result["both"][name]["mean"]) for name in ("frechet", "perceptual"))
    assert (out / "report.html").exists()
