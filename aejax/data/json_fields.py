"""Checks of the fields of a JSON file, which somebody may have edited since it was written.

check_fields("the index", read, {"tokens": count, "dropped": table_of(count)})
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Fits: TypeAlias = Callable[[Any], bool]


def flag(value: Any) -> bool:
    """Accepts True or False."""
    return isinstance(value, bool)


def count(value: Any) -> bool:
    """Accepts an integer that is 0 or more."""
    return type(value) is int and value >= 0  # isinstance would accept True and False


def positive_count(value: Any) -> bool:
    """Accepts an integer that is 1 or more."""
    return count(value) and value > 0


def number(value: Any) -> bool:
    """Accepts a finite number."""
    # The comparison is False for NaN, and for an int that is too large for a float.
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def non_negative(value: Any) -> bool:
    """Accepts a finite number that is 0 or more."""
    return number(value) and value >= 0


def table(value: Any) -> bool:
    """Accepts a JSON object."""
    return isinstance(value, dict)


def text(pattern: str = ".*") -> Fits:
    """Accepts a string that matches the regular expression as a whole."""
    return lambda value: isinstance(value, str) and bool(re.fullmatch(pattern, value, re.DOTALL))


sha256 = text("[0-9a-f]{64}")


def list_of(fits: Fits) -> Fits:
    """Accepts a list whose values all pass the check `fits`."""
    return lambda value: isinstance(value, list) and all(map(fits, value))


def table_of(fits: Fits) -> Fits:
    """Accepts a JSON object whose values all pass the check `fits`."""
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


def check_fields(what: str, entry: Any, fields: Mapping[str, Fits]) -> None:
    """Applies its check to each field; a missing field counts as None.

    Args:
      what: what `entry` is, for the error message.
      entry: the value that was read.
      fields: the check of each field by name; other fields are not looked at.

    Raises:
      ValueError: if `entry` is not a JSON object, or a field fails its check.
    """
    if not table(entry):
        raise ValueError(f"{what} is not a JSON object")
    for name, fits in fields.items():
        if not fits(entry.get(name)):
            raise ValueError(f"{name!r} of {what} is {entry.get(name)!r:.80}")
