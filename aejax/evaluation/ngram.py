"""A language model of n-grams, which judges the texts of other models.

judge = NGram(held_out, 3)
judge.perplexity(samples)
"""

from __future__ import annotations

import collections
import math
from collections.abc import Hashable, Sequence

from aejax.errors import UserError
from aejax.evaluation.texts import Tokens, grams

START, END = "<start>", "<end>"


class NGram:
    """A language model of n-grams by interpolated Kneser-Ney smoothing with one discount.

    See Kneser and Ney 1995, and Chen and Goodman 1999.

    The highest order counts n-grams, and each lower one counts in how many different contexts an
    n-gram occurs. The lowest order is interpolated with equal probabilities of all known tokens and
    one unknown token, so that every text has a probability.

    Args:
      texts: the texts that are counted, sequences of tokens.
      order: the longest n-gram, such as 3.
      discount: what is subtracted from each count, between 0 and 1.

    Raises:
      UserError: if there are no texts, or a number is out of range.
    """

    def __init__(self, texts: Sequence[Tokens], order: int = 3, discount: float = 0.75):
        if not len(texts) or order < 1 or not 0.0 < discount < 1.0:
            raise UserError(
                f"an n-gram model of {len(texts)} texts has order {order} and discount "
                f"{discount}: give one text or more, an order of 1 or more, and a discount "
                "between 0 and 1"
            )
        self.order, self.discount = order, discount
        self.known = {token for text in texts for token in text} | {END}
        counts: collections.Counter = collections.Counter()
        for text in texts:
            padded = [*[START] * (order - 1), *text, END]
            counts.update(grams(padded, order))
        self._levels: list[dict] = []  # from the highest order down
        for n in range(order, 0, -1):
            total: collections.Counter = collections.Counter()
            kinds: collections.Counter = collections.Counter()
            for gram, count in counts.items():
                total[gram[:-1]] += count
                kinds[gram[:-1]] += 1
            self._levels.append({"counts": counts, "total": total, "kinds": kinds})
            # The next lower order counts the contexts of each n-gram, not its occurrences.
            counts = collections.Counter(gram[1:] for gram in counts) if n > 1 else counts

    def prob(self, context: Sequence[Hashable], token: Hashable) -> float:
        """Computes the probability of a token after the last `order` - 1 tokens of a context."""
        context = tuple(context)[max(len(context) - self.order + 1, 0) :]
        token = token if token in self.known else None
        found = 1.0 / (len(self.known) + 1)
        for n in range(1, self.order + 1):
            level, before = self._levels[self.order - n], context[len(context) - n + 1 :]
            total = level["total"].get(before, 0)
            if len(before) < n - 1 or not total:
                break
            count = level["counts"].get((*before, token), 0)
            kept = max(count - self.discount, 0.0) / total
            found = kept + self.discount * level["kinds"][before] / total * found
        return found

    def log_prob(self, text: Tokens) -> float:
        """Computes the log-probability of a text with its end, in nats."""
        padded = [*[START] * (self.order - 1), *text, END]
        first = self.order - 1
        return sum(
            math.log(self.prob(padded[i - first : i], padded[i])) for i in range(first, len(padded))
        )

    def perplexity(self, texts: Sequence[Tokens]) -> float:
        """Computes exp of the mean cost of a token of some texts; their ends count as tokens.

        Raises:
          UserError: if there are no texts.
        """
        if not len(texts):
            raise UserError("the perplexity of no texts is not defined: give one or more")
        total = sum(self.log_prob(text) for text in texts)
        return math.exp(-total / sum(len(text) + 1 for text in texts))
