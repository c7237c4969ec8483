"""One place that imports what only some uses need, and says what to install."""

from __future__ import annotations

import importlib
from types import ModuleType

from aejax.errors import UserError

# What to install for a module, where that is not its own name.
PACKAGES = {
    "PIL": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets array_record importlib_resources",
}


def needs(module: str, purpose: str) -> ModuleType:
    """Imports a module, or says what to install.

    Args:
      module: its dotted name.
      purpose: what is not possible without it, for the message.

    Returns:
      The module.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        raise UserError(
            f"{purpose} needs {error.name}: pip install {PACKAGES.get(top, top)}"
        ) from error
