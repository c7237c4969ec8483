"""SAELens' configurations before version 6, brought into today's form."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from aejax.errors import UserError
from aejax.interop.tensors import Tensors, check_keys, entry, shown

# What the forward pass reads; all else is where the SAE came from and how it was trained.
_READ = (
    *("architecture", "d_in", "d_sae", "dtype", "device", "metadata"),
    *("apply_b_dec_to_input", "normalize_activations", "reshape_activations"),
)


def modernised(config: dict[str, Any], path: pathlib.Path) -> dict[str, Any]:
    """A configuration as version 6 writes it, from one of any version.

    Before version 6 a configuration was flat, often the whole training run's, and TopK was an
    activation of the architecture "standard".

    Args:
      config: as it stands in the file.
      path: of the file.

    Raises:
      UserError: it asks for an activation, one of its arguments, or a scaling that is not known.
    """
    if _major(config) >= 6:
        return config
    fresh = {name: config[name] for name in _READ if name in config}
    fresh.setdefault("architecture", "standard")
    architecture = entry(fresh, "architecture", str, path)
    selects = architecture in ("topk", "abstopk")
    # Of today's form only the version may be missing: it then names no activation.
    default = "topk" if selects else "relu"
    activation = config.get("activation_fn_str", config.get("activation_fn", default))
    if activation not in ("relu", "topk"):
        raise UserError(
            f"'activation_fn_str' in {path} is {shown(activation)}: known are 'relu' and 'topk'"
        )
    if selects and activation == "relu":
        raise UserError(
            f"{path} has both the architecture {architecture!r} and the activation relu"
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
    return fresh


def _selection(config: Mapping[str, Any], architecture: str, path: pathlib.Path) -> dict[str, Any]:
    """What version 6 writes of a topk."""
    given = config.get("activation_fn_kwargs")
    arguments = entry(config, "activation_fn_kwargs", dict, path) if given else {}
    if architecture in ("standard", "topk"):
        architecture = _signed(arguments, path)
    elif architecture != "abstopk" or arguments:
        raise UserError(f"{path} has both the activation topk and {architecture!r:.60}")
    read = {**config, **arguments}
    names = ("k", "rescale_acts_by_decoder_norm")
    return {"architecture": architecture, **{name: read[name] for name in names if name in read}}


def _signed(arguments: Mapping[str, Any], path: pathlib.Path) -> str:
    """topk, or abstopk, which SAELens' reader of sparsify's files calls a signed topk."""
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
    """Takes the factor of each latent that old files hold, which must be one.

    Raises:
      UserError: it is another.
    """
    if "scaling_factor" in tensors and np.any(tensors.take("scaling_factor", (latents,)) != 1):
        raise UserError(
            f"'scaling_factor' in {tensors.path} is not 1: multiply it into W_dec and save again"
        )


def _major(config: Mapping[str, Any]) -> int:
    """The major version that wrote the configuration; none is stated before version 6."""
    metadata = config.get("metadata")
    version = config.get("sae_lens_version")
    if not version and isinstance(metadata, Mapping):
        version = metadata.get("sae_lens_version")
    first = str(version).partition(".")[0] if isinstance(version, str | int | float) else ""
    return int(first) if re.fullmatch("[0-9]{1,9}", first) else 0
