"""Tests of M2's objective against the sum over classes by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from tests import kinds

CLASSES, D, B = 3, 6, 4
X = np.random.default_rng(0).integers(0, 2, (B, D)).astype(np.float32)


def model():
    return ae.Autoencoder(
        ae.nets.MLP((8,)),
        ae.Gaussian(2),
        ae.nets.MLP((8,), shape=D),
        ae.priors.Standard(),
        ae.likelihoods.Bernoulli(),
        parts={"classifier": ae.nets.MLP((5,), shape=CLASSES)},
    )


def started(objective):
    learner = ae.learner(model(), objective, optax.sgd(0.0))
    batch = ae.Batch(jnp.asarray(X), jnp.asarray(X), jnp.zeros((B, CLASSES)))
    return learner, kinds.begun(learner, batch), batch


def test_the_term_is_the_sum_over_classes():
    """Fails if rows of other classes are added, if log q(y | x) has the other sign, or without the
    classes' prior.
    """
    alpha = 0.7
    objective = {"m2": (1.0, ae.losses.semi_supervised(alpha))}
    learner, state, batch = started(objective)
    bound = model().bind(learner.variables(state))

    @jax.jit
    def cost(label):
        forward = bound(batch._replace(context=jnp.broadcast_to(label[None], (B, CLASSES))), None)
        return ae.losses.kl(bound, forward) + ae.losses.distortion(bound, forward)

    costs = [cost(label) for label in np.eye(CLASSES, dtype=np.float32)]
    costs = np.asarray(costs, np.float64).T + np.log(CLASSES)
    log_q = np.asarray(jax.nn.log_softmax(bound.parts["classifier"](batch.x)), np.float64)
    labels = np.float32([[0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])

    @jax.jit
    def term(labels):
        return objective["m2"][1](bound, bound(batch._replace(context=labels), None))

    found = term(labels)
    unknown = (np.exp(log_q) * (costs + log_q)).sum(1)
    known = (labels * (costs - alpha * log_q)).sum(1)
    np.testing.assert_allclose(found, np.where(labels.sum(1) > 0, known, unknown), rtol=1e-5)
    # If q(y | x) were the exact posterior, the bound would be -log sum_y exp(-cost).
    assert np.all(unknown > -np.log(np.exp(-costs).sum(1)) - 1e-6)


def test_without_classifier_or_one_hot_labels_it_is_refused():
    objective = {"m2": (1.0, ae.losses.semi_supervised(1.0, part="critic"))}
    with pytest.raises(ae.UserError, match="no classifier named 'critic'"):
        started(objective)
    learner = ae.learner(model(), {"m2": (1.0, ae.losses.semi_supervised(1.0))}, optax.sgd(0.0))
    with pytest.raises(ae.UserError, match="one-hot labels"):
        jax.eval_shape(learner.init, jax.random.key(0), ae.Batch(X, X))


@pytest.mark.slow
def test_unlabelled_examples_teach_the_classifier():
    """With 9 labels and 991 examples without, it is right more often than with the labels alone."""
    random = np.random.default_rng(0)
    centres = (random.random((CLASSES, 40)) < 0.5) * 0.8 + 0.1
    y = random.integers(0, CLASSES, 1500)
    x = (random.random((1500, 40)) < centres[y]).astype(np.float32)
    x = np.where(random.random(x.shape) < 0.25, 1 - x, x).astype(np.float32)
    labels = np.eye(CLASSES, dtype=np.float32)[y]
    labels[9:] = 0.0
    own = model().clone(decoder=ae.nets.MLP((32,), shape=40))

    def accuracy(count, objective):
        learner = ae.learner(own, objective, optax.adam(3e-3))
        batch = ae.Batch(
            jnp.asarray(x[:count]), jnp.asarray(x[:count]), jnp.asarray(labels[:count])
        )
        state = jax.jit(learner.init)(jax.random.key(0), batch)
        step = jax.jit(learner.step)
        for _ in range(300):
            state, _ = step(state, batch)
        logits = own.bind(learner.variables(state)).parts["classifier"](jnp.asarray(x[1000:]))
        return float((np.argmax(logits, 1) == y[1000:]).mean())

    objective = {"m2": (1.0, ae.losses.semi_supervised(10.0))}
    alone, both = accuracy(9, objective), accuracy(1000, objective)
    assert both > alone + 0.05
    assert both > 0.8
