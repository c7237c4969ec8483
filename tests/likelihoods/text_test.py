"""Tests texts: exact probabilities, padding, sampling, and the same model without latents."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax import evaluation
from aejax.data.text.coding import Words
from tests import kinds

CODING = Words(("a",))  # the ids are padding, the end, an unknown word and "a"
LENGTH = 4
NETS = {"transformer": ae.nets.CausalTransformer(8, 1, 2), "gru": ae.nets.CausalGRU(8)}
# Where both nets are tested alike, the second one waits for the long tests.
SLOW_TOO = ["gru", pytest.param("transformer", marks=pytest.mark.slow)]
ENCODERS = {"transformer": ae.nets.TokenTransformer(4, 8, 1, 2), "gru": ae.nets.TokenGRU(4, 8)}


def every(tokens: int, length: int) -> np.ndarray:
    """Returns every text of at most `length` tokens with its end, or cut after `length` tokens."""
    found = []
    for n in range(length + 1):
        for words in itertools.product(range(2, tokens), repeat=n):
            row = [*words, 1][:length]
            found.append(row + [0] * (length - len(row)))
    return np.asarray(found, np.int32)


TEXTS = every(4, LENGTH)


def model(kind: str, prefix: int = 1, latents: int = 1) -> ae.Autoencoder:
    """Builds a tiny text VAE of a vocabulary of three: the end and two words."""
    likelihood = ae.likelihoods.Text(CODING, NETS[kind], LENGTH, prefix)
    decoder = ae.nets.MLP((), shape=likelihood.shape((LENGTH,)))
    encoder = ENCODERS[kind]
    return ae.Autoencoder(encoder, ae.Gaussian(latents), decoder, ae.priors.Standard(), likelihood)


def started(model: ae.Autoencoder, size: float = 1.0):
    """Returns variables of which every number is drawn, so that texts and codes depend."""
    batch = ae.Batch(jnp.asarray(TEXTS), jnp.asarray(TEXTS))
    learner = ae.learner(model, ae.elbo(), optax.sgd(0.1))
    state = jax.eval_shape(learner.init, jax.random.key(0), batch)
    drawn = kinds.numbers({"params": state.params}, 3)
    return jax.tree.map(lambda leaf: size * leaf, drawn)


def padded(rows: np.ndarray, length: int) -> np.ndarray:
    return np.pad(rows, ((0, 0), (0, length - rows.shape[1])))


def test_only_a_likelihood_of_texts_has_a_coding():
    """Fails if the tools take texts for pictures, or pictures for texts."""
    assert model("gru").likelihood.text_coding() is CODING
    assert ae.likelihoods.Bernoulli().text_coding() is None


@pytest.mark.parametrize("kind", SLOW_TOO)
def test_nll_is_the_exact_marginal(kind):
    """The marginal is a sum over a grid of z; with it all texts have the probability one.

    Fails if the end of a text is not counted, if padding is, or if a token sees itself.
    """
    own = model(kind)
    params = started(own)["params"]
    # The posterior is near the prior, so that the weights of the draws are even.
    params["bottleneck"] = jax.tree.map(lambda leaf: 0.3 * leaf, params["bottleneck"])
    variables = {"params": params}
    grid = np.linspace(-8.0, 8.0, 801, dtype=np.float32)

    @jax.jit
    def log_prob(z):
        bound = own.bind(variables)
        prediction = bound.decode(jnp.broadcast_to(z[None, None], (len(TEXTS), 1)))
        return bound.likelihood.log_prob(prediction, jnp.asarray(TEXTS))

    each = np.float64(np.asarray(jax.lax.map(log_prob, jnp.asarray(grid))))  # f64[801, N]
    np.testing.assert_allclose(np.exp(each).sum(axis=1), 1.0, atol=1e-5)
    weight = np.exp(-0.5 * grid.astype(np.float64) ** 2) / math.sqrt(2 * math.pi) * 0.02
    exact = -np.log(weight @ np.exp(each))
    assert np.exp(-exact).sum() == pytest.approx(1.0, abs=1e-5)
    # With z the texts are more probable than without, so that the quadrature matters.
    assert np.ptp(each[[200, 600]], axis=0).max() > 0.3
    found = evaluation.nll(own, variables, TEXTS, jax.random.key(0), draws=4000, group=100)
    np.testing.assert_allclose(found.nll, exact, atol=0.02)


@pytest.mark.parametrize("kind", NETS)
def test_padding_changes_nothing(kind):
    """Fails if positions or attention depend on the array, or padding is explained."""
    own, found = model(kind, prefix=2), []
    variables = started(own)

    @jax.jit
    def figures(rows):
        bound = own.bind(variables)
        forward = bound(ae.Batch(rows, rows), jax.random.key(1))
        return forward.code, ae.losses.distortion(bound, forward), ae.losses.kl(bound, forward)

    for length in (LENGTH + 1, 20, 64):
        rows = padded(TEXTS[(TEXTS == 1).any(axis=1)], length)
        found.append(jax.tree.leaves(figures(jnp.asarray(rows))))
    for first, *others in zip(*found, strict=True):
        for other in others:
            np.testing.assert_allclose(other, first, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", NETS)
def test_without_latents_it_is_a_language_model(kind):
    """The same net, embedding and output, called by hand on each prefix, give the same numbers."""
    own = model(kind, prefix=0)
    variables = started(own)
    params = variables["params"]["likelihood"]
    z = jnp.asarray(np.random.default_rng(0).normal(size=(len(TEXTS), 1)), jnp.float32)

    @jax.jit
    def log_prob(z):
        bound = own.bind(variables)
        return bound.likelihood.log_prob(bound.decode(z), jnp.asarray(TEXTS))

    found, other = log_prob(z), log_prob(-3.0 * z)
    np.testing.assert_array_equal(found, other)  # the latents are ignored
    net = NETS[kind]
    run = jax.jit(lambda values: net.apply({"params": params["net"]}, values))
    table, output = params["embed"]["embedding"], params["output"]
    for text, value in zip(TEXTS, np.asarray(found), strict=True):
        total = 0.0
        for t, token in enumerate(text):
            before = np.zeros(LENGTH, int)
            before[1 : t + 1] = text[:t]
            hidden = np.asarray(run(jnp.asarray(table)[before][None]))[0, t]
            logits = np.float64(hidden @ output["kernel"] + output["bias"])[1:]
            total += logits[token - 1] - np.log(np.exp(logits).sum())
            if token == 1:
                break
        assert value == pytest.approx(total, abs=2e-4)


@pytest.mark.parametrize("kind", NETS)
def test_samples_are_distributed_as_their_probability_says(kind):
    """Fails if the cache is written at the wrong place, or draws go on after the end of a text."""
    own = model(kind, prefix=2)
    variables = started(own)
    count = 60_000

    @jax.jit
    def run(key):
        bound = own.bind(variables)
        prediction = bound.decode(jnp.full((1, 1), 0.7))

        def alike(n):
            return jnp.broadcast_to(prediction, (n, *prediction.shape[1:]))

        likely = bound.likelihood.mean(prediction)
        drawn = bound.likelihood.sample(key, alike(count))
        log_prob = bound.likelihood.log_prob(alike(len(TEXTS)), jnp.asarray(TEXTS))
        return drawn, log_prob, likely, bound.likelihood.logits(prediction, likely)

    drawn, log_prob, likely, logits = map(np.asarray, run(jax.random.key(0)))
    np.testing.assert_array_equal(drawn, run(jax.random.key(0))[0])
    prob = np.exp(np.float64(log_prob))
    place = {tuple(text): i for i, text in enumerate(TEXTS.tolist())}
    counts = np.bincount([place[tuple(row)] for row in drawn.tolist()], minlength=len(TEXTS))
    error = np.sqrt(prob * (1.0 - prob) / count)
    assert np.all(np.abs(counts / count - prob) < 5.0 * error + 1e-4)
    # The most probable token after each prefix, by teacher forcing.
    greedy = logits[0].argmax(axis=-1)
    end = int(np.argmax(likely[0] == 1)) if (likely[0] == 1).any() else LENGTH - 1
    np.testing.assert_array_equal(likely[0, : end + 1], greedy[: end + 1])


@pytest.mark.slow
def test_seeds_train_side_by_side_and_one_seed_gives_the_same_bits():
    """Fails if a draw or the hidden tokens come from something else than the key."""
    own = model("gru")
    objective = {
        "rate": (1.0, ae.losses.kl),
        "distortion": (1.0, ae.losses.word_dropout(0.3)),
    }
    # Adam would turn the rounding of gradients that are zero, as of keys' biases, into steps.
    learner = ae.learner(own, objective, optax.sgd(1e-3))
    rows = np.tile(TEXTS, (3, 1))
    train, _, _ = ae.data.arrays(rows, validation=0.1, test=0.1)
    batches = ae.data.Batches(train, size=16, seed=0)
    both = ae.seeds(learner, 2, shared_data=True)
    step, several = jax.jit(learner.step), jax.jit(both.step)
    starts = [kinds.begun(learner, batches[0], seed) for seed in (0, 1)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    together, ends = stacked._replace(step=starts[0].step), []
    for start in (*starts, starts[1]):
        state, metrics = start, {}
        for t in range(3):
            state, metrics = step(state, batches[t])
        ends.append((state.params, metrics))
    for a, b in zip(*map(jax.tree.leaves, ends[1:]), strict=True):
        np.testing.assert_array_equal(a, b)
    for t in range(3):
        together, metrics = several(together, batches[t])
    for i in range(2):
        own_loss, loss = ends[i][1]["loss"], metrics["loss"][i]
        np.testing.assert_allclose(loss, own_loss, rtol=1e-4)
        pairs = zip(jax.tree.leaves(together.params), jax.tree.leaves(ends[i][0]), strict=True)
        for a, b in pairs:
            np.testing.assert_allclose(a[i], b, rtol=2e-4, atol=2e-5)
    assert ends[0][1]["loss"] != ends[1][1]["loss"]


def test_a_row_that_is_no_text_has_no_probability():
    """Fails if tokens behind the end, or an empty row, pass for a text."""
    own = model("gru")
    variables = started(own)
    rows = jnp.asarray([[2, 1, 2, 0], [0, 0, 0, 0], [2, 0, 1, 0], [2, 1, 0, 0]])

    @jax.jit
    def log_prob(rows):
        bound = own.bind(variables)
        return bound.likelihood.log_prob(bound.decode(jnp.zeros((4, 1))), rows)

    found = log_prob(rows)
    assert np.isneginf(found[:3]).all()
    assert np.isfinite(found[3])


def test_wrong_targets_are_refused():
    own = model("gru")
    with pytest.raises(ae.UserError, match="reads token ids, integers"):
        own.init(jax.random.key(0), ae.Batch(jnp.zeros((2, 4)), jnp.zeros((2, 4))))
    with pytest.raises(ae.UserError, match="has no `size`"):
        ae.likelihoods.Text(None, ae.nets.CausalGRU(8))
    with pytest.raises(ae.UserError, match="width 6 and 4 heads"):
        ae.nets.CausalTransformer(6, 1, 4)
    with pytest.raises(ae.UserError, match=r"outside \[0, 3\]"):
        ae.data.check_support(
            ae.data.arrays(TEXTS + 3)[0], ae.likelihoods.Text(CODING, None).support
        )
