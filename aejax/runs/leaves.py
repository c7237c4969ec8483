"""Copies the leaves of a state from devices to the host, hashes them, and puts them back.

leaves = host_leaves(state)                  # {"params/encoder/Dense_0/kernel": Leaf, ...}
misfit(kinds(state), kinds(other))           # None, or a phrase that names the first difference
state = fill(template, leaves)               # has the devices and key types of the template
params_sha256(state.params)                  # 64 hexadecimal digits
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils


class Leaf(NamedTuple):
    """One array of a state, on the host."""

    array: np.ndarray  # the array, or the key data of a typed key
    key: str | None = None  # the implementation of a typed key, for example "threefry2x32"

    def record(self, path: str) -> dict[str, Any]:
        """Returns the leaf's entry in a checkpoint's manifest: shape, dtype, key and sha256.

        The sha256 covers the path, shape, dtype, key and bytes.
        """
        kind = {
            "shape": list(self.array.shape),
            "dtype": str(self.array.dtype),
            "key": self.key,
        }
        digest = hashlib.sha256(f"{path} {sorted(kind.items())}\n".encode())
        digest.update(np.ascontiguousarray(self.array).reshape(-1).view(np.uint8).data)
        return kind | {"sha256": digest.hexdigest()}

    def kind(self) -> list[Any]:
        """Returns [dtype or key implementation, *shape], such as ["float32", 3, 4]."""
        if self.key is None:
            return [str(self.array.dtype), *self.array.shape]
        return [f"key<{self.key}>", *self.array.shape[:-1]]

    def value(self) -> Any:
        """Returns the array, or the typed key if the array is key data."""
        if self.key is None:
            return self.array
        return jax.random.wrap_key_data(jnp.asarray(self.array), impl=self.key)


def paths(tree: Any) -> dict[str, Any]:
    """Returns a tree's leaves by path: {"params/encoder/kernel": leaf}."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Converts leaves by path to nested dicts, {"params": {"encoder": {"kernel": leaf}}}."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = leaf
    return tree


def host_leaves(tree: Any) -> dict[str, Leaf]:
    """Returns path -> a copy of the leaf on the host, for every leaf of a tree.

    The copies stay valid when the next training step overwrites the device's buffers. Every process
    of a run must call this function, because it gathers leaves that are sharded over processes.
    """
    keys = {
        path: str(jax.random.key_impl(leaf)) if _is_key(leaf) else None
        for path, leaf in paths(tree).items()
    }
    data = {
        path: leaf if keys[path] is None else jax.random.key_data(leaf)
        for path, leaf in paths(tree).items()
    }
    for leaf in data.values():  # All transfers start before the first one is waited for.
        if isinstance(leaf, jax.Array) and leaf.is_fully_addressable:
            leaf.copy_to_host_async()
    return {path: Leaf(_fetch(leaf), keys[path]) for path, leaf in data.items()}


def kinds(tree: Any) -> dict[str, list[Any]]:
    """Returns path -> [dtype or key implementation, *shape] for each leaf of a tree."""
    return {
        path: [
            f"key<{jax.random.key_impl(leaf)}>" if _is_key(leaf) else str(np.dtype(leaf.dtype)),
            *leaf.shape,
        ]
        for path, leaf in paths(jax.tree.map(_as_array, tree)).items()
    }


def misfit(expected: Mapping[str, list[Any]], found: Mapping[str, list[Any]]) -> str | None:
    """Returns a phrase that names the first leaf in which two trees differ; None if they agree.

    Args:
      expected: the result of `kinds` for the current code's state.
      found: the result of `kinds` for a stored state.
    """
    for path in found:
        if path not in expected:
            return f"{path} was recorded, but the code has no such array"
    for path, kind in expected.items():
        if path not in found:
            return f"the code has an array {path}, which was not recorded"
        if list(found[path]) != list(kind):
            return f"{path} was recorded as {_words(found[path])} and is {_words(kind)} in the code"
    return None


def fill(template: Any, leaves: Mapping[str, Leaf]) -> Any:
    """Puts leaves on the devices; returns a tree with the template's structure and shardings.

    Args:
      template: a state whose leaves have the same paths, dtypes and shapes as `leaves`.
      leaves: leaves by path, as `host_leaves` returns them.
    """
    treedef = jax.tree.structure(template)
    filled = [_place(leaf, leaves[path].value()) for path, leaf in paths(template).items()]
    return jax.tree.unflatten(treedef, filled)


def params_sha256(params: Any) -> str:
    """Returns a sha256 over the path, dtype, shape and bytes of all parameters, sorted by path."""
    return leaves_sha256(host_leaves(params))


def leaves_sha256(leaves: Mapping[str, Leaf]) -> str:
    """Returns what `params_sha256` returns, for the leaves of the parameters on the host."""
    proofs = [leaf.record(path)["sha256"] for path, leaf in sorted(leaves.items())]
    return hashlib.sha256("\n".join(proofs).encode()).hexdigest()


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _as_array(leaf: Any) -> Any:
    return leaf if hasattr(leaf, "dtype") else np.asarray(leaf)


def _words(kind: list[Any]) -> str:
    return f"{kind[0]}{list(kind[1:])}"


def _fetch(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        if not leaf.is_fully_replicated:
            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        leaf = leaf.addressable_data(0)
    # A copy is needed because on CPUs np.asarray returns a view of the device's buffer, which the
    # next step overwrites.
    return np.array(leaf, copy=True)


def _place(like: Any, value: Any) -> Any:
    if not isinstance(like, jax.Array):
        return value
    if not like.committed:
        return jnp.asarray(value)
    if like.is_fully_addressable:
        return jax.device_put(value, like.sharding)
    if _is_key(like):
        data = np.asarray(jax.random.key_data(value))
        spread = jax.sharding.NamedSharding(like.sharding.mesh, jax.sharding.PartitionSpec())
        whole = jax.make_array_from_callback(data.shape, spread, lambda index: data[index])
        return jax.random.wrap_key_data(whole, impl=str(jax.random.key_impl(value)))
    return jax.make_array_from_callback(like.shape, like.sharding, lambda index: value[index])
