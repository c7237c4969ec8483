"""Labels of latents by rules: what the tokens at which a latent is active have in common.

    rules = fitted(fit_firings, fit_tokens)                # one Rule or None for each latent
    scores = detection(rules, test_firings, test_tokens)   # f64[m], balanced accuracy

A rule says that one attribute of a token has one of a few values. The attribute is the token's
word, the word before it, its part of speech, the topic of its document, or its place in the
sentence. Rules are fitted on one set of documents and scored on another. The score is the balanced
accuracy with which the rule distinguishes tokens at which the latent is active from others whose
words are about as frequent in the corpus; otherwise a rule could score well by naming rare words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from aejax.errors import UserError
from aejax.evaluation.firings import Firings

# The largest number of values of a rule, for each attribute.
LIMITS = {"word": 64, "after": 64, "speech": 3, "topic": 3, "place": 4}
PLACES = 16  # all places in a sentence from this one on count as the same place
FEWEST = 16  # latents that are active for fewer tokens get no rule and no score
MOST = 4_096  # the most active tokens of a latent that a rule is fitted on or scored with
TRIES = 16  # how often a matched negative is drawn again if the latent is active there


class Tokens(NamedTuple):
    """The attributes of N tokens, as indices; -1 where a token has none."""

    word: np.ndarray  # i32[N], the token's index in the vocabulary
    after: np.ndarray  # i32[N], the vocabulary index of the token before it in its document
    speech: np.ndarray  # i32[N], its part of speech
    topic: np.ndarray  # i32[N], the topic of its document
    place: np.ndarray  # i32[N], the number of words before it in its sentence


class Rule(NamedTuple):
    """A condition on tokens: it holds where a token's attribute has one of the given values."""

    attribute: str  # a field of Tokens
    values: tuple[int, ...]  # the values, the most typical of active tokens first
    fit: float  # the balanced accuracy on the second half of the tokens that it was fitted on

    def holds(self, tokens: Tokens) -> np.ndarray:
        """Returns for which tokens the rule holds, bool[N]."""
        return np.isin(_attribute(tokens, self.attribute), self.values)


def fitted(active: Firings, tokens: Tokens, seed: int = 0) -> list[Rule | None]:
    """Fits one rule to each latent.

    For each attribute, the rule's values are those that are more frequent among tokens at which the
    latent is active than among other tokens of similar frequency, in the first half of the tokens.
    The rule's attribute is the one whose values score best in the second half, so that a long list
    of values does not win by memorising the first half.

    Args:
      active: the nonzero activations of the latents.
      tokens: the attributes of the same tokens, in the order of the documents.
      seed: the seed of the matched tokens.

    Returns:
      A rule for each latent; None if it is active for too few tokens.
    """
    _check(active, tokens)
    bins = frequencies(tokens.word)
    halves = np.arange(active.tokens) < active.tokens // 2
    rules: list[Rule | None] = []
    for latent in range(active.latents):
        positive, negative = matched(active, latent, bins, seed)
        early, late = halves[positive], halves[negative]
        if min(early.sum(), (~early).sum()) < FEWEST // 2 or not late.any() or late.all():
            rules.append(None)
            continue
        best = None
        for name, limit in LIMITS.items():
            column = _attribute(tokens, name)
            values = _values(column[positive[early]], column[negative[late]], limit)
            if not values:
                continue
            score = _score(column[positive[~early]], column[negative[~late]], values)
            if best is None or score > best.fit:
                best = Rule(name, values, score)
        rules.append(best)
    return rules


def detection(
    rules: Sequence[Rule | None], active: Firings, tokens: Tokens, seed: int = 1
) -> np.ndarray:
    """Scores rules on tokens on which they were not fitted.

    Args:
      rules: a rule for each latent, or None.
      active: the nonzero activations of the latents on these tokens.
      tokens: the attributes of the tokens.
      seed: the seed of the matched tokens.

    Returns:
      f64[m], the balanced accuracy; NaN if there is no rule, or the latent is active for too few
      tokens.
    """
    _check(active, tokens)
    if len(rules) != active.latents:
        raise UserError(f"{len(rules)} rules for {active.latents} latents: give one for each")
    bins = frequencies(tokens.word)
    scores = np.full(active.latents, np.nan)
    for latent, rule in enumerate(rules):
        if rule is None:
            continue
        positive, negative = matched(active, latent, bins, seed)
        if len(positive) >= FEWEST and len(negative):
            column = _attribute(tokens, rule.attribute)
            scores[latent] = _score(column[positive], column[negative], rule.values)
    return scores


def matched(
    active: Firings, latent: int, bins: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Chooses tokens at which a latent is active, and others whose words are about as frequent.

    For each of the active tokens, another token is drawn from the same bin of frequency. It is left
    out if the latent is active at it even after TRIES further draws.

    Args:
      active: the nonzero activations of the latents.
      latent: the latent.
      bins: i[N], the bin of each token's frequency.
      seed: the seed of the draws; they also depend on the latent.

    Returns:
      The indices of the active tokens, i64[n], and of the other tokens, at most n. If the latent is
      active at more than MOST tokens, n = MOST of these are chosen at random.
    """
    random = np.random.default_rng([seed, latent])
    positive, _ = active.of(latent)
    on = np.zeros(len(bins), bool)
    on[positive] = True
    if len(positive) > MOST:
        positive = np.sort(random.choice(positive, MOST, replace=False))
    order = np.argsort(bins, kind="stable")
    ends = np.cumsum(np.bincount(bins))
    sizes = np.bincount(bins)
    own = bins[positive]

    def draw(which: np.ndarray) -> np.ndarray:
        within = (random.random(len(which)) * sizes[which]).astype(np.int64)
        return order[ends[which] - sizes[which] + within]

    negative = draw(own)
    for _ in range(TRIES):
        again = np.flatnonzero(on[negative])
        if not len(again):
            break
        negative[again] = draw(own[again])
    return positive, negative[~on[negative]]


def frequencies(word: np.ndarray) -> np.ndarray:
    """Returns the bin of each token's frequency: floor(log2 of how often its word occurs), i[N]."""
    counts = np.bincount(word)
    return np.floor(np.log2(counts[word])).astype(np.int64)


def spoken(rule: Rule, names: Mapping[str, Sequence[str]], most: int = 6) -> str:
    """Writes a rule in words, such as "word: the · a" or "part of speech: nn · nns".

    Args:
      rule: the rule.
      names: attribute -> the names of its values, by index.
      most: the largest number of values to name.
    """
    titles = {
        "word": "word",
        "after": "after",
        "speech": "part of speech",
        "topic": "topic",
        "place": "place in the sentence",
    }
    known = names.get(rule.attribute)
    shown = [str(v) if known is None else known[v] for v in rule.values[:most]]
    more = f" and {len(rule.values) - most} more" if len(rule.values) > most else ""
    return f"{titles[rule.attribute]}: {' · '.join(shown)}{more}"


def _attribute(tokens: Tokens, name: str) -> np.ndarray:
    column = getattr(tokens, name)
    return np.minimum(column, PLACES) if name == "place" else column


def _values(positive: np.ndarray, negative: np.ndarray, limit: int) -> tuple[int, ...]:
    """Returns at most `limit` values of an attribute that are more frequent in one set of tokens.

    Args:
      positive: i[n], the attribute of the tokens at which a latent is active.
      negative: i[k], the attribute of the other tokens.
      limit: the largest number of values.

    Returns:
      The values that are more frequent in `positive`, the largest difference first.
    """
    size = int(max(positive.max(initial=0), negative.max(initial=0))) + 1
    shares = []
    for values in (positive, negative):
        counts = np.bincount(values[values >= 0], minlength=size)
        shares.append(counts / max(len(values), 1))
    gain = shares[0] - shares[1]
    order = np.argsort(-gain, kind="stable")[:limit]
    return tuple(int(v) for v in order if gain[v] > 0)


def _score(positive: np.ndarray, negative: np.ndarray, values: Sequence[int]) -> float:
    right = np.isin(positive, values).mean(), (~np.isin(negative, values)).mean()
    return 0.5 * float(sum(right))


def _check(active: Firings, tokens: Tokens) -> None:
    for name, column in tokens._asdict().items():
        if np.shape(column) != (active.tokens,):
            raise UserError(
                f"there are activations on {active.tokens} tokens, but the attribute {name} has "
                f"shape {np.shape(column)}: give the attributes of the same tokens"
            )
