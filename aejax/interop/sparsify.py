"""A reader of EleutherAI's sparsify: cfg.json and sae.safetensors of one hook point."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from aejax.dictionaries.plain import Plain
from aejax.errors import UserError
from aejax.interop.tensors import check_keys, count, entry, read_config, read_safetensors, shown

# Keys that do not change what is computed, because they describe the training of the dictionary.
_INERT = {"normalize_decoder", "multi_topk", "lookup_max_order", "gram_table_hash"}
_READ = {
    *("d_in", "activation", "expansion_factor", "num_latents", "k"),
    *("signed", "skip_connection", "transcode"),
}
_REFUSED = {"embed_skip", "gram_lookup"}


def load_sparsify(folder: str | os.PathLike[str]) -> Plain:
    """Reads a TopK autoencoder or transcoder, with or without a skip connection.

    Args:
      folder: the folder of one hook point, with cfg.json and sae.safetensors.

    Returns:
      The weights of the dictionary, for `ae.dictionary.encode` and `ae.dictionary.decode`.

    Raises:
      UserError: if a file is missing or damaged, or if the configuration has something unknown.
    """
    folder = pathlib.Path(folder)
    path = folder / "cfg.json"
    config = read_config(path)
    _check(config, path)
    size = entry(config, "d_in", int, path)
    # If num_latents is 0 or missing, as in the oldest files, the number of latents is the size of
    # the input times expansion_factor.
    latents = config.get("num_latents") or size * entry(config, "expansion_factor", int, path)
    latents = count(latents, None, "num_latents", path)
    transcodes = bool(config.get("transcode", False))
    tensors = read_safetensors(folder / "sae.safetensors")
    skip = None
    if config.get("skip_connection", False):
        skip = tensors.take("W_skip", (size, size)).T
    plain = Plain(
        activation="abstopk" if config.get("signed", False) else "topk",
        W_enc=tensors.take("encoder.weight", (latents, size)).T,
        W_dec=tensors.take("W_dec", (latents, size)),
        b_dec=tensors.take("b_dec", (size,)),
        b_enc=tensors.take("encoder.bias", (latents,)),
        k=count(config.get("k"), latents, "k", path),
        apply_b_dec_to_input=not transcodes,
        W_skip=skip,
    )
    tensors.close()
    return plain


def _check(config: Mapping[str, Any], path: pathlib.Path) -> None:
    """Raises UserError if sparsify's configuration has an unknown key or is not supported."""
    check_keys(config, _INERT | _READ | _REFUSED, "known sparsify coder", path)
    for name in sorted(_REFUSED):
        if config.get(name, False):
            raise UserError(
                f"{name!r} is set in {path}, which is not supported: such a dictionary needs other "
                "inputs besides the activations"
            )
    for name in ("signed", "skip_connection", "transcode"):
        if name in config:
            entry(config, name, bool, path)
    if config.get("activation", "topk") != "topk":
        raise UserError(
            f"'activation' in {path} is {shown(config['activation'])}, but only 'topk' is known"
        )
