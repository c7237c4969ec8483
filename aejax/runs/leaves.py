"""A state's leaves on the host: copied from wherever they are, hashed, and put back there.

leaves = host_leaves(state)                  # {"params/encoder/Dense_0/kernel": Leaf, ...}
misfit(state, leaves)                        # None, or how the two differ
state = fill(template, leaves)               # arrays as the template's: devices, key types
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

    array: np.ndarray  # that of the key data where it is a typed key
    key: str | None = None  # the implementation of a typed key, e.g. "threefry2x32"

    def record(self, path: str) -> dict[str, Any]:
        """What a manifest says of it: shape, dtype, key and a sha256 over path, these and bytes."""
        kind = {
            "shape": list(self.array.shape),
            "dtype": str(self.array.dtype),
            "key": self.key,
        }
        digest = hashlib.sha256(f"{path} {sorted(kind.items())}\n".encode())
        digest.update(np.ascontiguousarray(self.array).reshape(-1).view(np.uint8).data)
        return kind | {"sha256": digest.hexdigest()}

    def kind(self) -> list[Any]:
        """As `kinds` has it: [dtype or key implementation, *shape]."""
        if self.key is None:
            return [str(self.array.dtype), *self.array.shape]
        return [f"key<{self.key}>", *self.array.shape[:-1]]

    def value(self) -> Any:
        """The array itself, or the typed key that it is the data of."""
        if self.key is None:
            return self.array
        return jax.random.wrap_key_data(jnp.asarray(self.array), impl=self.key)


def paths(tree: Any) -> dict[str, Any]:
    """A tree's leaves by path: {"params/encoder/kernel": leaf}."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The other way round, as nested dicts: {"params": {"encoder": {"kernel": leaf}}}."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = leaf
    return tree


def host_leaves(tree: Any) -> dict[str, Leaf]:
    """Copies every leaf to the host, where it outlives the donation of the device's buffer.

    Every process of a run must call it, since leaves that are spread over processes are gathered.
    """
    keys = {
        path: str(jax.random.key_impl(leaf)) if _is_key(leaf) else None
        for path, leaf in paths(tree).items()
    }
    data = {
        path: leaf if keys[path] is None else jax.random.key_data(leaf)
        for path, leaf in paths(tree).items()
    }
    for leaf in data.values():  # all transfers at once, then wait for each
        if isinstance(leaf, jax.Array) and leaf.is_fully_addressable:
            leaf.copy_to_host_async()
    return {path: Leaf(_fetch(leaf), keys[path]) for path, leaf in data.items()}


def kinds(tree: Any) -> dict[str, list[Any]]:
    """What kind of array each leaf is: path -> [dtype or key implementation, *shape]."""
    return {
        path: [
            f"key<{jax.random.key_impl(leaf)}>" if _is_key(leaf) else str(np.dtype(leaf.dtype)),
            *leaf.shape,
        ]
        for path, leaf in paths(jax.tree.map(_as_array, tree)).items()
    }


def misfit(expected: Mapping[str, list[Any]], found: Mapping[str, list[Any]]) -> str | None:
    """How two trees' `kinds` differ, in half a sentence that names one leaf; None: not at all.

    Args:
      expected: of the code that runs now.
      found: of what was recorded.
    """
    for path in found:
        if path not in expected:
            return f"{path} was recorded and the code has no such array"
    for path, kind in expected.items():
        if path not in found:
            return f"{path} is new in the code and was not recorded"
        if list(found[path]) != list(kind):
            return f"{path} was recorded as {_words(found[path])} and is {_words(kind)} in the code"
    return None


def fill(template: Any, leaves: Mapping[str, Leaf]) -> Any:
    """Puts leaves where the template's are: same tree, same devices, committed where those are.

    Args:
      template: a state that `misfit` finds nothing against; its values are not used.
      leaves: of `host_leaves`.
    """
    treedef = jax.tree.structure(template)
    filled = [_place(leaf, leaves[path].value()) for path, leaf in paths(template).items()]
    return jax.tree.unflatten(treedef, filled)


def params_sha256(params: Any) -> str:
    """A sha256 over the path, dtype, shape and bytes of every parameter, in the order of paths."""
    leaves = host_leaves(params)
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
    # On a CPU the host's view is the device's own buffer, which the next step is to have.
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
