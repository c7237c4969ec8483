"""One place that imports what only some data sets need, and says what to install."""

from __future__ import annotations

import importlib
from types import ModuleType

from aejax.errors import UserError

# The package that brings a module of another name.
PACKAGES = {
    "PIL.Image": "pillow",
    "skimage.data": "scikit-image",
    "sklearn.datasets": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets array_record importlib_resources",
    "grain": "grain",
}


def needs(module: str, purpose: str) -> ModuleType:
    """Imports a module, or says what to install.

    Args:
      module: its dotted name, one of PACKAGES.
      purpose: what is not possible without it, for the message.

    Returns:
      The module.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(f"{purpose} needs {error.name}: pip install {PACKAGES[module]}") from error
