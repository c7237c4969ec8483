"""Activations of any array library as rows on the host, checked and in the dtype to store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from aejax.data.activations.index import DTYPES
from aejax.errors import UserError


def host(
    activations: Mapping[str, Any], mask: Any, positions: Any, what: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray | None]]:
    """Rows of each hook, and where each token stood.

    Args:
      activations: hook -> [n, d] or [B, P, d].
      mask: bool [n] or [B, P], or None.
      positions: integers [n] or [B, P], or None.
      what: names the append in errors.

    Returns:
      hook -> [n, d] in the dtype that it came in, and {"mask": bool[n], "position": i64[n]}, each
      None where it is not known.

    Raises:
      UserError: no hook, shapes that do not belong together, no floats, or a mask or positions
        that are none.
    """
    named = isinstance(activations, Mapping) and all(isinstance(n, str) for n in activations)
    if not named or not activations:
        raise UserError(f"{what}: give a mapping from a hook's name to its activations")
    found = {name: as_numpy(values) for name, values in activations.items()}
    lead = next(iter(found.values())).shape[:-1]
    for name, values in found.items():
        known = values.dtype.name in DTYPES or values.dtype == np.float64
        fits = values.ndim in (2, 3) and values.shape[:-1] == lead and values.shape[-1] > 0
        if not fits or not known:
            raise UserError(
                f"{what}, hook {name!r} has {values.dtype} of shape {values.shape}; give floats "
                f"[n, d] or [B, P, d], as many tokens for each hook (the first has {lead})"
            )
    if positions is None and len(lead) == 2:
        positions = np.broadcast_to(np.arange(lead[1]), lead)
    place: dict[str, np.ndarray | None] = {"mask": None, "position": None}
    for name, values in {"mask": mask, "position": positions}.items():
        if values is None:
            continue
        array = as_numpy(values)
        if array.shape != lead:
            raise UserError(f"{what}: {name} of shape {array.shape} for tokens {lead}")
        # NaN would be True, 1.7 position 1.
        fits = np.isin(array, (0, 1)).all() if name == "mask" else array.dtype.kind in "iu"
        if not fits:
            wanted = "bools, or 0 and 1" if name == "mask" else "integers"
            raise UserError(f"{what}: the {name} of {array.dtype} is no {name}: give {wanted}")
        place[name] = array.reshape(-1).astype(bool if name == "mask" else np.int64)
    return {name: values.reshape(-1, values.shape[-1]) for name, values in found.items()}, place


def as_numpy(values: Any) -> np.ndarray:
    """Any library's array as numpy's, bfloat16 as ml_dtypes has it.

    A torch tensor is taken off its graph and its device; numpy knows no bfloat16 of torch's, so
    that one comes by DLPack, which JAX reads without a copy.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().contiguous()
    try:
        return np.asarray(values)
    except (TypeError, RuntimeError, BufferError):
        if not hasattr(values, "__dlpack__"):
            raise
        return np.asarray(jax.dlpack.from_dlpack(values))


def check_finite(rows: np.ndarray, what: str, why: str = "NaN or an infinity") -> None:
    """Refuses rows [n, d] that are not finite.

    Raises:
      UserError: says why, and names the token.
    """
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        token = int(np.argmin(finite))
        raise UserError(f"{what}: token {token} holds {why}; nothing of this append is stored")


def stored(rows: np.ndarray, dtype: np.dtype, what: str) -> np.ndarray:
    """Finite rows [n, d] in the dtype to store.

    Raises:
      UserError: a value too large for the dtype; names the token.
    """
    if rows.dtype == dtype:
        return rows
    with np.errstate(over="ignore"):
        converted = rows.astype(dtype)
    check_finite(converted, what, f"a value too large for {dtype}")
    return converted
