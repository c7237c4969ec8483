"""Loads a model, its variables and its tokenizer from a GGUF file or a Hugging Face folder."""

from __future__ import annotations

import hashlib
import pathlib
from typing import Any, NamedTuple

import jax.numpy as jnp

from aejax.errors import UserError
from aejax.files import file_sha256
from aejax.language.gguf import load_gguf
from aejax.language.huggingface import load_huggingface
from aejax.language.llama import Transformer
from aejax.language.tokenizer import Tokenizer, load_tokenizer
from aejax.types import Variables


class LanguageModel(NamedTuple):
    """A model with its variables and its tokenizer."""

    model: Transformer
    variables: Variables
    tokenizer: Tokenizer


def load(path: str | pathlib.Path, dtype: Any = jnp.float32) -> LanguageModel:
    """Reads a language model, its variables and its tokenizer.

    Args:
      path: a GGUF file, or a folder with config.json, safetensors and tokenizer.json.
      dtype: the dtype of matrix products, residual stream and weights: jnp.float32 or jnp.bfloat16.

    Raises:
      UserError: if the model is missing or damaged, or its architecture or quantisation is unknown.
    """
    path = _existing(path)
    read = load_huggingface if path.is_dir() else load_gguf
    return LanguageModel(*read(path, dtype), load_tokenizer(path))


def fingerprint(path: str | pathlib.Path) -> str:
    """Returns a sha256 that identifies a model's weights, as 64 hexadecimal digits.

    For a GGUF file it is the sha256 of the file. For a folder it is the sha256 of the list of the
    sha256s of its safetensors files.

    Raises:
      UserError: if there is no file or folder at the path.
    """
    path = _existing(path)
    if path.is_file():
        return file_sha256(path)
    hashes = [file_sha256(shard) for shard in sorted(path.glob("*.safetensors"))]
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def _existing(path: str | pathlib.Path) -> pathlib.Path:
    """Returns the path with ~ expanded.

    Raises:
      UserError: if there is no file or folder at the path.
    """
    path = pathlib.Path(path).expanduser()
    if not path.exists():
        raise UserError(
            f"there is no model {path}: give a GGUF file or a folder with config.json; "
            "`python -m experiments fetch-lm FOLDER` fetches SmolLM2"
        )
    return path
