"""Recipes: steered codes arrive at their L0, what does not fit is refused, what missed is said."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax import losses, recipes, report
from aejax.dictionaries.recipe import Recipe
from aejax.runs import metrics as logged
from experiments.shared.planted import SMALL, Planted, fitting, measured, plant, scaled

STEERED = {
    "relu": recipes.relu,
    "april": recipes.april,
    "annealed": recipes.annealed,
    "gated": recipes.gated,
    "jumprelu": recipes.jumprelu,
    "transcoder": recipes.transcoder,
    "skip_transcoder": recipes.skip_transcoder,
    "crosscoder": recipes.crosscoder,
}
FIXED = {
    "topk": recipes.topk,
    "batchtopk": recipes.batchtopk,
    "matryoshka": recipes.matryoshka,
}
LAYERS = {"transcoder": (1,), "skip_transcoder": (1,), "crosscoder": (2,)}
STEPS = 1_200
FEW = Planted(size=16, features=24, probability=0.08, tokens=8_000, latents=32, l0=2.0)


def made(name: str, about: Planted, steps: int | None) -> Recipe:
    event = (*LAYERS.get(name, ()), about.size)
    if name in FIXED:
        return FIXED[name](event, about.latents, round(about.l0), steps=steps)
    return STEERED[name](event, about.latents, l0=about.l0, steps=steps)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("gated", "jumprelu")]


@pytest.mark.parametrize("name", ["relu", *SLOW])
def test_a_recipe_ends_at_its_number_of_active_latents(name):
    """Within 8 % on held-out data after a short run. Fails if the price stands still."""
    train, held = plant(FEW)
    recipe = made(name, FEW, STEPS)
    variables = jax.tree.map(lambda leaf: leaf[0], fitting(recipe, STEPS, size=128)(train))
    assert measured(recipe, variables, held).l0 == pytest.approx(FEW.l0, rel=0.08)


@pytest.mark.slow
@pytest.mark.parametrize("name", STEERED)
def test_the_recipes_defaults_suit_the_planted_table(name):
    """3,000 steps at data times 0.1, 1 and 10: L0 within 5 %, and as much explained as by TopK.

    But for the two L1 codes, whose shrinkage leaves less than half of it (`planted` has figures).
    """
    train, held = plant(SMALL)
    recipe = made(name, SMALL, None)
    fit, found = fitting(recipe, 3_000, seeds=3), []
    for scale in (0.1, 1.0, 10.0):
        variables = fit(scaled(train, scale))
        for i in range(3):
            own = jax.tree.map(lambda leaf, i=i: leaf[i], variables)
            found.append(measured(recipe, own, scaled(held, scale)))
    l0 = np.reshape([one.l0 for one in found], (3, 3)).mean(axis=1)
    near = 0.08 if name == "relu" else 0.05  # its runs differ by 7 %, whatever the scale
    np.testing.assert_allclose(l0, SMALL.l0, rtol=near)
    if name not in ("relu", "april"):
        topk = made("topk", SMALL, None)
        decoder = recipe.model.decoder
        beside = topk._replace(
            model=topk.model.clone(decoder=decoder), initialise=recipe.initialise
        )
        variables = jax.tree.map(lambda leaf: leaf[0], fitting(beside, 3_000)(train))
        most = measured(beside, variables, held).explained
        assert min(one.explained for one in found) > most - 0.02


def test_a_recipe_does_not_see_the_scale_of_its_data():
    """Data times 0.1 and 10 give the same L0. Fails if a scale or a start is left out."""
    train, held = plant(FEW)
    recipe, found = made("jumprelu", FEW, 200), []
    fit = fitting(recipe, 200, size=128)
    for scale in (1.0, 0.1, 10.0):
        variables = jax.tree.map(lambda leaf: leaf[0], fit(scaled(train, scale)))
        found.append(measured(recipe, variables, scaled(held, scale)))
    np.testing.assert_allclose([one.l0 for one in found], found[0].l0, rtol=0.05)
    np.testing.assert_allclose([one.explained for one in found], found[0].explained, atol=0.02)
    assert np.std([one.dead for one in found]) < 0.1


def test_thresholds_and_prices_are_what_makes_jumprelu_arrive():
    """A share of the way. Fails if thresholds, or the biases of a penalised code, have the rate of
    the rest, if the decoder's bias has another, or if atoms grow freely."""

    def moved(recipe) -> tuple[Any, Any]:
        """The parameters after one step, and by how much the step moved them."""
        batch = ae.Batch(jnp.ones((4, 40)), jnp.ones((4, 40)))
        shapes = jax.eval_shape(recipe.model.init, jax.random.key(0), batch)["params"]
        params = jax.tree.map(lambda leaf: np.full(leaf.shape, 40**-0.5, np.float32), shapes)

        def step(params):
            return recipe.tx.update(params, recipe.tx.init(params), params)[0]

        updates = jax.jit(step)(params)
        after = jax.tree.map(np.add, params, updates)
        return after, jax.tree.map(lambda leaf: float(np.max(np.abs(leaf))), updates)

    _, far = moved(recipes.jumprelu(40, 16, l0=3.0))
    assert far["bottleneck"]["log_threshold"] == pytest.approx(5e-3, rel=1e-3)
    slow = 1 / (60 * 40**0.5)
    assert far["decoder"]["atoms"] == pytest.approx(slow, rel=1e-3)
    after, far = moved(recipes.relu(40, 16, l0=3.0))
    assert far["bottleneck"]["encode"]["bias"] == pytest.approx(1 / 60, rel=1e-3)
    assert far["decoder"]["bias"] == pytest.approx(slow, rel=1e-3)
    np.testing.assert_allclose(np.linalg.norm(after["decoder"]["atoms"], axis=-1), 1, rtol=1e-5)


def test_a_known_number_of_steps_ends_at_a_rate_of_zero():
    """Fails if the schedules do not reach optimiser, controller and stages."""
    recipe = recipes.annealed(8, 16, l0=2.0, steps=80, learning_rate=0.1)
    code = recipe.model.bottleneck
    assert (code.descent, code.begin, code.every) == (40, 20, 10)
    params = {"decoder": {"atoms": jnp.full((16, 8), 8**-0.5)}}

    def step(state, t):
        gradient = {"decoder": {"atoms": jnp.cos(jnp.arange(128.0) + t).reshape(16, 8)}}
        updates, state = recipe.tx.update(gradient, state, params)
        return state, jnp.max(jnp.abs(updates["decoder"]["atoms"]))

    start = recipe.tx.init(params)
    moved = np.asarray(jax.jit(lambda: jax.lax.scan(step, start, jnp.arange(81.0))[1])())
    assert moved[60] > 1e-3
    assert moved[80] < 1e-6


@pytest.mark.parametrize("name", FIXED)
def test_dead_latents_are_revived_unless_told_otherwise(name):
    """Fails if a recipe leaves AuxK out, or ignores its weight."""
    assert FIXED[name](4, 16, 2).objective["auxk"][0] == 1 / 32
    assert FIXED[name](4, 16, 2, auxk=0.5).objective["auxk"][0] == 0.5
    assert "auxk" not in FIXED[name](4, 16, 2, auxk=None).objective


@pytest.mark.parametrize("name", STEERED)
def test_either_a_target_or_a_price_is_asked_for(name):
    """Fails if a recipe prefers one of the two without a word."""
    for given in ({}, {"l0": 3.0, "weight": 0.1}):
        with pytest.raises(ae.UserError, match=f"{name} was given .* of l0 and weight"):
            STEERED[name]((2, 4), 16, **given)
    fixed = STEERED[name]((2, 4), 16, weight=0.1)
    assert fixed.objective["price"][0] == 0.1
    assert fixed.model.bottleneck.l0 is None


def test_half_of_steering_is_refused():
    """Fails if a target without a steered term, or such a term without a target, trains."""
    tx = optax.adam(1e-3)

    def model(code):
        return ae.Autoencoder(ae.nets.Identity(), code, ae.nets.Dictionary(4))

    with pytest.raises(ae.UserError, match=r"event \(32,\): give \(layers, size\)"):
        recipes.crosscoder((32,), 64, l0=3.0)
    with pytest.raises(ae.UserError, match="JumpReLU is given a target for L0, but no term"):
        ae.learner(model(ae.JumpReLU(8, l0=3)), ae.sparse(l1=0.1), tx)
    with pytest.raises(ae.UserError, match=r"'price' is adjusted .* but ReLU is given no target"):
        ae.learner(model(ae.ReLU(8)), ae.sparse(steered=losses.penalty), tx)
    ae.learner(model(ae.ReLU(8, l0=3)), ae.sparse(steered=losses.penalty), tx)


def test_a_run_that_misses_its_target_says_so(tmp_path):
    """At the end of the loop and in the report. Fails if it ends without a word."""
    x = np.random.default_rng(0).normal(size=(256, 8)).astype(np.float32)
    train, *_ = ae.data.arrays(x, validation=8, test=8)
    recipe = recipes.jumprelu(8, 16, l0=1.0, steps=4)
    config = {"steps": 4}
    learner = ae.learner(recipe.model, recipe.objective, recipe.tx, initialise=recipe.initialise)
    learner = ae.compiled(ae.chunked(ae.seeds(learner, 2), 4))
    batches = ae.data.Batches(train, size=32, seed=0)
    with ae.Run(tmp_path / "run", config, model=recipe.model) as run:
        state = run.restore(learner.init(jax.random.key(0), batches[0]))
        trained = ae.loop(learner, state, batches, steps=4, progress=False)
        run.log(*next(trained))
        with pytest.warns(UserWarning, match=r"its target L0 in 2 of 2 members \(members 0, 1\)"):
            list(trained)
    columns = {"jumprelu": logged.read(tmp_path / "run")}
    assert "ends" in report.steering_verdict(columns)
    section = report.steering_section(columns)
    assert section is not None
    assert section.title == "Active latents miss their target"
    near = {"step": np.arange(20), "off_target": np.full((20, 2), 0.04)}
    assert report.steering_verdict({"near": near}) == ""
    far = {**near, "validation_off_target": np.full((20, 2), [0.02, -0.3])}
    assert "30% below" in report.steering_verdict({"far": far})
    assert report.steering_section({"free": {"step": np.arange(4)}}) is None
