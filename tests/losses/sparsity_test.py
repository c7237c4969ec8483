"""Tests of the terms of sparse autoencoders: their values, their cost, and what they train."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax import losses
from aejax.bottlenecks.sparse.memory import Controller
from aejax.dictionaries.unit_rows import unit_rows
from tests import kinds

B, D, M, K = 16, 6, 32, 3


def data(seed: int = 0) -> ae.Batch:
    x = jnp.asarray(np.random.default_rng(seed).normal(size=(B, D)), jnp.float32)
    return ae.Batch(x, x)


def start(bottleneck, dead=(), **options):
    """Makes a model whose latents `dead` have been silent for 2,000 steps."""
    made = ae.Autoencoder(ae.nets.Identity(), bottleneck, ae.nets.Dictionary(D, **options))
    variables = made.init(jax.random.key(0), data())
    age = jnp.zeros((M,), jnp.int32).at[jnp.asarray(dead, jnp.int32)].set(2000)
    variables["memory"]["bottleneck"]["ages"]["age"] = age
    return made, variables


def value(made, variables, term, batch=None):
    """Computes a term, f32[B]."""
    bound = made.bind(variables)
    return np.asarray(term(bound, bound(batch or data())))


def gradient(made, variables, term):
    def cost(params):
        bound = made.bind({**variables, "params": params})
        return jnp.mean(term(bound, bound(data())))

    return jax.jit(jax.grad(cost))(variables["params"])


def is_program(value) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


def products(jaxpr, branch: bool = False) -> tuple[int, int]:
    """Counts matrix products outside and inside of branches, including those of called
    functions.
    """
    outside = inside = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            outside, inside = outside + (not branch), inside + branch
        within = branch or equation.primitive.name == "cond"
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=is_program):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                found = products(inner, within)
                outside, inside = outside + found[0], inside + found[1]
    return outside, inside


def outputs_of_branches(jaxpr) -> list:
    """Returns the outputs of branches, without those of branches within branches."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "cond":
            found += equation.outvars
            continue
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=is_program):
            inner = getattr(value, "jaxpr", value)
            found += outputs_of_branches(inner) if hasattr(inner, "eqns") else []
    return found


def test_the_april_loss_is_invariant_to_the_size_of_atoms():
    """Atoms are multiplied by c, encoder and bias divided. Fails if L1 has no weights by norm."""
    made, _ = start(ae.ReLU(M))
    learner = ae.learner(made, ae.objectives.april(5.0), optax.sgd(0.0))
    c = jnp.exp(jnp.asarray(np.random.default_rng(1).normal(size=M), jnp.float32))
    state = jax.jit(learner.init)(jax.random.key(0), data())
    params = state.params
    encode = {"kernel": params["bottleneck"]["encode"]["kernel"] / c[None]}
    encode["bias"] = (params["bottleneck"]["encode"]["bias"] + 0.1) / c
    params["bottleneck"]["encode"]["bias"] += 0.1
    atoms = params["decoder"]["atoms"] * c[:, None]
    moved = {"bottleneck": {"encode": encode}, "decoder": {**params["decoder"], "atoms": atoms}}
    step = jax.jit(learner.step)
    before, after = (step(state._replace(params=p), data())[1] for p in (params, moved))
    np.testing.assert_allclose(after["loss"], before["loss"], rtol=1e-5)
    assert after["l1"] > 0


@pytest.mark.parametrize("form", [ae.initialise.mean_square, ae.initialise.whitening()])
@pytest.mark.parametrize("term", [losses.auxk(k=3), losses.auxk(bias=True), losses.ghost()])
def test_dead_latents_are_not_taught_what_a_mask_leaves_out(term, form):
    """Masked elements may have any value. Fails if the residual is compared without the mask."""
    scale = ae.nets.Scale()
    made = ae.Autoencoder(ae.nets.Identity(), ae.ReLU(M), ae.nets.Dictionary(D, scale=scale))
    x = data().x @ jnp.asarray(np.random.default_rng(3).normal(size=(D, D)), jnp.float32)
    start = ae.standardised(form=form)
    learner = ae.learner(made, ae.sparse(), optax.sgd(0.0), initialise=start)
    variables = learner.variables(learner.init(jax.random.key(0), ae.Batch(x, x)))
    variables["memory"]["bottleneck"]["ages"]["age"] = jnp.full((M,), 2000)
    mask = jnp.zeros((B, D)).at[:, :3].set(1.0)

    def raw(atoms):
        """Computes the cost as a function of the atoms' output in raw units."""
        statistics = variables["memory"]["decoder"]["scale"]
        inside = ae.nets.scale.multiply(atoms, statistics["factor"])
        params = {**variables["params"]}
        params["decoder"] = {**params["decoder"], "atoms": inside}
        bound = made.bind({**variables, "params": params})
        return jnp.mean(term(bound, bound(ae.Batch(x, x, mask=mask))))

    inverse = variables["memory"]["decoder"]["scale"]["inverse"]
    atoms = ae.nets.scale.multiply(variables["params"]["decoder"]["atoms"], inverse)
    taught = np.abs(np.asarray(jax.jit(jax.grad(raw))(atoms))).max(axis=0)
    assert np.all(taught[:3] > 1e-3)
    np.testing.assert_allclose(taught[3:], 0.0, atol=1e-4 * taught.max())


class TestRevival:
    """Tests of AuxK, and of its cost while no latent is dead."""

    DEAD = (1, 5, 6, 20)

    def test_its_gradient_reaches_atoms_and_encoder_of_dead_latents_alone(self):
        """Fails if the selection stops the gradient of the pre-activations, as a fused encoder
        did.
        """
        for bottleneck in (ae.TopK(M, K), ae.BatchTopK(M, K), ae.TopK(M, K, score_by_norm=True)):
            made, variables = start(bottleneck, self.DEAD)
            grads = gradient(made, variables, losses.auxk(k=3))
            touched = np.any(np.asarray(grads["bottleneck"]["encode"]["kernel"]) != 0, axis=0)
            assert set(np.flatnonzero(touched)) == set(self.DEAD)
            assert set(np.flatnonzero(grads["bottleneck"]["encode"]["bias"])) == set(self.DEAD)
            written = np.any(np.asarray(grads["decoder"]["atoms"]) != 0, axis=1)
            assert set(np.flatnonzero(written)) == set(self.DEAD)
            assert not np.any(grads["decoder"]["bias"])

    @pytest.mark.parametrize("k", [2, 4, 10])
    def test_every_variant_is_what_its_library_computes(self, k):
        """They equal numpy.

        Fails if the scale is per batch, or if k above the number of dead latents breaks.
        """
        made, variables = start(ae.TopK(M, K), self.DEAD)
        variables["params"]["decoder"]["bias"] = jnp.linspace(-1.0, 1.0, D)
        x = np.asarray(data().x, np.float64)
        params = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
        pre = x @ params["bottleneck"]["encode"]["kernel"]
        error = x - np.asarray(made.apply(variables, data()).prediction, np.float64)
        masked = np.full_like(pre, -np.inf)
        masked[:, self.DEAD] = pre[:, self.DEAD]
        kept = np.where(masked >= np.sort(masked)[:, [-k]], masked, 0.0)
        kept = np.where(np.isfinite(kept), kept, 0.0)
        atoms, bias = params["decoder"]["atoms"], params["decoder"]["bias"]
        share = min(4 / k, 1.0)
        variance = np.square(error - error.mean(0)).sum(1).mean()
        signed = np.square(kept @ atoms - error).sum(1)
        cut = np.square(np.maximum(kept, 0) @ atoms - error).sum(1)
        norm = np.square(error + bias).sum(1)
        variants = {
            "saelens": (losses.auxk(k), share * signed),
            "openai": (
                losses.auxk(k, share=False, divide=losses.residual_norm, bias=True, rectify=True),
                cut / norm,
            ),
            "dictionary_learning": (
                losses.auxk(k, share=False, divide=losses.residual_variance, rectify=True),
                cut / variance,
            ),
            "sparsify": (
                losses.auxk(k, divide=losses.residual_variance, rectify=True),
                share * cut / variance,
            ),
        }
        for name, (term, expected) in variants.items():
            found = value(made, variables, term)
            np.testing.assert_allclose(found, expected, rtol=1e-4, err_msg=name)

    def test_with_the_bias_it_trains_the_bias_and_changes_nothing_else(self):
        """Nothing is normalised here. Fails if the bias is constant in the explanation too."""
        made, variables = start(ae.TopK(M, K), self.DEAD)
        variables["params"]["decoder"]["bias"] = jnp.linspace(-1.0, 1.0, D)
        without, grads = (
            gradient(made, variables, losses.auxk(len(self.DEAD), bias=b)) for b in (False, True)
        )
        x = np.asarray(data().x, np.float64)
        params = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
        dead = list(self.DEAD)
        explained = (x @ params["bottleneck"]["encode"]["kernel"][:, dead]) @ params["decoder"][
            "atoms"
        ][dead]
        error = x - np.asarray(made.apply(variables, data()).prediction, np.float64)
        expected = 2 * (explained - error).mean(0)
        assert np.all(np.abs(expected) > 1e-3)
        np.testing.assert_allclose(grads["decoder"].pop("bias"), expected, rtol=1e-4, atol=1e-5)
        assert not np.any(without["decoder"].pop("bias"))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), grads, without
        )

    @pytest.mark.parametrize("term", [losses.auxk(), losses.ghost()], ids=["auxk", "ghost"])
    def test_it_is_a_branch_not_taken_while_none_is_dead(self, term):
        """It holds in a sweep too. Fails if the branch becomes a select, as vmap makes of a mapped
        flag.

        Outside the branch are the two products of the forward pass, and all others are inside.
        """
        made, variables = start(ae.ReLU(M))

        def cost(params, age):
            memory = {"bottleneck": {"ages": {"age": age}}}
            bound = made.bind({"params": params, "memory": memory})
            return jnp.sum(term(bound, bound(data())))

        grad = jax.value_and_grad(cost)
        age = variables["memory"]["bottleneck"]["ages"]["age"]
        many = jax.tree.map(lambda a: jnp.stack([a, 2 * a, 3 * a]), variables["params"])
        ages = jnp.stack([age] * 3)
        single, swept = (grad, (variables["params"], age)), (jax.vmap(grad), (many, ages))
        for function, arguments in (single, swept):
            outside, inside = products(jax.make_jaxpr(function)(*arguments).jaxpr)
            assert outside == 2
            assert inside >= 2
            zero, grads = jax.jit(function)(*arguments)
            assert not np.any(zero)
            assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads))

        # Only the member with a dead latent changes, to what it is in a run of its own.
        ages = ages.at[1, 4].set(2000)
        swept, grads = jax.jit(jax.vmap(grad))(many, ages)
        alone, own = jax.jit(grad)(jax.tree.map(lambda a: a[1], many), ages[1])
        np.testing.assert_allclose(swept, [0.0, alone, 0.0], rtol=1e-5)
        assert alone > 0
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-6), grads, own
        )
        assert not any(np.any(leaf[0]) for leaf in jax.tree.leaves(grads))

    @pytest.mark.parametrize("term", [losses.auxk(), losses.ghost()], ids=["auxk", "ghost"])
    def test_a_branch_not_taken_writes_no_array_of_the_batch(self, term):
        """The branch returns only gradients of parameters. Fails if `switch` is `lax.switch`.

        That one returns what its backward pass needs, including zeros f32[B, m] if it is not taken.
        """
        made, variables = start(ae.BatchTopK(M, K))

        def cost(params):
            bound = made.bind({**variables, "params": params})
            forward, _ = made.apply({**variables, "params": params}, data(), mutable=["memory"])
            return jnp.sum(term(bound, forward) + losses.squared_error(bound, forward))

        program = jax.make_jaxpr(jax.grad(cost))(variables["params"]).jaxpr
        shapes = [v.aval.shape for v in outputs_of_branches(program)]
        assert {(B,), (D, M), (M, D)} <= set(shapes)
        assert not [shape for shape in shapes if shape[:1] == (B,) and shape[1:] not in ((), (D,))]

    def test_ghosts_are_worth_the_main_loss(self):
        """Fails if the output is not rescaled, or if its gradient reaches living latents."""
        made, variables = start(ae.ReLU(M), self.DEAD)
        found = value(made, variables, losses.ghost())
        np.testing.assert_allclose(found, value(made, variables, losses.scaled_error), rtol=1e-4)
        grads = gradient(made, variables, losses.ghost())
        touched = np.any(np.asarray(grads["bottleneck"]["encode"]["kernel"]) != 0, axis=0)
        assert set(np.flatnonzero(touched)) == set(self.DEAD)


def test_the_gate_learns_from_its_own_terms_alone():
    """Fails if the detached form trains the atoms, or if the other form does not."""
    made, variables = start(ae.Gated(M))
    for detach in (True, False):
        grads = gradient(made, variables, losses.gate_error(detach))
        assert np.any(grads["bottleneck"]["encode"]["kernel"])
        assert np.any(grads["decoder"]["atoms"]) != detach
        assert np.any(grads["decoder"]["bias"]) != detach
    params = variables["params"]
    gate = np.maximum(
        np.asarray(data().x) @ np.asarray(params["bottleneck"]["encode"]["kernel"]), 0
    )
    atoms = np.asarray(params["decoder"]["atoms"])
    error = np.square(np.asarray(data().x) - gate @ atoms).sum(1)
    np.testing.assert_allclose(value(made, variables, losses.gate_error()), error, rtol=1e-4)
    found = value(made, variables, losses.gate_l1(weighted=True))
    np.testing.assert_allclose(found, gate @ np.linalg.norm(atoms, axis=1), rtol=1e-4)


@pytest.mark.parametrize("bottleneck", [ae.BatchTopK(M, K, slots=3), ae.ReLU(M)])
def test_prefixes_are_dictionaries_of_their_own(bottleneck):
    """Fails if levels overlap, if the bias is added at each, or if rows are not cut.

    Fails also if the shares of few latents round to 0 latents, or to the same number twice.
    """
    made, variables = start(bottleneck)
    variables["params"]["decoder"]["bias"] = jnp.linspace(-1.0, 1.0, D)
    forward, _ = jax.jit(functools.partial(made.apply, mutable=["memory"]))(variables, data())
    z = np.asarray(forward.code.dense())
    decoder = jax.tree.map(np.asarray, variables["params"]["decoder"])
    x = np.asarray(data().x)

    def error(m):
        return np.square(x - z[:, :m] @ decoder["atoms"][:m] - decoder["bias"]).sum(1)

    bound = made.bind(variables)
    found = losses.prefix_error((4, 12, M))(bound, forward)
    np.testing.assert_allclose(found, (error(4) + error(12) + error(M)) / 3, rtol=1e-4)
    found = losses.prefix_error((4, M), weights=(1, 2, 3), bias=True)(bound, forward)
    np.testing.assert_allclose(found, error(0) + 2 * error(4) + 3 * error(M), rtol=1e-4)
    with pytest.raises(ae.UserError, match="ascending order"):
        losses.prefix_error((8, 4))
    with pytest.raises(ae.UserError, match="end the prefixes"):
        losses.prefix_error((4, 8))(bound, forward)
    for few in ((), (0, M)):
        with pytest.raises(ae.UserError, match="one or more whole numbers"):
            losses.prefix_error(few)
    assert losses.fractions(64) == (2, 6, 14, 30, 64)
    assert losses.fractions(16) == (1, 2, 4, 8, 16)
    assert losses.fractions(4) == (1, 2, 4)


SKIPPING = {
    "prefix_error": (ae.TopK(M, K), losses.prefix_error((M,))),
    "gate_error": (ae.Gated(M), losses.gate_error(detach=False)),
}


@pytest.mark.parametrize("name", SKIPPING)
def test_a_skip_connection_is_a_part_of_every_reconstruction(name):
    """With the full prefix, or a gate equal to the magnitude, error and gradient are the model's.

    Fails if a term's prediction has only latents and bias, or if it stops the gradient of the skip.
    """
    bottleneck, term = SKIPPING[name]
    batch = data()._replace(target=data(seed=1).x, context=data().x)
    made = ae.Autoencoder(
        ae.nets.Identity(), bottleneck, ae.nets.Dictionary(D, skip=ae.nets.Identity())
    )
    variables = made.init(jax.random.key(0), batch)
    random = np.random.default_rng(2)
    for own in ("bias", "skip_kernel"):
        leaf = variables["params"]["decoder"][own]
        variables["params"]["decoder"][own] = jnp.asarray(random.normal(size=leaf.shape), "f4")

    def cost(decoder, term):
        params = {**variables["params"], "decoder": decoder}
        bound = made.bind({**variables, "params": params})
        values = term(bound, bound(batch))
        return jnp.sum(values), values

    grads = jax.jit(jax.grad(cost, has_aux=True), static_argnums=1)
    wanted, errors = grads(variables["params"]["decoder"], losses.scaled_error)
    found, values = grads(variables["params"]["decoder"], term)
    np.testing.assert_allclose(values, errors, rtol=1e-5)
    assert np.all(np.abs(wanted["skip_kernel"]) > 0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, wanted)


def test_penalties_are_their_formulas():
    """They equal numpy.

    Fails if the tanh leaves out the norms, or if a batch mean is an example's value.
    """
    made, variables = start(ae.JumpReLU(M, threshold=0.3, bandwidth=0.3), norm=0.7)
    code = made.apply(variables, data()).code
    z, pre, l0 = (np.asarray(a, np.float64) for a in (code.z, code.pre, code.l0))
    expected = {
        losses.tanh_l0(4.0): np.tanh(4 * z * 0.7).sum(1),
        losses.quadratic_l0(5.0): 2 / 5 * (l0 - 5) ** 2,
        losses.relative_l0(5.0): np.full(B, (l0.mean() / 5 - 1) ** 2),
        losses.pre_activation: 0.7 * np.maximum(0.3 - pre, 0).sum(1),
        losses.window: (np.abs(pre - 0.3) < 0.15).mean(1),
        losses.weighted_l1: 0.7 * z.sum(1),
    }
    for term, wanted in expected.items():
        np.testing.assert_allclose(value(made, variables, term), wanted, rtol=1e-4)
    x = np.asarray(data().x, np.float64)
    errors = np.square(x - np.asarray(made.apply(variables, data()).prediction)).sum(1)
    unexplained = errors.sum() / np.square(x - x.mean(0)).sum()
    np.testing.assert_allclose(
        value(made, variables, losses.unexplained).mean(), unexplained, rtol=1e-4
    )


@pytest.mark.parametrize("scaled", [False, True])
def test_the_normalised_error_is_the_share_of_each_examples_norm(scaled):
    """It equals numpy, also for data around another mean and under a mask.

    Fails if the norm is that of the batch, of raw values although there is a Scale, or without the
    mask.
    """
    random = np.random.default_rng(3)
    x = (random.normal(size=(B, D)) * np.arange(1, B + 1)[:, None] + 5.0).astype("f4")
    mask = (random.random((B, D)) < 0.8).astype("f4")
    scale = ae.nets.Scale() if scaled else None
    made = ae.Autoencoder(
        ae.nets.Identity(), ae.TopK(M, K), ae.nets.Dictionary(D, norm=1.0, scale=scale)
    )
    for given in (None, mask):
        batch = ae.Batch(jnp.asarray(x), jnp.asarray(x), mask=given)
        variables = made.init(jax.random.key(0), batch)
        if scaled:
            variables = ae.standardised()(variables, batch, jax.random.key(0))
        mean = x.mean(0) if scaled else np.zeros(D)
        error = np.square(x - np.asarray(made.apply(variables, batch).prediction))
        weight = np.ones_like(x) if given is None else given
        expected = (weight * error).sum(1) / (weight * np.square(x - mean)).sum(1)
        found = value(made, variables, losses.normalised_error, batch)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_atoms_of_norm_zero_have_a_finite_gradient():
    """Fails if the norm is a bare square root, since a transcoder's atoms start at zero."""
    made, variables = start(ae.ReLU(M))
    variables = ae.initialise.silent(variables, data(), jax.random.key(0))
    grads = gradient(made, variables, losses.weighted_l1)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))


def test_the_price_rests_while_l0_is_where_it_is_wanted():
    """The target falls from 48 to 3 by one factor per step.

    Fails if it falls linearly, or too slowly.
    """
    steps = np.arange(130)
    wanted = 3.0 * 16.0 ** np.maximum(1.0 - steps / 100, 0.0)
    inputs = jnp.full((4, 16), 10.0)

    def prices(l0):
        def after(memory, given):
            step, l0 = given
            price, changed = controller.apply(
                memory, jnp.full(4, l0), inputs, step, mutable=["memory"]
            )
            return changed, price

        controller = Controller(3.0, descent=100)
        start = controller.init(jax.random.key(0))
        return np.asarray(jax.lax.scan(after, start, (jnp.asarray(steps), jnp.asarray(l0)))[1])

    np.testing.assert_allclose(prices(wanted.astype(np.float32)), 1.0, rtol=1e-4)
    np.testing.assert_array_less(1.0, prices(np.full(130, 48.0, np.float32))[1:])
    few = np.where(steps < 100, wanted, 1.5).astype(np.float32)
    np.testing.assert_array_less(prices(few)[101:], 1.0)


def test_a_price_without_influence_does_not_fall_further():
    """L0 falls to 4 by itself, far below the wanted value, and then stays above the target of 3.

    Fails if the price has no minimum, or if the wanted value ignores that L0 has fallen: the price
    is then 0.005 at step 600 (here 1.7), because it waits for the planned course.
    """
    inputs = jnp.full((4, 16), 1.0)
    controller = Controller(3.0, descent=1_000)

    def after(memory, given):
        step, l0 = given
        price, changed = controller.apply(memory, jnp.full(4, l0), inputs, step, mutable=["memory"])
        return changed, price

    steps = np.arange(1_200)
    l0 = np.maximum(40.0 * 0.9**steps, 4.0).astype(np.float32)
    start = controller.init(jax.random.key(0))
    _, prices = jax.lax.scan(after, start, (jnp.asarray(steps), jnp.asarray(l0)))
    highest = 2.0 * 16.0 / 3.0
    assert float(jnp.min(prices)) > highest / 2_000 * np.exp(-1.0) * 0.999
    assert float(prices[600]) > 1.0


STEERED = {
    "April": (ae.ReLU(64, l0=6), ae.sparse(steered=losses.weighted_l1)),
    "L1": (ae.ReLU(64, l0=6), ae.sparse(steered=losses.l1)),
    "Gated": (
        ae.Gated(64, l0=6),
        ae.merge(
            ae.sparse(steered=losses.gate_l1()),
            {"gate": (1.0, losses.gate_error())},
        ),
    ),
    "JumpReLU": (ae.JumpReLU(64, l0=3, bandwidth=0.2), ae.sparse(steered=losses.l0)),
}


@pytest.mark.parametrize("name", STEERED)
def test_the_price_finds_its_target_on_data_of_any_scale(name):
    """L0 is within 5 % of it at scales 0.1, 1 and 10.

    Fails if the price does not change, or if the scale is not used. The three members of one
    compiled program have data of their own.
    """
    bottleneck, objective = STEERED[name]
    random = np.random.default_rng(0)
    atoms = random.normal(size=(48, 16))
    active = (random.random((2048, 48)) < 0.1) * (1.0 + random.random((2048, 48)))
    x = active @ atoms + 0.3 * random.normal(size=(2048, 16)) + 3.0
    scale = ae.nets.Scale
    made = ae.Autoencoder(scale(), bottleneck, ae.nets.Dictionary(16, scale=scale()))
    tx = optax.chain(optax.adam(3e-3), unit_rows()) if name in ("L1", "Gated") else optax.adam(3e-3)
    single = ae.learner(made, objective, tx, initialise=(ae.standardised(), ae.tied))
    learner = ae.seeds(single, 3)
    scales = np.array([0.1, 1.0, 10.0])[:, None, None]
    start = jnp.asarray(scales * x[None], jnp.float32)
    rows = random.integers(0, 2048, (4000, 128))
    keys = jnp.stack([jax.random.key(0)] * 3)
    state = jax.jit(learner.init)(keys, ae.Batch(start, start))

    def step(state, t):
        batch = start[:, t]
        return learner.step(state, ae.Batch(batch, batch))

    state, metrics = kinds.optimised(lambda s: jax.lax.scan(step, s, jnp.asarray(rows)))(state)
    l0 = jax.jit(jax.vmap(lambda one, x: made.apply(one, ae.Batch(x, x)).code.l0))
    found = np.mean(np.asarray(l0(learner.variables(state), start)), axis=1)
    np.testing.assert_array_less(np.abs(found / bottleneck.l0 - 1.0), 0.05)
    assert np.mean(np.asarray(metrics["l0"])[:10]) > 2 * bottleneck.l0


def test_the_price_finds_its_target_where_the_target_is_larger_than_the_input():
    """A transcoder maps 4 values to 256.

    Fails (L0 9 instead of 6) if the inputs' energy caps the price.
    """
    random = np.random.default_rng(0)
    atoms, outputs = random.normal(size=(48, 4)), random.normal(size=(48, 256))
    active = (random.random((2048, 48)) < 0.1) * (1.0 + random.random((2048, 48)))
    x = jnp.asarray(active @ atoms + 0.3 * random.normal(size=(2048, 4)), jnp.float32)
    y = jnp.asarray(active @ outputs + 0.3 * random.normal(size=(2048, 256)), jnp.float32)
    scale = ae.nets.Scale
    code = ae.ReLU(64, l0=6, descent=300)
    made = ae.Autoencoder(scale(), code, ae.nets.Dictionary(256, scale=scale()))
    objective, start = ae.sparse(steered=losses.weighted_l1), ae.standardised()
    learner = ae.learner(made, objective, optax.adam(3e-3), initialise=start)
    rows = jnp.asarray(random.integers(0, 2048, (1500, 128)))

    def step(state, t):
        return learner.step(state, ae.Batch(x[t], y[t]))

    state = jax.jit(learner.init)(jax.random.key(0), ae.Batch(x, y))
    state, metrics = kinds.optimised(lambda s: jax.lax.scan(step, s, rows))(state)
    l0 = jax.jit(made.apply)(learner.variables(state), ae.Batch(x, y)).code.l0
    assert abs(float(l0.mean()) / 6 - 1.0) < 0.1
    assert np.mean(np.asarray(metrics["l0"])[:10]) > 12


UNPAIRED = {
    "price": (losses.priced(losses.l1), "ReLU has none: give the bottleneck a target"),
    "stages": (losses.lp, "use AnnealedReLU"),
    "gate": (losses.gate_l1(), "use the bottleneck Gated"),
    "gate's error": (losses.gate_error(), "use the bottleneck Gated"),
    "window": (losses.window, "use JumpReLU"),
    "lift": (losses.pre_activation, "use JumpReLU"),
    "gamma": (losses.gamma, "the encoder is a Identity: use nets.Scale"),
}


@pytest.mark.parametrize("name", UNPAIRED)
def test_a_term_says_which_part_it_needs(name):
    """The model is a ReLU behind Identity.

    Fails if a term reads a field that the model does not have.
    """
    term, said = UNPAIRED[name]
    made, variables = start(ae.ReLU(M))
    with pytest.raises(ae.UserError, match=said):
        value(made, variables, term)


DENSE = {
    "prefixes": losses.prefix_error((8, M)),
    "gate": losses.gate_l1(weighted=True),
    "gate's error": losses.gate_error(),
    "auxk": losses.auxk(),
    "ghost": losses.ghost(),
    "norms": losses.weighted_l1,
}


@pytest.mark.parametrize("name", DENSE)
def test_a_term_about_atoms_refuses_another_decoder(name):
    """Fails if a term reads the atoms of an MLP: the AttributeError names no remedy."""
    made = ae.Autoencoder(ae.nets.Identity(), ae.Gated(M), ae.nets.MLP((8,), shape=(D,)))
    variables = made.init(jax.random.key(0), data())
    with pytest.raises(ae.UserError, match="the decoder is a MLP: use Dictionary"):
        value(made, variables, DENSE[name])


AGELESS = {"dead": losses.dead(), "auxk": losses.auxk(), "ghost": losses.ghost()}


@pytest.mark.parametrize("name", AGELESS)
def test_a_term_about_dead_latents_refuses_a_code_that_counts_none(name):
    """Fails with KeyError: 'memory' if ages are read of a bottleneck that has none."""
    made = ae.Autoencoder(ae.nets.Identity(), ae.Point(M), ae.nets.Dictionary(D))
    variables = made.init(jax.random.key(0), data())
    with pytest.raises(ae.UserError, match="a Point does not count these steps: use a sparse"):
        value(made, variables, AGELESS[name])


def test_revival_by_no_latent_is_refused():
    """Fails if k is compared only with None: a share of 0 latents divides by zero."""
    with pytest.raises(ae.UserError, match="auxk has k = 0, the number of dead"):
        losses.auxk(k=0)
