"""Tests measures of texts against figures of other libraries and sums by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import aejax as ae
from aejax.evaluation import ngram, texts


def drawn(seed: int, n: int) -> list[list[str]]:
    random = np.random.default_rng(seed)
    lengths = (int(random.integers(6, 14)) for _ in range(n))
    return [[f"w{int(x)}" for x in random.integers(0, 6, length)] for length in lengths]


def rebuilt(references: list[list[str]]) -> list[list[str]]:
    """Replaces a fifth of the words, and cuts up to two at the end."""
    random = np.random.default_rng(1)
    return [
        [w if random.random() < 0.8 else "w9" for w in text][
            : max(5, len(text) - int(random.integers(0, 3)))
        ]
        for text in references
    ]


def test_bleu_is_that_of_nltk_and_sacrebleu():
    """The figures are those of nltk 3.10.4 (and, for bleu, of sacrebleu 2.6.0) on these texts.

    Fails if n-grams are not clipped, or the brevity penalty is left out.
    """
    references = drawn(0, 30)
    assert texts.bleu(references, rebuilt(references)) == pytest.approx(0.5343279354790149)
    assert texts.bleu(references, references) == 1.0
    assert texts.bleu(references, [["other"] * 6] * 30) == 0.0
    # sentence_bleu with SmoothingFunction(epsilon=0.5).method1
    assert texts.self_bleu(drawn(2, 12)) == pytest.approx(0.3620941521161527)


def test_token_accuracy_and_distinct_by_hand():
    one, other = ["a", "b", "c", "d"], ["a", "x", "c"]
    assert texts.token_accuracy([one], [other]) == 0.5
    assert texts.token_accuracy([other], [one]) == pytest.approx(2 / 3)
    assert texts.distinct([one, other], 1) == 5 / 7
    assert texts.distinct([one, one], 2) == 0.5


def test_paths_by_hand():
    assert texts.edit_distance("kitten", "sitting") == 3
    assert texts.edit_distance("", "abc") == 3
    even = texts.smoothness(["aaaa", "aaab", "aabb", "abbb", "bbbb"])
    assert even == (1.0, 1.0)
    back = texts.smoothness(["aaaa", "bbbb", "aaaa", "bbbb"])
    assert back.monotone == pytest.approx(4 / 6)  # the second of three steps moves back twice
    jump = texts.smoothness(["aaaa", "aaaa", "bbbb", "bbbb"])
    assert jump == (1.0, 3.0)
    assert math.isnan(texts.smoothness(["a", "a", "a"]).largest_step)


CORPUS = [["a", "b", "a", "c"], ["a", "b", "b"], ["c", "a", "b"]]


def kneser_ney(context: tuple[str, ...], token: str, order: int, discount: float) -> float:
    """The definition, with lists in place of counters and recursion in place of a loop."""
    runs = [
        run
        for text in CORPUS
        for padded in [["<start>"] * (order - 1) + text + ["<end>"]]
        for run in zip(*(padded[i:] for i in range(order)), strict=False)
    ]

    def level(n: int, context: tuple[str, ...]) -> float:
        """Interpolates the n-grams of which `context` is all but the last token."""
        if n == 0:
            return 1.0 / 5.0  # a, b, c, the end, and the unknown
        own = runs if n == order else [run[order - n :] for run in sorted(set(runs))]
        if n < order:
            # Each n-gram counts once for each different token before it.
            own = [run[1:] for run in sorted({run[order - n - 1 :] for run in runs})]
        below = level(n - 1, context[1:])
        after = [run[-1] for run in own if run[:-1] == context]
        if not after:
            return below
        count = sum(last == token for last in after)
        left = discount * len(set(after)) / len(after)
        return max(count - discount, 0.0) / len(after) + left * below

    return level(order, context)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_ngram_model_is_kneser_ney(order):
    """Fails if lower orders count occurrences, or a level's discount is not given to the next."""
    model = ngram.NGram(CORPUS, order, 0.6)
    known = ["a", "b", "c", "<end>", "zebra"]
    for context in itertools.product(["<start>", "a", "b", "zebra"], repeat=order - 1):
        found = [model.prob(context, token) for token in known]
        assert sum(found) == pytest.approx(1.0)
        for token, value in zip(known, found, strict=True):
            assert value == pytest.approx(kneser_ney(context, token, order, 0.6))
    cost = -model.log_prob(["a", "b"]) - model.log_prob(["zebra"])
    assert model.perplexity([["a", "b"], ["zebra"]]) == pytest.approx(math.exp(cost / 5))


def test_wrong_texts_are_refused():
    for call, words in (
        (lambda: texts.bleu([["a"]], []), "1 references and 0 candidates"),
        (lambda: texts.self_bleu([["a"]]), "was given 1"),
        (lambda: texts.distinct([["a"]], 2), "none of 1 texts has 2 tokens"),
        (lambda: texts.smoothness([["a"], ["b"]]), "was given 2 texts"),
        (lambda: ngram.NGram([], 2), "of 0 texts"),
        (lambda: ngram.NGram(CORPUS).perplexity([]), "the perplexity of no texts"),
    ):
        with pytest.raises(ae.UserError, match=words):
            call()


def test_coverage_by_hand():
    """Fails if an answer counts for two known ones, or though another text is nearer."""
    known = [["a", "small", "dog"], ["a", "river", "bank"]]
    others = [["the", "colour", "red"], ["a", "small", "cat"]]
    assert texts.token_f1(["a", "a", "dog"], known[0]) == pytest.approx(2 * 2 / 6)
    assert texts.token_f1(["x"], known[0]) == 0.0
    assert texts.coverage([["dog"], ["small", "dog"]], known, others) == 0.5
    assert texts.coverage([["dog"], ["river"]], known, others) == 1.0
    assert texts.coverage([["cat"], ["red"], ["unseen"]], known, others) == 0.0
    assert texts.coverage([["a", "small"]], known, others) == 0.0  # as near to another text
    with pytest.raises(ae.UserError, match="needs the known answers"):
        texts.coverage([["a"]], [], others)
