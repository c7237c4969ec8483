"""Measures of reconstructed and drawn texts, which are sequences of words or of token ids.

    bleu(test, reconstructions)         how alike texts and their reconstructions are
    distinct(samples, 2)                how various samples are
    self_bleu(samples)                  how alike samples are; high if they repeat each other
    smoothness(path)                    how evenly a path moves from one end to the other
    coverage(answers, known, others)    the share of known answers that are given
    NGram(held_out, 3).perplexity(samples)     how usual samples are; see `aejax.evaluation.ngram`

A text is a sequence of hashable tokens, such as a list of words. All results lie in [0, 1] if not
said otherwise.
"""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from aejax.errors import UserError

Tokens: TypeAlias = Sequence[Hashable]


def grams(text: Tokens, n: int) -> list[tuple[Hashable, ...]]:
    """Returns all runs of n neighbouring tokens of a text, in order."""
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]


def bleu(references: Sequence[Tokens], candidates: Sequence[Tokens], order: int = 4) -> float:
    """Computes the BLEU of a corpus with one reference for each candidate (Papineni et al. 2002).

    It is the geometric mean of the precisions of n-grams, n = 1 to `order`, over all candidates
    together, times the brevity penalty. There is no smoothing: without a single common n-gram of
    some n it is 0. An n that no candidate is long enough for is left out.

    Args:
      references: the texts.
      candidates: a reconstruction of each.
      order: the longest n-gram.

    Raises:
      UserError: if there are no texts, or their numbers differ.
    """
    _check_pairs(references, candidates)
    found, total = np.zeros(order), np.zeros(order)
    for reference, candidate in zip(references, candidates, strict=True):
        one, all_ = _matches([reference], candidate, order)
        found, total = found + one, total + all_
    return _combined(found, total, sum(map(len, references)), sum(map(len, candidates)))


def self_bleu(texts: Sequence[Tokens], order: int = 4, most: int = 200) -> float:
    """Computes the mean BLEU of each text with all other texts as references (Zhu et al. 2018).

    A text's brevity penalty takes the reference of the nearest length, and an n-gram precision
    without a match counts as half a match (smoothing 1 of Chen and Cherry 2014), because
    single texts often lack a common n-gram.

    Args:
      texts: two or more texts.
      order: the longest n-gram.
      most: the number of texts used, the first ones; time grows with its square.

    Raises:
      UserError: if there are fewer than two texts.
    """
    texts = texts[:most]
    if len(texts) < 2:
        raise UserError(
            f"self_bleu compares texts with each other, but was given {len(texts)}: give 2 or more"
        )
    scores = []
    for i, text in enumerate(texts):
        others = [*texts[:i], *texts[i + 1 :]]
        found, total = _matches(others, text, order)
        found = np.where((found == 0) & (total > 0), 0.5, found)
        lengths = sorted((len(other) for other in others), key=lambda n: (abs(n - len(text)), n))
        scores.append(_combined(found, total, lengths[0], len(text)))
    return float(np.mean(scores))


def _matches(
    references: Sequence[Tokens], candidate: Tokens, order: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns for n = 1 to `order` how many n-grams are in a reference, and how many there are.

    An n-gram matches at most as often as it is in the reference that has it most often.
    """
    found, total = np.zeros(order), np.zeros(order)
    for n in range(1, order + 1):
        own = collections.Counter(grams(candidate, n))
        most: collections.Counter = collections.Counter()
        for reference in references:
            most |= collections.Counter(gram for gram in grams(reference, n) if gram in own)
        found[n - 1] = sum((own & most).values())
        total[n - 1] = sum(own.values())
    return found, total


def _combined(found: np.ndarray, total: np.ndarray, reference: int, candidate: int) -> float:
    """Returns the geometric mean of precisions, times the brevity penalty of the two lengths."""
    there = total > 0
    if not there.any() or (found[there] == 0).any():
        return 0.0
    mean = np.exp(np.mean(np.log(found[there] / total[there])))
    return float(mean * min(1.0, math.exp(1.0 - reference / candidate)))


def token_accuracy(references: Sequence[Tokens], candidates: Sequence[Tokens]) -> float:
    """Computes the share of the references' tokens that the candidate has at the same place.

    Raises:
      UserError: if there are no texts, or their numbers differ.
    """
    _check_pairs(references, candidates)
    pairs = list(zip(references, candidates, strict=True))
    same = sum(a == b for one, other in pairs for a, b in zip(one, other, strict=False))
    return same / max(sum(map(len, references)), 1)


def token_f1(one: Tokens, other: Tokens) -> float:
    """Computes the F1 of the tokens that two texts have in common, counted with repetitions.

    It is the harmonic mean of the shares of the common tokens in either text (Rajpurkar et al.
    2016, section 6.1); 0 if nothing is common.
    """
    common = sum((collections.Counter(one) & collections.Counter(other)).values())
    return 2.0 * common / (len(one) + len(other)) if common else 0.0


def coverage(answers: Sequence[Tokens], known: Sequence[Tokens], others: Sequence[Tokens]) -> float:
    """Computes the share of the known answers to a prompt that some answers express.

    An answer counts for the text that is nearest to it by `token_f1`, among the known answers and
    others, which answer other prompts. If another text is as near as a known one, or no token is
    common, it counts for none.

    Args:
      answers: the answers to judge.
      known: the known answers to the prompt, one or more.
      others: texts that answer other prompts.

    Raises:
      UserError: if there is no known answer.
    """
    if not known:
        raise UserError("coverage needs the known answers to a prompt: give one or more")
    found = set()
    for answer in answers:
        scores = [token_f1(answer, text) for text in known]
        if max(scores) > max((token_f1(answer, text) for text in others), default=0.0):
            found.add(scores.index(max(scores)))
    return len(found) / len(known)


def distinct(texts: Sequence[Tokens], n: int) -> float:
    """Computes the number of different n-grams over that of all n-grams (Li et al. 2016).

    It falls as the number of texts grows, so compare equal numbers of texts alone.

    Raises:
      UserError: if no text has n tokens.
    """
    found = [gram for text in texts for gram in grams(text, n)]
    if not found:
        raise UserError(f"none of {len(texts)} texts has {n} tokens: give longer ones")
    return len(set(found)) / len(found)


def _check_pairs(references: Sequence[Tokens], candidates: Sequence[Tokens]) -> None:
    if len(references) != len(candidates) or not len(references):
        raise UserError(
            f"there are {len(references)} references and {len(candidates)} candidates: give one "
            "candidate for each reference, and one or more of each"
        )


def edit_distance(first: Tokens, second: Tokens) -> int:
    """Computes the least number of insertions, deletions and substitutions between two texts."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


class Smoothness(NamedTuple):
    """How evenly a path of texts moves from its first to its last text."""

    monotone: float  # the share of steps that do not move back, of both distances
    largest_step: float  # the largest step over the mean step, 1 or more; NaN if nothing changes


def smoothness(path: Sequence[Tokens]) -> Smoothness:
    """Measures a path by edit distances divided by the length of the longer text.

    Args:
      path: three or more texts. A step moves back if it brings the text nearer to the first one, or
        farther from the last one.

    Raises:
      UserError: if the path has fewer than three texts.
    """
    if len(path) < 3:
        raise UserError(
            f"smoothness compares the steps of a path of texts, but was given {len(path)} texts: "
            "give three or more"
        )

    def apart(one: Tokens, other: Tokens) -> float:
        return edit_distance(one, other) / max(len(one), len(other), 1)

    from_first = np.array([apart(text, path[0]) for text in path])
    to_last = np.array([apart(text, path[-1]) for text in path])
    forward = np.concatenate([np.diff(from_first) >= -1e-9, np.diff(to_last) <= 1e-9])
    steps = np.array([apart(*pair) for pair in itertools.pairwise(path)])
    largest = steps.max() / steps.mean() if steps.any() else np.nan
    return Smoothness(float(forward.mean()), float(largest))
