"""Tests of firings and of rules on planted latents, whose labels and scores are known."""

import numpy as np
import pytest

from aejax.errors import UserError
from aejax.evaluation.firings import firings
from aejax.evaluation.rules import (
    Rule,
    Tokens,
    detection,
    fitted,
    frequencies,
    matched,
    spoken,
)

N = 6_000


def corpus(seed):
    """Draws tokens: words of equal frequency, whose part of speech is the word modulo 5."""
    rng = np.random.default_rng(seed)
    word = rng.integers(0, 40, N)
    after = np.append(-1, word[:-1])
    topic = np.repeat(rng.integers(0, 4, N // 100), 100)
    return Tokens(word, after, word % 5, topic, np.arange(N) % 12)


def codes(tokens, seed):
    """Latents: word 7 or 9, after 3, speech 2, topic 1, first place, at random, and dead."""
    rng = np.random.default_rng(seed)
    on = [
        np.isin(tokens.word, [7, 9]),
        tokens.after == 3,
        tokens.speech == 2,
        tokens.topic == 1,
        tokens.place == 0,
        rng.random(N) < 0.1,
        np.zeros(N, bool),
    ]
    return np.stack(on, axis=1) * (1.0 + rng.random((N, 7)))


def test_firings_hold_all_that_is_not_zero():
    dense = codes(corpus(0), 0)
    found = firings(dense[i : i + 700] for i in range(0, N, 700))
    assert (found.tokens, found.latents) == (N, 7)
    for latent in range(7):
        token, value = found.of(latent)
        np.testing.assert_array_equal(token, np.flatnonzero(dense[:, latent]))
        np.testing.assert_allclose(value, dense[token, latent], rtol=1e-6)
        np.testing.assert_allclose(found.column(latent), dense[:, latent], rtol=1e-6)
    np.testing.assert_allclose(found.frequency, (dense > 0).mean(axis=0))
    for latent in (-1, 7):
        with pytest.raises(UserError, match=f"no latent {latent}: the dictionary has 0 to 6"):
            found.of(latent)
    with pytest.raises(UserError, match="there are no codes"):
        firings([])


def test_rules_find_the_planted_labels():
    """Fails if the attribute is chosen on the tokens that chose its values, or if scores are of the
    tokens that the rule was fitted on.
    """
    fit, test = corpus(0), corpus(1)
    rules = fitted(firings([codes(fit, 0)]), fit)
    wanted = [("word", {7, 9}), ("after", {3}), ("speech", {2}), ("topic", {1}), ("place", {0})]
    for rule, (attribute, values) in zip(rules, wanted, strict=False):
        assert rule is not None
        # A part of speech is also a list of eight words, with the same score.
        if attribute != "speech":
            assert (rule.attribute, set(rule.values) >= values) == (attribute, True)
    assert rules[6] is None
    scores = detection(rules, firings([codes(test, 5)]), test)
    assert np.all(scores[:5] > 0.97)
    assert abs(scores[5] - 0.5) < 0.06
    assert np.isnan(scores[6])


def test_a_list_of_rare_words_does_not_win_by_memorising():
    """Fails if the attribute is chosen on the tokens that its values were fitted on."""
    rng = np.random.default_rng(0)
    word, topic = rng.integers(0, 3_000, N), np.repeat(rng.integers(0, 4, N // 100), 100)
    blank = np.full(N, -1)
    tokens = Tokens(word, blank, blank, topic, blank)
    on = rng.random(N) < np.where(topic == 1, 0.14, 0.05)
    (rule,) = fitted(firings([on[:, None] * 1.0]), tokens)
    assert rule is not None
    assert (rule.attribute, rule.values[0]) == ("topic", 1)


def test_the_score_of_a_half_right_rule_is_known():
    """Fails if negatives are not matched: the rare words alone would give a high score."""
    rng = np.random.default_rng(0)
    # Words 0 and 1 are frequent, 2 to 81 rare. The latent is active at half of the rare words.
    word = np.where(rng.random(N) < 0.8, rng.integers(0, 2, N), rng.integers(2, 82, N))
    blank = np.full(N, -1)
    tokens = Tokens(word, blank, blank, blank, blank)
    on = (word >= 2) & (word % 2 == 0)
    active = firings([on[:, None] * 1.0])
    rare = [Rule("word", tuple(range(2, 82)), 1.0)]
    assert detection(rare, active, tokens)[0] == pytest.approx(0.5)
    even = [Rule("word", tuple(range(2, 82, 4)), 1.0)]  # half of the active words
    assert detection(even, active, tokens)[0] == pytest.approx(0.75, abs=0.03)
    positive, negative = matched(active, 0, frequencies(word), seed=3)
    assert not on[negative].any()
    assert on[positive].all()
    assert (word[negative] >= 2).all()


def test_rules_are_written_in_words_and_misfits_refused():
    names = {"word": [f"w{i}" for i in range(9)]}
    assert spoken(Rule("word", (3, 1), 1.0), names) == "word: w3 · w1"
    many = Rule("word", tuple(range(8)), 1.0)
    assert spoken(many, names, most=2) == "word: w0 · w1 and 6 more"
    assert spoken(Rule("place", (0,), 1.0), names) == "place in the sentence: 0"
    tokens = corpus(0)
    active = firings([codes(tokens, 0)])
    with pytest.raises(UserError, match="2 rules for 7 latents"):
        detection([None, None], active, tokens)
    with pytest.raises(UserError, match="the attribute topic has shape"):
        fitted(active, tokens._replace(topic=tokens.topic[:9]))
