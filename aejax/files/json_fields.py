"""Checks the fields of a JSON file, which may have been edited by hand since it was written.

check_fields("the index", read, {"tokens": count, "dropped": table_of(count)})
check_fields("the config", read, {"sweep": optional(table)})    # a field that may be missing
"""

from __future__ import annotations

import re
import reprlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Fits: TypeAlias = Callable[[Any], bool]
# JSON has no numbers that are not finite; `as_json` writes these strings instead.
NOT_FINITE = ("NaN", "Infinity", "-Infinity")

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


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


def positive(value: Any) -> bool:
    """Returns whether a value is a finite number above 0."""
    return number(value) and value > 0


def table(value: Any) -> bool:
    """Returns whether a value is a JSON object."""
    return isinstance(value, dict)


def text(pattern: str = ".*") -> Fits:
    """Returns a check for strings that match a regular expression as a whole."""
    return lambda value: isinstance(value, str) and bool(re.fullmatch(pattern, value, re.DOTALL))


sha256 = text("[0-9a-f]{64}")


def anything(value: Any) -> bool:
    """Returns True; such a field may hold any value, or be missing."""
    return True


def optional(fits: Fits) -> Fits:
    """Returns a check for fields that may be missing or null, and else pass the check `fits`."""
    return lambda value: value is None or fits(value)


def written(value: Any) -> bool:
    """Returns whether a value is a number, or a string that stands for NaN or an infinity."""
    return number(value) or (isinstance(value, str) and value in NOT_FINITE)


def list_of(fits: Fits) -> Fits:
    """Returns a check for lists whose values all pass the check `fits`."""
    return lambda value: isinstance(value, list) and all(map(fits, value))


def table_of(fits: Fits) -> Fits:
    """Returns a check for JSON objects whose values all pass the check `fits`."""
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


def record_of(fields: Mapping[str, Fits]) -> Fits:
    """Returns a check for JSON objects whose fields pass their checks, as in `check_fields`."""
    return lambda value: (
        isinstance(value, dict) and all(fits(value.get(name)) for name, fits in fields.items())
    )


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
            raise ValueError(f"{name!r} of {what} is {shown(entry.get(name))}")


def shown(value: Any) -> str:
    """Returns a value from a file for an error message, of which a large one is shortened."""
    # Python raises an error for the repr of an integer with thousands of digits.
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of more than 64 bits"
    return _SHORT.repr(value)
