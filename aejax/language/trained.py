"""Reads trained dictionaries together with the record of the model and hook they were trained on.

    dictionary = load_dictionary("runs/my-sae")      # or another library's folder or file
    check_model(dictionary, "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    dictionary.source                                # Source(model, reads, writes)

A run's record is in its environment.json, written by `run.environment(data=split.provenance())`.
Other libraries name hooks differently in their records; `hook_name` translates their names.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from aejax import interop
from aejax.bottlenecks.sparse.plain import Source
from aejax.dictionaries.folding import fold
from aejax.dictionaries.plain import Plain
from aejax.errors import UserError
from aejax.language.load import fingerprint
from aejax.language.taps import HOOKS
from aejax.runs.folder import CHECKPOINTS, CONFIG, ENVIRONMENT, read_environment
from aejax.runs.load import load
from aejax.variables import ATOMS, get

# Patterns of the hook names of aejax, TransformerLens and SAELens, Gemma Scope and
# dictionary_learning, each with aejax's name for the hook. Only hooks with equal values are listed.
_NAMES = (
    (rf"({'|'.join(HOOKS)})\.(\d+)", r"\1.\2"),
    (r"blocks\.(\d+)\.hook_(resid_pre|resid_mid|resid_post|attn_out|mlp_out)", r"\2.\1"),
    (r"model\.layers\.(\d+)\.output", r"resid_post.\1"),
    (r"model\.layers\.(\d+)\.pre_feedforward_layernorm\.output", r"mlp_in.\1"),
    (r"model\.layers\.(\d+)\.post_feedforward_layernorm\.output", r"mlp_out.\1"),
    (r"(resid_post|attn_out|mlp_out)_layer_(\d+)", r"\1.\2"),
    (r"(blocks\.\d+\..*hook_.*)", r"\1"),  # another hook of TransformerLens: none of ours
)


def hook_name(name: str) -> str | None:
    """Translates a hook's name in another library, such as TransformerLens, to aejax's name.

    Returns:
      The name, such as "resid_post.15"; None if no known library has such a name.
    """
    for pattern, ours in _NAMES:
        if found := re.fullmatch(pattern, name):
            return found.expand(ours)
    return None


def load_dictionary(path: str | pathlib.Path, seed: int | None = None) -> Plain:
    """Reads the weights of a trained dictionary, and what it was trained on.

    Args:
      path: the folder of a run of a sparse autoencoder, or another library's folder or file.
      seed: which dictionary to read if the run trained several together (`aejax.seeds`), from 0.

    Raises:
      UserError: if there is no such dictionary, its files are damaged, `seed` is missing although
        the run trained several dictionaries, or `seed` is given although there is only one.
    """
    path = pathlib.Path(path).expanduser()
    if not ((path / CONFIG).is_file() and (path / CHECKPOINTS).is_dir()):
        if seed is not None:
            raise UserError(f"{path} holds one dictionary only: leave out seed={seed}")
        return interop.load(path)
    opened = load(path, seed=seed)
    atoms = get(opened.variables, ATOMS)
    if atoms is not None and np.ndim(atoms) == 3:  # [S, m, D]
        raise UserError(
            f"{path} has {len(atoms)} dictionaries, one for each seed: choose one by a seed from 0 "
            f"to {len(atoms) - 1}"
        )
    return fold(opened.model, opened.variables)._replace(source=_recorded(path))


def _recorded(run: pathlib.Path) -> Source | None:
    """Returns the model and hooks whose activations a run was trained on, if it recorded them."""
    data: Any = read_environment(run).get("data") if (run / ENVIRONMENT).is_file() else None
    first = data[0] if isinstance(data, list) and data else data
    about = first.get("activations") if isinstance(first, Mapping) else None
    if not isinstance(about, Mapping) or not isinstance(about.get("x"), str):
        return None  # The run used no activations, or those of several hooks, as a crosscoder does.
    provenance = about.get("provenance")
    model = provenance.get("model") if isinstance(provenance, Mapping) else None
    model = model.get("sha256") if isinstance(model, Mapping) else model
    target = about.get("target")
    writes = target if isinstance(target, str) and target != about["x"] else None
    return Source(model if isinstance(model, str) else None, about["x"], writes)


def check_model(dictionary: Plain, path: str | pathlib.Path) -> None:
    """Checks by sha256 that a dictionary was trained on the activations of a given model.

    Args:
      dictionary: the dictionary; nothing is checked if its `source` has no sha256 of a model.
      path: the model's GGUF file or folder.

    Raises:
      UserError: if the dictionary was trained on another model.
    """
    trained = None if dictionary.source is None else dictionary.source.model
    if trained is None or re.fullmatch("[0-9a-f]{64}", trained) is None:
        return
    if trained != (found := fingerprint(path)):
        raise UserError(
            f"the dictionary was trained on another model than {path} (sha256 {trained[:12]} "
            f"instead of {found[:12]}): use the model whose activations it was "
            "trained on, or, if `dictionary.source` is wrong, use dictionary._replace(source=None)"
        )
