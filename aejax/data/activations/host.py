"""Converts activations from any array library to numpy rows, and checks them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from aejax.data.activations.index import DTYPES
from aejax.errors import UserError


def host_rows(
    activations: Mapping[str, Any], mask: Any, positions: Any, columns: Mapping[str, Any], what: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray | None]]:
    """Converts activations to rows of numpy, with the mask and position of each token.

    Args:
      activations: hook -> [n, d] or [B, P, d].
      mask: True for tokens to keep, bool [n] or [B, P], or None.
      positions: positions in the sequence, integers [n] or [B, P], or None; for [B, P, d] the
        default is 0 to P - 1.
      columns: name -> an integer for each token, [n] or [B, P], or one for each sequence, [B].
      what: what the caller appends, as error messages name it.

    Returns:
      A pair of mappings: hook -> its tokens [n, d], whose dtype is kept; and "mask" -> bool[n] or
      None, "position" -> i64[n] or None, and each column's name -> i64[n].

    Raises:
      UserError: if there is no hook, shapes do not match, or a dtype is not supported.
    """
    named = isinstance(activations, Mapping) and all(isinstance(n, str) for n in activations)
    if not named or not activations:
        raise UserError(
            f"{what} has no hooks: give a mapping from a hook's name to its activations"
        )
    found = {name: as_numpy(values) for name, values in activations.items()}
    lead = next(iter(found.values())).shape[:-1]
    for name, values in found.items():
        known = values.dtype.name in DTYPES or values.dtype == np.float64
        fits = values.ndim in (2, 3) and values.shape[:-1] == lead and values.shape[-1] > 0
        if not fits or not known:
            raise UserError(
                f"hook {name!r} of {what} has dtype {values.dtype} and shape {values.shape}: give "
                f"floats [n, d] or [B, P, d], with the same tokens for each hook (the first hook "
                f"has {lead})"
            )
    if positions is None and len(lead) == 2:
        positions = np.broadcast_to(np.arange(lead[1]), lead)
    place: dict[str, np.ndarray | None] = {"mask": None, "position": None}
    for name, values in {"mask": mask, "position": positions, **columns}.items():
        if values is None:
            continue
        array = as_numpy(values)
        if name in columns and len(lead) == 2 and array.shape == lead[:1]:
            array = np.broadcast_to(array[:, None], lead)
        if array.shape != lead:
            raise UserError(
                f"the {name} of {what} has shape {array.shape}: give one value per token, {lead}"
            )
        # Without this check NaN would become True, and the position 1.7 would become 1.
        fits = np.isin(array, (0, 1)).all() if name == "mask" else array.dtype.kind in "iu"
        if not fits:
            wanted = "bools, or 0 and 1" if name == "mask" else "integers"
            raise UserError(f"the {name} of {what} has dtype {array.dtype}: give {wanted}")
        most = np.iinfo(np.int32).max
        if array.size and name in columns and not -most <= array.min() <= array.max() <= most:
            raise UserError(
                f"the {name} of {what} has numbers that 32 bits cannot hold: give smaller ones"
            )
        place[name] = array.reshape(-1).astype(bool if name == "mask" else np.int64)
    return {name: values.reshape(-1, values.shape[-1]) for name, values in found.items()}, place


def as_numpy(values: Any) -> np.ndarray:
    """Converts an array of any library to numpy; bfloat16 becomes ml_dtypes.bfloat16.

    A torch tensor is detached and moved to the CPU. numpy cannot convert torch's bfloat16, so JAX
    converts it through DLPack, without a copy.
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
    """Checks that rows [n, d] are finite.

    Args:
      rows: the rows.
      what: the name of the rows, for the error message.
      why: the reason that the error message states: "token 3 of WHAT holds WHY".

    Raises:
      UserError: if a row holds NaN or an infinity; the message names the first such token.
    """
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        token = int(np.argmin(finite))
        raise UserError(
            f"token {token} of {what} holds {why}, so nothing of this append was stored: mask the "
            "token or repair it"
        )


def stored(rows: np.ndarray, dtype: np.dtype, what: str) -> np.ndarray:
    """Converts finite rows [n, d] to the dtype in which the store keeps them.

    Raises:
      UserError: if a value is too large for the dtype; the message names the token.
    """
    if rows.dtype == dtype:
        return rows
    with np.errstate(over="ignore"):
        converted = rows.astype(dtype)
    check_finite(converted, what, f"a value too large for {dtype}")
    return converted
