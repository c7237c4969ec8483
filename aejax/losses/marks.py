"""What a term says about itself, for the bound that may reduce it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from aejax.types import Term


class Mark(NamedTuple):
    """How a bound may treat a term."""

    part: str = "penalty"  # "ratio" or "penalty"
    sampled: bool = True  # False: an expectation in closed form, which only the ELBO may use
    stick: bool = False  # True: log q hides its parameters' gradient


def ratio(sampled: bool = True, stick: bool = False) -> Callable[[Term], Term]:
    """Marks a term as a part of the log-ratio."""

    def decorate(term: Term) -> Term:
        term.mark = Mark("ratio", sampled, stick)  # type: ignore[attr-defined]
        return term

    return decorate


def mark(term: Term) -> Mark:
    """The mark of a term; an unmarked one is a penalty."""
    return getattr(term, "mark", Mark())
