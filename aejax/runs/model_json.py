"""Converts a model to JSON and back; the JSON contains only names and numbers, no code.

    to_json(MLP((256,)))     {"class": "aejax.nets.mlp.MLP", "fields": {"widths": [256], ...}}
    from_json(...)           MLP((256,)), built only from classes of aejax and known jax functions

A value that is not a dataclass, dtype or known function is written as {"opaque": its name}. Such a
value, like a class from outside aejax, can be compared with the current code, but it cannot be
rebuilt.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.files import MALFORMED, json_fields, reason

# The functions that a network may have as a field, such as its activation.
FUNCTIONS = {
    **{
        f"jax.nn.{name}": getattr(jax.nn, name)
        for name in (
            "celu", "elu", "gelu", "glu", "hard_sigmoid", "hard_silu", "hard_tanh", "identity",
            "leaky_relu", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid",
            "silu", "soft_sign", "softmax", "softplus", "sparse_plus", "squareplus", "standardize",
        )
    },
    **{f"jax.numpy.{name}": getattr(jnp, name) for name in ("cos", "exp", "sin", "square", "tanh")},
}  # fmt: skip


# The annotation of a field -> the check of its value in JSON, for plain numbers and strings.
_PLAIN = {
    "int": lambda value: type(value) is int and abs(value) < 2**31,
    "float": json_fields.written,
    "bool": json_fields.flag,
    "str": json_fields.text(),
}


def to_json(value: Any) -> Any:
    """Returns a model, or the value of one of its fields, as JSON."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, Mapping):
        return {"mapping": {str(key): to_json(item) for key, item in value.items()}}
    return _part_to_json(value)


def _part_to_json(value: Any) -> dict[str, Any]:
    for name, function in FUNCTIONS.items():
        if value is function:
            return {"function": name}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"class": _name(type(value)), "fields": _fields(value)}
    try:
        return {"dtype": str(jnp.dtype(value))}
    except TypeError:
        named = value if isinstance(value, type) or callable(value) else type(value)
        return {"opaque": _name(named)}


def from_json(data: Any) -> Any:
    """Rebuilds a model from the JSON that `to_json` returned.

    Raises:
      UserError: if the JSON contains a class from outside aejax, an unknown field, or a value that
        cannot be rebuilt.
    """
    if isinstance(data, list):
        return tuple(from_json(item) for item in data)
    if not isinstance(data, dict):
        return data
    if isinstance(data.get("mapping"), dict):
        return {key: from_json(item) for key, item in data["mapping"].items()}
    if "dtype" in data:
        try:
            return jnp.dtype(data["dtype"])
        except (TypeError, ValueError) as error:
            raise _cannot(data["dtype"]) from error
    if "function" in data and str(data["function"]) in FUNCTIONS:
        return FUNCTIONS[data["function"]]
    if "class" not in data:
        raise _cannot(data.get("opaque") or data.get("function") or sorted(data))
    cls, given = _class(data["class"]), data.get("fields")
    if not isinstance(given, dict):
        raise _cannot(f"{data['class']} without fields")
    known = {field.name: field for field in dataclasses.fields(cls)}
    if unknown := sorted(given.keys() - known.keys()):
        raise UserError(
            f"the run was written by another version of aejax, whose {data['class']} had a field "
            f"{unknown[0]!r}: install that version, or give the model as load(folder, model=...)"
        )
    for name, item in given.items():
        wanted = _PLAIN.get(str(known[name].type))
        if wanted is not None and not wanted(item):
            raise UserError(
                f"the field {name!r} of the model's part {data['class']} is "
                f"{json_fields.shown(item)}, but must be of type {known[name].type}: restore "
                "config.json"
            )
    inner = {name: from_json(item) for name, item in given.items()}
    try:
        return cls(**inner)
    except MALFORMED as error:
        raise UserError(
            f"the model's part {data['class']} cannot be rebuilt from config.json "
            f"({reason(error)}): restore the file, or give the model as load(folder, model=...)"
        ) from error


def _fields(value: Any) -> dict[str, Any]:
    found = {}
    for field in dataclasses.fields(value):
        # The field `parent` of a Linen module is the enclosing module, and `name` is usually None.
        if field.name == "parent" or not field.init:
            continue
        content = getattr(value, field.name, None)
        if field.name != "name" or content is not None:
            found[field.name] = to_json(content)
    return found


def _name(thing: Any) -> str:
    module = getattr(thing, "__module__", type(thing).__module__)
    return f"{module}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"


def _class(name: Any) -> Any:
    module, _, attribute = str(name).rpartition(".")
    package = module.split(".")
    if package[0] != "aejax" or not all(part.isidentifier() for part in package):
        raise _cannot(name)
    try:
        found = sys.modules.get(module) or importlib.import_module(module)
    except ImportError as error:
        raise _cannot(name) from error
    cls = getattr(found, attribute, None)
    # The class must be defined in that module of aejax, not just imported there.
    own = isinstance(cls, type) and cls.__module__ == module and dataclasses.is_dataclass(cls)
    if not own:
        raise _cannot(name)
    return cls


def _cannot(name: Any) -> UserError:
    return UserError(
        f"the model's part {name!s:.200} cannot be rebuilt from its description, because only "
        "aejax's own classes can: build the model yourself and give it as load(folder, model=...)"
    )
