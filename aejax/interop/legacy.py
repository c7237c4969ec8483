"""Conversion of configurations that SAELens wrote before version 6 to those of version 6."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from aejax.errors import UserError
from aejax.interop.tensors import Tensors, check_keys, entry, shown

# The keys that the forward pass may need; all other keys describe the SAE's source and training.
_READ = (
    *("architecture", "d_in", "d_sae", "dtype", "device", "metadata"),
    *("apply_b_dec_to_input", "normalize_activations", "reshape_activations"),
)


def modernised(config: dict[str, Any], path: pathlib.Path) -> dict[str, Any]:
    """Returns SAELens' configuration of any version as one of version 6.

    Before version 6, a configuration was not nested and often contained the settings of the whole
    training run, and TopK was not an architecture but an activation of the architecture "standard".

    Args:
      config: the content of the file.
      path: the path of the file, for error messages.

    Returns:
      The configuration as version 6 would write it.

    Raises:
      UserError: if the activation or one of its arguments is not known, or if latents are scaled.
    """
    if _major(config) >= 6:
        return config
    fresh = {name: config[name] for name in _READ if name in config}
    fresh.setdefault("architecture", "standard")
    architecture = entry(fresh, "architecture", str, path)
    selects = architecture in ("topk", "abstopk")
    # A configuration of version 6 may lack its version. It then has an architecture but no
    # activation, so the activation follows from the architecture.
    default = "topk" if selects else "relu"
    activation = config.get("activation_fn_str", config.get("activation_fn", default))
    if activation not in ("relu", "topk"):
        raise UserError(
            f"'activation_fn_str' in {path} is {shown(activation)}, but only 'relu' and 'topk' are "
            "known"
        )
    if selects and activation == "relu":
        raise UserError(
            f"{path} has both the architecture {architecture!r} and the activation relu, which "
            "contradict each other: fetch the file again"
        )
    if activation == "topk":
        fresh |= _selection(config, architecture, path)
    if config.get("finetuning_scaling_factor", False):
        raise UserError(
            f"'finetuning_scaling_factor' is set in {path}: multiply it into W_dec and save again"
        )
    scaled = fresh.get("normalize_activations")
    if scaled is None or isinstance(scaled, bool):
        fresh["normalize_activations"] = "expected_average_only_in" if scaled else "none"
    if "transcoder" in architecture:
        fresh["d_out"] = config.get("d_out")
    if "d_sae" not in fresh and isinstance(config.get("expansion_factor"), int):
        fresh["d_sae"] = config["expansion_factor"] * entry(config, "d_in", int, path)
    named = {name: config[name] for name in ("model_name", "hook_name") if name in config}
    if named and not fresh.get("metadata"):
        fresh["metadata"] = named
    return fresh


def _selection(config: Mapping[str, Any], architecture: str, path: pathlib.Path) -> dict[str, Any]:
    """Converts the entries that describe a TopK before version 6 to those of version 6."""
    given = config.get("activation_fn_kwargs")
    arguments = entry(config, "activation_fn_kwargs", dict, path) if given else {}
    if architecture in ("standard", "topk"):
        architecture = _signed(arguments, path)
    elif architecture != "abstopk" or arguments:
        raise UserError(
            f"{path} has both the activation topk and the architecture {architecture!r:.60}, which "
            "contradict each other: fetch the file again"
        )
    read = {**config, **arguments}
    names = ("k", "rescale_acts_by_decoder_norm")
    return {"architecture": architecture, **{name: read[name] for name in names if name in read}}


def _signed(arguments: Mapping[str, Any], path: pathlib.Path) -> str:
    """Returns "abstopk" if the arguments set "signed", and otherwise "topk".

    SAELens' reader of sparsify's files sets "signed" for codes that keep their signs.
    """
    check_keys(arguments, ("k", "signed", "postact_fn"), "known topk of SAELens", path)
    signed = "signed" in arguments and entry(arguments, "signed", bool, path)
    wanted = "Identity" if signed else "ReLU"
    if arguments.get("postact_fn", wanted) != wanted:
        raise UserError(
            f"'postact_fn' in {path} is {shown(arguments['postact_fn'])}, but must be {wanted!r} "
            f"where 'signed' is {str(signed).lower()}"
        )
    return "abstopk" if signed else "topk"


def check_scaling(tensors: Tensors, latents: int) -> None:
    """Checks that the scaling factors of the latents, which some old files contain, are 1.

    Raises:
      UserError: if a factor is not 1.
    """
    if "scaling_factor" in tensors and np.any(tensors.take("scaling_factor", (latents,)) != 1):
        raise UserError(
            f"'scaling_factor' in {tensors.path} is not 1: multiply it into W_dec and save again"
        )


def _major(config: Mapping[str, Any]) -> int:
    """Returns the major version of SAELens that a configuration names, or 0 if it names none."""
    metadata = config.get("metadata")
    version = config.get("sae_lens_version")
    if not version and isinstance(metadata, Mapping):
        version = metadata.get("sae_lens_version")
    first = str(version).partition(".")[0] if isinstance(version, str | int | float) else ""
    return int(first) if re.fullmatch("[0-9]{1,9}", first) else 0
