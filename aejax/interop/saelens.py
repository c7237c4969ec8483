"""A reader and a writer of SAELens' cfg.json and sae_weights.safetensors.

The reader supports the files of all versions.
"""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from aejax.dictionaries.plain import KINDS, Plain, fold_decoder_norms, kind_of
from aejax.errors import UserError
from aejax.files import as_json, write_bytes, write_json, writing
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
    source,
)

_CONFIG, _WEIGHTS = "cfg.json", "sae_weights.safetensors"

# architecture -> (activation, whether it is a transcoder, whether it has a skip connection)
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
_SHAPE = "output_shape"  # an entry of the metadata that SAELens keeps but does not use


def load_saelens(folder: str | os.PathLike[str]) -> Plain:
    """Reads an SAE of any SAELens architecture that `aejax.dictionaries.Plain` can represent.

    Args:
      folder: the folder with cfg.json and sae_weights.safetensors. The activations of a hook_z must
        be flattened to [B, heads * size] before they are given to the SAE.

    Returns:
      The weights of the dictionary, for `ae.dictionary.encode` and `ae.dictionary.decode`.

    Raises:
      UserError: if a file is missing or damaged, or contains something unknown.
    """
    folder = pathlib.Path(folder)
    path = folder / _CONFIG
    config = modernised(read_config(path), path)
    plain = _checked(config, read_safetensors(folder / _WEIGHTS), path)
    if plain.rescale_acts_by_decoder_norm:
        # SAELens multiplies activations by the norms of W_dec's rows. Once the norms are folded
        # into the encoder, `encode` returns the same activations and selects the same latents.
        return fold_decoder_norms(plain)._replace(rescale_acts_by_decoder_norm=True)
    return plain


def _checked(config: Mapping[str, Any], tensors: Tensors, path: pathlib.Path) -> Plain:
    """Converts the tensors of an SAE to plain weights, as its configuration describes them.

    The configuration must be one of version 6. `save_saelens` calls this function too, to check
    what it is about to write.

    Raises:
      UserError: if a tensor or an entry is missing, is unknown, or contradicts another one.
    """
    activation, transcodes, skips = _row(config, path)
    kind = KINDS[activation]
    size, latents, output = _sizes(config, transcodes, path)
    subtracts = _switch(config, "apply_b_dec_to_input", not transcodes, path)
    if transcodes and subtracts:
        raise UserError(
            f"'apply_b_dec_to_input' in {path} is true, but the b_dec of a transcoder belongs to "
            "its output: set it to false"
        )
    check_scaling(tensors, latents)
    W_enc = None if kind.tied else tensors.take("W_enc", (size, latents))
    W_dec = tensors.take("W_dec", (latents, output))
    b_dec = tensors.take("b_dec", (output,))
    plain = Plain(
        activation=activation,
        W_enc=W_dec.T if W_enc is None else W_enc,
        W_dec=W_dec,
        # If the weights are tied, SAELens adds b_dec to the output only if it also subtracts b_dec
        # from the input.
        b_dec=b_dec if subtracts or not kind.tied else jnp.zeros_like(b_dec),
        **{name: tensors.take(name, (latents,)) for name in kind.vectors},  # pyright: ignore[reportArgumentType]
        k=count(config.get("k"), latents, "k", path) if kind.selects else None,
        rescale_acts_by_decoder_norm=_switch(config, "rescale_acts_by_decoder_norm", False, path),
        apply_b_dec_to_input=subtracts,
        W_skip=tensors.take("W_skip", (output, size)).T if skips else None,  # pyright: ignore[reportArgumentType]
        normalisation=_normalisation(config, transcodes, path),
        shape=_output_shape(config, output, path),
        own={name: _setting(config, name, usual, path) for name, usual in kind.settings.items()},
        source=source(config.get("metadata"), "model_name", "hook_name", "hook_name_out"),
    )
    tensors.close()
    return plain


def save_saelens(
    folder: str | os.PathLike[str], plain: Plain, metadata: Mapping[str, Any] | None = None
) -> None:
    """Writes weights so that SAELens' `SAE.load_from_disk(folder)` computes the same function.

    Either both files are written or neither, and only if `load_saelens` can read them. SAELens
    takes and returns flat vectors; the shape of an output with several axes, such as that of a
    crosscoder, is stored as the entry output_shape of the metadata, which `load_saelens` reads.

    Args:
      folder: the folder to write to; it is created if necessary, and an SAE in it is replaced.
      plain: the weights, as `aejax.fold` returns them.
      metadata: values that SAELens stores with the weights, for example model_name, hook_name,
        hook_name_out (which makes a square dictionary a transcoder), prepend_bos, dataset_path.
        The entry sae_lens_version is always set, to the version whose format is written.

    Raises:
      UserError: if SAELens has no such architecture, if the shapes of the weights do not match or
        values are NaN, or if the folder cannot be written.
    """
    # The caller cannot choose the version, because SAELens reads files of older versions in another
    # way.
    metadata = {**(metadata or {}), "sae_lens_version": "6.0.0"}
    if plain.shape is not None and len(plain.shape) > 1:
        metadata[_SHAPE] = list(plain.shape)
    for field in ("W_enc", "W_dec"):
        _shaped(plain, field, None)
    plain, name = _named(plain, "hook_name_out" in metadata)
    size, latents = plain.W_enc.shape
    kind = kind_of(plain)
    if kind.tied:
        _check_tied(plain)
    fields = ("W_dec", "b_dec") if kind.tied else ("W_enc", "W_dec", "b_dec")
    tensors = {
        name: np.ascontiguousarray(plain.needed(name), np.float32)
        for name in (*fields, *kind.vectors)
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
        # SAELens receives the activations of a hook_z with an axis of heads, and flattens them.
        "reshape_activations": "hook_z" if _is_per_head(metadata) else "none",
        "metadata": metadata,
    }
    if kind.selects:
        config["k"] = plain.needed("k")
        config["rescale_acts_by_decoder_norm"] = plain.rescale_acts_by_decoder_norm
    config |= {name: plain.own.get(name, usual) for name, usual in kind.settings.items()}
    if _ARCHITECTURES[name][1]:
        config["d_out"] = plain.W_dec.shape[1]
    folder = pathlib.Path(folder)
    config = as_json(config)
    try:
        _checked(config, Tensors(folder / _WEIGHTS, tensors), folder / _CONFIG)
    except UserError as error:
        raise UserError(
            f"these weights were not saved, because the files could not be read again: {error}"
        ) from error
    _write(folder, safetensors().numpy.save(tensors), config)


def _row(config: Mapping[str, Any], path: pathlib.Path) -> tuple[Any, bool, bool]:
    """Reads the architecture of a configuration, after checking the configuration's keys.

    Returns:
      The name of its activation in `Plain`, whether it is a transcoder, and whether it has a skip
      connection.

    Raises:
      UserError: if the architecture or a key is unknown.
    """
    name = entry(config, "architecture", str, path)
    if name not in _ARCHITECTURES:
        raise UserError(
            f"'architecture' in {path} is {name!r:.60}, but must be one of "
            f"{', '.join(_ARCHITECTURES)}"
        )
    row = _ARCHITECTURES[name]
    kind = KINDS[row[0]]
    own = (_SELECTS if kind.selects else set()) | set(kind.settings)
    check_keys(config, _KEYS | own | (_TRANSCODES if row[1] else set()), f"{name!r} SAE", path)
    return row


def _sizes(config: Mapping[str, Any], transcodes: bool, path: pathlib.Path) -> tuple[int, int, int]:
    """Returns the sizes d, m and d_out: of the input, of the latents and of the output."""
    size = entry(config, "d_in", int, path)
    output = entry(config, "d_out", int, path) if transcodes else size
    return size, entry(config, "d_sae", int, path), output


def _output_shape(
    config: Mapping[str, Any], output: int, path: pathlib.Path
) -> tuple[int, ...] | None:
    """Returns the shape of an output with several axes, or None if the file stores none."""
    metadata = config.get("metadata")
    shape = metadata.get(_SHAPE) if isinstance(metadata, Mapping) else None
    if shape is None:
        return None
    known = isinstance(shape, list) and all(type(n) is int and n > 0 for n in shape)
    if not known or math.prod(shape) != output:
        raise UserError(
            f"{_SHAPE!r} in the metadata of {path} is {shape!r:.60}, but must be a list of sizes "
            f"whose product is {output}, the size of an output"
        )
    return tuple(shape)


def _switch(config: Mapping[str, Any], name: str, default: bool, path: pathlib.Path) -> bool:
    return entry(config, name, bool, path) if name in config else default


def _setting(config: Mapping[str, Any], name: str, usual: Any, path: pathlib.Path) -> Any:
    """Returns the value of an architecture's setting after checking its type.

    Args:
      config: the configuration.
      name: the name of the setting.
      usual: its default. If the default is None, the value must be an integer or None.
      path: the path of the configuration, for error messages.
    """
    value = config.get(name, usual)
    if isinstance(usual, bool):
        return _switch(config, name, usual, path)
    if usual is None:
        return value if value is None else count(value, None, name, path)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < np.inf:
        return float(value)
    raise UserError(f"{name!r} in {path} is {shown(value)}, but must be a number, 0 or more")


def _check_tied(plain: Plain) -> None:
    """Raises UserError if SAELens would compute something else with weights that must be tied.

    SAELens stores no W_enc for them, and uses the transpose of W_dec.
    """
    if not np.array_equal(np.transpose(plain.W_enc), plain.W_dec):
        raise UserError(
            f"W_enc of these {plain.called} weights is not the transpose of W_dec, which SAELens "
            "uses instead of W_enc: set W_enc to W_dec.T"
        )
    if not plain.apply_b_dec_to_input and np.any(np.asarray(plain.b_dec) != 0):
        raise UserError(
            f"SAELens adds b_dec of {plain.called} weights to the output only if it also subtracts "
            "b_dec from the input: set apply_b_dec_to_input to True, or b_dec to 0"
        )


def _normalisation(config: Mapping[str, Any], transcodes: bool, path: pathlib.Path) -> Any:
    value = config.get("normalize_activations", "none")
    if value == "none" or (value in ("layer_norm", "constant_norm_rescale") and not transcodes):
        return value
    raise UserError(
        f"'normalize_activations' in {path} is {shown(value)}, whose scale is not in the file: "
        "fold it into the weights with SAELens and save them again"
    )


def _named(plain: Plain, transcodes: bool) -> tuple[Plain, str]:
    """Converts weights to equivalent ones that SAELens can represent.

    Args:
      plain: the weights.
      transcodes: whether the weights are those of a transcoder.

    Returns:
      The weights and SAELens' name of their architecture.

    Raises:
      UserError: if SAELens has no such architecture.
    """
    (size, latents), output = plain.W_enc.shape, plain.W_dec.shape[1]
    skips = plain.W_skip is not None
    transcodes = transcodes or skips or size != output
    name = kind_of(plain).saelens[transcodes + skips]
    what = f"{plain.called} {'transcoder' if transcodes else 'SAE'}"
    if name is None:
        raise UserError(
            f"SAELens has no {what}{' with a skip connection' if skips else ''}, so these weights "
            "cannot be saved for it"
        )
    if not transcodes:
        return plain, name
    if plain.normalisation != "none":
        raise UserError(
            f"SAELens has no {what} that reverses the normalisation {plain.normalisation} on its "
            "output, so these weights cannot be saved for it"
        )
    if plain.apply_b_dec_to_input:
        # SAELens' transcoders never subtract b_dec from the input, so the subtraction is folded
        # into the encoder's bias.
        bias = _shaped(plain, "b_enc", (latents,)) - _shaped(plain, "b_dec", (size,)) @ plain.W_enc
        plain = plain._replace(b_enc=bias, apply_b_dec_to_input=False)
    return plain, name


def _shaped(plain: Plain, name: str, shape: tuple[int, ...] | None) -> Any:
    """Returns a field of the weights after checking its shape.

    Args:
      plain: the weights.
      name: the name of the field.
      shape: the shape that it must have; None: it must be a matrix.
    """
    value = plain.needed(name)
    if np.ndim(value) != 2 if shape is None else np.shape(value) != shape:
        wanted = "(d, m)" if shape is None else shape
        raise UserError(
            f"{name} of these weights has shape {np.shape(value)}, but must have shape {wanted}"
        )
    return value


def _is_per_head(metadata: Mapping[str, Any]) -> bool:
    return str(metadata.get("hook_name", "")).endswith("_z")


def _write(folder: pathlib.Path, weights: bytes, config: Mapping[str, Any]) -> None:
    """Replaces the two files of a folder so that it never contains files of two different SAEs.

    The large file is written under another name first, so that the old SAE is kept if the disk is
    full. Then cfg.json is deleted, the weights are renamed, and the new cfg.json is written last. A
    folder without cfg.json cannot be read as an SAE.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f".{_WEIGHTS}.{os.getpid()}.new"
        write_bytes(fresh, weights)
        (folder / _CONFIG).unlink(missing_ok=True)
        os.replace(fresh, folder / _WEIGHTS)
    write_json(folder / _CONFIG, config)
