"""Reading and writing the sparse autoencoders of other libraries.

    plain = interop.load("gemma-scope/layer_12/width_16k/average_l0_82")   # any format below
    interop.save_saelens("mine", plain, {"model_name": "gpt2", "hook_name": "blocks.5.hook_z"})

| format | files |
|---|---|
| SAELens (6.0 and older versions) | cfg.json, sae_weights.safetensors |
| Gemma Scope 1 | params.npz |
| Gemma Scope 2 | params.safetensors, config.json |
| sparsify | cfg.json, sae.safetensors |
| dictionary_learning | config.json, ae.pt |
| OpenAI | a .pt file |

Every reader returns an `ae.dictionary.Plain`, the weights of a dictionary, with which
`ae.dictionary.encode` and `decode` compute what the original library computes. A reader runs no
code from a file, and it raises an error for every setting or tensor that it does not know.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable

from aejax.dictionaries.plain import Plain
from aejax.errors import UserError
from aejax.interop.dictionary_learning import load_dictionary_learning
from aejax.interop.export import export
from aejax.interop.gemma_scope import load_gemma_scope
from aejax.interop.openai import load_openai
from aejax.interop.programs.web import Page
from aejax.interop.saelens import load_saelens, save_saelens
from aejax.interop.sparsify import load_sparsify

__all__ = [
    "Page",
    "export",
    "load",
    "load_dictionary_learning",
    "load_gemma_scope",
    "load_openai",
    "load_saelens",
    "load_sparsify",
    "save_saelens",
]

_FILES: dict[str, Callable[[pathlib.Path], Plain]] = {
    "sae_weights.safetensors": load_saelens,
    "sae.safetensors": load_sparsify,
    "params.npz": load_gemma_scope,
    "params.safetensors": load_gemma_scope,
    "ae.pt": load_dictionary_learning,
}


def load(path: str | os.PathLike[str]) -> Plain:
    """Reads a sparse autoencoder in any known format, which is recognised by the file names.

    Args:
      path: the folder of one autoencoder, or its file of weights.

    Returns:
      The weights, f32, for inputs that are not normalised beforehand.

    Raises:
      UserError: if no format is recognised, or if the files are damaged or contain something
        unknown.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        for name, read in _FILES.items():
            if (path / name).is_file():
                return read(path)
        archives = sorted(path.glob("*.pt"))
        if len(archives) == 1:
            return load_openai(archives[0])
    elif path.name in _FILES:
        return _FILES[path.name](path.parent)
    elif path.suffix == ".pt":
        return load_openai(path)
    elif not path.exists():
        raise UserError(f"there is no file or folder {path}: check the path")
    raise UserError(
        f"{path} is not an autoencoder in a known format: give a folder with one of "
        f"{', '.join(_FILES)}, or a .pt file; other pickle files are not read, since they may run "
        "code"
    )
