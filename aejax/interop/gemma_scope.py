"""A reader of the JumpReLU dictionaries of Gemma Scope 1 and 2."""

from __future__ import annotations

import os
import pathlib

from aejax.dictionaries.plain import Plain
from aejax.errors import UserError
from aejax.interop.tensors import (
    Tensors,
    check_keys,
    read_config,
    read_npz,
    read_safetensors,
    shown,
    source,
)

# The known keys of config.json. The hook points, the model and L0 do not affect the computation.
_KEYS = (
    *("architecture", "type", "width", "affine_connection", "l0"),
    *("model_name", "hf_hook_point_in", "hf_hook_point_out"),
)


def load_gemma_scope(folder: str | os.PathLike[str]) -> Plain:
    """Reads a JumpReLU autoencoder or transcoder of Gemma Scope (Lieberum et al. 2024).

    Args:
      folder: the folder with params.npz (Gemma Scope 1), or with params.safetensors and
        config.json (Gemma Scope 2). The cross-layer dictionaries of Gemma Scope 2, whose weights
        have three axes, are not supported.

    Returns:
      The weights of the dictionary, for inputs that are not normalised.

    Raises:
      UserError: if a file is missing or damaged, or contains something else.
    """
    folder = pathlib.Path(folder)
    if (folder / "params.npz").is_file():
        return _plain(read_npz(folder / "params.npz"))
    skips, width, trained = None, None, None
    path = folder / "config.json"
    if path.is_file():
        config = read_config(path)
        check_keys(config, _KEYS, "known dictionary of Gemma Scope", path)
        if config.get("architecture") != "jump_relu":
            raise UserError(
                f"'architecture' in {path} is {shown(config.get('architecture'))}, but only "
                "'jump_relu' is known"
            )
        kind = config.get("type", "sae")
        if kind not in ("sae", "transcoder"):
            raise UserError(
                f"'type' in {path} is {shown(kind)}, but only 'sae' and 'transcoder' are known"
            )
        skips, width = config.get("affine_connection"), config.get("width")
        trained = source(config, "model_name", "hf_hook_point_in", "hf_hook_point_out")
    tensors = read_safetensors(folder / "params.safetensors")
    if skips is not None and bool(skips) != ("affine_skip_connection" in tensors):
        raise UserError(
            f"{tensors.path} has {'no' if skips else 'a'} tensor 'affine_skip_connection', but "
            f"'affine_connection' in {path} is {shown(skips)}: fetch the two files of one "
            "dictionary"
        )
    plain = _plain(tensors)
    if width is not None and width != plain.latents:
        raise UserError(
            f"'width' in {path} is {shown(width)}, but {tensors.path} has {plain.latents} latents: "
            "fetch the two files of one dictionary"
        )
    return plain._replace(source=trained)


def _plain(tensors: Tensors) -> Plain:
    # Some files use the names W_enc and W_dec, others w_enc and w_dec.
    names = {name: name if name in tensors else name.lower() for name in ("W_enc", "W_dec")}
    encoder = tensors.take(names["W_enc"])
    size, latents = encoder.shape
    decoder = tensors.take(names["W_dec"])
    output = decoder.shape[1]
    if decoder.shape[0] != latents:
        raise UserError(
            f"{names['W_dec']!r} in {tensors.path} has shape {decoder.shape} instead of "
            f"({latents}, {output}): fetch the file again"
        )
    skip = None
    if "affine_skip_connection" in tensors:
        skip = tensors.take("affine_skip_connection", (size, output))
    plain = Plain(
        activation="jumprelu",
        W_enc=encoder,
        W_dec=decoder,
        b_dec=tensors.take("b_dec", (output,)),
        b_enc=tensors.take("b_enc", (latents,)),
        threshold=tensors.take("threshold", (latents,)),
        W_skip=skip,
    )
    tensors.close()
    return plain
