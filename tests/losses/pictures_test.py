"""Tests of the terms of decoded pictures: their values in numpy, and whom each of them moves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import aejax as ae
from tests import kinds

EVENT = (4, 4, 2)
X = jnp.asarray(np.random.default_rng(0).random((3, *EVENT)), jnp.float32)
BATCH = ae.Batch(X, X)


class Layers(nn.Module):
    """Two layers of maps."""

    @nn.compact
    def __call__(self, pictures):
        first = nn.relu(nn.Dense(3)(pictures))
        return first, nn.Dense(2)(first[:, ::2, ::2])


def model(**parts):
    return ae.Autoencoder(
        ae.nets.MLP((5,)),
        ae.SpatialGaussian((2, 2), 1),
        ae.nets.MLP((4,), shape=EVENT),
        ae.priors.Standard(),
        ae.likelihoods.Gaussian(),
        parts={"features": Layers(), "critic": nn.Dense(1), **parts},
    )


TERMS = {
    "perceptual": ae.losses.perceptual(),
    "critic": ae.losses.patch_critic(),
    "deceive": ae.losses.patches_deceive(),
}


def test_each_term_has_its_value_and_moves_one_player():
    """Fails if the features are not scaled to norm 1, if the hinge has another side, or if a
    gradient is not stopped.
    """
    one = model()
    learner = ae.learner(one, {name: (1.0, term) for name, term in TERMS.items()}, optax.sgd(1.0))
    params = kinds.begun(learner, BATCH).params

    @jax.jit
    def run(params):
        def costs(params):
            bound = one.bind({"params": params})
            forward = bound(BATCH, jax.random.key(1))
            found = {name: term(bound, forward) for name, term in TERMS.items()}
            seen = {name: bound.parts[name](X) for name in ("features", "critic")}
            made = {name: bound.parts[name](forward.prediction) for name in ("features", "critic")}
            return found, (seen, made)

        values, seen = costs(params)
        slopes = {
            name: jax.grad(lambda params, name=name: jnp.sum(costs(params)[0][name]))(params)
            for name in TERMS
        }
        return values, seen, slopes

    values, (seen, made), slopes = jax.tree.map(np.asarray, run(params))
    expected = 0.0
    for pair in zip(seen["features"], made["features"], strict=True):
        a, b = (maps / np.linalg.norm(maps, axis=-1, keepdims=True) for maps in pair)
        expected = expected + np.sum((a - b) ** 2, axis=-1).mean((1, 2))
    np.testing.assert_allclose(values["perceptual"], expected, rtol=1e-4)
    real, fake = seen["critic"], made["critic"]
    hinge = np.maximum(0, 1 - real) + np.maximum(0, 1 + fake)
    np.testing.assert_allclose(values["critic"], 0.5 * hinge.mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(values["deceive"], -fake.mean((1, 2, 3)), rtol=1e-5)
    moved = {
        name: {part for part, tree in slope.items() if any(map(np.any, jax.tree.leaves(tree)))}
        for name, slope in slopes.items()
    }
    rest = {"encoder", "bottleneck", "decoder"}
    assert moved == {"perceptual": rest, "critic": {"parts_critic"}, "deceive": rest}


def test_a_missing_net_and_features_that_are_no_maps_are_refused():
    flat = model(features=ae.nets.MLP((2,), shape=(3,)))
    for term, message in (
        (TERMS["perceptual"], "needs maps"),
        (ae.losses.patch_critic("other"), "no net named 'other'"),
    ):
        learner = ae.learner(flat, {"term": (1.0, term)}, optax.sgd(1.0))
        with pytest.raises(ae.UserError, match=message):
            jax.eval_shape(learner.init, jax.random.key(0), BATCH)
