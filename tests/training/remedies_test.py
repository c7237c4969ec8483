"""Tests remedies for posterior collapse that are wrappers, optimisers, bottlenecks or terms."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax.bottlenecks import GaussianCode
from aejax.types import Forward
from tests import kinds

X = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
BATCH = ae.Batch(jnp.asarray(X), jnp.asarray(X))


def model(bottleneck=None) -> ae.Autoencoder:
    return ae.Autoencoder(
        ae.nets.MLP((4,)),
        bottleneck or ae.Gaussian(3),
        ae.nets.MLP((), (5,)),
        ae.priors.Standard(),
        ae.likelihoods.LearnedGaussian(),
    )


def path(learner: ae.Learner, steps: int) -> list[ae.State]:
    states, step = [kinds.begun(learner, BATCH)], jax.jit(learner.step)
    for _ in range(steps):
        states.append(step(states[-1], BATCH)[0])
    return states


def same(a, b, *parts: str) -> list[bool]:
    return [
        all(map(np.array_equal, jax.tree.leaves(a.params[p]), jax.tree.leaves(b.params[p])))
        for p in parts
    ]


def test_an_aggressive_optimiser_waits_with_the_decoder():
    """Fails if the decoder moves in between, or its moments do."""
    tx = ae.aggressive(optax.adam(1e-2), every=3, until=6)
    states = path(ae.learner(model(), ae.elbo(), tx), 8)
    pairs = list(itertools.pairwise(states))
    assert [same(a, b, "decoder")[0] for a, b in pairs] == [True, True, False] * 2 + [False] * 2
    assert not any(any(same(a, b, "encoder", "bottleneck")) for a, b in pairs)
    counts = optax.tree.get_all_with_path(states[-1].opt, "count")
    assert {int(value) for _, value in counts} >= {4, 8}
    with pytest.raises(ae.UserError, match="every is 0"):
        ae.aggressive(optax.adam(1e-2), 0, 5)


def test_a_restart_gives_the_decoder_new_parameters_and_keeps_the_encoder():
    """Fails if the encoder is reset too, or the restart comes a step late."""
    plain = ae.learner(model(), ae.elbo(), optax.sgd(0.0))
    states = path(ae.restarted(plain, 2), 4)
    pairs = list(itertools.pairwise(states))
    assert [same(a, b, "decoder")[0] for a, b in pairs] == [True, True, False, True]
    assert all(all(same(a, b, "encoder", "bottleneck")) for a, b in pairs)
    kernel = np.asarray(states[-1].params["decoder"]["output"]["kernel"])
    fresh = jax.jit(plain.init)(jax.random.fold_in(states[0].key, 2), BATCH).params["decoder"]
    np.testing.assert_allclose(kernel, fresh["output"]["kernel"], rtol=1e-6)
    with pytest.raises(ae.UserError, match="chunked\\(restarted"):
        ae.restarted(ae.chunked(plain, 2), 2)


def test_normalised_means_keep_the_kl_above_its_bound():
    """Fails if gamma multiplies the variance, or evaluation uses the statistics of its batch."""
    own = model(ae.NormalisedGaussian(3, gamma=0.8))
    learner = ae.learner(own, ae.elbo(beta=50.0), optax.adam(3e-2))
    states = path(learner, 40)
    bound = own.bind(learner.variables(states[-1]))
    code = bound.code(BATCH, bound.features(BATCH), None)
    one = jax.tree.map(lambda leaf: leaf[:1], BATCH)
    alone = bound.code(one, bound.features(one), None)
    np.testing.assert_allclose(alone.mean, code.mean[:1], rtol=1e-5, atol=1e-6)
    features = bound.features(BATCH)
    trained, _ = own.apply(
        learner.variables(states[-1]), BATCH, features, None, method="code", mutable=["memory"]
    )
    np.testing.assert_allclose(np.std(trained.mean, axis=0), 0.8, rtol=1e-3)
    kl = ae.losses.kl(bound, bound.explain(BATCH, features, trained))
    assert float(kl.mean()) >= 3 * 0.8**2 / 2 - 1e-3  # latents gamma^2 / 2


def test_terms_by_hand():
    """Fails if padding counts, or the distance is not that from the centre of the means."""
    target = jnp.asarray([[2, 3, 1, 0], [1, 0, 0, 0]])
    own = ae.Autoencoder(
        ae.nets.TokenGRU(4, 3),
        ae.Gaussian(2),
        ae.nets.MLP((), (1, 4)),
        parts={"words": ae.nets.MLP((), (4,))},
    )
    batch = ae.Batch(target, target)
    forward = Forward(batch, None, None, None, jnp.zeros(()), None)
    z = jnp.asarray([[0.3, -1.0], [2.0, 0.5]])
    mean = jnp.asarray([[1.0, 2.0], [3.0, -2.0]])
    forward = forward._replace(code=GaussianCode(z, mean, 0.0 * mean))
    term = ae.losses.bag_of_words()
    params = own.init(jax.random.key(0), forward, method=term)
    bound = own.bind(params)
    logits = np.asarray(bound.parts["words"](z))
    log = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = [-(log[0, 2] + log[0, 3] + log[0, 1]), -log[1, 1]]
    np.testing.assert_allclose(term(bound, forward), expected, rtol=1e-5)
    # The centre is (2, 0), the squared distance of each mean 1 + 4.
    np.testing.assert_allclose(ae.losses.mean_distance(4.0)(bound, forward), [1.5, 1.5])
    np.testing.assert_allclose(ae.losses.mean_distance(2.0)(bound, forward), [0.0, 0.0])
    with pytest.raises(ae.UserError, match="no net named 'other' in its parts"):
        ae.losses.bag_of_words("other")(bound, forward)
    with pytest.raises(ae.UserError, match=r"share = 1.5"):
        ae.losses.word_dropout(1.5)
