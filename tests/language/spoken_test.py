"""Tests a frozen language model in a text autoencoder against the language model alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax import language as lm
from aejax.data.text.coding import encode
from tests.experiments.conftest import model as folder  # noqa: F401  (a fixture)

LENGTH, PREFIX = 7, 2
TEXTS = ["w1 w2 w3", "w4 w5 w6 w7 w8", "w9"]


@pytest.fixture(scope="module")
def stored(folder):  # noqa: F811
    return lm.Stored.of(folder)


def autoencoder(stored: lm.Stored, prefix: int = PREFIX) -> Any:
    spoken = lm.Spoken(stored.vocabulary(), None, LENGTH, prefix, 5)
    decoder = ae.nets.MLP((), shape=spoken.shape((LENGTH,)))
    encoder = lm.HiddenStates(stored, 0, 4, 2)
    return ae.Autoencoder(encoder, ae.Gaussian(3), decoder, ae.priors.Standard(), spoken)


def rows(stored: lm.Stored, length: int = LENGTH) -> jax.Array:
    coding: Any = stored.vocabulary()
    return jnp.asarray(encode(coding, TEXTS, length))


def test_without_a_prefix_it_is_the_language_model(stored):
    """Fails if the end has two ids with a probability, or texts do not begin with the start."""
    own, found = autoencoder(stored, 0), lm.load(stored.path)
    x = rows(stored)
    blank = jnp.zeros((len(TEXTS), 1, 1))
    log_prob = jax.jit(lambda x: own.likelihood.apply({}, blank, x, method="log_prob"))(x)
    start = end = found.tokenizer.bos
    texts = [[start, *found.tokenizer.encode(text), end] for text in TEXTS]
    tokens = jnp.asarray([text + [0] * (LENGTH + 1 - len(text)) for text in texts])
    logits = jax.jit(found.model.apply)(found.variables, tokens)
    each = np.asarray(jax.nn.log_softmax(logits), np.float64)
    for i, (text, value) in enumerate(zip(texts, np.asarray(log_prob), strict=True)):
        expected = sum(each[i, t, token] for t, token in enumerate(text[1:]))
        assert value == pytest.approx(expected, abs=1e-4)


def test_steps_give_what_a_whole_pass_gives_and_padding_nothing(stored):
    """Fails if the cache's keys or positions differ, or a soft token has another place."""
    own = autoencoder(stored)
    x = rows(stored)
    learner = ae.learner(own, ae.elbo(), optax.sgd(0.1))
    variables = learner.variables(jax.jit(learner.init)(jax.random.key(0), ae.Batch(x, x)))
    sizes = [leaf.size for leaf in jax.tree.leaves(variables)]
    vocabulary = stored.vocabulary().size
    assert max(sizes) < 8 * vocabulary  # no weight of the language model is a variable

    @jax.jit
    def whole(x):
        bound = own.bind(variables)
        forward = bound(ae.Batch(x, x))
        return forward.code.mean, forward.prediction, ae.losses.distortion(bound, forward)

    mean, prediction, cost = whole(x)
    longer = whole(rows(stored, LENGTH + 4))
    np.testing.assert_allclose(longer[0], mean, atol=1e-5)
    np.testing.assert_allclose(longer[2], cost, rtol=1e-5, atol=1e-5)

    @jax.jit
    def drawn(prediction):
        bound = own.bind(variables)
        likely = bound.mean(prediction)
        return likely, bound.likelihood.logits(prediction, likely)

    likely, logits = map(np.asarray, drawn(8.0 * prediction))
    for row, each in zip(likely, logits, strict=True):
        length = int(np.argmax(row == 1)) + 1 if (row == 1).any() else LENGTH
        np.testing.assert_array_equal(row[:length], each.argmax(axis=-1)[:length])
    # Soft tokens, keys and values each reach the probability of a text.
    log_prob = jax.jit(lambda v: own.bind(v).likelihood.log_prob(prediction, x))
    first = np.asarray(log_prob(variables))
    for part in ("soft", "prefixed"):
        changed = jax.tree.map(lambda leaf: leaf, variables)
        changed["params"]["likelihood"][part]["bias"] += 1.0
        assert np.abs(np.asarray(log_prob(changed)) - first).max() > 1e-3


@pytest.mark.slow
def test_training_and_two_seeds_side_by_side(stored):
    """Fails if the constants are copied for each seed, or no gradient reaches the encoder."""
    own = autoencoder(stored)
    learner = ae.seeds(ae.learner(own, ae.elbo(), optax.adam(1e-2)), 2, shared_data=True)
    x = rows(stored)
    batch = ae.Batch(x, x)
    state = jax.jit(learner.init)(jax.random.key(0), batch)
    first = state.params["encoder"]["values"]["kernel"]
    state, before = jax.jit(learner.step)(state, batch)
    for _ in range(20):
        state, metrics = jax.jit(learner.step)(state, batch)
    assert np.all(metrics["loss"] < before["loss"])
    assert np.abs(np.asarray(state.params["encoder"]["values"]["kernel"] - first)).min() > 0


def test_other_weights_and_other_codings_are_refused(stored):
    with pytest.raises(ae.UserError, match="holds other weights"):
        dataclasses.replace(stored, sha256="0" * 64).open()
    with pytest.raises(ae.UserError, match="the tokens of a model"):
        lm.Spoken(ae.data, None, 4, 1)
    assert stored.vocabulary().text(stored.vocabulary().ids("w3 w5")) == "w3 w5"
