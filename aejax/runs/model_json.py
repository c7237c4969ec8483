"""A model as JSON and back: its parts' names and numbers, never code.

    to_json(MLP((256,)))     {"class": "aejax.nets.mlp.MLP", "fields": {"widths": [256], ...}}
    from_json(...)           MLP((256,)): only classes of aejax and functions of jax.nn are made

A part that is no dataclass of aejax's is written as {"opaque": its name}: it can be compared with
what the code says now, and not be made again.
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

# What a net may have as its activation; a file can name these and no other function.
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


def to_json(value: Any) -> Any:
    """Describes a model, or anything that stands in one of its fields, as JSON."""
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
    """Makes a model again from `to_json`'s description.

    Raises:
      UserError: it names a class that is not aejax's, or a part that cannot be made again.
    """
    if isinstance(data, list):
        return tuple(from_json(item) for item in data)
    if not isinstance(data, dict):
        return data
    if "mapping" in data:
        return {key: from_json(item) for key, item in data["mapping"].items()}
    if "dtype" in data:
        return jnp.dtype(data["dtype"])
    if "function" in data and data["function"] in FUNCTIONS:
        return FUNCTIONS[data["function"]]
    if "class" not in data:
        raise _cannot(data.get("opaque") or data.get("function") or sorted(data))
    cls = _class(data["class"])
    known = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(data["fields"].keys() - known):
        raise UserError(
            f"{data['class']} has no field {unknown[0]!r} in this version of aejax, which the run "
            "was written with: install that version, or give the model yourself"
        )
    return cls(**{name: from_json(item) for name, item in data["fields"].items()})


def _fields(value: Any) -> dict[str, Any]:
    found = {}
    for field in dataclasses.fields(value):
        # Of a Linen module: parent is where it is bound, and name None unless somebody gave one.
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
    # Not what a module of aejax has merely imported.
    own = isinstance(cls, type) and cls.__module__ == module and dataclasses.is_dataclass(cls)
    if not own:
        raise _cannot(name)
    return cls


def _cannot(name: Any) -> UserError:
    return UserError(
        f"the model's part {name} cannot be made again from its description, as only aejax's own "
        "classes are: build the model yourself and give it as load(run_dir, model=...)"
    )
