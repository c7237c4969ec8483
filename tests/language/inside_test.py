"""Tests of promoted tokens and of the effects of edits, on a tiny model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.errors import UserError
from aejax.language.edits import add
from aejax.language.generation import Sampling, generate, padded
from aejax.language.promoted import promoted
from aejax.language.steering import Effect, at_perplexity, effect
from aejax.language.taps import Taps
from tests.language import cases

HOOK = "resid_post.1"


def test_promoted_tokens_are_those_of_the_head():
    """Fails if the weights of the final norm are left out, or if a batch is padded with others."""
    model, variables = cases.model(scan=True)
    rows = np.random.default_rng(0).normal(size=(70, cases.SIZE)).astype(np.float32)
    found = promoted(model, variables, rows, count=3)
    weight = np.asarray(variables["params"]["norm"]["weight"])
    # The head is linear, so that the tokens' logits are those of the scaled rows.
    logits = np.asarray(model.apply(variables, jnp.asarray(rows * weight[None]), method="head"))
    np.testing.assert_array_equal(found.up, np.argsort(-logits, axis=1)[:, :3])
    np.testing.assert_array_equal(found.down, np.argsort(logits, axis=1)[:, :3])
    with pytest.raises(UserError, match="width 16"):
        promoted(model, variables, rows[:, :9])


def test_effects_are_those_of_the_edited_model():
    """Fails if the perplexity is that of the edited model, or of the prompt's tokens too."""
    model, variables = cases.model(scan=True)
    prompts = cases.tokens(4, 5).tolist()
    words = np.arange(cases.VOCABULARY) < 8
    key = jax.random.key(3)
    row = 3.0 * np.random.default_rng(1).normal(size=cases.SIZE)
    how = {"key": key, "count": 6}
    # A direction of zeros changes nothing, and shares its compiled programs with the other one.
    clean = effect(model, variables, prompts, {HOOK: add(0.0 * row)}, words, **how)
    assert clean.kl == pytest.approx(0.0, abs=1e-6)
    edits = {HOOK: add(row)}
    found = effect(model, variables, prompts, edits, words, **how)
    run = jax.jit(lambda tokens, taps: model.apply(variables, tokens, taps=taps))
    tokens = jnp.asarray(prompts)
    logs = [jax.nn.log_softmax(run(tokens, taps)[:, -1]) for taps in (Taps(), Taps(edits))]
    a, b = (np.asarray(log) for log in logs)
    assert found.kl == pytest.approx(np.mean(np.sum(np.exp(a) * (a - b), axis=1)), rel=1e-3)
    assert found.mass == pytest.approx(np.exp(b)[:, words].sum(axis=1).mean(), rel=1e-4)
    assert found.kl > 0.1
    made = generate(model, variables, padded(prompts), choose=Sampling(), edits=edits, **how).tokens
    assert found.rate == pytest.approx(words[np.asarray(made)].mean())
    whole = np.concatenate([prompts, made], axis=1)
    log = np.asarray(jax.nn.log_softmax(run(jnp.asarray(whole[:, :-1]), Taps())))
    nll = -np.take_along_axis(log, whole[:, 1:, None], axis=2)[:, -6:]
    assert found.perplexity == pytest.approx(np.exp(nll.mean()), rel=1e-4)
    with pytest.raises(UserError, match=r"lengths \[2, 5\]"):
        effect(model, variables, [[1, 2], prompts[0]], {}, words, key=key)
    with pytest.raises(UserError, match="class of words has shape"):
        effect(model, variables, prompts, {}, words[:3], key=key)


def test_rates_are_compared_at_equal_perplexity():
    def at(perplexity, rate):
        return Effect(0.0, 0.0, rate, 0.0, perplexity)

    curve = [at(10.0, 0.1), at(20.0, 0.3), at(80.0, 0.9)]
    assert at_perplexity(curve, 15.0) == pytest.approx(0.2)
    assert at_perplexity(curve, 20.0) == pytest.approx(0.3)
    assert at_perplexity(curve, 50.0) == pytest.approx(0.6)
    assert np.isnan(at_perplexity(curve, 99.0))
