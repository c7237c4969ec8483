"""SAELens: cfg.json and sae_weights.safetensors, from version 6 on and before, read and written."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from aejax.dictionaries.plain import KINDS, Plain, kind_of
from aejax.errors import UserError
from aejax.files import plain as as_json
from aejax.files import write_bytes, write_json, writing
from aejax.interop.legacy import check_scaling, modernised
from aejax.interop.tensors import (
    Tensors,
    check_keys,
    count,
    entry,
    read_config,
    read_safetensors,
    safetensors,
    shown,
)

_CONFIG, _WEIGHTS = "cfg.json", "sae_weights.safetensors"

# architecture -> (activation, is it a transcoder, has it a skip connection), as the classes say
_ARCHITECTURES = {
    name: (activation, form > 0, form > 1)
    for activation, kind in KINDS.items()
    for form, name in enumerate(kind.saelens)
    if name is not None
}
_KEYS = {
    *("architecture", "d_in", "d_sae", "dtype", "device", "metadata"),
    *("apply_b_dec_to_input", "normalize_activations", "reshape_activations"),
}
_SELECTS = {"k", "rescale_acts_by_decoder_norm"}
_TRANSCODES = {"d_out"}


def load_saelens(folder: str | os.PathLike[str]) -> Plain:
    """Reads an SAE of any of SAELens' architectures that is a dictionary and a selection.

    Args:
      folder: with cfg.json and sae_weights.safetensors. Inputs of hook_z are to be flattened,
        [B, heads * size].

    Raises:
      UserError: a file is missing or damaged, or holds what is not known.
    """
    folder = pathlib.Path(folder)
    path = folder / _CONFIG
    config = modernised(read_config(path), path)
    plain = _checked(config, read_safetensors(folder / _WEIGHTS), path)
    return Plain(*(jnp.asarray(v) if isinstance(v, np.ndarray) else v for v in plain))  # pyright: ignore[reportArgumentType]


def _checked(config: Mapping[str, Any], tensors: Tensors, path: pathlib.Path) -> Plain:
    """The weights as numpy arrays, of a configuration of version 6; what is saved passes it too.

    Raises:
      UserError: a tensor or an entry is missing, unknown, or does not fit the others.
    """
    activation, transcodes, skips = _row(config, path)
    kind = KINDS[activation]
    size, latents, output = _sizes(config, transcodes, path)
    subtracts = _switch(config, "apply_b_dec_to_input", not transcodes, path)
    if transcodes and subtracts:
        raise UserError(
            f"'apply_b_dec_to_input' in {path} is true, but the b_dec of a transcoder is of its "
            "output: set it to false"
        )
    check_scaling(tensors, latents)
    plain = Plain(
        activation=activation,
        W_enc=tensors.take("W_enc", (size, latents)),  # pyright: ignore[reportArgumentType]
        W_dec=tensors.take("W_dec", (latents, output)),  # pyright: ignore[reportArgumentType]
        b_dec=tensors.take("b_dec", (output,)),  # pyright: ignore[reportArgumentType]
        **{name: tensors.take(name, (latents,)) for name in kind.vectors},  # pyright: ignore[reportArgumentType]
        k=count(config.get("k"), latents, "k", path) if kind.selects else None,
        rescale_acts_by_decoder_norm=_switch(config, "rescale_acts_by_decoder_norm", False, path),
        apply_b_dec_to_input=subtracts,
        W_skip=tensors.take("W_skip", (output, size)).T if skips else None,  # pyright: ignore[reportArgumentType]
        normalisation=_normalisation(config, transcodes, path),
    )
    tensors.close()
    return plain


def save_saelens(
    folder: str | os.PathLike[str], plain: Plain, metadata: Mapping[str, Any] | None = None
) -> None:
    """Writes weights so that SAELens' `SAE.load_from_disk(folder)` computes the same.

    The two files are there whole or not at all, and only if `load_saelens` reads them. Inputs and
    outputs of several axes are written flattened.

    Args:
      folder: made where there is none; an SAE that is there already is replaced.
      plain: the weights, as `aejax.fold` makes them.
      metadata: what SAELens keeps beside the weights, for example model_name, hook_name,
        hook_name_out (which makes a square dictionary a transcoder), prepend_bos, dataset_path;
        but sae_lens_version always says how these two files are laid out.

    Raises:
      UserError: SAELens has no such architecture, the weights do not fit each other or hold NaN, or
        the folder cannot be written.
    """
    # SAELens reads an older version's files by other rules, so the caller cannot choose it.
    metadata = {**(metadata or {}), "sae_lens_version": "6.0.0"}
    for field in ("W_enc", "W_dec"):
        _shaped(plain, field, None)
    plain, name = _named(plain, "hook_name_out" in metadata)
    size, latents = plain.W_enc.shape
    kind = kind_of(plain)
    tensors = {
        name: np.ascontiguousarray(plain.needed(name), np.float32)
        for name in ("W_enc", "W_dec", "b_dec", *kind.vectors)
    }
    if plain.W_skip is not None:
        tensors["W_skip"] = np.ascontiguousarray(np.asarray(plain.W_skip, np.float32).T)
    config: dict[str, Any] = {
        "architecture": name,
        "d_in": size,
        "d_sae": latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": plain.apply_b_dec_to_input,
        "normalize_activations": plain.normalisation,
        # SAELens hands such a hook's values over with the heads apart, and flattens them itself.
        "reshape_activations": "hook_z" if _is_per_head(metadata) else "none",
        "metadata": metadata,
    }
    if kind.selects:
        config["k"] = plain.needed("k")
        config["rescale_acts_by_decoder_norm"] = plain.rescale_acts_by_decoder_norm
    if _ARCHITECTURES[name][1]:
        config["d_out"] = plain.W_dec.shape[1]
    folder = pathlib.Path(folder)
    config = as_json(config)
    try:
        _checked(config, Tensors(folder / _WEIGHTS, tensors), folder / _CONFIG)
    except UserError as error:
        raise UserError(
            f"these weights are not saved, as no file may hold them: {error}"
        ) from error
    _write(folder, safetensors().numpy.save(tensors), config)


def _row(config: Mapping[str, Any], path: pathlib.Path) -> tuple[Any, bool, bool]:
    """The architecture's row; raises UserError for an unknown one and for keys it does not have."""
    name = entry(config, "architecture", str, path)
    if name not in _ARCHITECTURES:
        raise UserError(
            f"'architecture' in {path} is {name!r:.60}: known are {', '.join(_ARCHITECTURES)}"
        )
    row = _ARCHITECTURES[name]
    own = _SELECTS if KINDS[row[0]].selects else set()
    check_keys(config, _KEYS | own | (_TRANSCODES if row[1] else set()), f"{name!r} SAE", path)
    return row


def _sizes(config: Mapping[str, Any], transcodes: bool, path: pathlib.Path) -> tuple[int, int, int]:
    """d, m and d_out."""
    size = entry(config, "d_in", int, path)
    output = entry(config, "d_out", int, path) if transcodes else size
    return size, entry(config, "d_sae", int, path), output


def _switch(config: Mapping[str, Any], name: str, default: bool, path: pathlib.Path) -> bool:
    return entry(config, name, bool, path) if name in config else default


def _normalisation(config: Mapping[str, Any], transcodes: bool, path: pathlib.Path) -> Any:
    value = config.get("normalize_activations", "none")
    if value == "none" or (value in ("layer_norm", "constant_norm_rescale") and not transcodes):
        return value
    raise UserError(
        f"'normalize_activations' in {path} is {shown(value)}: the file does not hold what that "
        "needs; fold it into the weights with SAELens and save them again"
    )


def _named(plain: Plain, transcodes: bool) -> tuple[Plain, str]:
    """The architecture's name, and the same function in the form that it needs."""
    (size, latents), output = plain.W_enc.shape, plain.W_dec.shape[1]
    skips = plain.W_skip is not None
    transcodes = transcodes or skips or size != output
    name = kind_of(plain).saelens[transcodes + skips]
    what = f"{plain.called} {'transcoder' if transcodes else 'SAE'}"
    if name is None:
        raise UserError(f"SAELens has no {what}{' with a skip connection' if skips else ''}")
    if not transcodes:
        return plain, name
    if plain.normalisation != "none":
        raise UserError(f"SAELens has no {what} that undoes {plain.normalisation} on its output")
    if plain.apply_b_dec_to_input:
        # Its transcoders never subtract b_dec, so the encoder's bias does.
        bias = _shaped(plain, "b_enc", (latents,)) - _shaped(plain, "b_dec", (size,)) @ plain.W_enc
        plain = plain._replace(b_enc=bias, apply_b_dec_to_input=False)
    return plain, name


def _shaped(plain: Plain, name: str, shape: tuple[int, ...] | None) -> Any:
    """A field of one shape, or a matrix of any."""
    value = plain.needed(name)
    if np.ndim(value) != 2 if shape is None else np.shape(value) != shape:
        wanted = "(d, m)" if shape is None else shape
        raise UserError(f"{name} of these weights has shape {np.shape(value)}, but needs {wanted}")
    return value


def _is_per_head(metadata: Mapping[str, Any]) -> bool:
    return str(metadata.get("hook_name", "")).endswith("_z")


def _write(folder: pathlib.Path, weights: bytes, config: Mapping[str, Any]) -> None:
    """Both files or none: without cfg.json a folder holds no SAE, so it goes first and comes last.

    The large file is written beside the old one before anything is touched: a full disk leaves
    the old SAE whole.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f".{_WEIGHTS}.{os.getpid()}.new"
        write_bytes(fresh, weights)
        (folder / _CONFIG).unlink(missing_ok=True)
        os.replace(fresh, folder / _WEIGHTS)
    write_json(folder / _CONFIG, config)
