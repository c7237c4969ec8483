"""Builds the API reference from the docstrings, one HTML page for each module.

    python -m experiments reference --out reference

It needs pdoc, which the extra `dev` installs. If pdoc warns of a docstring or an annotation, it
stops with an error and writes nothing.
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

# The modules that get a page. `import aejax` loads the first; users import the others by name.
MODULES = (
    "aejax",
    "aejax.data.synthetic.store",
    "aejax.data.synthetic.superposition",
    "aejax.data.synthetic.synthbench",
    "aejax.report",
    "aejax.runs",
    "aejax.training",
    "aejax.types",
)

# The alias optax.OptState holds this name as text, which only optax's own module can resolve.
OUTSIDE = {"ArrayTree": Any}


def command(out: pathlib.Path = pathlib.Path("reference")) -> None:
    """Builds the API reference from the docstrings.

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
            f"pdoc gave {len(found)} warnings, the first of which is {str(found[0].message)!r}: "
            "correct that docstring or annotation"
        )
    say(f"reference: {out / 'index.html'}")


def resolve(module: ModuleType) -> None:
    """Replaces the annotations of a module's NamedTuples and dataclasses, which are text, by types.

    Python generates their constructors, whose annotations are text too. pdoc cannot find the types
    with these names: the constructor of a NamedTuple has no module, and that of a dataclass may
    have inherited fields from another module.
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
