"""Builds the API reference, one HTML page a module, from the docstrings.

    python -m experiments reference --out reference

It needs pdoc, which the extra `dev` installs, and refuses a docstring or an annotation that pdoc
warns of.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pathlib
import pkgutil
import typing
import warnings
from types import ModuleType
from typing import Any

from flax import linen as nn

import aejax
from aejax.errors import UserError
from aejax.files import writing
from aejax.optional import needs
from experiments.shared.place import say

# `import aejax` gives the first; the others are imported by their own names.
MODULES = (
    "aejax",
    "aejax.data.activations",
    "aejax.data.synthetic.store",
    "aejax.data.synthetic.superposition",
    "aejax.data.synthetic.synthbench",
    "aejax.dictionaries",
    "aejax.interop",
    "aejax.report",
    "aejax.runs",
    "aejax.training",
    "aejax.types",
)

# A name that the alias optax.OptState holds as text, which only optax's own module knows.
OUTSIDE = {"ArrayTree": Any}


def command(out: pathlib.Path = pathlib.Path("reference")) -> None:
    """Builds the reference.

    Args:
      out: the folder to write it into; open its index.html.
    """
    pdoc = needs("pdoc", "building the reference")
    for _, name, _ in pkgutil.walk_packages(aejax.__path__, "aejax."):
        resolve(importlib.import_module(name))
    pdoc.render.configure(docformat="google", show_source=False)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        with writing(out):
            pdoc.pdoc(*MODULES, output_directory=out)
    if found:
        raise UserError(
            f"pdoc warns {len(found)} times, first: {found[0].message}: mend that docstring or "
            "annotation"
        )
    say(f"reference: {out / 'index.html'}")


def resolve(module: ModuleType) -> None:
    """Gives the records of a module annotations that are types.

    The constructor that Python makes for a record has its annotations as text: that of a NamedTuple
    has no module in which pdoc could look the names up, and that of a dataclass may have fields of
    a class of another module.
    """
    for cls in vars(module).values():
        if not isinstance(cls, type) or cls.__module__ != module.__name__:
            continue
        constructor: Any = None
        if hasattr(cls, "_fields"):
            constructor = cls.__new__
        elif dataclasses.is_dataclass(cls) and not issubclass(cls, nn.Module):
            constructor = cls.__init__
        if constructor is not None:
            hints = typing.get_type_hints(cls, localns=OUTSIDE)
            own = inspect.get_annotations(cls)
            cls.__annotations__ = {name: hints[name] for name in own}
            known = constructor.__annotations__
            constructor.__annotations__ = {name: hints.get(name, known[name]) for name in known}
