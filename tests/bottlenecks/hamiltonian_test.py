"""Tests of the Hamiltonian posterior against a linear-Gaussian model whose likelihood is known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax import evaluation
from tests import kinds

stats = pytest.importorskip("scipy.stats")
L, D, STD = 2, 3, 0.7


def linear(bottleneck):
    return ae.Autoencoder(
        ae.nets.Identity(),
        bottleneck,
        ae.nets.MLP((), shape=D),
        ae.priors.Standard(),
        ae.likelihoods.Gaussian(STD),
    )


@pytest.mark.slow
def test_weights_average_to_the_likelihood_and_the_path_improves_the_bound():
    """Fails if a momentum's density, the cooling's determinant or the gradient's sign is wrong."""
    random = np.random.default_rng(0)
    x = np.float32(random.normal(size=(4, D)) * 1.5)
    loading = np.float32(random.normal(size=(L, D)))
    # The Gaussian it starts from is the prior itself: the encoder knows nothing.
    params = {
        "bottleneck": {
            "statistics": {"kernel": np.zeros((D, 2 * L), np.float32), "bias": np.zeros(2 * L)},
            "log_size": np.full(L, np.log(0.2), np.float32),
            "cooling": np.float32(0.5),
        },
        "decoder": {"output": {"kernel": loading, "bias": np.zeros(D, np.float32)}},
    }
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)
    exact = -stats.multivariate_normal.logpdf(
        x, cov=np.float64(loading).T @ loading + STD**2 * np.eye(D)
    )
    elbos = {}
    for name, bottleneck in (("path", ae.Hamiltonian(L, steps=4)), ("start", ae.Gaussian(L))):
        model, own = linear(bottleneck), dict(params)
        if name == "start":
            own["bottleneck"] = {"statistics": params["bottleneck"]["statistics"]}
        variables = {"params": own}
        found = evaluation.nll(model, variables, x, jax.random.key(0), draws=20_000, group=1000)
        error = 4.5 * np.sqrt(1 / found.effective_sample_size - 1 / 20_000)
        assert np.all(np.abs(found.nll - exact) < error + 1e-3)
        elbos[name] = evaluation.elbo(
            model, variables, x, jax.random.key(1), draws=2000, group=1000
        ).elbo
    assert np.all(elbos["path"] > elbos["start"] + 0.2)
    assert np.all(elbos["path"] < -exact + 0.05)


@pytest.mark.slow
def test_it_trains_and_needs_a_prior_and_a_likelihood():
    """Fails if the gradient does not reach the step sizes or the cooling."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, D)), jnp.float32)
    learner = ae.learner(
        linear(ae.Hamiltonian(L)),
        ae.elbo(rate=ae.losses.rate()),
        optax.sgd(0.01),
        draws=2,
        bound=ae.bounds.iwae,
    )
    state = kinds.begun(learner, ae.Batch(x, x))
    new, metrics = jax.jit(learner.step)(state, ae.Batch(x, x))
    assert np.isfinite(metrics["loss"])
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), state.params, new.params)
    assert all(jax.tree.leaves(moved["bottleneck"]))
    module = ae.Hamiltonian(L)
    variables = module.init(jax.random.key(0), x, None)
    with pytest.raises(ae.UserError, match="a prior and a likelihood"):
        module.apply(variables, x, None)
