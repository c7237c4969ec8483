"""Plain weights on plain arrays, and what is changed of them after training."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aejax as ae
from aejax.bottlenecks import Rows
from aejax.dictionaries.unit_rows import unit_rows
from aejax.kernels.pursuit import pursue
from tests.interop.cases import pursuit_of

D, M, N = 6, 20, 400
random = np.random.default_rng(0)
X = random.normal(size=(N, D)).astype(np.float32) + 0.5


def plain(activation="jumprelu", **changed):
    """Weights of unequal norms and thresholds."""
    random = np.random.default_rng(1)
    fields = {
        "W_enc": random.normal(size=(D, M)),
        "W_dec": random.normal(size=(M, D)) * random.uniform(0.5, 2.0, (M, 1)),
        "b_dec": random.normal(size=D),
        "b_enc": random.normal(size=M),
        "threshold": random.uniform(0.1, 1.0, M),
        "b_gate": random.normal(size=M),
        "b_mag": random.normal(size=M),
        "r_mag": random.normal(size=M),
    }
    made = {name: jnp.asarray(value, jnp.float32) for name, value in fields.items()}
    return ae.dictionary.Plain(activation, **{**made, **changed})


class TestArrays:
    """f32[N, d], f32[B, T, d], records of slots; every other width is named."""

    def test_axes_of_examples_stay_as_they_are(self):
        """Fails if all axes but the first are flattened into one example."""
        weights = plain(W_skip=jnp.ones((D, D)), normalisation="layer_norm")
        x = X.reshape(8, 50, D)
        flat = ae.dictionary.encode(weights, X)
        codes = ae.dictionary.encode(weights, x)
        assert codes.shape == (8, 50, M)
        np.testing.assert_array_equal(codes.reshape(N, M), flat)
        output = ae.dictionary.decode(weights, np.asarray(codes), x)
        expected = ae.dictionary.decode(weights, flat, X)
        np.testing.assert_array_equal(output.reshape(N, D), expected)

    def test_a_crosscoders_input_has_two_axes(self):
        """Fails if [N, layers, size] is read as N texts of vectors, or one layer as a text."""
        for shape in ((2, 3), (1, 6)):
            weights = plain(shape=shape)
            x = X.reshape(N, *shape)
            assert ae.dictionary.encode(weights, x).shape == (N, M)
            assert ae.dictionary.encode(weights, x.reshape(8, 50, *shape)).shape == (8, 50, M)
            assert ae.dictionary.reconstruct(weights, x).shape == (N, *shape)

    def test_rows_are_decoded_too(self):
        """Fails if a record of slots must be made dense by hand."""
        indices = jnp.asarray(random.permuted(np.tile(np.arange(M), (5, 1)), axis=1)[:, :3])
        rows = Rows(jnp.asarray(random.random((5, 3)), jnp.float32), indices, M)
        weights = plain()
        expected = ae.dictionary.decode(weights, rows.dense())
        np.testing.assert_allclose(ae.dictionary.decode(weights, rows), expected, rtol=1e-5)

    def test_both_widths_are_said(self):
        weights = plain()
        with pytest.raises(ae.UserError, match="x has 7 values per example, but these weights re"):
            ae.dictionary.encode(weights, np.ones((2, 3, 7)))
        with pytest.raises(ae.UserError, match="which has no axis of examples"):
            ae.dictionary.encode(weights, np.ones(D))
        with pytest.raises(ae.UserError, match=r"codes have 7 latents, but these weights have 20"):
            ae.dictionary.decode(weights, np.ones((2, 7)))
        model, variables = ae.unfold(weights)
        x = jnp.ones((2, 7))
        with pytest.raises(ae.UserError, match="x has 7 values per example, but the weights rea"):
            model.apply(variables, ae.Batch(x, x))
        with pytest.raises(ae.UserError, match="x has 7 values per example, but the model reads"):
            ae.evaluation.sparsity(model, variables, np.ones((4, 5, 7)))
        with pytest.raises(ae.UserError, match="has 7 latents, but the dictionary has 20"):
            model.apply(variables, x, method="decode")

    def test_an_evaluation_takes_an_array_as_it_is(self):
        """As a split of the same rows. Fails if [B, T, d] is one example for each text."""
        model, variables = ae.unfold(plain())
        found = ae.evaluation.sparsity(model, variables, X.reshape(8, 50, D))
        split = ae.data.arrays(np.tile(X, (3, 1)), validation=1, test=1)[0]
        np.testing.assert_allclose(found.frequency, ae.dictionary.frequency(plain(), X), atol=2 / N)
        assert found.examples == N
        codes = np.asarray(ae.dictionary.encode(plain(), X))
        assert found.l0 == pytest.approx((codes != 0).sum(1).mean())
        assert found.fvu_layers is None
        assert ae.evaluation.sparsity(model, variables, split).examples == 3 * N - 2
        truth = np.asarray(variables["params"]["decoder"]["atoms"])
        features = codes.reshape(8, 50, M)
        score = ae.evaluation.recovery(model, variables, X.reshape(8, 50, D), truth, features)
        assert score.mcc == pytest.approx(1.0)
        assert score.examples == N

    def test_the_fvu_of_each_layer_stands_beside_the_whole(self):
        """A layer that is a twentieth as large. Fails if its FVU is that of all layers."""
        x = np.stack([X, 0.05 * random.normal(size=X.shape)], axis=1).astype(np.float32)
        zeros = jnp.zeros((1, D)), jnp.zeros((2 * D, 1))
        b_dec = jnp.asarray(x.reshape(N, -1).mean(0))
        W_dec = jnp.concatenate([jnp.eye(D), jnp.zeros((D, D))], axis=1)
        weights = ae.dictionary.Plain(
            "relu", W_enc=W_dec.T, W_dec=W_dec, b_dec=b_dec - W_dec.T @ jnp.full(D, 9.0),
            b_enc=jnp.full(D, 9.0) - b_dec[:D], shape=(2, D),
        )  # fmt: skip
        del zeros
        found = ae.evaluation.sparsity(*ae.unfold(weights), x)
        assert found.fvu < 0.01
        np.testing.assert_allclose(found.fvu_layers, [0.0, 1.0], atol=1e-6)


class TestEditing:
    """Thresholds, dead latents, duplicates and the order of latents."""

    @pytest.mark.parametrize("l0", [0.5, 3.0, 7.25])
    def test_the_asked_l0_is_reached_exactly(self, l0):
        """Fails if a threshold is added to instead of multiplied, or L0 is that of one batch."""
        weights = plain(threshold=plain().threshold.at[3].set(jnp.inf))
        found = ae.dictionary.recalibrated(weights, X.reshape(8, 50, D), l0)
        codes = np.asarray(ae.dictionary.encode(found, X))
        assert (codes != 0).sum() == round(l0 * N)
        factor = np.delete(found.threshold, 3) / np.delete(weights.threshold, 3)
        np.testing.assert_allclose(factor, factor[0], rtol=1e-5)
        assert not codes[:, 3].any()

    def test_thresholds_of_zero_become_one_number(self):
        found = ae.dictionary.recalibrated(plain(threshold=jnp.zeros(M)), X, 2.0)
        assert len(np.unique(found.threshold)) == 1
        assert (np.asarray(ae.dictionary.encode(found, X)) != 0).sum() == 2 * N

    def test_what_cannot_be_recalibrated_is_refused(self):
        with pytest.raises(ae.UserError, match="only thresholds of jumprelu weights"):
            ae.dictionary.recalibrated(plain("relu"), X, 3.0)
        with pytest.raises(ae.UserError, match="fewer than l0 = 19"):
            ae.dictionary.recalibrated(plain(), X, 19.0)
        with pytest.raises(ae.UserError, match="at most 20, the number of latents"):
            ae.dictionary.recalibrated(plain(), X, 21.0)

    def test_dead_latents_are_left_out_and_the_output_stays(self):
        """Fails if a field keeps the rows of other latents, or k the number of all."""
        bias = plain().b_enc.at[jnp.asarray([2, 11, 19])].set(-100.0)
        for activation, k in (("relu", None), ("topk", 18), ("jumprelu", None)):
            weights = plain(activation, b_enc=bias, k=k)
            kept = ae.dictionary.pruned(weights, X)
            often = ae.dictionary.frequency(weights, X)
            assert M - 3 >= kept.latents == (often > 0).sum() >= M - 4
            assert kept.k == (None if k is None else 17)
            expected = ae.dictionary.reconstruct(weights, X)
            found = ae.dictionary.reconstruct(kept, X)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        with pytest.raises(ae.UserError, match="no latent fires"):
            ae.dictionary.pruned(plain("relu"), X, least=1.0)

    def test_latents_are_sorted_by_their_firing_frequency(self):
        often = ae.dictionary.frequency(plain(), X)
        codes = np.asarray(ae.dictionary.encode(plain(), X))
        np.testing.assert_array_equal(often, (codes != 0).mean(0))
        found = ae.dictionary.frequency(ae.dictionary.ordered(plain(), X), X)
        np.testing.assert_array_equal(found, np.sort(often)[::-1])
        with pytest.raises(ae.UserError, match="each once"):
            ae.dictionary.taken(plain(), [1, 1])

    @pytest.mark.parametrize("activation", ["relu", "jumprelu", "gated"])
    def test_duplicates_become_one_latent_and_the_output_stays(self, activation):
        """Multiples of latents 0 and 1, with another size of atom. Fails if sizes are ignored, if
        opposite atoms or columns are merged, or if a threshold is not summed."""
        weights = plain(activation)
        sizes = {0: (2.0, 0.5), 1: (0.3, 4.0)}
        for latent, (grown, atom) in sizes.items():
            extra = {
                name: jnp.append(getattr(weights, name), grown * getattr(weights, name)[latent])
                for name in ("b_enc", "threshold", "b_gate", "b_mag")
            }
            extra["r_mag"] = jnp.append(weights.r_mag, weights.r_mag[latent])
            one = slice(latent, latent + 1)
            column, row = grown * weights.W_enc[:, one], atom * weights.W_dec[one]
            extra["W_enc"] = jnp.concatenate([weights.W_enc, column], axis=1)
            extra["W_dec"] = jnp.concatenate([weights.W_dec, row])
            weights = weights._replace(**extra)
        opposite = weights._replace(W_dec=weights.W_dec.at[-1].multiply(-1.0))
        assert ae.dictionary.merged(opposite).latents == M + 1
        opposite = weights._replace(W_enc=weights.W_enc.at[:, -1].multiply(-1.0))
        assert ae.dictionary.merged(opposite).latents == M + 1
        found = ae.dictionary.merged(weights)
        assert found.latents == M
        np.testing.assert_array_equal(found.W_dec, weights.W_dec[:M])
        expected = ae.dictionary.reconstruct(weights, X)
        result = ae.dictionary.reconstruct(found, X)
        np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-3)


class TestPursuit:
    """Matching pursuit, by the loop of its definition."""

    atoms = np.random.default_rng(2).normal(size=(M, D))
    atoms = (atoms / np.linalg.norm(atoms, axis=1, keepdims=True)).astype(np.float32)

    def test_codes_are_those_of_the_definition(self):
        """Fails if an atom that comes again is dropped, or an example goes on when it is done."""
        for how in ((0.05,), (0.8,), (0.0, 4), (0.05, 30, True)):
            expected = np.stack([pursuit_of(np.float64(x), self.atoms, *how) for x in X[:60]])
            found = pursue(X[:60], self.atoms, *how)
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
            assert len(set((expected > 0).sum(1))) > 2

    @pytest.mark.slow  # a default test compares gradients with SAELens' (`tests/interop/parity`)
    def test_the_gradient_is_that_of_the_chosen_steps(self):
        """Against autodiff of the same steps, unrolled. Fails if the part of the residual is left
        out, or an atom's second visit overwrites its first."""
        x, atoms = jnp.asarray(X[:4]), jnp.asarray(self.atoms)
        weights = jnp.asarray(random.normal(size=(4, M)), jnp.float32)

        def unrolled(x, atoms):
            total = 0.0
            for row, weight in zip(x, weights, strict=True):
                residual, seen = row, set()
                for _ in range(D):
                    best = int(jnp.argmax(jax.lax.stop_gradient(atoms @ residual)))
                    value = jnp.maximum(atoms[best] @ residual, 0.0)
                    total = total + value * weight[best]
                    residual = residual - value * atoms[best]
                    if best in seen or value == 0 or jnp.linalg.norm(residual) < 0.3:
                        break
                    seen.add(best)
            return total

        expected = jax.grad(unrolled, argnums=(0, 1))(x, atoms)
        found = jax.grad(lambda x, a: jnp.sum(pursue(x, a, 0.3) * weights), argnums=(0, 1))(
            x, atoms
        )
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)

    def test_it_trains_folds_and_unfolds(self):
        """Fails if a tied code has a kernel of its own, or a scale is folded into it."""
        import optax

        batch = ae.Batch(jnp.asarray(X), jnp.asarray(X))
        code = ae.MatchingPursuit(M, residual_threshold=0.3, subtract_bias=True)
        model = ae.Autoencoder(ae.nets.Identity(), code, ae.nets.Dictionary(D, norm=1.0))
        tx = optax.chain(optax.adam(1e-2), unit_rows())
        learner = ae.learner(model, ae.sparse(auxk=1 / 32, dead_after=1), tx)
        state, step = jax.jit(learner.init)(jax.random.key(0), batch), jax.jit(learner.step)
        losses = []
        for _ in range(20):
            state, metrics = step(state, batch)
            losses.append(float(metrics["error"]))
        assert losses[-1] < 0.8 * losses[0]
        assert "bottleneck" not in state.params
        variables = learner.variables(state)
        folded = ae.fold(model, variables)
        expected = model.apply(variables, batch)
        np.testing.assert_allclose(
            ae.dictionary.reconstruct(folded, X), expected.prediction, rtol=1e-4, atol=1e-4
        )
        again, own = ae.unfold(folded)
        np.testing.assert_allclose(
            again.apply(own, batch).prediction, expected.prediction, rtol=1e-4, atol=1e-4
        )
        l0 = ae.evaluation.sparsity(again, own, X).l0
        assert l0 == pytest.approx(float(jnp.mean(expected.code.l0)), rel=1e-6)
        scaled = ae.Autoencoder(ae.nets.Scale(), code, ae.nets.Dictionary(D))
        start = scaled.init(jax.random.key(0), batch)
        with pytest.raises(ae.UserError, match="a scale of the inputs cannot be folded"):
            ae.fold(scaled, start)


class TestNormalise:
    """Weights that normalise each input: model, evaluation, training and back."""

    @pytest.mark.parametrize("how", ["layer_norm", "constant_norm_rescale"])
    @pytest.mark.parametrize("skip", [False, True])
    def test_they_unfold_evaluate_and_fold(self, how, skip):
        """Fails if the output keeps its own scale, or the skip connection sees raw inputs."""
        weights = plain(normalisation=how, W_skip=plain().W_dec[:D] if skip else None)
        model, variables = ae.unfold(weights)
        batch = ae.Batch(X, 2.0 * X, context=X)
        expected = np.asarray(ae.dictionary.reconstruct(weights, X))
        found = model.apply(variables, batch).prediction
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        again = ae.fold(model, variables)
        assert again.normalisation == how
        np.testing.assert_allclose(ae.dictionary.reconstruct(again, X), expected, rtol=1e-5)
        figures = ae.evaluation.sparsity(model, variables, batch)
        error = np.square(2.0 * X - expected).sum() / np.square(2.0 * (X - X.mean(0))).sum()
        assert figures.fvu == pytest.approx(error, rel=1e-4)
        with pytest.raises(ae.UserError, match="context=x"):
            model.apply(variables, ae.Batch(X, X))

    @pytest.mark.slow
    def test_they_are_fine_tuned(self):
        """On arrays, by the change InputToo. The error is that of normalised units: fails if an
        example of large norm outweighs the others."""
        import optax

        x = X * np.exp(2.0 * random.normal(size=(N, 1))).astype(np.float32)
        model, variables = ae.unfold(plain("topk", k=4, normalisation="layer_norm"))
        train = ae.data.changed(ae.data.arrays(x)[0], ae.data.changes.InputToo())
        tuned = ae.learner(
            model,
            ae.sparse(auxk=1 / 32, dead_after=1),
            optax.adam(3e-3),
            initialise=ae.initialise.given(variables),
        )
        batch = ae.data.Batches(train, 256)[0]
        state, step = jax.jit(tuned.init)(jax.random.key(0), batch), jax.jit(tuned.step)
        errors = []
        for _ in range(30):
            state, metrics = step(state, batch)
            errors.append(float(metrics["error"]))
        shared = ae.fold(model, variables)
        seen = (batch.x - batch.x.mean(1, keepdims=True)) / batch.x.std(1, ddof=1, keepdims=True)
        again = shared._replace(normalisation="none")
        expected = jnp.square(seen - ae.dictionary.reconstruct(again, seen)).sum(1).mean()
        assert errors[0] == pytest.approx(float(expected), rel=1e-3)
        assert errors[-1] < 0.7 * errors[0]
