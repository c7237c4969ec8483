"""Tests of the sparse codes against their papers' formulas and other libraries."""

from __future__ import annotations

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aejax as ae
from aejax.bottlenecks.sparse.batchtopk import in_rows
from aejax.bottlenecks.sparse.jumprelu import above, jump
from aejax.kernels.batch import Found

B, D, M, K = 24, 6, 40, 3


def data(size: int = B, seed: int = 0) -> ae.Batch:
    x = jnp.asarray(np.random.default_rng(seed).normal(size=(size, D)), jnp.float32)
    return ae.Batch(x, x)


def model(bottleneck, norm: float = 1.0) -> ae.Autoencoder:
    return ae.Autoencoder(ae.nets.Identity(), bottleneck, ae.nets.Dictionary(D, norm=norm))


def start(bottleneck, **options):
    made = model(bottleneck, **options)
    return made, made.init(jax.random.key(0), data())


def trained(made, variables, batch, step=0):
    """Returns the forward pass of one training step, and the memory after it."""
    forward, changed = made.apply(variables, batch, None, step, mutable=["memory"])
    return forward, {**variables, **changed}


class TestJumpReLU:
    """The straight-through derivatives of JumpReLU."""

    Z = (0.3, 0.46, 0.49, 0.52, 0.549, 0.7)

    @pytest.mark.parametrize("to_input", [False, True])
    def test_the_derivatives_of_the_case_worked_by_hand(self, to_input):
        """They equal values computed by hand, in float64.

        Fails if the window reads z after the jump, or if the factor theta is left out.
        """
        with jax.enable_x64(True):
            z = jnp.asarray([self.Z], jnp.float64)
            theta = jnp.full((6,), 0.5, jnp.float64)
            inside = np.array([0, 1, 1, 1, 1, 0])

            def gradients(function):
                def total(z, theta):
                    return jnp.sum(function(z, theta, 0.1, to_input))

                return jax.grad(total, argnums=(0, 1))(z, theta)

            d_z, d_theta = gradients(jump)
            np.testing.assert_allclose(d_theta, -5.0 * inside, rtol=1e-12)
            passed = np.array([0, 0, 0, 1, 1, 1]) + (5.0 * inside if to_input else 0.0)
            np.testing.assert_allclose(d_z[0], passed, rtol=1e-12)
            d_z, d_theta = gradients(above)
            np.testing.assert_allclose(d_theta, -10.0 * inside, rtol=1e-12)
            np.testing.assert_allclose(d_z[0], 10.0 * inside if to_input else 0.0 * inside)
            np.testing.assert_array_equal(above(z, theta, 0.1)[0], [0, 0, 0, 1, 1, 1])
            assert d_theta.dtype == jnp.float64

    def test_l0_moves_the_threshold_and_nothing_else(self):
        """Fails if L0 is counted from z, which passes no gradient to the threshold."""
        made, variables = start(ae.JumpReLU(M, threshold=0.5, bandwidth=0.5))

        def cost(params):
            return jnp.mean(made.apply({**variables, "params": params}, data()).code.l0)

        gradient = jax.jit(jax.grad(cost))(variables["params"])
        assert np.max(gradient["bottleneck"]["log_threshold"]) <= 0
        assert np.min(gradient["bottleneck"]["log_threshold"]) < 0
        assert not np.any(gradient["bottleneck"]["encode"]["kernel"])

    def test_the_threshold_stays_float32_in_bfloat16(self):
        """Fails if theta has the products' dtype: an update of 1e-4 at theta = 1 is then lost."""
        made, variables = start(ae.JumpReLU(M, threshold=1.0, dtype=jnp.bfloat16))
        assert variables["params"]["bottleneck"]["log_threshold"].dtype == jnp.float32
        moved = jax.tree.map(lambda a: a, variables)
        moved["params"]["bottleneck"]["log_threshold"] += 1e-4
        theta = [
            made.apply(v, method=lambda m: m.bottleneck.thresholds()) for v in (variables, moved)
        ]
        np.testing.assert_allclose(theta[1] - theta[0], 1e-4, rtol=0.01)

    @pytest.mark.parametrize("rectified", [False, True])
    def test_the_window_is_of_relu_where_asked(self, rectified):
        """With `rectified`, the window is that of relu(x).

        The threshold is below half the window, so all silent latents are inside the window. Fails
        if `rectified` is not read, or is always on.
        """
        options = {"threshold": 0.02, "bandwidth": 0.1, "rectified": rectified}
        made, variables = start(ae.JumpReLU(M, **options))

        def cost(params):
            code = made.apply({**variables, "params": params}, data()).code
            return jnp.sum(code.l0), code.pre

        own = variables["params"]["bottleneck"]
        pre = np.float64(data().x) @ np.float64(own["encode"]["kernel"])
        assert 0.3 < np.mean(pre < -0.03) < 0.7
        seen = np.maximum(pre, 0.0) if rectified else pre
        inside = np.abs(seen - 0.02) < 0.05
        gradient, found = jax.jit(jax.grad(cost, has_aux=True))(variables["params"])
        np.testing.assert_allclose(found, seen, rtol=1e-4, atol=1e-5)
        expected = -0.02 / 0.1 * inside.sum(axis=0)
        np.testing.assert_allclose(
            gradient["bottleneck"]["log_threshold"], expected, rtol=1e-4, atol=1e-6
        )

    def test_an_empty_window_is_an_error_in_words(self):
        """Fails if the check reads z after the jump, or does not compare at all."""
        made, variables = start(ae.JumpReLU(M, threshold=0.1, bandwidth=1e-6))
        with pytest.raises(ae.UserError, match=r"window of width 1e-06 holds 0\.0e\+00"):
            ae.check_window(made, variables, data())
        made, variables = start(ae.JumpReLU(M, threshold=0.5, bandwidth=0.5))
        assert 0.05 < ae.check_window(made, variables, data()) < 0.5


class TestBatchTopK:
    """BatchTopK keeps exactly the largest values of a whole batch."""

    @pytest.mark.parametrize("held", ["even", "one", "random", "few"])
    @pytest.mark.parametrize("room", [B, 4 * B, 5 * B + 1])
    def test_rows_of_slots_hold_what_was_found(self, held, room):
        """Each example gets the rows of slots that it needs, in the least room that suffices.

        Fails if a row holds two examples, if an example that fills its rows exactly gets one more,
        or if one example cannot hold all values.
        """
        random = np.random.default_rng(5)
        row = {
            "even": np.arange(room) % B,
            "one": np.full(room, 7),
            "random": random.integers(0, B, room),
            "few": random.integers(0, B, room // 2),
        }[held]
        row = np.sort(row)
        column = random.integers(0, M, room)
        behind = np.full(room - len(row), 3)  # rows without an owner, whose indices stay in bounds
        found = Found(jnp.asarray([*row, *behind]), jnp.asarray(column), jnp.asarray(len(row)))
        indices, used, example = jax.jit(in_rows, static_argnums=(1, 2))(found, B, room)
        assert indices.size <= 2 * room + 8 * indices.shape[1] + B
        assert np.all(np.diff(example) >= 0)
        whose = np.broadcast_to(np.asarray(example)[:, None], indices.shape)
        np.testing.assert_array_equal(whose[used], row)
        np.testing.assert_array_equal(np.asarray(indices)[used], column[: len(row)])

    @pytest.mark.parametrize(
        ("slots", "by_norm", "size"), [(4, False, B), (None, True, 256), (M, False, B)]
    )
    def test_training_codes_and_gradients_equal_the_dense_form(self, slots, by_norm, size):
        """Fails if an example's rows are not added up, or the encoder's gradient uses another
        input.
        """
        made, variables = start(ae.BatchTopK(M, K, slots=slots, score_by_norm=by_norm))
        spread = jnp.linspace(0.2, 2.0, M)[:, None]
        variables["params"]["decoder"]["atoms"] *= spread
        x = data(size).x * jnp.linspace(0.1, 4.0, size)[:, None]
        batch = ae.Batch(x, x)

        def sparse(params):
            forward, _ = trained(made, {**variables, "params": params}, batch)
            return jnp.sum(jnp.square(x - forward.prediction)), forward

        def dense(params):
            encode, decode = params["bottleneck"]["encode"], params["decoder"]
            f = jax.nn.relu(x @ encode["kernel"] + encode["bias"][None])
            norms = jnp.linalg.norm(decode["atoms"], axis=1)
            score = jax.lax.stop_gradient(f * norms[None] if by_norm else f)
            f = jnp.where(score >= jnp.sort(score.ravel())[-K * size], f, 0.0)
            return jnp.sum(jnp.square(x - f @ decode["atoms"] - decode["bias"][None])), f

        (value, forward), gradient = jax.jit(jax.value_and_grad(sparse, has_aux=True))(
            variables["params"]
        )
        (expected, f), wanted = jax.jit(jax.value_and_grad(dense, has_aux=True))(
            variables["params"]
        )
        np.testing.assert_allclose(forward.code.dense(), f, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), gradient, wanted
        )
        assert float(jnp.mean(forward.code.l0)) == K
        assert jnp.max(forward.code.l0) > 2 * K

    @pytest.mark.parametrize("columns", [1, 4, M])
    def test_what_has_diverged_is_seen(self, columns):
        """NaN inputs give NaN, in training and evaluation.

        Fails if NaN counts as below the threshold: z would then be finite.
        """
        made, variables = start(ae.BatchTopK(M, K))
        kernel = variables["params"]["bottleneck"]["encode"]["kernel"]
        spoiled = kernel.at[:, :columns].set(jnp.nan)
        variables["params"]["bottleneck"]["encode"]["kernel"] = spoiled
        forward, after = jax.jit(functools.partial(trained, made))(variables, data())
        assert np.isnan(forward.prediction).any()
        assert np.isnan(jax.jit(made.apply)(after, data()).prediction).all()

    def test_an_example_that_is_nan_is_seen(self):
        """The same for a batch whose last example alone is NaN."""
        made, variables = start(ae.BatchTopK(M, K))
        x = data().x
        step = jax.jit(functools.partial(trained, made))
        forward, _ = step(variables, ae.Batch(x.at[-1].set(jnp.nan), x))
        assert np.isnan(forward.prediction[-1]).all()

    def test_fewer_slots_than_are_kept_are_refused(self):
        """Fails if the code silently keeps fewer than k latents, or if a traced k is compared."""
        with pytest.raises(ae.UserError, match="BatchTopK has k = 3, more than its slots, 2"):
            trained(*start(ae.BatchTopK(M, K, slots=2)), data())
        made, variables = start(ae.BatchTopK(M, K))

        def swept(k):
            return trained(made.clone(bottleneck=ae.BatchTopK(M, k)), variables, data())

        with pytest.raises(ae.UserError, match="give the largest k as slots"):
            jax.eval_shape(swept, 3)

    def test_the_threshold_follows_the_smallest_value_kept(self):
        """The average of the last tenth of the steps, or by SAELens' rule from 0.

        Fails if it starts at 0 unasked, starts too soon, follows the mean of kept values, or gives
        the first batch more weight than the later ones.
        """
        dense = jax.jit(lambda code: code.dense())
        for from_zero, begin in ((False, 0), (True, 0), (False, 2)):
            made, variables = start(ae.BatchTopK(M, K, from_zero=from_zero, begin=begin))
            step = jax.jit(functools.partial(trained, made))
            seen = []
            for t in range(4):
                forward, variables = step(variables, data(seed=t), t)
                kept = np.asarray(dense(forward.code))
                smallest = kept[kept > 0].min()
                seen += [smallest] if t >= begin else []
                rates = [0.01 if from_zero else 10 / (10 + i) for i in range(len(seen))]
                # Each batch's weight is its rate times what the later ones leave of it.
                left = np.append(np.cumprod(1.0 - np.asarray(rates[:0:-1]))[::-1], 1.0)
                weights = np.asarray(rates) * left[: len(rates)]
                assert from_zero or not seen or abs(weights.sum() - 1.0) < 1e-9
                expected = float(weights @ np.asarray(seen, np.float64)) if seen else 0.0
                found = variables["memory"]["bottleneck"]["threshold"]
                np.testing.assert_allclose(found, expected, rtol=1e-5)

    def test_a_trained_code_keeps_k_on_average_and_each_example_by_itself(self):
        """At inference |L0 - k| / k < 5 %. Fails if inference does not use the threshold."""
        made, variables = start(ae.BatchTopK(M, K))
        step = jax.jit(lambda v, x, t: trained(made, v, ae.Batch(x, x), t))
        for t in range(600):
            forward, variables = step(variables, data(512, seed=t).x, t)
            assert abs(float(jnp.mean(forward.code.l0)) - K) < 1e-6
        batch = data(4096, seed=999)
        l0 = made.apply(variables, batch).code.l0
        assert abs(float(jnp.mean(l0)) - K) / K < 0.05
        one = ae.Batch(batch.x[:1], batch.target[:1])
        assert made.apply(variables, one).code.l0[0] == l0[0]


@pytest.mark.parametrize("bottleneck", [ae.TopK(M, K), ae.AbsTopK(M, K), ae.BatchTopK(M, K)])
def test_a_decoder_of_dense_layers_sees_the_dense_latent(bottleneck):
    """An MLP decoder reads the dense latent, in training and evaluation, with its gradient.

    Fails if `flatten` reshapes the rows of slots instead.
    """
    net = ae.nets.MLP((7,), shape=(D,))
    made = ae.Autoencoder(ae.nets.Identity(), bottleneck, net)
    variables = made.init(jax.random.key(0), data())

    def error(params, dense):
        whole = {**variables, "params": params}
        forward, _ = trained(made, whole, data())
        z = forward.code.dense()
        seen = net.apply({"params": params["decoder"]}, z) if dense else forward.prediction
        return jnp.sum(jnp.square(seen - data().target))

    both = jax.jit(jax.value_and_grad(error), static_argnums=1)
    own, expected = (both(variables["params"], dense) for dense in (0, 1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), own, expected)
    assert made.apply(variables, data()).prediction.shape == (24, D)


@pytest.mark.parametrize(("kind", "how"), [(ae.ReLU, {}), (ae.TopK, {"k": K})])
def test_faint_latents_stay_silent_where_they_are_not_counted(kind, how):
    """This is OpenAI's rule. Fails if `alive_above` is not compared, or is compared with 0."""
    made, variables = start(kind(M, **how))
    z = np.abs(trained(made, variables, data())[0].code.dense()).max(axis=0)
    middle = float(np.median(z[z > 0]))
    made = made.clone(bottleneck=kind(M, alive_above=middle, **how))
    _, after = trained(made, variables, data())
    age = after["memory"]["bottleneck"]["ages"]["age"]
    np.testing.assert_array_equal(age == 0, z > middle)
    assert 0 < np.sum(z > middle) < np.sum(z > 0)


REFUSED = {
    "target": (ae.ReLU(M, l0=0.0), "ReLU has l0 = 0.0: give a number above 0"),
    "more than all": (ae.TopK(M, 41), "TopK has k = 41: give a whole number from 1 to 40"),
    "none": (ae.TopK(M, 0), "TopK has k = 0: give a whole number from 1 to 40"),
    "of either sign": (ae.AbsTopK(M, 0), "AbsTopK has k = 0: give a whole number from 1 to 40"),
    "two and a half": (ae.TopK(M, 2.5), "TopK has k = 2.5: give a whole number from 1 to 40"),
    "endless": (ae.ReLU(M, l0=float("inf")), "ReLU has l0 = inf: give a number above 0"),
    "none at all": (ae.BatchTopK(M, 0.0), "BatchTopK has k = 0.0: give a number above 0"),
    "of the batch": (ae.BatchTopK(M, 0.02), "keeps no latent of a batch of 24: give a larger k"),
    "more than there are": (ae.JumpReLU(M, l0=41), "JumpReLU has l0 = 41: give a number above 0"),
    "ahead of the start": (ae.ReLU(M, l0=3, descent=-5), "ReLU has descent = -5: give a number"),
    "recall": (ae.TopK(M, 2, recall=2.0), "TopK has recall = 2.0: give a share above 0"),
    "rate": (ae.BatchTopK(M, 2, rate=5.0), "BatchTopK has rate = 5.0: give a number above 0"),
    "a power of 0": (ae.AnnealedReLU(M, powers=(0.0, -1.0)), "give the p of one stage or more"),
    "no slots": (ae.BatchTopK(M, 1, slots=0), "BatchTopK has slots = 0: give a whole number"),
    "threshold": (ae.JumpReLU(M, threshold=0.0), "JumpReLU has threshold = 0.0: give a number abo"),
    "window": (ae.JumpReLU(M, bandwidth=0.0), "JumpReLU has bandwidth = 0.0: give a number above"),
    "no stage": (ae.AnnealedReLU(M, powers=()), "powers = (): give the p of one stage or more"),
    "stage": (ae.AnnealedReLU(M, every=0), "AnnealedReLU has every = 0: give a number above 0"),
}


@pytest.mark.parametrize(("bottleneck", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_numbers_that_make_no_sense_are_refused_in_words(bottleneck, said):
    """They are refused before anything is computed.

    Fails if a class's `check` is removed, or if `setup` does not call it.
    """
    with pytest.raises(ae.UserError, match=re.escape(said)):
        trained(*start(bottleneck), data())


@pytest.mark.parametrize("kind", [ae.TopK, ae.AbsTopK])
def test_a_code_uses_no_more_than_its_slots(kind):
    """A larger `active` is refused while tracing, as a number or an array.

    A value that a sweep traced is exported as it acted. Fails if `active` is not compared with k,
    or if a fold exports what was asked for.
    """
    for active in (K + 1, 0, np.int64(K + 1), jnp.asarray(K + 1)):
        made = model(kind(M, K, active=active))
        with pytest.raises(ae.UserError, match=f"active = {active}: give a number from 1 to 3"):
            jax.jit(made.init)(jax.random.key(0), data())
    made, variables = start(kind(M, K))
    for active in (2, jnp.asarray(2), 1.5, K + 2, None):

        def swept(active):
            return made.clone(bottleneck=kind(M, K, active=active)).apply(variables, data())

        own = made.clone(bottleneck=kind(M, K, active=active))
        plain = ae.fold(own, variables)
        assert isinstance(plain.k, int)
        codes = jax.jit(swept)(active).code.dense()
        np.testing.assert_allclose(ae.dictionary.encode(plain, data().x), codes, atol=1e-5)


@pytest.mark.parametrize("kind", [ae.TopK, ae.AbsTopK])
def test_scoring_by_norm_makes_the_size_of_atoms_a_convention(kind):
    """Multiplying atoms by c and dividing the encoder by c changes nothing.

    Fails if scores ignore the norms.
    """
    made, variables = start(kind(M, K, score_by_norm=True))
    c = jnp.exp(jnp.asarray(np.random.default_rng(3).normal(size=M), jnp.float32))
    params = variables["params"]
    encode = params["bottleneck"]["encode"]
    moved = {
        "bottleneck": {
            "encode": {"kernel": encode["kernel"] / c[None], "bias": encode["bias"] / c}
        },
        "decoder": {**params["decoder"], "atoms": params["decoder"]["atoms"] * c[:, None]},
    }
    before = made.apply(variables, data()).prediction
    after = made.apply({**variables, "params": moved}, data()).prediction
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
    plain = model(kind(M, K)).apply({**variables, "params": moved}, data()).prediction
    assert np.max(np.abs(plain - before)) > 0.1


def test_subtracting_the_decoders_bias_is_a_shift_of_the_input():
    """Fails if the bias is added, or gets no gradient through the encoder."""
    made, variables = start(ae.TopK(M, K, subtract_bias=True))
    bias = jnp.arange(1.0, D + 1)
    variables["params"]["decoder"]["bias"] = bias
    shifted = ae.Batch(data().x - bias[None], data().target)
    plain = model(ae.TopK(M, K))
    with_bias, without = made.apply(variables, data()), plain.apply(variables, shifted)
    np.testing.assert_allclose(with_bias.prediction, without.prediction, rtol=1e-5, atol=1e-5)

    def magnitude(bias):
        decoder = {**variables["params"]["decoder"], "bias": bias}
        params = {**variables["params"], "decoder": decoder}
        return jnp.sum(made.apply({**variables, "params": params}, data()).code.magnitude())

    assert np.all(np.asarray(jax.grad(magnitude)(bias)) != 0)


def test_a_code_that_reads_the_atoms_needs_a_dictionary():
    net = ae.nets.MLP((4,), shape=(D,))
    made = ae.Autoencoder(ae.nets.Identity(), ae.TopK(M, K, score_by_norm=True), net)
    with pytest.raises(ae.UserError, match="was given a MLP"):
        made.init(jax.random.key(0), data())


def test_gated_features_are_gate_times_magnitude():
    """The code equals the formula of the reference. Fails if r_mag also scales the bias."""
    made, variables = start(ae.Gated(M))
    random = np.random.default_rng(4)
    own = variables["params"]["bottleneck"]
    for name in ("r_mag", "b_mag"):
        own[name] = jnp.asarray(random.normal(size=M), jnp.float32)
    own["encode"]["bias"] = jnp.asarray(random.normal(size=M), jnp.float32)
    x = np.asarray(data().x)
    shared = x @ np.asarray(own["encode"]["kernel"])
    gate = shared + np.asarray(own["encode"]["bias"])
    magnitude = np.maximum(np.exp(own["r_mag"]) * shared + np.asarray(own["b_mag"]), 0)
    code = made.apply(variables, data()).code
    np.testing.assert_allclose(code.z, (gate > 0) * magnitude, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(code.pre, gate, rtol=1e-4, atol=1e-5)


def test_annealing_keeps_the_penalty_when_p_changes():
    """Fails if the rescaling is inverted, if a stage is skipped, or if norms are left out."""
    made, variables = start(ae.AnnealedReLU(M, powers=(1.0, 0.5, 0.2), begin=2, every=3))
    sizes = np.random.default_rng(5).uniform(0.5, 3.0, (M, 1)).astype(np.float32)
    variables["params"]["decoder"]["atoms"] = variables["params"]["decoder"]["atoms"] * sizes
    norms = np.linalg.norm(np.asarray(variables["params"]["decoder"]["atoms"], np.float64), axis=1)
    expected, scale, powers = 0, 1.0, (1.0, 0.5, 0.2)
    for t in range(10):
        forward, changed = made.apply(variables, data(seed=t), None, t, mutable=["memory"])
        z = np.asarray(forward.code.z, np.float64) * norms
        stage = 0 if t < 2 else min(1 + (t - 2) // 3, 2)
        if stage != expected:
            old, new = (np.where(z > 0, z ** powers[i], 0).sum() for i in (expected, stage))
            expected, scale = stage, scale * old / new
        variables = {**variables, **changed}
        memory = variables["memory"]["bottleneck"]
        assert memory["stage"] == stage
        np.testing.assert_allclose(np.exp(memory["log_scale"]), scale, rtol=1e-4)
    bound = made.bind(variables)
    penalty = np.where(z > 0, z**0.2, 0).sum(1) * scale
    np.testing.assert_allclose(ae.losses.lp(bound, forward), penalty, rtol=1e-4)
    gradient = jax.grad(lambda z: jnp.sum(bound.bottleneck.penalty(forward.code._replace(z=z))))(
        forward.code.z
    )
    assert np.all(np.isfinite(gradient))
