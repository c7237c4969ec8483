"""SAELens' configurations before version 6, brought into today's form."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from aejax.errors import UserError
from aejax.interop.tensors import Tensors, check_keys, entry

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
    activation = config.get("activation_fn_str", config.get("activation_fn", "relu"))
    arguments = config.get("activation_fn_kwargs") or {}
    fresh = {name: config[name] for name in _READ if name in config}
    fresh.setdefault("architecture", "standard")
    if activation == "topk" and isinstance(arguments, Mapping):
        if fresh["architecture"] not in ("standard", "topk"):
            raise UserError(f"{path} has both topk and {fresh['architecture']!r:.60}")
        fresh["architecture"] = _selection(arguments, path)
        fresh["k"] = arguments.get("k", config.get("k"))
    elif activation != "relu":
        raise UserError(
            f"'activation_fn_str' in {path} is {activation!r:.60}: known are 'relu' and 'topk'"
        )
    if config.get("finetuning_scaling_factor", False):
        raise UserError(
            f"'finetuning_scaling_factor' is set in {path}: multiply it into W_dec and save again"
        )
    scaled = fresh.get("normalize_activations")
    if scaled is None or isinstance(scaled, bool):
        fresh["normalize_activations"] = "expected_average_only_in" if scaled else "none"
    if "transcoder" in str(fresh["architecture"]):
        fresh["d_out"] = config.get("d_out")
    if "d_sae" not in fresh and isinstance(config.get("expansion_factor"), int):
        fresh["d_sae"] = config["expansion_factor"] * entry(config, "d_in", int, path)
    return fresh


def _selection(arguments: Mapping[str, Any], path: pathlib.Path) -> str:
    """topk, or abstopk, which SAELens' reader of sparsify's files calls a signed topk."""
    check_keys(arguments, ("k", "signed", "postact_fn"), "known topk of SAELens", path)
    signed = "signed" in arguments and entry(arguments, "signed", bool, path)
    wanted = "Identity" if signed else "ReLU"
    if arguments.get("postact_fn", wanted) != wanted:
        raise UserError(
            f"'postact_fn' in {path} is {arguments['postact_fn']!r:.60}, but must be {wanted!r} "
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
    first = str(version or "0").partition(".")[0]
    return int(first) if first.isdecimal() else 0
