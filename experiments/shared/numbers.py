"""The checks of an experiment's settings, by the annotations of its dataclass.

    class Config(Numbers):
        latents: Count = 16            # 1 or more
        warmup: int = 1_000            # 0 or more
        learning_rate: float = 1e-3    # finite, and 0 or more

`check(config)` names the flag of the first setting that is out of range. It is called before data
are read or anything is written, also for settings that come from the files of a run.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np

from aejax.errors import UserError

MOST = 2**31 - 1  # counts, seeds and indices are 32-bit integers on the device
LONGEST = 1_000  # characters of a text


class Limits(NamedTuple):
    """The range of a number, which an annotation states."""

    least: float = 0.0
    most: float = math.inf


USUAL = Limits()  # the range of a number whose annotation states none
Count = Annotated[int, Limits(1)]  # an integer of 1 or more
Share = Annotated[float, Limits(0.0, 1.0)]  # a number from 0 to 1
Signed = Annotated[float, Limits(-math.inf)]  # a finite number of any sign


def check(config: Any) -> None:
    """Checks that all settings of an experiment are of their types and in their ranges.

    An integer must be 0 or more if its annotation states no other limits, a float finite and 0 or
    more, a text one line of at most LONGEST characters, and a choice one of those of its Literal.

    Raises:
      UserError: if a setting is not; the message names its flag.
    """
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        _check(field.name, hints[field.name], getattr(config, field.name), USUAL)


def check_arguments(function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Checks the arguments of a tool, as `check` does, but a float may be of any sign.

    Args:
      function: the tool.
      given: name of an argument -> its value.

    Raises:
      UserError: if an argument is not of its type or out of its range.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    for name, value in given.items():
        _check(name, hints[name], value, Limits(-math.inf) if _has(hints[name], float) else USUAL)


def _has(hint: Any, kind: type) -> bool:
    """Returns whether an annotation is a type or has it inside."""
    return hint is kind or any(_has(inner, kind) for inner in typing.get_args(hint))


def _check(name: str, hint: Any, value: Any, limits: Limits) -> None:
    wrong = _wrong(hint, value, limits)
    if wrong is not None:
        raise UserError(f"--{name.replace('_', '-')} is {value!r:.60}: give {wrong}")


def _wrong(hint: Any, value: Any, limits: Limits) -> str | None:  # noqa: PLR0911
    """Returns what a value must be instead, or None if it is right."""
    kind, inner = typing.get_origin(hint), typing.get_args(hint)
    if kind is Annotated:
        given = [limit for limit in inner[1:] if isinstance(limit, Limits)]
        return _wrong(inner[0], value, given[0] if given else limits)
    if kind in (typing.Union, types.UnionType):
        wrong = [_wrong(each, value, limits) for each in inner]
        return None if None in wrong else next(w for w in reversed(wrong) if w != "nothing")
    if kind is Literal:
        return None if value in inner else f"one of {', '.join(map(str, inner))}"
    if kind is tuple:
        each = inner[:1] * len(value) if isinstance(value, tuple) and inner[1:] == (...,) else inner
        if not isinstance(value, tuple) or len(value) != len(each):
            return "several values"
        found = [_wrong(one, item, limits) for one, item in zip(each, value, strict=True)]
        return next((wrong for wrong in found if wrong is not None), None)
    if hint is type(None):
        return None if value is None else "nothing"
    if hint is bool:
        return None if isinstance(value, bool) else "a flag"
    if hint is int:
        most = min(limits.most, MOST)
        right = type(value) is int and limits.least <= value <= most
        return None if right else _range("an integer", limits.least, most)
    if hint is float:
        most = min(limits.most, float(np.finfo(np.float32).max))
        right = type(value) in (int, float) and max(limits.least, -most) <= value <= most
        return None if right else _range("a finite number", limits.least, limits.most)
    if hint is str:
        right = isinstance(value, str) and value.isprintable() and len(value) <= LONGEST
        return None if right else f"one line of at most {LONGEST} characters"
    return None


def _range(what: str, least: float, most: float) -> str:
    words = what if math.isinf(least) else f"{what} of {least:g} or more"
    return words if math.isinf(most) else f"{words}, and at most {int(most)}"
