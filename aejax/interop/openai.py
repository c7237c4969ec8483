"""A reader of OpenAI's sparse autoencoders (Gao et al. 2024): .pt files of state dictionaries."""

from __future__ import annotations

import os
import pathlib

from aejax.dictionaries.plain import Plain
from aejax.errors import UserError
from aejax.interop.archive import read_torch
from aejax.interop.tensors import Tensors, count, shown
from aejax.types import Array


def load_openai(path: str | os.PathLike[str]) -> Plain:
    """Reads OpenAI's TopK autoencoders, which layer-normalise their inputs, or ReLU autoencoders.

    Args:
      path: the .pt file.

    Returns:
      The weights of the dictionary, for `ae.dictionary.encode` and `ae.dictionary.decode`.

    Raises:
      UserError: if the file is missing or damaged, contains more than tensors, or has another
        activation.
    """
    path = pathlib.Path(path)
    tensors = Tensors(path, read_torch(path))
    # The forward pass does not need these statistics of training.
    tensors.drop("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")
    activation = tensors.take_value("activation") if "activation" in tensors else "ReLU"
    state = (
        tensors.take_value("activation_state_dict") if "activation_state_dict" in tensors else {}
    )
    k = None
    encoder = tensors.take("encoder.weight")
    latents, size = encoder.shape
    if not isinstance(activation, str) or activation not in ("ReLU", "TopK"):
        raise UserError(
            f"'activation' in {path} is {shown(activation)}, but only 'ReLU' and 'TopK' are known"
        )
    if activation == "TopK":
        if not isinstance(state, dict):
            raise UserError(
                f"'activation_state_dict' in {path} is {shown(state)}, but must be a dictionary "
                "with an entry k"
            )
        after = state.get("postact_fn", "ReLU")
        if not isinstance(after, str) or after != "ReLU":
            raise UserError(f"'postact_fn' in {path} is {shown(after)}, but only 'ReLU' is known")
        k = count(state.get("k"), latents, "k", path)
    plain = Plain(
        activation="topk" if k else "relu",
        W_enc=encoder.T,
        W_dec=_decoder(tensors, latents, size),
        b_dec=tensors.take("pre_bias", (size,)),
        b_enc=tensors.take("latent_bias", (latents,)),
        k=k,
        apply_b_dec_to_input=True,
        # OpenAI's code normalises the inputs if and only if the activation is TopK.
        normalisation="layer_norm" if k else "none",
    )
    tensors.close()
    return plain


def _decoder(tensors: Tensors, latents: int, size: int) -> Array:
    """Returns W_dec, f32[m, d]; if the weights are tied, it is taken from the encoder's matrix."""
    if "decoder.linear.weight" in tensors:
        return tensors.take("decoder.linear.weight", (latents, size))
    return tensors.take("decoder.weight", (size, latents)).T
