"""Cross-layer transcoders: a latent that reads at layer l writes at layer l and all later ones.

Such a model is a crosscoder in which some blocks of the weights stay zero (Ameisen et al. 2025):

    model = Autoencoder(Scale(), TopK(layers * n, k), Dictionary((layers, d_out), scale=Scale()))
    tx = optax.chain(optax.adam(1e-3), cross_layer.kept(layers))
    start = (standardised(train), cross_layer.started(layers))
    learner(model, sparse(auxk=1 / 32), tx, initialise=start)

Inputs are [B, layers, d] and targets [B, layers, d_out], which `store.split(inputs, outputs)`
returns for two tuples of hooks. The latents are divided evenly over the layers, in order. `fold`
returns plain weights as for any dictionary; the same blocks are zero in them. Products with the
kernel include its zeros, so that the encoder of L layers computes L times what its blocks need.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from aejax.errors import UserError
from aejax.training.initialise import Initialise
from aejax.types import Array, Batch, Key, Variables
from aejax.variables import ATOMS, KERNEL, Path, get, put


def reads(layers: int, rows: int, latents: int) -> np.ndarray:
    """Returns which entries of the encoder's kernel may be nonzero, bool[rows, latents].

    Args:
      layers: the number of layers.
      rows: the size of the input of all layers together.
      latents: the number of latents of all layers together.

    Raises:
      UserError: if input or latents cannot be divided evenly over the layers.
    """
    return _layer(layers, rows, "numbers of an input")[:, None] == _layer(
        layers, latents, "latents"
    )


def writes(layers: int, latents: int, columns: int) -> np.ndarray:
    """Returns which entries of the decoder rows (atoms) may be nonzero, bool[latents, columns].

    Args:
      layers: the number of layers.
      latents: the number of latents of all layers together.
      columns: the size of the output of all layers together.

    Raises:
      UserError: if output or latents cannot be divided evenly over the layers.
    """
    own = _layer(layers, latents, "latents")[:, None]
    return own <= _layer(layers, columns, "numbers of an output")


def started(layers: int) -> Initialise:
    """Returns an initialiser that zeroes the weights of layers that a latent may not read or write.

    Args:
      layers: the number of layers.
    """

    def started(variables: Variables, batch: Batch, key: Key) -> Variables:
        for path, mask in _MASKS.items():
            values = get(variables, path)
            variables = put(variables, path, values * mask(layers, *values.shape))
        return variables

    return started


def kept(layers: int) -> optax.GradientTransformation:
    """Returns an optax transformation that keeps the weights that `started` zeroes at zero.

    Put it last in a chain.

    Args:
      layers: the number of layers.
    """

    def init(params: Any) -> optax.EmptyState:
        return optax.EmptyState()

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def one(path: Any, leaf: Array) -> Array:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            for own, mask in _MASKS.items():
                if name == "/".join(own[1:]):
                    return jnp.where(mask(layers, *leaf.shape), leaf, 0.0)
            return leaf

        return jax.tree_util.tree_map_with_path(one, updates), state

    return optax.GradientTransformation(init, update)


_MASKS: dict[Path, Any] = {KERNEL: reads, ATOMS: writes}


def _layer(layers: int, size: int, what: str) -> np.ndarray:
    """Returns the layer of each of `size` values, such as latents, i64[size].

    Raises:
      UserError: if they cannot be divided evenly over the layers; the message calls them `what`.
    """
    if layers < 1 or size % layers:
        raise UserError(
            f"{size} {what} cannot be divided evenly over {layers} layers: give a multiple of "
            "the number of layers"
        )
    return np.repeat(np.arange(layers), size // layers)
