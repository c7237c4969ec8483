"""Storage of a program's weights: float32, bfloat16, or int8 with a scale for each channel.

packed = pack({"params.decoder.output.kernel": kernel}, "int8")
unpack(packed)      # the same names; float32 again, rounded to 255 levels in each channel
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.types import Array

Stored: TypeAlias = Literal["float32", "bfloat16", "int8"]
# How the names of weights begin; arrays with other names, such as batch_stats.NAME, are statistics.
WEIGHTS = ("params.", "plain.", "own.")
LEAST = 64  # matrices with fewer entries than this are not rounded


class Packed(NamedTuple):
    """One array as it is stored."""

    values: np.ndarray  # f32, bf16 or int8 for a matrix of parameters, else unchanged
    scale: np.ndarray | None = None  # f32, broadcasts to values: the array is values * scale


def pack(weights: Mapping[str, Any], stored: Stored) -> dict[str, Packed]:
    """Returns name -> the array as it is stored; only matrices are rounded.

    Vectors, integers and running statistics (the collections other than `params`) are not rounded:
    they are small, and rounding them would lose the most accuracy.

    Args:
      weights: name -> array; the name begins with that of its collection, such as "params.".
      stored: how matrices are stored.

    Raises:
      UserError: if `stored` is unknown, or a matrix holds numbers that are not finite.
    """
    if stored not in get_args(Stored):
        raise UserError(
            f"weights cannot be stored as {stored!r}: choose one of {', '.join(get_args(Stored))}"
        )
    return {name: _packed(name, np.asarray(array), stored) for name, array in weights.items()}


def unpack(packed: Mapping[str, Packed]) -> dict[str, Array | np.ndarray]:
    """Returns name -> array, with rounded matrices converted back to float32.

    An exported program makes this conversion in every call.
    """
    return {name: _unpacked(one) for name, one in packed.items()}


def _packed(name: str, array: np.ndarray, stored: Stored) -> Packed:
    matrix = array.dtype == np.float32 and array.ndim >= 2 and array.size >= LEAST
    if stored == "float32" or not matrix or not name.startswith(WEIGHTS):
        return Packed(array)
    if stored == "bfloat16":
        return Packed(array.astype(jnp.bfloat16))
    if not np.isfinite(array).all():
        raise UserError(
            f"{name} holds numbers that are not finite, which int8 cannot store: choose float32"
        )
    # The last axis of a kernel, and of a dictionary's atoms, holds the outputs.
    largest = np.abs(array).max(axis=tuple(range(array.ndim - 1)), keepdims=True)
    scale = np.where(largest > 0, largest / 127.0, 1.0).astype(np.float32)
    return Packed(np.rint(array / scale).astype(np.int8), scale)


def _unpacked(packed: Packed) -> Array | np.ndarray:
    """Converts one stored array to float32; an array that was not rounded is returned unchanged.

    It then stays a numpy array, so that operations on it can be computed during tracing.
    """
    if packed.scale is not None:
        return jnp.asarray(packed.values).astype(jnp.float32) * packed.scale
    half = packed.values.dtype == jnp.bfloat16
    return jnp.asarray(packed.values).astype(jnp.float32) if half else packed.values
