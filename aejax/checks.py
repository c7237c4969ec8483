"""Numbers that a user gave a part: one that makes no sense is refused in a sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax

from aejax.errors import UserError
from aejax.types import Key


def check(part: Any, name: str, holds: Callable[[Any], Any], wanted: str) -> None:
    """Looks at a number that a user gave; one that a sweep traces has no value yet, and passes.

    Args:
      part: of a model.
      name: of its attribute; None is no number, so ask for those alone that must be one.
      holds: of a number that makes sense.
      wanted: such numbers in words.

    Raises:
      UserError: if it does not hold.
    """
    value = getattr(part, name)
    if not sensible(value, holds):
        raise UserError(f"{type(part).__name__} has {name} = {value}: give {wanted}")


def sensible(value: Any, holds: Callable[[Any], Any]) -> bool:
    """Whether a number that a user gave holds; None does not, and one that is traced does."""
    if isinstance(value, jax.core.Tracer):
        return True
    # Not as an array: comparing one within a traced program gives no answer.
    value = value.item() if isinstance(value, jax.Array) else value
    return value is not None and bool(holds(value))


def check_not_rbg(key: Key, refusal: str) -> None:
    """Raises UserError in the given words for an rbg key: under vmap all draw as the first does."""
    if "rbg" in str(jax.random.key_impl(key)):
        raise UserError(refusal)


def check_positive(part: Any, name: str) -> None:
    """Raises UserError for a number that is not above 0, or is infinite."""
    check(part, name, lambda value: 0 < value < math.inf, "a number above 0")


def check_count(part: Any, least: int, *names: str) -> None:
    """Raises UserError for the first of a part's numbers that is not whole or below the least."""
    for name in names:
        check(part, name, lambda n: whole(n) and n >= least, f"a whole number, {least} or more")


def at_least(least: int, what: str, number: int) -> None:
    """Raises UserError for a whole number below the least; the error says what it is."""
    if number < least:
        raise UserError(f"{what} {number}: give {least} or more")


def whole(value: Any) -> bool:
    """Whether a number counts something: 2 and 2.0 do, 2.5, infinity and NaN do not."""
    return float(value).is_integer()
