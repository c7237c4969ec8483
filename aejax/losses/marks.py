"""Marks: what a term tells the bounds and the learner about itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from aejax.types import Term


class Mark(NamedTuple):
    """How a bound may treat a term, and whether the bottleneck steers its price."""

    part: str = "penalty"  # "ratio": a summand of the log-ratio; "penalty": averaged over draws
    sampled: bool = True  # False: an expectation in closed form, which only the ELBO may use
    stick: bool = False  # True: log q stops the gradient of its own parameters
    steered: bool = False  # True: its price is steered to the L0 that the bottleneck is given


def ratio(sampled: bool = True, stick: bool = False) -> Callable[[Term], Term]:
    """Returns a decorator that marks a term as a summand of the log-ratio.

    Args:
      sampled: whether the term is evaluated at the draw; False: it is an expectation.
      stick: whether log q stops the gradient of its own parameters.
    """

    def decorate(term: Term) -> Term:
        term.mark = Mark("ratio", sampled, stick)  # type: ignore[attr-defined]
        return term

    return decorate


def mark(term: Term) -> Mark:
    """Returns the `Mark` of a term; a term without one counts as a penalty."""
    return getattr(term, "mark", Mark())
