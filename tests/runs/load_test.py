"""Tests of opening runs: the model is made from its description, and no code is read from a
file.
"""

import json
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax.errors import UserError
from aejax.runs import metrics
from aejax.runs.load import load
from aejax.runs.model_json import from_json, to_json
from aejax.runs.run import Run


def build(**options):
    return ae.Autoencoder(
        encoder=ae.nets.MLP((8,), dtype=jnp.bfloat16, activation=nn.gelu),
        bottleneck=ae.Gaussian(2),
        decoder=ae.nets.MLP((8,), shape=(4,), **options),
        prior=ae.priors.Standard(),
        likelihood=ae.likelihoods.Gaussian(std=0.5),
    )


class Mine(nn.Module):
    """A part of the user's own."""

    @nn.compact
    def __call__(self, x, context=None):
        return x


BATCH = ae.Batch(np.ones((3, 4), np.float32), np.ones((3, 4), np.float32))


def train(folder, learner, **options):
    """Takes one step, after which parameters, average and optimiser state all differ."""
    learner = ae.compiled(learner)
    with Run(folder, {"steps": 1, "widths": (8, 8)}, **options) as run:
        state = run.restore(learner.init(jax.random.key(0), BATCH))
        state, _ = learner.step(state, BATCH)
        run.save(state)
    return learner.variables(state)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, dict(a), dict(b))


def test_models_survive_json():
    """Fails if activations or dtypes are left out."""
    model = build(activation=nn.tanh)
    data = json.loads(json.dumps(to_json(model)))
    again = from_json(data)
    assert again == model
    assert to_json(again) == data
    assert again.encoder.activation is nn.gelu


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"class": "os.system", "fields": {}}, "os.system"),
        ({"class": "aejax.files.os", "fields": {}}, "aejax.files.os"),
        ({"class": "aejax.model.nn", "fields": {}}, "aejax.model.nn"),
        ({"class": "aejax.nets.mlp.nn.Module", "fields": {}}, "nn.Module"),
        ({"class": "aejax.nowhere.MLP", "fields": {}}, "aejax.nowhere.MLP"),
        ({"class": "aejax.nets.mlp.MLP", "fields": {"depth": 3}}, "a field 'depth'"),
        ({"function": "os.system"}, "os.system"),
        ({"opaque": "mine.Net"}, "mine.Net"),
        ({"anything": 1}, "anything"),
    ],
)
def test_only_classes_of_aejax_are_made(data, words):
    """Fails if the module of a class is not checked."""
    with pytest.raises(UserError, match=words):
        from_json({"mapping": {"part": [data]}})


def test_what_a_module_of_aejax_has_imported_is_not_its_own(monkeypatch):
    """Fails without the comparison of `__module__`."""
    monkeypatch.setattr("aejax.model.Imported", Mine, raising=False)
    with pytest.raises(UserError, match=r"aejax.model.Imported cannot be rebuilt"):
        from_json({"class": "aejax.model.Imported", "fields": {}})


def test_a_run_opens_again(tmp_path):
    learner = ae.learner(build(), ae.elbo(), optax.adam(0.1))
    variables = train(tmp_path, learner, model=build())
    model, found, config = load(tmp_path)
    assert model == build()
    same(found, variables)
    assert (config.steps, config.widths, type(config).__name__) == (1, (8, 8), "Config")
    assert model.apply(found, BATCH, jax.random.key(0)).prediction.shape == (3, 4)


def test_the_average_is_what_opens(tmp_path):
    """Fails if load takes the parameters, which differ from their average after a step."""
    learner = ae.averaged(ae.learner(build(), ae.elbo(), optax.adam(0.1)), 0.9)
    variables = train(tmp_path, learner, model=build())
    opened = load(tmp_path)
    same(opened.variables, variables)


def test_a_member_of_a_run_with_seeds(tmp_path):
    learner = ae.seeds(ae.learner(build(), ae.elbo(), optax.adam(0.1)), 3, shared_data=True)
    variables = train(tmp_path, learner, model=build())
    same(load(tmp_path).variables, variables)
    same(load(tmp_path, seed=2).variables, jax.tree.map(lambda leaf: leaf[2], variables))
    with pytest.raises(UserError, match="has no seed 3: choose one of its 3 seeds"):
        load(tmp_path, seed=3)


def test_sampling_needs_no_encoder(tmp_path):
    """Fails if load checks files of parts that were not asked for."""
    variables = train(tmp_path, ae.learner(build(), ae.elbo(), optax.adam(0.1)), model=build())
    for path in tmp_path.glob("checkpoints/*/arrays/*encoder*"):
        if "decoder" not in path.name:
            shutil.rmtree(path)
    found = load(tmp_path, parts=("decoder", "prior")).variables
    assert list(found["params"]) == ["decoder"]
    same(found["params"]["decoder"], variables["params"]["decoder"])
    with (
        pytest.warns(UserWarning, match=r"damaged: arrays/params.encoder"),
        pytest.raises(UserError, match="all checkpoints are damaged"),
    ):
        load(tmp_path)


def test_parts_of_ones_own_have_to_be_given(tmp_path):
    model = build().clone(encoder=Mine())
    variables = train(tmp_path, ae.learner(model, ae.elbo(), optax.adam(0.1)), model=model)
    with pytest.raises(UserError, match="Mine cannot be rebuilt"):
        load(tmp_path)
    same(load(tmp_path, model=model).variables, variables)


def test_another_model_than_the_recorded_one_is_refused(tmp_path):
    """Its arrays may fit, so that nothing else would tell. Fails if the models are not compared."""
    variables = train(tmp_path, ae.learner(build(), ae.elbo(), optax.adam(0.1)), model=build())
    same(load(tmp_path, model=build()).variables, variables)
    for other, said in (
        (build().clone(bottleneck=ae.Gaussian(3)), "bottleneck.latents was 2 and is 3"),
        (build().clone(bottleneck=ae.Point(2)), "bottleneck.class was .*Gaussian' and is .*Point'"),
        (build(activation=nn.tanh), r"decoder.activation\S* was .*relu' and is .*tanh'"),
    ):
        with pytest.raises(UserError, match=f"was trained with another model: model.{said}"):
            load(tmp_path, model=other)


def test_folders_that_do_not_open(tmp_path):
    with pytest.raises(UserError, match=r"holds no run, because it has no config.json"):
        load(tmp_path)
    learner = ae.learner(build(), ae.elbo(), optax.adam(0.1))
    with Run(tmp_path / "run", {}) as run:
        run.restore(learner.init(jax.random.key(0), BATCH))
    with pytest.raises(UserError, match="does not describe the model"):
        load(tmp_path / "run")
    with pytest.raises(UserError, match="has no checkpoint yet"):
        load(tmp_path / "run", model=build())


def test_another_model_is_refused(tmp_path):
    learner = ae.learner(build(), ae.elbo(), optax.adam(0.1))
    train(tmp_path, learner, model=build())
    with pytest.raises(UserError, match=r"model.encoder.activation.function was 'jax.nn.gelu'"):
        train(tmp_path, learner, model=build().clone(encoder=ae.nets.MLP((8,), dtype=jnp.bfloat16)))


def test_metrics_come_back_as_columns(tmp_path):
    """Fails if NaN is written bare, which is no JSON, or if floats lose digits."""
    file = metrics.MetricsFile(tmp_path / metrics.NAME)
    file.resume(0)
    loss = np.array([[1 / 3, np.nan, np.inf], [-np.inf, 1e-30, 2.0]], np.float32)
    file.append(4, {"loss": loss}, figures={"error": np.array([7.0, 8.0])})
    file.append(7, {"loss": loss}, every=4)
    file.close()
    for line in (tmp_path / metrics.NAME).read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"bare {name}"))
    found = metrics.read(tmp_path)
    np.testing.assert_array_equal(found["step"], [4, 5, 6, 8])
    np.testing.assert_array_equal(found["loss"].astype(np.float32), loss.T[[0, 1, 2, 1]])
    np.testing.assert_array_equal(found["error"][2], [7.0, 8.0])
    assert np.isnan(found["error"][[0, 1, 3]]).all()
