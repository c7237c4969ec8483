"""Tests of products and mixtures of experts against closed forms and quadratures."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax import evaluation
from tests import kinds

stats = pytest.importorskip("scipy.stats")
L = 2


def experts(module, views, seed=0):
    """Returns a bottleneck's variables, and the mean and std of each view's expert by hand."""
    variables = module.init(jax.random.key(seed), views, None)
    found = {}
    for name, (values, _) in views.items():
        layer = variables["params"][name]
        statistics = np.float64(values) @ np.float64(layer["kernel"]) + np.float64(layer["bias"])
        found[name] = statistics[:, :L], np.exp(statistics[:, L:])
    return variables, found


def views(there):
    """Returns features of two views; `there` says for each example which are present."""
    random, there = np.random.default_rng(0), np.float32(there)
    first, second = (np.float32(random.normal(size=(len(there), n))) for n in (3, 4))
    return {"a": (first, there[:, 0]), "b": (second, there[:, 1])}


def test_the_product_is_that_of_the_closed_form_and_of_a_quadrature():
    """Fails if the prior is left out or counted once for each view, or if a missing view counts."""
    there = [[1, 1], [1, 0], [0, 1], [0, 0]]
    seen, module = views(there), ae.ProductOfExperts(L)
    variables, own = experts(module, seen)
    code = jax.tree.map(np.asarray, module.apply(variables, seen, None))
    line = np.linspace(-12, 12, 20_001)
    for i, row in enumerate(there):
        present = [own[name] for name, here in zip("ab", row, strict=True) if here]
        precision = 1 + sum(std[i] ** -2 for _, std in present)
        mean = sum((m[i] * std[i] ** -2 for m, std in present), np.zeros(L)) / precision
        np.testing.assert_allclose(code.mean[i], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(code.log_std[i], -0.5 * np.log(precision), rtol=1e-4, atol=1e-5)
        for j in range(L):
            density = stats.norm.pdf(line)
            for m, std in present:
                density = density * stats.norm.pdf(line, m[i, j], std[i, j])
            density /= density.sum()
            assert density @ line == pytest.approx(code.mean[i, j], abs=1e-4)
            spread = density @ line**2 - (density @ line) ** 2
            assert spread == pytest.approx(np.exp(2 * code.log_std[i, j]), rel=1e-4)


def test_the_mixture_is_the_mean_of_the_experts_present():
    """log q is a normalised density, that of the hand-written mixture, and draws follow it.

    Fails if a draw's density is that of the expert that was chosen, or if a missing view is drawn.
    """
    there = [[1, 1], [1, 0], [0, 0]]
    seen, module = views(there), ae.MixtureOfExperts(L)
    variables, own = experts(module, seen)
    code = jax.jit(module.apply)(variables, seen, None)
    line = np.linspace(-9, 9, 301)
    grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, L)
    density = np.exp(np.float64(jax.jit(lambda c, v: c.log_prob(v))(code, np.float32(grid))))
    n = 20_000
    wide = jax.tree.map(lambda a: np.repeat(a, n, 0), code)
    drawn = jax.jit(lambda code, key: code._replace(z=code.redraw(key)))(wide, jax.random.key(0))
    z = np.asarray(drawn.z).reshape(len(there), n, L)
    for i, row in enumerate(there):
        present = [own[name] for name, here in zip("ab", row, strict=True) if here]
        present = present or [(np.zeros((len(there), L)), np.ones((len(there), L)))]
        parts = [stats.norm.pdf(grid, m[i], std[i]).prod(1) for m, std in present]
        np.testing.assert_allclose(density[:, i], np.mean(parts, 0), rtol=1e-3, atol=1e-7)
        assert density[:, i].sum() * (line[1] - line[0]) ** 2 == pytest.approx(1, abs=1e-3)
        weight = density[:, i] / density[:, i].sum()
        for values, exact in ((z[i], weight @ grid), (z[i] ** 2, weight @ grid**2)):
            spread = values.std(0) / n**0.5
            assert np.all(np.abs(values.mean(0) - exact) < 4.5 * spread + 1e-4)
    one = jax.tree.map(lambda a: np.asarray(a)[::n], drawn)
    own, pairs = jax.jit(lambda code: (code.log_q(), code.log_prob(code.z)))(one)
    np.testing.assert_allclose(own, np.diag(pairs), rtol=1e-5)


def test_a_linear_gaussian_model_has_the_exact_likelihood_with_a_view_missing_too():
    """With x_v = A_v z + noise the posterior is the product of experts, so each weight is p(x).

    Fails if NaN reaches the other view, or if the likelihood counts missing values.
    """
    random = np.random.default_rng(1)
    sizes, std = {"a": 3, "b": 2}, 0.6
    loadings = {name: np.float32(random.normal(size=(size, L))) for name, size in sizes.items()}
    # The experts' precision A^T A / std^2 must be diagonal: columns of A are made orthogonal.
    loadings = {name: np.linalg.qr(a)[0] * np.float32([1.5, 0.7]) for name, a in loadings.items()}
    model = ae.Autoencoder(
        ae.nets.Views({name: ae.nets.Identity() for name in sizes}, sizes),
        ae.ProductOfExperts(L),
        ae.nets.MLP((), shape=5),
        ae.priors.Standard(),
        ae.likelihoods.Gaussian(std),
    )
    bottleneck = {}
    for name, a in loadings.items():
        scale = np.float32([1.5, 0.7])
        bias = np.concatenate([np.zeros(L), np.log(std / scale)])
        kernel = np.concatenate([a / scale**2, np.zeros_like(a)], axis=1)
        bottleneck[name] = {"kernel": np.float32(kernel), "bias": np.float32(bias)}
    whole = np.concatenate([loadings["a"], loadings["b"]])
    decoder = {"output": {"kernel": whole.T, "bias": np.zeros(5, np.float32)}}
    params = {"bottleneck": bottleneck, "decoder": decoder}
    x = np.float32(random.normal(size=(6, 5)))
    x[2:4, :3], x[4:, 3:] = np.nan, np.nan
    found = evaluation.nll(model, {"params": params}, x, jax.random.key(0), draws=3)
    for i, row in enumerate(x):
        there = ~np.isnan(row)
        covariance = whole[there] @ whole[there].T + std**2 * np.eye(there.sum())
        exact = -stats.multivariate_normal.logpdf(row[there], cov=covariance)
        assert found.nll[i] == pytest.approx(exact, abs=2e-4)
    np.testing.assert_allclose(found.effective_sample_size, 3.0, rtol=1e-3)


@pytest.mark.slow
def test_training_on_missing_views_is_finite_and_reaches_the_views_that_are_there():
    """Fails if NaN times 0 reaches the gradient."""
    sizes = {"a": 3, "b": 2}
    x = np.float32(np.random.default_rng(0).normal(size=(6, 5)))
    x[:, :3] = np.nan
    for part in (ae.ProductOfExperts, ae.MixtureOfExperts):
        model = ae.Autoencoder(
            ae.nets.Views({name: ae.nets.MLP((4,)) for name in sizes}, sizes),
            part(L),
            ae.nets.MLP((4,), shape=5),
            ae.priors.Standard(),
            ae.likelihoods.Gaussian(),
        )
        learner = ae.learner(model, ae.elbo(rate=ae.losses.rate()), optax.sgd(0.1))
        batch = ae.events.as_batch(x)
        state = kinds.begun(learner, batch)
        new, metrics = jax.jit(learner.step)(state, batch)
        assert np.isfinite(metrics["loss"])
        old, new = state.params, new.params
        assert np.array_equal(old["bottleneck"]["a"]["kernel"], new["bottleneck"]["a"]["kernel"])
        kernels = (tree["encoder"]["nets_b"]["hidden_0"]["kernel"] for tree in (old, new))
        assert not np.array_equal(*kernels)


def test_other_encoders_and_sizes_are_refused():
    with pytest.raises(ae.UserError, match="use the encoder nets"):
        ae.ProductOfExperts(2).init(jax.random.key(0), jnp.zeros((3, 4)), None)
    nets = {"a": ae.nets.Identity()}
    with pytest.raises(ae.UserError, match="add up to the length"):
        ae.nets.Views(nets, {"a": 3}).init(jax.random.key(0), jnp.zeros((2, 4)))
    with pytest.raises(ae.UserError, match="a net and a size"):
        ae.nets.Views(nets, {"b": 3})
