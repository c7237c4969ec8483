"""Tests that a sparse code defined in this file works wherever the library's own codes do.

It is the soft threshold sign(p) relu(|p| - t) of p = x W + b, the activation of ISTA (Daubechies et
al. 2004), with one learned t > 0 for each latent. No file of aejax knows it.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import aejax as ae
from aejax import evaluation, interop, losses, report
from aejax.bottlenecks import Sparse, SparseCode
from aejax.report.sparse import sparse_sections

D, M, STEPS = 16, 24, 40


class SoftThreshold(Sparse):
    """sign(p) relu(|p| - t), p = x W + b, t = exp(log_t).

    Attributes: latents is m, and start is t at the start, which a sweep may trace.
    """

    latents: int
    start: float = 0.1

    vectors = ("b_enc", "threshold")

    @nn.compact
    def activate(self, inputs, step, decoder):
        del step, decoder
        constant = nn.initializers.constant(jnp.log(self.start))
        z = soft(self.project(inputs), jnp.exp(self.param("log_t", constant, (self.latents,))))
        return SparseCode(z, jnp.sum(z != 0, axis=-1).astype(jnp.float32))

    def plain(self, params, memory, norms):
        threshold = jnp.exp(params["log_t"])
        bias = params["encode"]["bias"]
        return {"activation": type(self), "b_enc": bias, "threshold": threshold}

    @classmethod
    def from_plain(cls, plain):
        module = cls(plain.latents, subtract_bias=plain.apply_b_dec_to_input)
        return module, {**plain.projection(), "log_t": jnp.log(plain.threshold)}

    scales = ("b_enc", "threshold")

    @classmethod
    def apply_plain(cls, plain, pre):
        return soft(pre + plain.b_enc[None], plain.threshold)

    def penalty(self, code, norms=None):
        return code.magnitude()


def soft(pre, threshold):
    return jnp.sign(pre) * nn.relu(jnp.abs(pre) - threshold[None])


@dataclasses.dataclass(frozen=True)
class Config:
    latents: int = M


def images():
    """Makes sums of a few of twelve directions, of either sign, as images of 4 x 4."""
    random = np.random.default_rng(0)
    active = random.normal(size=(400, 12)) * (random.random((400, 12)) < 0.2)
    x = 0.5 + 0.1 * active @ random.normal(size=(12, D)) + 0.01 * random.normal(size=(400, D))
    return ae.data.arrays(x.reshape(-1, 4, 4, 1).astype(np.float32), np.arange(400) % 3)


def made(start=0.1, **options):
    scale = ae.nets.Scale
    dictionary = ae.nets.Dictionary((4, 4, 1), scale=scale())
    return ae.Autoencoder(scale(), SoftThreshold(M, start=start, **options), dictionary)


def learner(model):
    start = (ae.standardised(), ae.tied)
    one = ae.learner(model, ae.sparse(l1=0.05), optax.adam(1e-2), initialise=start)
    return ae.chunked(one, STEPS // 2)


@pytest.fixture(scope="module")
def splits():
    return images()


@pytest.fixture(scope="module")
def compiled():
    return ae.compiled(learner(made()))


def trained(folder, compiled, splits, steps):
    """Trains a run in the folder up to a step, or continues it; returns the variables."""
    batches = ae.data.Batches(splits[0], 32)
    with ae.Run(folder, Config(), model=made()) as run:
        state = start = run.restore(compiled.init(jax.random.key(0), batches[0]))
        for state, metrics in ae.loop(compiled, start, batches, steps, progress=False):
            run.log(state, metrics)
            run.save(state)
    return compiled.variables(state)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compiled, splits):
    """Returns the folder of a run that was never interrupted, and its variables."""
    folder = tmp_path_factory.mktemp("outside") / "run"
    return folder, trained(folder, compiled, splits, STEPS)


def equal(left, right):
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_it_trains_and_a_resumed_run_ends_in_the_same_bits(tmp_path, compiled, splits, whole):
    """Fails if the class's own parameter is not trained, or is not in the checkpoint."""
    trained(tmp_path / "run", compiled, splits, STEPS // 2)
    assert equal(trained(tmp_path / "run", compiled, splits, STEPS), whole[1])
    moved = np.asarray(whole[1]["params"]["bottleneck"]["log_t"]) - np.log(0.1)
    assert np.mean(np.abs(moved) > 1e-3) > 0.5


def test_its_run_is_opened_with_the_model_alone(whole):
    """A file may not name a class from outside aejax.

    Fails if the error does not say what to do.
    """
    folder, variables = whole
    with pytest.raises(ae.UserError, match=r"SoftThreshold cannot be rebuilt .* model="):
        ae.load(folder)
    opened = ae.load(folder, model=made())
    assert equal(opened.variables["params"], variables["params"])


@pytest.mark.parametrize("subtracts", [False, True])
def test_folded_it_is_the_model_on_raw_inputs_and_unfolds(splits, whole, subtracts):
    """Fails if the threshold is not scaled to raw pre-activations, or if from_plain loses it."""
    batch = next(splits[2].batches(40))
    model, variables = made(subtract_bias=subtracts), whole[1]
    expected = model.apply(variables, batch)
    z = expected.code.dense()
    assert np.any(z > 0)
    assert np.any(z < 0)
    assert 1 < np.mean(expected.code.l0) < M - 1
    plain = ae.fold(model, variables)
    assert plain.activation is SoftThreshold
    x = batch.x.reshape((len(z), -1))
    np.testing.assert_allclose(ae.dictionary.encode(plain, x), z, atol=1e-4)
    found = ae.dictionary.reconstruct(plain, x)
    np.testing.assert_allclose(found, expected.prediction, atol=1e-4)
    again, own = ae.unfold(plain)
    assert isinstance(again.bottleneck, SoftThreshold)
    output = again.apply(own, batch).prediction
    np.testing.assert_allclose(output, expected.prediction, atol=1e-4)
    unit = ae.dictionary.fold_decoder_norms(plain)
    output = ae.dictionary.reconstruct(unit, x)
    np.testing.assert_allclose(output, expected.prediction, atol=1e-4)
    for one, other in zip(plain, ae.fold(again, own), strict=True):
        if isinstance(one, jax.Array):
            np.testing.assert_allclose(one, other, rtol=1e-5)
        else:
            assert one == other


def test_a_class_without_a_formula_says_what_to_define():
    """Fails if weights of a class without a formula are computed by another's."""

    class Silent(Sparse):
        latents: int

        def activate(self, inputs, step, decoder):
            raise NotImplementedError

    weights = {"W_enc": jnp.eye(2), "W_dec": jnp.eye(2), "b_dec": jnp.zeros(2)}
    for activation, said in (
        (Silent, "Silent does not define .* define its method apply_plain"),
        ("softish", "no sparse code is called 'softish': set the activation to one of .*relu"),
    ):
        with pytest.raises(ae.UserError, match=said):
            ae.dictionary.encode(ae.dictionary.Plain(activation, **weights), jnp.ones((1, 2)))


class Bent(Sparse):
    """relu(p) + slope relu(p - 1), with a vector and a number for which Plain has no field."""

    corner: float = 1.0

    @nn.compact
    def activate(self, inputs, step, decoder):
        slope = self.param("slope", nn.initializers.uniform(2.0), (self.latents,))
        z = bent(self.project(inputs), slope, self.corner)
        return SparseCode(z, jnp.sum(z > 0, axis=-1).astype(jnp.float32))

    def plain(self, params, memory, norms):
        own = {"slope": params["slope"], "corner": jnp.full((self.latents,), self.corner)}
        return {"activation": type(self), "b_enc": params["encode"]["bias"], "own": own}

    @classmethod
    def from_plain(cls, plain):
        corner = float(plain.needed("corner")[0])
        return cls(plain.latents, corner=corner), {
            **plain.projection(),
            "slope": plain.needed("slope"),
        }

    @classmethod
    def apply_plain(cls, plain, pre):
        return bent(pre + plain.b_enc[None], plain.needed("slope"), plain.needed("corner"))

    scales = ("b_enc", "corner")


def bent(pre, slope, corner):
    return nn.relu(pre) + slope[None] * nn.relu(pre - jnp.broadcast_to(corner, pre.shape))


def test_a_vector_that_plain_has_no_field_for_is_kept_in_own(splits):
    """Fails if `own` is lost when weights are folded, scaled or unfolded to a model."""
    scale = ae.nets.Scale
    model = ae.Autoencoder(
        scale(), Bent(M, corner=0.5), ae.nets.Dictionary((4, 4, 1), scale=scale())
    )
    batch = next(splits[0].batches(40))
    variables = ae.standardised()(model.init(jax.random.key(1), batch), batch, jax.random.key(2))
    right = model.apply(variables, batch).prediction
    plain = ae.fold(model, variables)
    np.testing.assert_allclose(ae.dictionary.reconstruct(plain, batch.x), right, atol=1e-5)
    scaled = ae.dictionary.fold_decoder_norms(plain)
    np.testing.assert_allclose(jnp.linalg.norm(scaled.W_dec, axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(ae.dictionary.reconstruct(scaled, batch.x), right, atol=1e-5)
    again, own = ae.unfold(plain._replace(shape=None))
    flat = ae.Batch(batch.x.reshape(40, -1), batch.x.reshape(40, -1))
    found = again.apply(own, flat).prediction
    np.testing.assert_allclose(found, right.reshape(40, -1), atol=1e-5)


def test_norms_are_not_folded_into_a_code_that_does_not_say_how_it_grows():
    """This code is a square, so folding norms as for a linear code would be silently wrong."""

    class Squared(Sparse):
        def activate(self, inputs, step, decoder):
            raise AssertionError

    plain = ae.dictionary.Plain(Squared, jnp.ones((2, 3)), jnp.ones((3, 2)), jnp.zeros(2))
    with pytest.raises(ae.UserError, match="Squared does not say which fields grow"):
        ae.dictionary.fold_decoder_norms(plain)


def test_saelens_refuses_it_by_name(tmp_path, whole):
    """Fails if it is written as one of SAELens' architectures."""
    with pytest.raises(ae.UserError, match="SAELens has no SoftThreshold SAE"):
        interop.save_saelens(tmp_path / "sae", ae.fold(made(), whole[1]))
    assert not (tmp_path / "sae").exists()


def test_the_report_counts_what_is_active(tmp_path, splits, whole):
    """Activations have either sign. Fails if the report counts only positive ones."""
    sections = sparse_sections(made(), whole[1], splits)
    page = report.write(tmp_path, "A soft threshold", sections).read_text()
    found = evaluation.sparsity(made(), whole[1], splits[0])
    assert f"{found.l0:.1f} on average" in page
    assert "The dictionary" in page


def test_it_is_swept_over_its_threshold(splits):
    """Fails if a setting does not reach the class's own field, or its threshold is not trained."""
    starts = jnp.asarray([0.05, 0.5])
    batches = ae.data.Batches(splits[0], 32)
    swept = ae.compiled(ae.swept(lambda start: learner(made(start)), starts))
    state = swept.init(jnp.stack([jax.random.key(0)] * 2), batches[0])
    log_t = np.asarray(state.params["bottleneck"]["log_t"])
    np.testing.assert_allclose(log_t, np.log(starts)[:, None] * np.ones(M), rtol=1e-6)
    *_, (state, metrics) = ae.loop(swept, state, batches, STEPS // 2, progress=False)
    assert metrics["l0"][0, -1] > metrics["l0"][1, -1] + 3
    assert np.all(np.any(state.params["bottleneck"]["log_t"] != log_t, axis=1))


def test_its_own_penalty_is_what_is_steered(splits, whole):
    """Fails if the steered term is not the class's own penalty."""
    batch = next(splits[2].batches(40))
    model = made(l0=4.0)
    bound = model.bind(model.init(jax.random.key(0), batch) | {"params": whole[1]["params"]})
    forward = bound(batch)
    objective = ae.sparse(steered=losses.penalty)
    price = objective["price"][1](bound, forward)
    np.testing.assert_allclose(price, jnp.abs(forward.code.z).sum(axis=1), rtol=1e-5)
