"""Tests of generation: the cache changes no token, padding does not matter, draws are as asked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.errors import UserError
from aejax.language.edits import add, only
from aejax.language.generation import Sampling, generate, greedy, padded
from aejax.language.llama import empty_cache
from aejax.language.splicing import replace
from aejax.language.taps import Taps
from tests.language import cases

COUNT = 6
TEXTS = [cases.tokens(1, n, seed=n)[0].tolist() for n in (3, 6)]
EDITS = {
    "resid_post.0": only(add(np.linspace(-3.0, 3.0, cases.SIZE)), positions=(2, 7)),
    "mlp_out.1": replace(cases.dictionary()),
}


def uncached(model, variables, text, taps):
    """Returns greedy tokens, each from a pass over the whole text so far, padded on the right."""
    apply = jax.jit(model.apply)
    text = list(text)
    for _ in range(COUNT):
        room = padded([text, [0] * 12], side="right")
        logits = apply(variables, *room, taps=taps)
        text.append(int(jnp.argmax(logits[0, len(text) - 1])))
    return text[-COUNT:]


@pytest.mark.parametrize("scan", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_cache_changes_no_token_under_edits(scan):
    """Fails if an edit takes slots for positions."""
    model, variables = cases.model(scan=scan)
    wanted = [uncached(model, variables, text, Taps(EDITS)) for text in TEXTS]
    for side in ("left", "right"):
        made = generate(model, variables, padded(TEXTS, side), count=COUNT, edits=EDITS)
        np.testing.assert_array_equal(made.tokens, wanted)


def test_empty_slots_of_a_cache_are_not_attended_to():
    """Fails if a token attends to every slot whose position is at most its own: -1 means empty."""
    model, variables = cases.model()

    @jax.jit
    def both(tokens):
        cache = empty_cache(model.config, len(tokens), 9, model.dtype, model.scan)
        caches = (None, cache)
        return [model.apply(variables, tokens, None, c, method="hidden").x for c in caches]

    clean, cached = both(cases.tokens(2, 4))
    np.testing.assert_allclose(cached, clean, atol=1e-5)


def drawn(key, logits):
    """Chooses any token, so that it shows the key."""
    return jax.random.randint(key, (), 0, logits.shape[0])


def test_one_key_gives_the_same_texts_and_a_text_ends_at_its_end():
    """Token i of text b is drawn by fold_in(fold_in(key, i), b)."""
    model, variables = cases.model(scan=True)
    prompts, how = padded(TEXTS), {"count": COUNT, "choose": drawn}
    never, free = {**how, "ends": (cases.VOCABULARY,)}, np.zeros((2, COUNT))
    for seed in (1, 0):
        key = jax.random.key(seed)
        free = np.asarray(generate(model, variables, prompts, key, **never).tokens)
        for b, i in ((0, 0), (1, 0), (0, 1), (1, COUNT - 1)):
            own = jax.random.fold_in(jax.random.fold_in(key, i), b)
            assert free[b, i] == drawn(own, jnp.zeros(cases.VOCABULARY))
    where = int(np.flatnonzero(free[0] != free[0, 0])[0])
    end = int(free[0, where])
    made = generate(model, variables, prompts, jax.random.key(0), ends=(end,), **how)
    assert made.lengths[0] == where + 1 < COUNT
    wanted = [*free[0, : where + 1], *[end] * (COUNT - where - 1)]
    np.testing.assert_array_equal(made.tokens[0], wanted)
    stop = np.flatnonzero(free[1] == end)
    length = stop[0] + 1 if len(stop) else COUNT
    np.testing.assert_array_equal(made.tokens[1, :length], free[1, :length])


def test_draws_have_the_probabilities_asked_for():
    """Fails if top_p leaves out the token that reaches it or precedes the temperature, or if the
    temperature multiplies.
    """
    logits = jnp.log(jnp.asarray([0.1, 0.5, 0.15, 0.25]))
    keys = jax.random.split(jax.random.key(0), 4000)
    for sampling, wanted in [
        (Sampling(), [0.1, 0.5, 0.15, 0.25]),
        (Sampling(temperature=0.5), [0.01 / 0.345, 0.25 / 0.345, 0.0225 / 0.345, 0.0625 / 0.345]),
        (Sampling(top_p=0.7), [0.0, 2 / 3, 0.0, 1 / 3]),
        (Sampling(temperature=0.5, top_p=0.7), [0.0, 1.0, 0.0, 0.0]),
        (Sampling(top_k=1), [0.0, 1.0, 0.0, 0.0]),
    ]:
        drawn = jax.jit(jax.vmap(sampling, (0, None)))(keys, logits)
        share = np.bincount(drawn, minlength=4) / len(keys)
        np.testing.assert_allclose(share, wanted, atol=4 * 0.5 / len(keys) ** 0.5)
        assert (share[np.asarray(wanted) == 0] == 0).all()
    assert greedy(keys[0], logits) == 1


def test_what_cannot_be_generated_is_refused():
    model, variables = cases.model()
    with pytest.raises(UserError, match=r"6 tokens and 43 new ones are more than .* 48"):
        generate(model, variables, padded(TEXTS), count=43)
    with pytest.raises(UserError, match="holds no token"):
        padded([[1], []])
    with pytest.raises(UserError, match=r"shape \(1, 0\): give i32"):
        model.apply(variables, jnp.zeros((1, 0), jnp.int32))
    with pytest.raises(UserError, match="count is 0"):
        generate(model, variables, padded(TEXTS), count=0)
    for wrong in ({"temperature": 0.0}, {"top_k": 0}, {"top_p": 1.5}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            Sampling(**wrong)
