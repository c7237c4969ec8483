"""Train, validation and test splits of a user's own arrays."""

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
    """Divides a user's own arrays at random into train, validation and test.

    Args:
      x: the examples [N, *event]. Floats are converted to f32; integers are kept and are not
        scaled, so divide 8-bit pictures by 255 first if the likelihood needs values in [0, 1].
      y: classes, or other numbers that belong to the examples, [N, ...]; or None.
      validation: the share (below 1) or the number of the examples in the validation split.
      test: the share (below 1) or the number of the examples in the test split.
      seed: the seed of the random division.
      binarise: "dynamic", "static" or "none", as in `aejax.data.images`.

    Returns:
      Three splits with arrays `x` and, if given, `y`, whose rows keep the order of x.

    Raises:
      UserError: if x holds NaN, an infinity or, when it is to be binarised, a value outside [0, 1];
        if x and y differ in length; or if a split would be empty.
    """
    columns = {"x": _numeric("x", x)}
    if y is not None:
        columns["y"] = _numeric("y", y)
        if len(columns["y"]) != len(columns["x"]):
            raise UserError(
                f"x has {len(columns['x'])} examples, but y has {len(columns['y'])}: give one row "
                "of y for each row of x"
            )
    if columns["x"].ndim < 2:
        raise UserError(
            f"x has shape {columns['x'].shape}, but needs two axes or more: give [examples, ...]"
        )
    if binarise != "none" and (outside := first_outside(columns["x"])) is not None:
        raise UserError(
            f"row {outside[0]} of x holds {outside[1]:g}, which cannot be binarised because it is "
            "outside [0, 1]: rescale x or give binarise='none'"
        )
    shares = {"validation": validation, "test": test}
    parts = divide(columns, "arrays", shares=shares, seed=seed)
    return splits("arrays", parts, field="x", scale=1.0, binarise=binarise)


def _numeric(name: str, values: Any) -> np.ndarray:
    """Returns values [N, ...], floats as f32; raises UserError for other than finite numbers."""
    array = np.asarray(values)
    floats = jnp.issubdtype(array.dtype, jnp.floating)  # unlike numpy's, this knows bfloat16
    if not (floats or array.dtype.kind in "iub") or array.ndim < 1:
        raise UserError(
            f"{name} has dtype {array.dtype} and shape {array.shape}: give an array of numbers "
            "[N, ...]"
        )
    array = array.astype(np.float32) if floats else array
    row = first_not_finite(array)
    if row is not None:
        raise UserError(f"row {row} of {name} holds NaN or an infinity: remove or repair that row")
    return array
