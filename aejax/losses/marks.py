"""Marks: attributes of a loss term that determine how bounds and training treat it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from aejax.types import Term


class Mark(NamedTuple):
    """How a bound may treat a term, and whether a controller adjusts the term's weight."""

    # "ratio": a summand of log q(z | x) - log p(x, z); "penalty": averaged over draws of z.
    part: str = "penalty"
    # Whether the term is evaluated at a draw of z; False: it is an expectation in closed form,
    # which only the ELBO may use.
    sampled: bool = True
    stick: bool = False  # True: gradients flow through z only, not the parameters of log q
    steered: bool = False  # True: a controller adjusts its weight to reach the bottleneck's `l0`


def ratio(sampled: bool = True, stick: bool = False) -> Callable[[Term], Term]:
    """Returns a decorator that marks a term as a summand of log q(z | x) - log p(x, z).

    Args:
      sampled: whether the term is evaluated at a draw of z; False: it is an expectation over z.
      stick: whether gradients flow only through z and not through the parameters of log q.
    """

    def decorate(term: Term) -> Term:
        term.mark = Mark("ratio", sampled, stick)  # type: ignore[attr-defined]
        return term

    return decorate


def mark(term: Term) -> Mark:
    """Returns the `Mark` of a term; if it was not marked, the Mark of a penalty."""
    return getattr(term, "mark", Mark())
