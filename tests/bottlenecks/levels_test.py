"""Tests of hierarchies of latents on models whose log p(x) is known, and of what they refuse."""

from __future__ import annotations

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax import evaluation
from tests.evaluation.cases import Held

KEY = jax.random.key(3)
N, D, L = 24, 7, 4
MLP = ae.nets.MLP
A, SPREAD, NOISE = np.linspace(0.6, -1.2, L), 0.7, 0.5


def exact(kind, shift=0.0, top=None):
    """Makes the model z_1 ~ N(0, 1), z_2 = A z_1 + SPREAD e, x = W z_2 + b + NOISE e, for each
    coordinate.

    W has orthogonal columns, so the posterior is diagonal in either direction.

    Its `kind` is "down" for Levels and "up" for UpwardLevels. With `shift` 0 the posterior is
    exact; otherwise its means are shifted by that many standard deviations. Returns model,
    variables, data, and the exact log p(x) f64[N].
    """
    generator = np.random.default_rng(0)
    scales = np.linspace(0.4, 1.4, L)
    weight = np.linalg.qr(generator.normal(size=(D, L)))[0] * scales
    bias = generator.normal(size=D)
    marginal = A**2 + SPREAD**2  # the variance of z_2
    covariance = (weight * marginal) @ weight.T + NOISE**2 * np.eye(D)
    x = generator.multivariate_normal(bias, covariance, N).astype(np.float32).astype(np.float64)

    # The conditionals of z_2 given x, of z_2 given z_1 and x, and of z_1 given z_2 are Gaussian.
    seen = scales**2 / NOISE**2
    by_x = 1 / (1 / marginal + seen)
    by_both = 1 / (1 / SPREAD**2 + seen)
    by_z2 = SPREAD**2 / marginal
    gain = weight * by_x / NOISE**2
    if kind == "up":
        bottleneck = {
            "statistics": _linear(gain, by_x, bias, shift),
            "nets_0": {"output": _linear(np.diag(A / marginal), by_z2 * np.ones(L), None, shift)},
        }
        net = ae.UpwardLevels((L, L), (MLP((), (2 * L,)),))
        decoder, path = MLP((), (D,)), weight.T
    else:
        # z_1 depends on x through z_2 only.
        gain_1 = gain * (A / marginal)
        variance_1 = by_z2 + (A / marginal) ** 2 * by_x
        both = np.concatenate([weight * by_both / NOISE**2, np.diag(A * by_both / SPREAD**2)])
        start = np.concatenate([bias, np.zeros(L)])
        bottleneck = {
            "nets_0": {"output": _linear(gain_1, variance_1, bias, shift)},
            "nets_1": {"output": _linear(both, by_both, start, shift)},
        }
        net = ae.Levels((L, L), (MLP((), (2 * L,)), MLP((), (2 * L,))))
        decoder = ae.nets.Joined((None, None), MLP((), (D,)))
        path = np.concatenate([np.zeros((L, D)), weight.T])
    output = {"output": {"kernel": path, "bias": bias}}
    params = {
        "bottleneck": bottleneck,
        "decoder": output if kind == "up" else {"net": output},
        "prior": {"nets_0": {"output": _linear(np.diag(A), SPREAD**2 * np.ones(L), None, 0)}},
    }
    model = ae.Autoencoder(
        ae.nets.Identity(),
        net,
        decoder,
        ae.priors.Levels((MLP((), (2 * L,)),), top or ae.priors.Standard()),
        ae.likelihoods.Gaussian(NOISE),
    )
    apart = x - bias
    log_prob = -0.5 * (
        np.einsum("ni,ij,nj->n", apart, np.linalg.inv(covariance), apart)
        + np.linalg.slogdet(2 * np.pi * covariance)[1]
    )
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    return model, {"params": params, "memory": {}}, Held(x), log_prob


def _linear(gain, variance, centre, shift):
    """Returns weights of means (v - centre) gain + shift std, and of constant log deviations."""
    std = np.sqrt(variance)
    offset = shift * std - (0 if centre is None else centre @ gain)
    return {
        "kernel": np.concatenate([gain, np.zeros_like(gain)], axis=1),
        "bias": np.concatenate([offset, np.log(std)]),
    }


@pytest.mark.parametrize("kind", ["down", "up"])
def test_at_the_exact_posterior_every_weight_is_the_density(kind):
    """Fails if log q or the prior leaves out a level or reads the wrong one.

    Fails also if the conditional of a level is taken at the mean of the level above.
    """
    model, variables, data, log_prob = exact(kind)
    found = evaluation.nll(model, variables, data, KEY, draws=9, group=4)
    np.testing.assert_allclose(found.nll, -log_prob, atol=2e-4)
    np.testing.assert_allclose(found.effective_sample_size, 9, rtol=1e-3)


@pytest.mark.parametrize("kind", ["down", "up"])
def test_nll_of_a_wrong_posterior_agrees_with_the_exact_density(kind):
    """The NLL is within five standard errors of a mean of K weights; E_q (p / q)^2 is
    exp(shift^2) for each latent.
    """
    shift, draws = 0.3, 2000
    model, variables, data, log_prob = exact(kind, shift)
    found = evaluation.nll(model, variables, data, KEY, draws=draws, batch=N, group=100)
    error = np.sqrt((np.exp(2 * L * shift**2) - 1) / draws)
    assert np.max(np.abs(found.nll + log_prob)) < 5 * error
    size = np.mean(found.effective_sample_size) / draws
    assert size == pytest.approx(np.exp(-2 * L * shift**2), rel=0.05)
    bound = evaluation.elbo(model, variables, data, KEY, draws=500)
    # KL(q || p(z | x)) is shift^2 / 2 for each latent, since the means of all levels are shifted.
    assert np.mean(log_prob - bound.elbo) == pytest.approx(2 * L * shift**2 / 2, abs=0.05)


def test_annealed_importance_sampling_moves_every_level():
    """The encoder is not used. Fails if only the lowest level moves."""
    model, variables, data, log_prob = exact("down")
    few = Held(data.x[:4])
    walk = evaluation.Walk(chains=16, temperatures=60)
    found = evaluation.annealed(model, variables, few, KEY, walk)
    assert np.max(np.abs(found.log_prob - log_prob[:4])) < 0.5


def test_the_kl_of_the_levels_is_the_mean_of_the_sampled_rate():
    """They agree within four standard errors.

    Fails if the lower level's KL is taken from N(0, 1).
    """
    model, variables, data, _ = exact("down", shift=0.5)
    batch = next(data.batches(4))

    def both(key):
        forward = model.apply(variables, batch, key)
        bound = model.bind(variables)
        kl = bound.prior.kl(forward.code, None, bound.posterior)
        assert kl.shape == (4, 2 * L)
        return kl.sum(1), ae.losses.rate()(bound, forward)

    closed, sampled = map(np.asarray, jax.jit(jax.vmap(both))(jax.random.split(KEY, 4000)))
    spread = np.sqrt((closed.var(0) + sampled.var(0)) / 4000)
    assert np.all(np.abs(closed.mean(0) - sampled.mean(0)) < 4 * spread)
    assert np.all(closed.std(0) < sampled.std(0))
    model, variables, data, _ = exact("up")
    with pytest.raises(ae.UserError, match="UpwardCode under Levels has no closed form"):
        evaluation.kl_per_dimension(model, variables, data, KEY)


EVENT = (8, 8, 1)


def ladder(remat=False, levels=(1, 2)):
    nets = ae.nets.ladder(EVENT, levels, channels=6, latents=2, remat=remat)
    return ae.Autoencoder(
        nets.encoder,
        ae.Levels(nets.latents, nets.heads),
        nets.output,
        ae.priors.Ladder(nets.trunk),
        ae.likelihoods.Bernoulli(),
    )


def hvae(top=None, bottleneck=None):
    return ae.Autoencoder(
        MLP((16,)),
        bottleneck or ae.Levels((3, 4), (MLP((), (6,)), MLP((8,), (8,)))),
        ae.nets.Joined((MLP((8,)), None), MLP((8,), EVENT)),
        ae.priors.Levels((MLP((8,), (8,)),), top or ae.priors.Standard()),
        ae.likelihoods.Bernoulli(),
    )


@pytest.fixture(scope="module")
def batch():
    x = jnp.asarray(np.random.default_rng(0).random((5, *EVENT)) < 0.4, jnp.float32)
    return ae.Batch(x, x)


def moved(model, batch):
    """Changes the variables from their start, at which a ladder's prior is the standard normal."""
    objective = ae.elbo(rate=ae.losses.rate())
    init = jax.jit(ae.learner(model, objective, optax.sgd(0.0)).init)
    state = init(jax.random.key(0), batch)
    generator = np.random.default_rng(1)
    return {
        "params": jax.tree.map(
            lambda leaf: leaf + 0.1 * generator.normal(size=leaf.shape).astype(np.float32),
            state.params,
        )
    }


def test_a_context_moves_a_ladder_s_samples_and_its_posterior(batch):
    """Rows have one context and one noise.

    Fails if the trunk starts without the context, or mixes rows.
    """
    given = jax.nn.one_hot(jnp.asarray([0, 1, 0, 1, 0]), 2)
    model, batch = ladder(), batch._replace(context=given)
    bound = model.bind(moved(model, batch))

    @jax.jit
    def seen(context):
        top = jax.tree.leaves(bound.encode(batch._replace(context=context)))[0]
        return bound.sample(KEY, 5, context).reshape(5, -1), top

    contexts = (given, given[:, ::-1], given.at[0].set(given[1]))
    (drawn, mean), (other, moved_mean), (turned, _) = map(seen, contexts)
    assert np.all(np.any(drawn != other, axis=-1))
    np.testing.assert_array_equal(turned[1:], drawn[1:])
    assert not np.allclose(mean, moved_mean)


def test_a_ladder_is_one_trunk_for_prior_posterior_and_decoder(batch):
    """Fails if the prior reads the state below its level, or if lift stops a level early."""
    model = ladder()
    variables = moved(model, batch)
    bound = model.bind(variables)
    assert bound.bottleneck.latents == (8, 32, 32)

    def one(key):
        code = bound.code(batch, bound.features(batch), key)
        rate = code.log_q() - bound.prior.log_prob(code.latent)
        return bound.prior.kl(code).sum(1), rate

    @jax.jit
    def lifted(key):
        code = bound.code(batch, bound.features(batch), key)
        return bound.lift(code.latent), code.z

    np.testing.assert_allclose(*lifted(KEY), rtol=1e-5, atol=1e-5)
    closed, sampled = map(np.asarray, jax.jit(jax.vmap(one))(jax.random.split(KEY, 2000)))
    spread = np.sqrt((closed.var(0) + sampled.var(0)) / 2000)
    assert np.all(np.abs(closed.mean(0) - sampled.mean(0)) < 4 * spread)


def test_remat_changes_no_value_and_no_gradient(batch):
    """The parameters are the same too. Fails if remat leaves out a block."""

    def value(model, variables):
        def loss(variables):
            bound = model.bind(variables)
            forward = bound(batch, KEY)
            return jnp.sum(ae.losses.kl(bound, forward) + ae.losses.distortion(bound, forward))

        return jax.jit(jax.value_and_grad(loss))(variables)

    variables = moved(ladder(), batch)
    plain, again = (value(ladder(remat), variables) for remat in (False, True))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_remat_computes_every_block_anew(batch):
    """Blocks are recomputed: one for each level on the way up, and one on the way down.

    Fails if a net does not pass remat on, which changes no number but costs the memory.
    """

    def found(remat):
        model = ladder(remat)
        variables = jax.eval_shape(model.init, jax.random.key(0), batch)

        def loss(variables):
            bound = model.bind(variables)
            return jnp.sum(ae.losses.distortion(bound, bound(batch, KEY)))

        # Releases of JAX differ in their name of jax.checkpoint in a program.
        program = str(jax.make_jaxpr(jax.grad(loss))(variables))
        return len(re.findall(r"= (?:remat2?|checkpoint)\[", program))

    assert (found(False), found(True)) == (0, 2 * 3)


def test_a_ladder_s_prior_starts_as_the_standard_normal():
    """It does at every level, whatever the trunk's state.

    Fails if the weights of a level's statistics start like others.
    """
    sizes = ((2, 2), (4, 4), (4, 4))
    prior = ae.priors.Ladder(ae.nets.LadderTrunk(sizes, 6, 2, 1))
    generator = np.random.default_rng(0)
    z = [generator.normal(size=(3, 2 * h * w)).astype(np.float32) for h, w in sizes]

    def density(key):
        return prior.init_with_output(key, z, method="log_prob")[0]

    each = [np.sum(np.square(np.float64(level)) + np.log(2 * np.pi), axis=1) / 2 for level in z]
    np.testing.assert_allclose(jax.jit(density)(KEY), -np.sum(each, axis=0), rtol=1e-5)


def test_free_bits_of_each_level(batch):
    """Fails if the KL is not in the order of levels, from the top down."""
    model = ladder()
    variables = moved(model, batch)
    bound = model.bind(variables)

    @jax.jit
    def both(nats):
        forward = bound(batch, KEY)
        free_bits = ae.losses.free_bits(nats, bound.bottleneck.latents)(bound, forward)
        return bound.prior.kl(forward.code), free_bits

    kl = np.asarray(both(1.0)[0]).mean(0)
    ends = np.cumsum((0, *bound.bottleneck.latents))
    levels = [kl[a:b].sum() for a, b in itertools.pairwise(ends)]
    nats = float(np.median(levels))
    _, found = both(nats)
    np.testing.assert_allclose(found, np.maximum(levels, nats).sum(), rtol=1e-5)


MODELS = {
    "upward": hvae(bottleneck=ae.UpwardLevels((3, 4), (MLP((8,), (6,)),))).clone(
        decoder=MLP((8,), EVENT)
    ),
    "hvae": hvae(),
    "hvae-vamp": hvae(ae.priors.Vamp(EVENT, 5)),
    "ladder": ladder(),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_reaches_every_part_under_a_bound(name, batch):
    """Fails if a level is under a stop_gradient, or if pseudo-inputs get no gradient."""
    bound = {"draws": 2, "bound": ae.bounds.iwae}
    objective = ae.elbo(rate=ae.losses.rate())
    learner = ae.learner(MODELS[name], objective, optax.sgd(1.0), **bound)
    state = jax.jit(learner.init)(jax.random.key(0), batch)
    # Variables are moved from the start, at which a residual block's second convolution is zero.
    state = state._replace(params=moved(MODELS[name], batch)["params"])
    after, metrics = jax.jit(learner.step)(state, batch)
    assert np.isfinite(metrics["loss"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(
        jax.tree.map(jnp.subtract, after.params, state.params)
    ):
        assert np.any(leaf != 0), jax.tree_util.keystr(path)


@pytest.mark.parametrize("bound", [ae.bounds.mean, ae.bounds.dreg], ids=["stl", "dreg"])
@pytest.mark.parametrize("name", ["upward", "hvae"])
def test_sticking_the_landing_and_dreg_are_refused(name, bound, batch):
    """Fails if the stopped gradient of one level is taken for that of all levels."""
    stuck = ae.elbo(rate=ae.losses.rate(stick=True))
    draws = 1 if bound is ae.bounds.mean else 3
    learner = ae.learner(MODELS[name], stuck, optax.sgd(1.0), draws=draws, bound=bound)
    with pytest.raises(ae.UserError, match="hierarchy cannot stick the landing"):
        jax.eval_shape(learner.init, jax.random.key(0), batch)


def refused(model, batch):
    learner = ae.learner(model, ae.elbo(rate=ae.losses.rate()), optax.sgd(1.0))
    jax.eval_shape(learner.init, KEY, batch)


REFUSED = {
    "a VampPrior above an upward posterior": (
        MODELS["upward"].clone(prior=hvae(ae.priors.Vamp(EVENT, 5)).prior),
        "top needs the posterior",
    ),
    "fewer nets than levels": (
        hvae(bottleneck=ae.Levels((3, 4), (MLP((), (6,)),))),
        "2 levels, 1 nets and 2 features",
    ),
    "a net of another size": (
        hvae(bottleneck=ae.Levels((3, 4), (MLP((), (6,)), MLP((), (9,))))),
        r"must return \(8,\)",
    ),
    "a prior of more levels": (
        hvae().clone(prior=ae.priors.Levels((MLP((), (8,)), MLP((), (8,))))),
        "has 3 levels",
    ),
    "a decoder of one value": (
        hvae().clone(decoder=MLP((8,), EVENT)),
        "takes one array, but was given a tuple of 2 arrays, .*: put nets.Joined around this net",
    ),
    "a VampPrior of another event": (
        hvae(ae.priors.Vamp((9, *EVENT), 5)),
        "the prior Vamp has pseudo-inputs of shape .*, but x has",
    ),
    "a decoder of fewer levels": (
        hvae().clone(decoder=ae.nets.Joined((None,), MLP((), EVENT))),
        "Joined has 1 parts but was given 2 arrays",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_parts_that_do_not_fit_are_refused(case, batch):
    model, said = REFUSED[case]
    with pytest.raises(ae.UserError, match=said):
        refused(model, batch)
    with pytest.raises(ae.UserError, match="do not suit images of"):
        ae.nets.ladder((28, 28, 1), (1, 1, 1))
