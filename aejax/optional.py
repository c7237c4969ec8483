"""Imports optional packages; if one is missing, the error message says what to install."""

from __future__ import annotations

import importlib
from types import ModuleType

from aejax.errors import UserError

# What pip must install for a module, for those modules whose package has another name.
PACKAGES = {
    "PIL": "pillow",
    "jax2onnx": "jax2onnx==0.13.0 onnxruntime",  # newer versions require an older orbax
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets array_record importlib_resources",
}


def needs(module: str, purpose: str) -> ModuleType:
    """Imports an optional module.

    Args:
      module: the dotted name of the module.
      purpose: what the module is needed for, the beginning of the message "PURPOSE needs PACKAGE".

    Returns:
      The module.

    Raises:
      UserError: if the module is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        raise UserError(
            f"{purpose} needs {error.name}: pip install {PACKAGES.get(top, top)}"
        ) from error
