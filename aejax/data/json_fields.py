"""What a field of a JSON file may be: such files are read back, and may have been edited.

check_fields("the index", read, {"tokens": count, "dropped": table_of(count)})   # or ValueError
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Fits: TypeAlias = Callable[[Any], bool]


def flag(value: Any) -> bool:
    """True or False."""
    return isinstance(value, bool)


def count(value: Any) -> bool:
    """An integer, 0 or more."""
    return type(value) is int and value >= 0  # True is an int too


def some(value: Any) -> bool:
    """An integer, 1 or more."""
    return count(value) and value > 0


def number(value: Any) -> bool:
    """A finite number."""
    # NaN compares false; an int may be too large for a float.
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def positive(value: Any) -> bool:
    """A finite number, 0 or more."""
    return number(value) and value >= 0


def table(value: Any) -> bool:
    """Names and values."""
    return isinstance(value, dict)


def text(pattern: str = ".*") -> Fits:
    """A string that matches as a whole."""
    return lambda value: isinstance(value, str) and bool(re.fullmatch(pattern, value, re.DOTALL))


sha256 = text("[0-9a-f]{64}")


def list_of(fits: Fits) -> Fits:
    """A list whose values all fit."""
    return lambda value: isinstance(value, list) and all(map(fits, value))


def table_of(fits: Fits) -> Fits:
    """Names, and values that all fit."""
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


def check_fields(what: str, entry: Any, fields: Mapping[str, Fits]) -> None:
    """Compares each field with what it may be; a field that is not there is None.

    Raises:
      ValueError: names the field and its value.
    """
    if not table(entry):
        raise ValueError(f"{what} is no table")
    for name, fits in fields.items():
        if not fits(entry.get(name)):
            raise ValueError(f"{name!r} of {what} is {entry.get(name)!r:.80}")
