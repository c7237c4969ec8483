"""JSON that aejax writes and reads: every reader names the file and the field that is wrong.

write_json(folder / "result.json", {"elbo": -90.1})
read_json(folder / "result.json", {"steps": optional(count)})    # a dict with a valid field
"""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from aejax.errors import UserError
from aejax.files.json_fields import Fits, check_fields
from aejax.files.reading import MALFORMED, read_bytes, reason
from aejax.files.writing import write_bytes

MOST_BYTES = 2**24  # the largest JSON file that is read, and the longest line of metrics.jsonl
DEPTH = 100  # how deep lists and objects may be nested


def as_json(data: Any) -> Any:
    """Converts data to JSON's types: arrays to lists, paths to strings, NaN to the string "NaN".

    Raises:
      UserError: if a value has a type that JSON cannot hold.
    """
    if isinstance(data, Mapping):
        return {str(name): as_json(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [as_json(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return "NaN" if math.isnan(data) else "Infinity" if data > 0 else "-Infinity"
    if data is None or isinstance(data, bool | int | float | str):
        return data
    if isinstance(data, os.PathLike):
        return os.fspath(data)
    if hasattr(data, "tolist"):
        return as_json(data.tolist())
    raise UserError(f"{data!r} of type {type(data).__name__} cannot be written as JSON")


def write_json(path: pathlib.Path, data: Any) -> None:
    """Writes `data` as indented JSON, completely or not at all; `as_json` converts it first."""
    text = json.dumps(as_json(data), indent=2, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def parse_json(content: bytes | str) -> Any:
    """Parses JSON from an untrusted file.

    Raises:
      ValueError: if it is not JSON, is longer than MOST_BYTES, or is nested deeper than DEPTH.
    """
    if len(content) > MOST_BYTES:
        raise ValueError(f"it has {len(content):,} bytes, but at most {MOST_BYTES:,} are read")
    if isinstance(content, bytes):  # in UTF-8 alone; `json` would take UTF-16 too
        content = content.decode().removeprefix("\ufeff")
    try:
        data = json.loads(content)
    except RecursionError as error:
        raise ValueError(f"the JSON is nested deeper than {DEPTH} levels") from error
    level = [data]
    for _ in range(DEPTH + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return data
    raise ValueError(f"the JSON is nested deeper than {DEPTH} levels")


def read_json(
    path: pathlib.Path,
    fields: Mapping[str, Fits],
    whose: str = "run",
    within: pathlib.Path | None = None,
) -> dict[str, Any]:
    """Reads a JSON object that aejax wrote, and checks its fields.

    Args:
      path: the path of the file.
      fields: name of a field -> the check of its value, as in `check_fields`.
      whose: what a folder with such a file is called in error messages, such as "run".
      within: the folder in which the file must lie after all links have been followed.

    Raises:
      UserError: if the file is missing, cannot be read, is not a JSON object, is larger than
        MOST_BYTES, is nested deeper than DEPTH, or has an invalid field.
    """
    try:
        data = parse_json(read_bytes(path, MOST_BYTES, within))
        check_fields("it", data, fields)
    except FileNotFoundError as error:
        raise UserError(
            f"{path.parent} holds no {whose}, because it has no {path.name}: give another folder"
        ) from error
    except MALFORMED as error:
        raise UserError(
            f"{path} cannot be read ({reason(error)}); restore it or remove it"
        ) from error
    return data
