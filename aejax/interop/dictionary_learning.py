"""A reader of saprmarks/dictionary_learning: config.json and the state dictionary ae.pt."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from aejax.dictionaries.plain import Plain
from aejax.errors import UserError
from aejax.interop.archive import read_torch
from aejax.interop.tensors import Tensors, check_keys, count, entry, read_config, shown, source
from aejax.types import Array

_READ = {"dict_class", "activation_dim", "dict_size", "k"}
# Keys that do not change what is computed, because they describe training or the source of the
# activations, in all versions of all trainers. The biases in a file already contain `norm_factor`.
_INERT = {
    *("trainer_class", "lr", "steps", "seed", "device", "warmup_steps", "decay_start"),
    *("layer", "lm_name", "wandb_name", "submodule_name", "norm_factor"),
    *("l1_penalty", "l0_penalty", "sparsity_penalty", "sparsity_warmup_steps", "lambda_warm_steps"),
    *("resample_steps", "bandwidth", "target_l0", "gp_reg_coeff"),
    *("auxk_alpha", "top_k_aux", "threshold_beta", "threshold_start_step"),
    *("group_fractions", "group_weights", "group_sizes", "weights_temperature"),
    *("anneal_start", "steps_before_annealing", "p_start", "p_end", "n_sparsity_updates"),
    *("sparsity_function", "sparsity_queue_length", "sparsity_loss_queue_length"),
    *("activation_queue_length", "adaptive_sparsity_penalty"),
}


class _Trainer(NamedTuple):
    """The entries of config.json that describe the dictionary, with the file's path for errors."""

    size: int  # the dimension of the input, d
    latents: int  # the number of latents, m
    k: Any  # the number of active latents as the file states it, not yet checked; or None
    path: pathlib.Path  # the path of the configuration, for error messages


def load_dictionary_learning(folder: str | os.PathLike[str]) -> Plain:
    """Reads one dictionary; BatchTopK becomes JumpReLU, as in inference with that library.

    For the classes GatedAutoEncoder and JumpReluAutoEncoder, that library multiplies activations by
    the norms of the decoder rows, and divides them by these norms before decoding. The returned
    weights compute the activations without this factor, and the same reconstruction.

    Args:
      folder: the folder with config.json and ae.pt.

    Returns:
      The weights of the dictionary, for `ae.dictionary.encode` and `ae.dictionary.decode`.

    Raises:
      UserError: if a file is missing or damaged or contains more than tensors, or if the class of
        the dictionary is unknown.
    """
    folder = pathlib.Path(folder)
    path = folder / "config.json"
    config = read_config(path)
    check_keys(config, ("trainer", "buffer"), "dictionary of dictionary_learning", path)
    trainer = entry(config, "trainer", dict, path)
    kind = entry(trainer, "dict_class", str, path)
    if kind not in _CLASSES:
        raise UserError(
            f"'dict_class' in {path} is {kind!r:.60}, but must be one of "
            f"{', '.join(sorted(_CLASSES))}"
        )
    check_keys(trainer, _READ | _INERT, "known trainer of dictionary_learning", path)
    size, latents = (entry(trainer, name, int, path) for name in ("activation_dim", "dict_size"))
    tensors = Tensors(folder / "ae.pt", read_torch(folder / "ae.pt"))
    plain = _CLASSES[kind](tensors, _Trainer(size, latents, trainer.get("k"), path))
    tensors.close()
    return plain._replace(source=source(trainer, "lm_name", "submodule_name", ""))


def _weights(tensors: Tensors, of: _Trainer, bias: str) -> dict[str, Any]:
    """Takes W_enc, W_dec and b_dec from a file whose matrices are those of torch.nn.Linear.

    Such matrices have the shape (outputs, inputs).

    Args:
      tensors: the tensors of the file.
      of: the sizes of the dictionary.
      bias: the name of b_dec in the file.

    Returns:
      The weights by their names in `Plain`.
    """
    return {
        "W_enc": tensors.take("encoder.weight", (of.latents, of.size)).T,
        "W_dec": tensors.take("decoder.weight", (of.size, of.latents)).T,
        "b_dec": tensors.take(bias, (of.size,)),
    }


def _linear(tensors: Tensors, of: _Trainer, bias: str) -> dict[str, Any]:
    """Returns what `_weights` returns, and the encoder's bias b_enc."""
    weights = _weights(tensors, of, bias)
    return {**weights, "b_enc": tensors.take("encoder.bias", (of.latents,))}


def _matrices(tensors: Tensors, of: _Trainer) -> dict[str, Any]:
    """Returns all weights, by their names in `Plain`, of a file with matrices (inputs, outputs)."""
    return {
        "W_enc": tensors.take("W_enc", (of.size, of.latents)),
        "W_dec": tensors.take("W_dec", (of.latents, of.size)),
        "b_dec": tensors.take("b_dec", (of.size,)),
        "b_enc": tensors.take("b_enc", (of.latents,)),
    }


def _k(tensors: Tensors, of: _Trainer) -> int:
    """Returns the number of active latents, k, from the file of weights or the configuration.

    Raises:
      UserError: if k is in neither file, is not a valid number, or differs between the two.
    """
    if "k" not in tensors:
        return count(of.k, of.latents, "k", of.path)
    k = count(tensors.take_value("k"), of.latents, "k", tensors.path)
    if of.k is not None and of.k != k:
        raise UserError(
            f"'k' is {k} in {tensors.path}, but {shown(of.k)} in {of.path}: fetch the two files of "
            "one dictionary"
        )
    return k


def _learned_threshold(tensors: Tensors, of: _Trainer) -> Array:
    """Returns the common threshold of all latents as f32[m].

    Raises:
      UserError: if it is negative, as it is before the step at which training begins to learn it.
    """
    threshold = tensors.take("threshold", ())
    if threshold < 0:
        raise UserError(
            f"'threshold' in {tensors.path} is {float(threshold)}, since training ended before it "
            "was learned: train beyond threshold_start_step"
        )
    return jnp.full((of.latents,), threshold)


def _standard(tensors: Tensors, of: _Trainer) -> Plain:
    return Plain("relu", **_linear(tensors, of, "bias"), apply_b_dec_to_input=True)


def _april(tensors: Tensors, of: _Trainer) -> Plain:
    return Plain("relu", **_linear(tensors, of, "decoder.bias"))


def _topk(tensors: Tensors, of: _Trainer) -> Plain:
    weights = _linear(tensors, of, "b_dec")
    tensors.drop("threshold")  # not needed, because encode() of that library selects the k largest
    return Plain("topk", **weights, k=_k(tensors, of), apply_b_dec_to_input=True)


def _batch_topk(tensors: Tensors, of: _Trainer) -> Plain:
    return _by_threshold(tensors, of, _linear(tensors, of, "b_dec"))


def _matryoshka(tensors: Tensors, of: _Trainer) -> Plain:
    tensors.drop("group_sizes")  # only training uses it
    return _by_threshold(tensors, of, _matrices(tensors, of))


def _by_threshold(tensors: Tensors, of: _Trainer, weights: dict[str, Any]) -> Plain:
    """Returns a BatchTopK as JumpReLU, with the threshold that training has learned."""
    _k(tensors, of)
    threshold = _learned_threshold(tensors, of)
    return Plain("jumprelu", **weights, threshold=threshold, apply_b_dec_to_input=True)


def _jumprelu(tensors: Tensors, of: _Trainer) -> Plain:
    threshold = tensors.take("threshold", (of.latents,))
    return Plain("jumprelu", **_matrices(tensors, of), threshold=threshold)


def _gated(tensors: Tensors, of: _Trainer) -> Plain:
    gate, magnitude, scale = (
        tensors.take(name, (of.latents,)) for name in ("gate_bias", "mag_bias", "r_mag")
    )
    weights = {**_weights(tensors, of, "decoder_bias"), "apply_b_dec_to_input": True}
    return Plain("gated", **weights, b_gate=gate, b_mag=magnitude, r_mag=scale)


_CLASSES: Mapping[str, Callable[[Tensors, _Trainer], Plain]] = {
    "AutoEncoder": _standard,
    "AutoEncoderNew": _april,
    "AutoEncoderTopK": _topk,
    "BatchTopKSAE": _batch_topk,
    "GatedAutoEncoder": _gated,
    "JumpReluAutoEncoder": _jumprelu,
    "MatryoshkaBatchTopKSAE": _matryoshka,
}
