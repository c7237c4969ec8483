"""Checks the fields of a JSON file, which may have been edited by hand since it was written.

check_fields("the index", read, {"tokens": count, "dropped": table_of(count)})
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Fits: TypeAlias = Callable[[Any], bool]


def flag(value: Any) -> bool:
    """Returns whether a value is True or False."""
    return isinstance(value, bool)


def count(value: Any) -> bool:
    """Returns whether a value is an integer that is 0 or more."""
    return type(value) is int and value >= 0  # isinstance would accept True and False


def positive_count(value: Any) -> bool:
    """Returns whether a value is an integer that is 1 or more."""
    return count(value) and value > 0


def number(value: Any) -> bool:
    """Returns whether a value is a finite number."""
    # The comparison is False for NaN, and for an int that is too large for a float.
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def non_negative(value: Any) -> bool:
    """Returns whether a value is a finite number that is 0 or more."""
    return number(value) and value >= 0


def table(value: Any) -> bool:
    """Returns whether a value is a JSON object."""
    return isinstance(value, dict)


def text(pattern: str = ".*") -> Fits:
    """Returns a check for strings that match a regular expression as a whole."""
    return lambda value: isinstance(value, str) and bool(re.fullmatch(pattern, value, re.DOTALL))


sha256 = text("[0-9a-f]{64}")


def list_of(fits: Fits) -> Fits:
    """Returns a check for lists whose values all pass the check `fits`."""
    return lambda value: isinstance(value, list) and all(map(fits, value))


def table_of(fits: Fits) -> Fits:
    """Returns a check for JSON objects whose values all pass the check `fits`."""
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


def check_fields(what: str, entry: Any, fields: Mapping[str, Fits]) -> None:
    """Checks that a JSON object has valid fields; the value of a missing field is None.

    Args:
      what: the name of the object, for the error message.
      entry: the JSON object.
      fields: field name -> the check for its value; other fields are ignored.

    Raises:
      ValueError: if `entry` is not a JSON object, or a field fails its check.
    """
    if not table(entry):
        raise ValueError(f"{what} is not a JSON object")
    for name, fits in fields.items():
        if not fits(entry.get(name)):
            raise ValueError(f"{name!r} of {what} is {entry.get(name)!r:.80}")
