"""A user's own arrays as three splits."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from aejax.data.split import first_not_finite, first_outside
from aejax.data.splitting import Binarise, Splits, divide, splits
from aejax.errors import UserError


def arrays(
    x: Any,
    y: Any = None,
    *,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    binarise: Binarise = "none",
) -> Splits:
    """A user's own arrays, divided at random into train, validation and test.

    Args:
      x: [N, *event]; floats are kept as f32, whole numbers as they are: pictures of bytes are to be
        divided by 255 first, since a Bernoulli explains values in [0, 1] alone.
      y: [N, ...], classes or anything else that belongs to an example, or None.
      validation: share of the examples (below 1) or their number.
      test: share of the examples (below 1) or their number.
      seed: decides which example goes where.
      binarise: "dynamic", "static" or "none", as in `aejax.data.images`.

    Returns:
      Three splits with arrays `x` and, where given, `y`; their rows are in the order of x.

    Raises:
      UserError: NaN or an infinity in x, values outside [0, 1] that are to be binarised, lengths
        that differ, or a part that would be empty; names the row.
    """
    columns = {"x": _numeric("x", x)}
    if y is not None:
        columns["y"] = _numeric("y", y)
        if len(columns["y"]) != len(columns["x"]):
            raise UserError(f"x has {len(columns['x'])} examples, y has {len(columns['y'])}")
    if columns["x"].ndim < 2:
        raise UserError(
            f"x has shape {columns['x'].shape}; give [examples, ...], one or more values an example"
        )
    if binarise != "none" and (outside := first_outside(columns["x"])) is not None:
        raise UserError(
            f"x: row {outside[0]} holds {outside[1]:g}, outside [0, 1], and cannot be binarised: "
            "rescale x or give binarise='none'"
        )
    shares = {"validation": validation, "test": test}
    parts = divide(columns, "arrays", shares=shares, seed=seed)
    return splits("arrays", parts, field="x", scale=1.0, binarise=binarise)


def _numeric(name: str, values: Any) -> np.ndarray:
    """Values [N, ...] as f32 where they are floats; refuses what is no number."""
    array = np.asarray(values)
    floats = jnp.issubdtype(array.dtype, jnp.floating)  # bfloat16 too
    if not (floats or array.dtype.kind in "iub") or array.ndim < 1:
        raise UserError(f"{name} holds {array.dtype} of shape {array.shape}; give numbers [N, ...]")
    array = array.astype(np.float32) if floats else array
    row = first_not_finite(array)
    if row is not None:
        raise UserError(f"{name}: row {row} holds NaN or an infinity; remove or repair it")
    return array
