"""Tests that a sweep's run records its settings, and that each of its models can be loaded."""

from __future__ import annotations

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aejax as ae
from aejax import recipes
from aejax.runs.load import _chosen

SETTINGS = np.repeat([2.0, 5.0], 2)


def built(k):
    return recipes.topk(6, 16, 5, active=k)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    x = np.random.default_rng(0).normal(size=(96, 6)).astype(np.float32)
    train, *_ = ae.data.arrays(x, validation=8, test=8)

    def learner(k):
        made = built(k)
        return ae.learner(made.model, made.objective, made.tx, initialise=made.initialise)

    swept = ae.compiled(ae.chunked(ae.swept(learner, SETTINGS), 2))
    folder = tmp_path_factory.mktemp("sweep") / "run"
    batches = ae.data.Batches(train, size=16, seed=0)
    options = {"model": lambda k: built(k).model, "settings": SETTINGS}
    with ae.Run(folder, {"steps": 2}, **options) as run:
        state = run.restore(swept.init(jax.random.key(0), batches[0]))
        for new, metrics in ae.loop(swept, state, batches, steps=2, progress=False):
            run.log(new, metrics)
            run.save(new)
            variables = jax.device_get(swept.variables(new))
    return folder, train, variables


@pytest.mark.parametrize(("setting", "seed", "member"), [(2, 0, 0), (2.0, 1, 1), (5.0, 1, 3)])
def test_a_member_has_its_own_number_of_active_latents(run, setting, seed, member):
    """Fails if all are loaded with the first setting's model, or seeds count other members."""
    folder, train, whole = run
    for chosen in ({"setting": setting, "seed": seed}, {"seed": member}):
        model, variables, _ = ae.load(folder, **chosen)
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[member]), variables, whole)
        code = model.bind(variables).posterior(next(train.batches(16)))
        assert float(code.l0.max()) == setting


def test_an_unknown_setting_is_named(run):
    """Fails if a neighbour is loaded instead."""
    folder, *_ = run
    with pytest.raises(ae.UserError, match=r"trained with the setting 3: choose one of 2.0, 5.0"):
        ae.load(folder, setting=3, seed=0)
    with pytest.raises(ae.UserError, match=r"2 models trained with the setting 5: .* from 0 to 1"):
        ae.load(folder, setting=5, seed=2)


def test_a_sweep_of_other_settings_does_not_resume(run):
    """Fails if the settings are recorded, but not compared."""
    folder, *_ = run
    options = {"model": lambda k: built(k).model, "settings": np.repeat([2.0, 4.0], 2)}
    refused = pytest.raises(ae.UserError, match=r"sweep.1.setting was 5.0 and is 4.0")
    with refused, ae.Run(folder, {"steps": 2}, **options):
        pass


SWEPT = {
    "k": (lambda k: ae.TopK(8, k), "sweep active, as in TopK"),
    "signed k": (lambda k: ae.AbsTopK(8, k), "sweep active, as in AbsTopK"),
    "batch k": (lambda k: ae.BatchTopK(8, k), "give the largest k as slots"),
    "latents": (ae.ReLU, "determines the shape of an array"),
}


@pytest.mark.parametrize("name", SWEPT)
def test_a_shape_cannot_be_swept_and_says_what_can(name):
    """Fails with TracerBoolConversionError, or with an error of a kernel."""
    code, said = SWEPT[name]

    def learner(k):
        model = ae.Autoencoder(ae.nets.Identity(), code(k), ae.nets.Dictionary(4))
        return ae.learner(model, ae.sparse(), ae.recipes.topk(4, 8, 2).tx)

    batch = ae.Batch(jnp.ones((4, 4)), jnp.ones((4, 4)))
    swept = ae.swept(learner, jnp.asarray([2, 3]))

    def go(key):
        return swept.step(swept.init(key, batch), batch)

    with pytest.raises(ae.UserError, match=said):
        jax.eval_shape(go, jax.random.key(0))


def test_bandwidths_and_thresholds_are_swept():
    """Each member as if alone. Fails if a traced bandwidth is a static argument of a derivative."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(32, 4)), jnp.float32)
    batch = ae.Batch(x, x)

    def learner(setting):
        code = ae.JumpReLU(8, threshold=setting[0], bandwidth=setting[1])
        model = ae.Autoencoder(ae.nets.Identity(), code, ae.nets.Dictionary(4, norm=1.0))
        return ae.learner(model, ae.objectives.jumprelu(0.5), ae.recipes.topk(4, 8, 2).tx)

    settings = jnp.asarray([[0.3, 0.1], [0.3, 0.9], [0.8, 0.9]])
    swept = ae.swept(learner, settings)
    keys = jnp.stack([jax.random.key(0)] * 3)
    state, _ = jax.jit(swept.step)(jax.jit(swept.init)(keys, batch), batch)
    for i in (0, 2):
        threshold, bandwidth = np.asarray(settings).tolist()[i]
        alone = learner((threshold, bandwidth))
        own, _ = jax.jit(alone.step)(jax.jit(alone.init)(keys[0], batch), batch)
        for path in (("bottleneck", "log_threshold"), ("decoder", "atoms")):
            found, wanted = state.params[path[0]][path[1]][i], own.params[path[0]][path[1]]
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    thresholds = np.asarray(state.params["bottleneck"]["log_threshold"])
    assert np.any(thresholds[0] != thresholds[1])


def test_the_name_of_a_setting_may_be_left_out():
    """Fails if only {"beta": 4.0} is found, or if the message shows a mapping."""
    entry = {"setting": {"beta": 4.0}, "members": [3, 4], "model": "described"}
    record = {"sweep": {"0": entry}, "model": None}
    for setting in (4.0, {"beta": 4.0}):
        assert _chosen(pathlib.Path("run"), record, 1, setting) == (4, "described")
    with pytest.raises(ae.UserError, match=r"with the setting 3.0: choose one of beta=4.0"):
        _chosen(pathlib.Path("run"), record, 1, 3.0)
