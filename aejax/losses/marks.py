"""Marks: attributes of a term that say how bounds and training must treat it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from aejax.types import Term


class Mark(NamedTuple):
    """How a bound may treat a term, and whether a controller adjusts the term's weight.

    The log-ratio is log p(x, z) - log q(z | x).
    """

    part: str = "penalty"  # "ratio": a summand of the log-ratio; "penalty": averaged over draws
    sampled: bool = True  # False: an expectation in closed form, which only the ELBO may use
    stick: bool = False  # True: no gradient through the parameters of log q, only through z
    steered: bool = False  # True: a controller adjusts its weight to reach the bottleneck's `l0`


def ratio(sampled: bool = True, stick: bool = False) -> Callable[[Term], Term]:
    """Returns a decorator that marks a term as a summand of log p(x, z) - log q(z | x).

    Args:
      sampled: whether the term is evaluated at a draw of z; False: it is an expectation over z.
      stick: whether gradients flow only through z and not through the parameters of log q.
    """

    def decorate(term: Term) -> Term:
        term.mark = Mark("ratio", sampled, stick)  # type: ignore[attr-defined]
        return term

    return decorate


def mark(term: Term) -> Mark:
    """Returns the `Mark` of a term; a term without one counts as a penalty."""
    return getattr(term, "mark", Mark())
