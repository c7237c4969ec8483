"""Builds a transformer's variables from the named tensors of any file format.

The modules `gguf` and `huggingface` read a Config and an `Archive` from their files. `assemble`
looks up each of the model's parameters by its name in the file, and refuses tensors that no
parameter uses.

    model, variables = assemble(config, archive, dtype=jnp.float32)
    variables = stacked(variables)          # for Transformer(scan=True); `unstacked` undoes it
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from aejax.errors import UserError
from aejax.language.config import Config
from aejax.language.llama import Transformer


class Archive(NamedTuple):
    """Access to the named tensors in the files of one model."""

    path: pathlib.Path  # the file or folder, which every error names
    # Parameter name -> tensor name, such as "blocks_#/mlp/up/kernel" -> "blk.#.ffn_up.weight",
    # where # stands for the index of the layer. See `_parts` for parameters of several tensors.
    names: dict[str, str]
    there: set[str]  # the names of the tensors that the file holds
    read: Callable[[str], np.ndarray]  # a tensor's name -> f[...]; matrices are [out, in]
    ignored: frozenset[str] = frozenset()  # tensors that the forward pass does not need


def assemble(
    config: Config, archive: Archive, dtype: Any = jnp.float32
) -> tuple[Transformer, dict[str, Any]]:
    """Returns the model and its variables, with separate parameters for each block (not scanned).

    Args:
      config: the model's sizes and options.
      archive: the model's tensors.
      dtype: the dtype of the matrix products and the weights; norms stay float32.

    Raises:
      UserError: if a tensor is missing, is used by no parameter, has another shape, or holds NaN or
        an infinity.
    """
    if config.layers > len(archive.there):  # before all layers are traced
        raise UserError(
            f"{archive.path} states {config.layers:,} layers, but holds only "
            f"{len(archive.there):,} tensors: fetch it again"
        )
    model = Transformer(config, dtype)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    left, params = archive.there - archive.ignored, {}
    for path, wanted in traverse_util.flatten_dict(shapes["params"], sep="/").items():
        parts = _parts(config, path, wanted.shape)
        names = {part: _tensor(archive, part) for part in parts.shapes}
        arrays = [_checked(archive, names[part], parts.shapes[part]) for part in names]
        params[path] = jnp.asarray(parts.joined(arrays), wanted.dtype)
        left -= set(names.values())
    if left:
        raise UserError(
            f"{archive.path} holds the tensor {sorted(left)[0]!r:.80}, which this architecture "
            "does not have: without that tensor the model would compute something else"
        )
    return model, {"params": traverse_util.unflatten_dict(params, sep="/")}


def _tensor(archive: Archive, path: str) -> str:
    """Returns the name of the tensor in the files that holds the parameter with the given path."""
    layer = re.match(r"blocks_(\d+)/", path)
    if layer is None:
        return archive.names[path]
    return archive.names[path.replace(layer[0], "blocks_#/")].replace("#", layer[1])


class _Parts(NamedTuple):
    """The tensors of a file that make up one parameter."""

    shapes: dict[str, tuple[int, ...]]  # path, as in Archive.names -> the tensor's shape
    # Each tensor is cut into this many pieces of equally many rows. The parameter holds the first
    # piece of every tensor, then the second piece of every tensor, and so on.
    groups: int

    def joined(self, arrays: list[np.ndarray]) -> np.ndarray:
        """Returns the parameter, whose rows are pieces of the tensors in turn; see `groups`."""
        pieces = [array.reshape(self.groups, -1, *array.shape[1:]) for array in arrays]
        whole = np.concatenate(pieces, axis=1)
        return whole.reshape(-1, *whole.shape[2:])


def _parts(config: Config, path: str, shape: tuple[int, ...]) -> _Parts:
    """Returns the tensors that make up a parameter of the given path and shape.

    Files hold queries, keys and values apart, and also the MLP's gate and up. `Transformer` has one
    parameter for queries, keys and values and one for gate and up, because one product is faster
    than several. Each key head's queries, key and value are neighbours, so that a mesh that divides
    the rows of the parameter divides it by key heads.
    """
    if "/qkv/" in path:
        whole, groups = "qkv", config.kv_heads
        heads = {"query": config.heads, "key": config.kv_heads, "value": config.kv_heads}
        rows = {name: count * config.head_size for name, count in heads.items()}
    elif "/gate_up/" in path:
        whole, groups = "gate_up", 1
        rows = {"gate": config.hidden, "up": config.hidden}
    else:
        return _Parts({path: shape}, 1)
    return _Parts({path.replace(whole, name): (n, *shape[1:]) for name, n in rows.items()}, groups)


def _checked(archive: Archive, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Reads a tensor and checks it.

    Raises:
      UserError: if the tensor is missing, has another shape, or is not finite.
    """
    if name not in archive.there:
        raise UserError(
            f"{archive.path} has no tensor {name!r}: the file is incomplete, or its "
            "architecture is not the one that it states; fetch it again"
        )
    array = archive.read(name)
    if array.shape != shape:
        raise UserError(
            f"the tensor {name!r} in {archive.path} has shape {array.shape} instead of "
            f"{shape}: it does not fit the model's configuration"
        )
    if not np.isfinite(array).all():
        raise UserError(
            f"the tensor {name!r} in {archive.path} holds NaN or an infinity: fetch the file again"
        )
    return array


def named(config: Config, names: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Returns parameter name -> tensor name for those pairs in `names` whose parameter exists.

    Which parameters a model has depends on its config.
    """
    absent = []
    if config.tied:
        absent.append("unembed/")
    if not config.query_bias:
        absent.append("bias")
    if not config.query_norm:
        absent += ["query_norm", "key_norm"]
    if not config.post_norm:
        absent.append("post_norm")
    return {path: name for path, name in names if not any(part in path for part in absent)}


def stacked(variables: Any) -> dict[str, Any]:
    """Stacks the parameters of all blocks to [layers, ...], as `Transformer(scan=True)` needs."""
    params = dict(variables["params"])
    count = sum(name.startswith("blocks_") for name in params)
    blocks = [params.pop(f"blocks_{i}") for i in range(count)]
    params["blocks"] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)
    return {**variables, "params": params}


def unstacked(variables: Any) -> dict[str, Any]:
    """Splits parameters [layers, ...] into the parameters of each block; undoes `stacked`."""
    params = dict(variables["params"])
    blocks = params.pop("blocks")
    for i in range(len(jax.tree.leaves(blocks)[0])):
        params[f"blocks_{i}"] = jax.tree.map(lambda leaf, i=i: leaf[i], blocks)
    return {**variables, "params": params}
