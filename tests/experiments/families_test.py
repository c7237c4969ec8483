"""Tests of the experiments `counts` and `views`: their data and likelihood, and that models fit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aejax as ae
from experiments import counts, views
from experiments.shared import course
from experiments.shared.made_counts import Recipe
from experiments.shared.place import Place
from experiments.shared.training import learner


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


@pytest.mark.slow
def test_the_experiment_of_counts_runs(tmp_path):
    config = counts.Config(steps=20, chunk=20, cells=80, genes=10, width=8, latents=3, draws=5)
    result = course.drive(counts.EXPERIMENT, config, Place(out=str(tmp_path / "counts")))
    assert np.isfinite(result["nb"]["nll"]["mean"])
    assert np.isfinite(result["truth"]["nll"]["mean"])
    assert (tmp_path / "counts" / "report.html").exists()
