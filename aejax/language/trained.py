"""Trained dictionaries, with the record of the hook and the model that they were trained on.

    dictionary = load_dictionary("runs/my-sae")      # or another library's folder or file
    check_model(dictionary, "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    dictionary.source                                # Source(model, reads, writes)

The record of a run is in its environment.json, where `run.environment(data=split.provenance())`
writes it. The files of other libraries have records in their own words, which `hook_name`
translates.
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
from aejax.files import read_json
from aejax.language.load import fingerprint
from aejax.language.taps import HOOKS
from aejax.runs.folder import CHECKPOINTS, CONFIG, ENVIRONMENT
from aejax.runs.load import load
from aejax.variables import ATOMS, get

# Names of hooks -> ours: our own, TransformerLens' and SAELens', Gemma Scope's, and those of
# dictionary_learning. Only hooks whose values are equal in both.
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
    """Translates a hook's name from the words of a known library into ours.

    Returns:
      The name, such as "resid_post.15"; None if it is in no known words, so that it says nothing.
    """
    for pattern, ours in _NAMES:
        if found := re.fullmatch(pattern, name):
            return found.expand(ours)
    return None


def load_dictionary(path: str | pathlib.Path, seed: int = 0) -> Plain:
    """Reads the weights of a trained dictionary, and what it was trained on.

    Args:
      path: the folder of a run of a sparse autoencoder, or another library's folder or file.
      seed: the member of a run with seeds.

    Raises:
      UserError: if there is no such dictionary, or its files are damaged.
    """
    path = pathlib.Path(path).expanduser()
    if not ((path / CONFIG).is_file() and (path / CHECKPOINTS).is_dir()):
        return interop.load(path)
    opened = load(path)
    atoms = get(opened.variables, ATOMS)
    if atoms is not None and np.ndim(atoms) == 3:  # [S, m, D]
        opened = load(path, seed=seed)
    return fold(opened.model, opened.variables)._replace(source=_recorded(path))


def _recorded(run: pathlib.Path) -> Source | None:
    """Returns what a run records of the activations that it was trained on."""
    path = run / ENVIRONMENT
    data: Any = read_json(path).get("data") if path.is_file() else None
    first = data[0] if isinstance(data, list) and data else data
    about = first.get("activations") if isinstance(first, Mapping) else None
    if not isinstance(about, Mapping) or not isinstance(about.get("x"), str):
        return None  # no activations, or those of several hooks, as for a crosscoder
    provenance = about.get("provenance")
    model = provenance.get("model") if isinstance(provenance, Mapping) else None
    model = model.get("sha256") if isinstance(model, Mapping) else model
    target = about.get("target")
    writes = target if isinstance(target, str) and target != about["x"] else None
    return Source(model if isinstance(model, str) else None, about["x"], writes)


def check_model(dictionary: Plain, path: str | pathlib.Path) -> None:
    """Refuses a dictionary whose record names the weights of another model.

    Args:
      dictionary: the dictionary; it is not checked if its record has no sha256 of a model.
      path: the model's GGUF file or folder.

    Raises:
      UserError: if it was trained on another model.
    """
    trained = None if dictionary.source is None else dictionary.source.model
    if trained is None or re.fullmatch("[0-9a-f]{64}", trained) is None:
        return
    if trained != (found := fingerprint(path)):
        raise UserError(
            f"the dictionary was trained on another model than {path} (sha256 {trained[:12]} "
            f"instead of {found[:12]}): take the model of its store, or, if its record is wrong, "
            "dictionary._replace(source=None)"
        )
