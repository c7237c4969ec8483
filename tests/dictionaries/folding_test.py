"""Tests of input scales, plain weights and wrappers: all compute the same on raw inputs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax.dictionaries import plain as dictionary
from aejax.dictionaries.unit_rows import tangent_rows, unit_rows
from aejax.training.initialise import expected_norm, mean_square, unscaled, whitening

B, D, M = 64, 6, 24
Scale = ae.nets.Scale


def raw(shape=(B, D), seed: int = 0) -> jax.Array:
    """Makes data with unequal deviations, whose mean is twenty times as large."""
    random = np.random.default_rng(seed)
    x = random.normal(size=shape) * np.linspace(0.5, 3.0, shape[-1])
    return jnp.asarray(x + 30.0 * random.normal(size=shape[1:]), jnp.float32)


def shaken(variables, seed: int = 0):
    """Changes every parameter, so that no bias is zero and no norm is one."""
    random = np.random.default_rng(seed)

    def move(leaf):
        return leaf * (1 + 0.3 * random.random(leaf.shape)) + 0.2 * random.normal(size=leaf.shape)

    params = jax.tree.map(lambda leaf: jnp.asarray(move(leaf), jnp.float32), variables["params"])
    return {**variables, "params": params}


CODES = {
    "relu": ae.ReLU(M, subtract_bias=True),
    "topk": ae.TopK(M, 3, subtract_bias=True),
    "topk-by-norm": ae.TopK(M, 3, score_by_norm=True),
    "abstopk": ae.AbsTopK(M, 3),
    "batchtopk": ae.BatchTopK(M, 3, subtract_bias=True),
    "batchtopk-by-norm": ae.BatchTopK(M, 3, score_by_norm=True),
    "gated": ae.Gated(M, subtract_bias=True),
    "jumprelu": ae.JumpReLU(M, threshold=0.4),
}


@pytest.mark.parametrize("form", [mean_square, whitening()], ids=["mean_square", "whitening"])
@pytest.mark.parametrize("bottleneck", CODES.values(), ids=CODES.keys())
def test_folded_weights_are_the_model_on_raw_inputs(bottleneck, form):
    """They agree to 1e-5 of the data's deviation, also after unfolding.

    Fails if the bias that is subtracted from the input is left out, or if norms are folded after
    the scale.
    """
    x = raw()
    batch = ae.Batch(x, x)
    model = ae.Autoencoder(Scale(), bottleneck, ae.nets.Dictionary(D, scale=Scale()))
    variables = shaken(model.init(jax.random.key(0), batch))
    variables = ae.standardised(form=form)(variables, batch, jax.random.key(0))
    if "threshold" in variables["memory"]["bottleneck"]:
        variables["memory"]["bottleneck"]["threshold"] = jnp.asarray(0.7)
    expected = model.apply(variables, batch)
    assert 0.5 < float(jnp.mean(expected.code.l0)) < M - 1
    plain = ae.fold(model, variables)
    spread = float(jnp.std(expected.prediction))
    found = dictionary.reconstruct(plain, x)
    np.testing.assert_allclose(found, expected.prediction, atol=2e-5 * spread, rtol=1e-5)
    again, own = ae.unfold(plain)
    output = again.apply(own, batch).prediction
    np.testing.assert_allclose(output, expected.prediction, atol=2e-5 * spread, rtol=1e-5)
    codes = dictionary.encode(plain, x)
    assert np.array_equal(jnp.sum(codes != 0, axis=1), expected.code.l0)


def test_an_unfolded_jumprelu_trains_its_thresholds_and_holds_its_l0():
    """The inputs are 100 times larger than those for which the default window was made.

    Fails if the window keeps its width: no pre-activation would lie in it.
    """
    batch = ae.Batch(100.0 * raw(), 100.0 * raw())
    made = ae.JumpReLU(M, threshold=60.0, bandwidth=30.0)
    model = ae.Autoencoder(ae.nets.Identity(), made, ae.nets.Dictionary(D))
    variables = model.init(jax.random.key(0), batch)
    again, own = ae.unfold(ae.fold(model, variables))
    np.testing.assert_allclose(again.bottleneck.threshold, 60.0, rtol=1e-6)
    share = ae.check_window(model, variables, batch)
    np.testing.assert_allclose(ae.check_window(again, own, batch), share, rtol=1e-6)
    steered = again.clone(bottleneck=again.bottleneck.clone(l0=3.0))
    learner = ae.learner(
        steered,
        ae.sparse(steered=ae.losses.l0),
        optax.sgd(0.0),
        initialise=ae.initialise.given(own),
    )
    state = learner.step(learner.init(jax.random.key(1), batch), batch)[0]
    expected = model.apply(variables, batch).prediction
    found = steered.apply(learner.variables(state), batch).prediction
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3)
    narrow = ae.unfold(ae.fold(model, variables)._replace(W_enc=jnp.zeros((D + 1, M))))[1]
    with pytest.raises(ae.UserError, match=r"kernel, of shape .* cannot start .* the shape"):
        ae.learner(
            steered,
            ae.sparse(steered=ae.losses.l0),
            optax.sgd(0.0),
            initialise=ae.initialise.given(narrow),
        ).init(jax.random.key(1), batch)


@pytest.mark.parametrize("bottleneck", CODES.values(), ids=CODES.keys())
def test_plain_weights_unfold_and_fold_to_themselves(bottleneck):
    """Fails if a field is lost in one of the two directions."""
    batch = ae.Batch(raw(), raw())
    model = ae.Autoencoder(ae.nets.Identity(), bottleneck, ae.nets.Dictionary(D))
    plain = ae.fold(model, shaken(model.init(jax.random.key(0), batch)))
    again = ae.fold(*ae.unfold(plain))
    for name, one, other in zip(plain._fields, plain, again, strict=True):
        if isinstance(one, jax.Array):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-37, err_msg=name)
        else:
            assert one == other, name
    if plain.activation in ("topk", "abstopk") and not plain.rescale_acts_by_decoder_norm:
        with pytest.raises(ValueError, match="change which latents"):
            dictionary.fold_decoder_norms(plain)
        return
    unit = dictionary.fold_decoder_norms(plain)
    np.testing.assert_allclose(jnp.linalg.norm(unit.W_dec, axis=1), 1.0, rtol=1e-5)
    x = raw()
    expected = dictionary.reconstruct(plain, x)
    np.testing.assert_allclose(dictionary.reconstruct(unit, x), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("activation", ["topk", "abstopk", "relu", "gated", "jumprelu"])
def test_an_atom_of_norm_zero_takes_no_place(activation):
    """Fails if its norm counts as 1: its latent would then take the place of another."""
    vectors = {name: jnp.zeros(2) for name in ("b_enc", "b_gate", "b_mag", "r_mag")}
    plain = dictionary.Plain(
        activation,
        W_enc=jnp.eye(2),
        W_dec=jnp.asarray([[0.0, 0.0], [3.0, 0.0]]),
        b_dec=jnp.zeros(2),
        k=1,
        threshold=jnp.asarray([jnp.inf, 0.1]),
        rescale_acts_by_decoder_norm=True,
        **vectors,
    )
    unit = dictionary.fold_decoder_norms(plain)
    x = jnp.asarray([[2.0, 1.0]])
    np.testing.assert_allclose(dictionary.reconstruct(plain, x), [[3.0, 0.0]])
    np.testing.assert_allclose(dictionary.reconstruct(unit, x), [[3.0, 0.0]])
    np.testing.assert_allclose(dictionary.encode(unit, x), [[0.0, 3.0]])
    np.testing.assert_allclose(unit.W_dec, [[0.0, 0.0], [1.0, 0.0]])
    if activation == "jumprelu":  # the other activations read no threshold
        np.testing.assert_allclose(unit.threshold, [0.0, 0.3], rtol=1e-6)


def test_inputs_of_another_size_are_refused():
    """Fails if only the matrix product raises an error."""
    plain = dictionary.Plain("relu", jnp.eye(3), jnp.eye(3), jnp.zeros(3), jnp.zeros(3))
    with pytest.raises(ae.UserError, match="x has 2 values per example, but these weights read 3"):
        dictionary.reconstruct(plain, jnp.ones((4, 2)))


def test_a_model_that_is_no_dictionary_has_no_plain_weights():
    batch = ae.Batch(raw(), raw())
    model = ae.Autoencoder(ae.nets.MLP((4,)), ae.TopK(M, 3), ae.nets.Dictionary(D))
    variables = model.init(jax.random.key(0), batch)
    with pytest.raises(ae.UserError, match="encoder is a MLP, not Identity or Scale"):
        ae.fold(model, variables)


@pytest.mark.parametrize("scaled", [False, True])
def test_a_skip_transcoder_and_its_plain_weights(scaled):
    """The target is not x. Fails if the scale of the skip connection is not folded in."""
    x, target = raw(), raw((B, D + 2), seed=1)
    batch = ae.Batch(x, target, context=x)
    scale = Scale() if scaled else None
    decoder = ae.nets.Dictionary(D + 2, scale=scale, skip=Scale() if scaled else ae.nets.Identity())
    model = ae.Autoencoder(Scale() if scaled else ae.nets.Identity(), ae.TopK(M, 3), decoder)
    variables = shaken(model.init(jax.random.key(0), batch))
    if scaled:
        variables = ae.standardised()(variables, batch, jax.random.key(0))
    assert variables["params"]["decoder"]["skip_kernel"].shape == (D, D + 2)
    expected = model.apply(variables, batch).prediction
    plain = ae.fold(model, variables)
    found = dictionary.reconstruct(plain, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
    again, own = ae.unfold(plain)
    np.testing.assert_allclose(again.apply(own, batch).prediction, expected, rtol=1e-4, atol=1e-3)
    if scaled:
        moments = model.apply(variables, batch, method="features")
        np.testing.assert_allclose(jnp.mean(jnp.square(moments)), 1.0, rtol=1e-4)
        measured = decoder.apply(
            {"params": variables["params"]["decoder"], "memory": variables["memory"]["decoder"]},
            target - jnp.mean(target, axis=0)[None],
            method="measure",
        )
        np.testing.assert_allclose(jnp.mean(jnp.square(measured)), 1.0, rtol=1e-4)
    with pytest.raises(ae.UserError, match="context=x"):
        model.apply(variables, ae.Batch(x, target))


def test_a_crosscoder_is_the_same_parts_with_another_axis():
    """Values and gradients equal the formula.

    Fails if layers share a norm, or if L1 sums squares.
    """
    layers = 3
    x = raw((B, layers, D))
    batch = ae.Batch(x, x)
    model = ae.Autoencoder(ae.nets.Identity(), ae.ReLU(M), ae.nets.Dictionary((layers, D)))
    start = (ae.initialise.layered(0.08), ae.tied)
    learner = ae.learner(model, ae.objectives.crosscoder(2.0), optax.sgd(0.1), initialise=start)
    state = learner.init(jax.random.key(0), batch)
    atoms = state.params["decoder"]["atoms"].reshape(M, layers, D)
    np.testing.assert_allclose(jnp.linalg.norm(atoms, axis=-1), 0.08, rtol=1e-5)
    encoder = state.params["bottleneck"]["encode"]["kernel"].reshape(layers, D, M)

    def loss(encoder, atoms):
        f = jax.nn.relu(jnp.einsum("bld,ldm->bm", x, encoder))
        output = jnp.einsum("bm,mld->bld", f, atoms)
        penalty = f @ jnp.sum(jnp.linalg.norm(atoms, axis=-1), axis=-1)
        return jnp.mean(jnp.sum(jnp.square(x - output), axis=(1, 2)) + 2.0 * penalty)

    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    value, (d_encoder, d_atoms) = both(encoder, atoms)
    new, metrics = jax.jit(learner.step)(state, batch)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    moved = new.params["decoder"]["atoms"] - state.params["decoder"]["atoms"]
    scale = float(jnp.max(jnp.abs(d_atoms)))
    np.testing.assert_allclose(moved, -0.1 * d_atoms.reshape(M, -1), rtol=1e-3, atol=1e-4 * scale)
    moved = new.params["bottleneck"]["encode"]["kernel"] - encoder.reshape(-1, M)
    scale = float(jnp.max(jnp.abs(d_encoder)))
    np.testing.assert_allclose(moved, -0.1 * d_encoder.reshape(-1, M), rtol=1e-3, atol=1e-4 * scale)
    variables = learner.variables(new)
    output = model.apply(variables, batch).prediction
    assert output.shape == (B, layers, D)
    found = dictionary.reconstruct(ae.fold(model, variables), x)
    np.testing.assert_allclose(found, output, rtol=1e-4, atol=1e-3)


class TestScale:
    """Tests how data sets a scale, and to what."""

    @pytest.mark.parametrize("form", [mean_square, expected_norm, unscaled, whitening(1e-6)])
    def test_each_form_is_what_it_says(self, form):
        """Fails if the mean is not subtracted, or if the deviation is taken over one axis only."""
        x = raw((4096, D))
        batch = ae.Batch(x, x)
        scale = ae.Autoencoder(Scale(), ae.ReLU(M), ae.nets.Dictionary(D, scale=Scale()))
        variables = scale.init(jax.random.key(0), batch)
        variables = ae.standardised(batch, form)(variables, batch, jax.random.key(0))
        seen = np.asarray(scale.apply(variables, batch, method="features"), np.float64)
        np.testing.assert_allclose(seen.mean(0), 0, atol=1e-3)
        if form is mean_square:
            np.testing.assert_allclose(np.mean(seen**2), 1, rtol=1e-4)
        elif form is expected_norm:
            np.testing.assert_allclose(np.linalg.norm(seen, axis=1).mean(), D**0.5, rtol=1e-4)
        elif form is unscaled:
            np.testing.assert_allclose(seen, x - x.mean(0)[None], atol=1e-3)
        else:
            np.testing.assert_allclose(seen.T @ seen / len(seen), np.eye(D), atol=1e-2)
        memory = variables["memory"]["encoder"]
        gamma = np.linalg.norm(x.mean(0)) / np.linalg.norm(x.std(0))
        np.testing.assert_allclose(memory["gamma"], gamma, rtol=1e-4)
        gammas = ae.losses.gamma(scale.bind(variables), scale.apply(variables, batch))
        np.testing.assert_allclose(gammas, gamma, rtol=1e-4)
        decoder = {
            "params": variables["params"]["decoder"],
            "memory": variables["memory"]["decoder"],
        }
        back = ae.nets.Dictionary(D, scale=Scale()).apply(
            decoder, jnp.asarray(seen, jnp.float32), method="finish"
        )
        np.testing.assert_allclose(back, x, rtol=1e-4, atol=1e-2)

    def test_training_on_scaled_data_changes_no_metric(self):
        """Data times ten gives the same losses in its own units.

        Fails if an error is in raw units.
        """
        x = raw()
        model = ae.Autoencoder(Scale(), ae.TopK(M, 3), ae.nets.Dictionary(D, scale=Scale()))
        start = (ae.standardised(), ae.tied)
        losses = []
        for factor in (1.0, 10.0):
            objective = ae.sparse(auxk=1 / 32, dead_after=1)
            learner = ae.learner(model, objective, optax.adam(1e-2), initialise=start)
            batch = ae.Batch(factor * x, factor * x)
            state, step = learner.init(jax.random.key(0), batch), jax.jit(learner.step)
            for _ in range(5):
                state, metrics = step(state, batch)
            losses.append((metrics["loss"], metrics["auxk"]))
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
        assert losses[0][1] > 0

    def test_without_a_scale_there_is_nothing_to_set(self):
        model = ae.Autoencoder(ae.nets.Identity(), ae.TopK(M, 3), ae.nets.Dictionary(D))
        batch = ae.Batch(raw(), raw())
        with pytest.raises(ae.UserError, match="no Scale"):
            ae.standardised()(model.init(jax.random.key(0), batch), batch, jax.random.key(0))

    def test_geometric_median_and_matched_output(self):
        """Fails if Weiszfeld's weights are squared, or if the ratio is inverted."""
        x = raw().at[0].set(1e4)
        batch = ae.Batch(x, x)
        model = ae.Autoencoder(
            ae.nets.Identity(), ae.ReLU(M, subtract_bias=True), ae.nets.Dictionary(D)
        )
        variables = model.init(jax.random.key(0), batch)
        variables = ae.initialise.geometric_median(variables, batch, jax.random.key(0))
        median = np.asarray(variables["params"]["decoder"]["bias"], np.float64)
        apart = np.asarray(x, np.float64) - median
        pull = apart / np.linalg.norm(apart, axis=1, keepdims=True)
        assert np.linalg.norm(pull.sum(0)) < 1e-2
        tied = ae.tied(variables, batch, jax.random.key(0))
        tied = ae.initialise.matched(model)(tied, batch, jax.random.key(0))
        output = model.apply(tied, batch).prediction
        lengths = [np.linalg.norm(np.asarray(a) - median, axis=1).mean() for a in (x, output)]
        np.testing.assert_allclose(*lengths, rtol=1e-4)


def test_a_unit_norm_decoder_stays_one():
    """Fails if rows are normalised before the optimiser's update."""
    x = raw() / 30.0
    batch = ae.Batch(x, x)
    model = ae.Autoencoder(ae.nets.Identity(), ae.ReLU(M), ae.nets.Dictionary(D, norm=1.0))
    tx = optax.chain(optax.adam(1e-2), unit_rows())
    learner = ae.learner(model, ae.sparse(l1=0.1), tx, initialise=ae.tied)
    state, step = learner.init(jax.random.key(0), batch), jax.jit(learner.step)
    for _ in range(5):
        state, _ = step(state, batch)
    norms = jnp.linalg.norm(state.params["decoder"]["atoms"], axis=1)
    np.testing.assert_allclose(norms, 1.0, rtol=1e-5)


def test_the_gradient_along_an_atom_is_taken_away():
    """Only that part is removed, for atoms of any norm. Fails if the atom's norm is taken for 1."""
    atoms, gradient = raw((M, D)), raw((M, D), seed=1)
    params = {"decoder": {"atoms": atoms, "bias": atoms[0]}}
    grads = {"decoder": {"atoms": gradient, "bias": gradient[0]}}
    tx = tangent_rows()
    updates, _ = tx.update(grads, tx.init(params), params)
    w, g = np.asarray(atoms, np.float64), np.asarray(gradient, np.float64)
    unit = w / np.linalg.norm(w, axis=1, keepdims=True)
    expected = g - np.sum(g * unit, axis=1, keepdims=True) * unit
    np.testing.assert_allclose(updates["decoder"]["atoms"], expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(updates["decoder"]["bias"], gradient[0])
    with pytest.raises(ValueError, match="need the parameters"):
        tx.update(grads, tx.init(params))


class TestResampled:
    """Dead latents start again, and nothing else changes."""

    def setup(self, **options):
        x = raw() / 30.0
        batch = ae.Batch(x, x)
        model = ae.Autoencoder(ae.nets.Identity(), ae.ReLU(M), ae.nets.Dictionary(D, norm=1.0))
        tx = optax.chain(optax.adam(1e-2), unit_rows())
        plain = ae.learner(model, ae.sparse(l1=0.1), tx, initialise=ae.tied)
        return model, batch, plain, ae.resampled(plain, model, every=3, **options)

    def test_rows_biases_moments_and_ages_of_dead_latents(self):
        """Fails if Adam's moments keep their values, or if living rows change."""
        _, batch, plain, learner = self.setup(dead_after=50)
        state = learner.init(jax.random.key(0), batch)
        step = jax.jit(learner.step)
        for _ in range(2):
            state, metrics = step(state, batch)
            assert metrics["resampled"] == 0
        dead = np.zeros(M, bool)
        dead[[2, 7, 11]] = True
        encode = state.params["bottleneck"]["encode"]
        encode["bias"] = jnp.where(dead, -100.0, encode["bias"])
        state.memory["bottleneck"]["ages"]["age"] = jnp.where(dead, 90, 0)
        expected, _ = jax.jit(plain.step)(state, batch)
        new, metrics = step(state, batch)
        assert metrics["resampled"] == 3

        def living(tree):
            """Returns the leaves of latents that were not dead, and the dictionary's bias."""
            kept = jnp.asarray(np.flatnonzero(~dead))
            own = jax.tree.map(lambda a: a[..., kept], tree["bottleneck"]["encode"])
            return own, tree["decoder"]["atoms"][kept], tree["decoder"]["bias"]

        for found, wanted in (
            (new.params, expected.params),
            (new.opt[0][0].mu, expected.opt[0][0].mu),
            (new.opt[0][0].nu, expected.opt[0][0].nu),
        ):
            pairs = zip(
                jax.tree.leaves(living(found)), jax.tree.leaves(living(wanted)), strict=True
            )
            for one, other in pairs:
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
        moments = new.opt[0][0]
        for tree in (new.params, moments.mu, moments.nu):
            assert not np.any(tree["bottleneck"]["encode"]["bias"][dead])
        for tree in (moments.mu, moments.nu):
            assert not np.any(tree["decoder"]["atoms"][dead])
            assert not np.any(tree["bottleneck"]["encode"]["kernel"][:, dead])
        assert not np.any(new.memory["bottleneck"]["ages"]["age"][dead])

        rows = np.asarray(new.params["decoder"]["atoms"])[dead]
        columns = np.asarray(new.params["bottleneck"]["encode"]["kernel"])[:, dead]
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-5)
        others = np.linalg.norm(
            np.asarray(new.params["bottleneck"]["encode"]["kernel"])[:, ~dead], axis=0
        )
        np.testing.assert_allclose(np.linalg.norm(columns, axis=0), 0.2 * others.mean(), rtol=1e-5)
        bias = np.asarray(new.params["decoder"]["bias"])
        target = np.asarray(batch.target) - bias
        cosine = rows @ (target / np.linalg.norm(target, axis=1, keepdims=True)).T
        np.testing.assert_allclose(cosine.max(1), 1.0, rtol=1e-4)
        seen = np.asarray(batch.x)
        cosine = (columns / np.linalg.norm(columns, axis=0)).T @ (
            seen / np.linalg.norm(seen, axis=1, keepdims=True)
        ).T
        np.testing.assert_allclose(cosine.max(1), 1.0, rtol=1e-4)

    @pytest.mark.parametrize("code", [ae.JumpReLU(M, threshold=0.01), ae.Gated(M)])
    def test_what_a_code_has_of_its_own_starts_again_too(self, code):
        """Fails if a threshold or a magnitude keeps a value that no input reaches."""
        _, batch, _, _ = self.setup()
        model = ae.Autoencoder(ae.nets.Identity(), code, ae.nets.Dictionary(D, norm=1.0))
        plain = ae.learner(model, ae.sparse(), optax.adam(0.0), initialise=ae.tied)
        learner = ae.resampled(plain, model, every=3, dead_after=50)
        state = learner.init(jax.random.key(0), batch)._replace(step=jnp.asarray(2, jnp.int32))
        dead = np.arange(M) < 3
        own = state.params["bottleneck"]
        for name, silenced in (("log_threshold", 5.0), ("b_mag", -50.0), ("r_mag", -3.0)):
            if name in own:
                own[name] = jnp.where(dead, silenced, own[name] + 0.5)
        state.memory["bottleneck"]["ages"]["age"] = jnp.where(dead, 90, 0)
        living = {name: leaf for name, leaf in own.items() if name != "encode"}
        new, _ = jax.jit(learner.step)(state, batch)
        used = model.apply({"params": new.params, "memory": new.memory}, batch).code.used()
        assert np.all(used[:3])
        for name, leaf in living.items():
            np.testing.assert_array_equal(new.params["bottleneck"][name][3:], leaf[3:])

    def test_inputs_are_drawn_in_proportion_to_their_error(self):
        """Only one example has an error. Fails if the draw is uniform."""
        _, batch, _, learner = self.setup(dead_after=50, power=2.0)
        x = batch.x.at[5].mul(1e4)
        batch = ae.Batch(x, x)
        state = learner.init(jax.random.key(0), batch)
        state = state._replace(step=jnp.asarray(2, jnp.int32))
        state.memory["bottleneck"]["ages"]["age"] = jnp.full((M,), 90).at[0].set(0)
        encode = state.params["bottleneck"]["encode"]
        encode["bias"] = jnp.full((M,), -1e9)
        new, metrics = jax.jit(learner.step)(state, batch)
        assert metrics["resampled"] == M - 1
        columns = new.params["bottleneck"]["encode"]["kernel"][:, 1:]
        direction = x[5] / jnp.linalg.norm(x[5])
        cosine = direction @ columns / jnp.linalg.norm(columns, axis=0)
        np.testing.assert_allclose(cosine, 1.0, rtol=1e-3)

    def test_errors_are_raised_to_the_power(self):
        """With errors 1 and 2 and power 2, the first is drawn one time in five.

        Fails if squared errors are raised to the power, which gives one in 17.
        """
        _, batch, _, learner = self.setup(dead_after=50, power=2.0)
        x = jnp.zeros_like(batch.x).at[5, 0].set(1e4).at[6, 1].set(2e4)
        step, drawn = jax.jit(learner.step), []
        for seed in range(8):
            state = learner.init(jax.random.key(seed), ae.Batch(x, x))
            state = state._replace(step=jnp.asarray(2, jnp.int32))
            state.memory["bottleneck"]["ages"]["age"] = jnp.full((M,), 90).at[0].set(0)
            encode = state.params["bottleneck"]["encode"]
            encode["bias"] = jnp.full((M,), -1e9)
            new, _ = step(state, ae.Batch(x, x))
            columns = np.asarray(new.params["bottleneck"]["encode"]["kernel"])[:, 1:]
            drawn += list(np.abs(columns[0]) > np.abs(columns[1]))
        share, error = np.mean(drawn), (0.2 * 0.8 / len(drawn)) ** 0.5
        assert abs(share - 0.2) < 4 * error < 0.2 - 1 / 17

    def test_fresh_atoms_are_as_long_as_living_ones(self):
        """Fails if they are as long as the atoms that died."""
        model, batch, _, _ = self.setup()
        plain = ae.learner(model, ae.sparse(l1=0.1), optax.sgd(0.0), initialise=ae.tied)
        learner = ae.resampled(plain, model, every=3, dead_after=50)
        state = learner.init(jax.random.key(0), batch)._replace(step=jnp.asarray(2, jnp.int32))
        dead = np.arange(M) < 3
        state.memory["bottleneck"]["ages"]["age"] = jnp.where(dead, 90, 0)
        long = jnp.where(dead, 5.0, 3.0)[:, None]
        state.params["decoder"]["atoms"] = state.params["decoder"]["atoms"] * long
        new, _ = jax.jit(learner.step)(state, batch)
        norms = np.linalg.norm(new.params["decoder"]["atoms"], axis=1)
        np.testing.assert_allclose(norms, 3.0, rtol=1e-4)

    def test_it_wraps_single_steps(self):
        model, batch, plain, learner = self.setup()
        with pytest.raises(ae.UserError, match="chunked"):
            ae.resampled(ae.chunked(plain, 2), model)
        swept = ae.seeds(learner, 2, shared_data=True)
        state = swept.init(jax.random.key(0), batch)
        text = jax.jit(swept.step).lower(state, batch).as_text()
        assert "stablehlo.case" in text
        _, metrics = jax.jit(swept.step)(state, batch)
        assert metrics["resampled"].shape == (2,)


@pytest.mark.parametrize("place", ["scale", "skip"])
def test_one_scale_in_encoder_and_decoder_is_refused(place):
    """Flax would store its memory under the encoder only, and folding would lack a scale."""
    scale = ae.nets.Scale()
    with pytest.raises(ae.UserError, match="one Scale is in both the encoder and the decoder"):
        ae.Autoencoder(scale, ae.ReLU(8), ae.nets.Dictionary(4, **{place: scale}))
    ae.Autoencoder(scale, ae.ReLU(8), ae.nets.Dictionary(4, **{place: ae.nets.Scale()}))
