"""Makes train, validation and test splits of the rows of a table, by the names of its columns.

train, validation, test = table(frame, ["age", "dose"], context=["site"], groups="patient")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aejax.data.arrays import arrays
from aejax.data.columns import values_of
from aejax.data.splitting import Splits
from aejax.errors import UserError


def table(
    frame: Any,
    columns: Sequence[str],
    *,
    y: str | None = None,
    context: Sequence[str] = (),
    weights: str | None = None,
    groups: str | None = None,
    **options: Any,
) -> Splits:
    """Divides the rows of a pandas or polars frame, or of a mapping of arrays, into three splits.

    The values are not standardised. To standardise them inside the model, give the mean and
    standard deviation of each column, `statistics(train)`, to `nets.Standardised` and
    `likelihoods.Standardised`.

    Args:
      frame: the table; frame["age"] must return the N values of the column "age".
      columns: the names of the columns that become x, f32[N, columns].
      y: the name of the column of classes.
      context: the names of the columns on which the model is conditioned, as `context` of `arrays`.
      weights: the name of the column of weights.
      groups: the name of a column; rows with equal values in it go to the same split.
      **options: further arguments of `arrays`.

    Raises:
      UserError: if the table lacks one of the named columns, or a column of x is not numeric; and
        as in `arrays`.
    """

    def column(name: str) -> Any:
        try:
            return frame[name]
        except Exception as error:  # pandas raises KeyError, but polars an error of its own
            known = ", ".join(map(str, getattr(frame, "columns", frame)))
            raise UserError(f"the table has no column {name!r}: choose from {known}") from error

    values = [values_of(name, column(name), missing=True) for name in columns]
    x = np.ma.stack([np.ma.asarray(one).astype(np.float32) for one in values], axis=1)
    return arrays(
        x,
        None if y is None else column(y),
        context={name: column(name) for name in context} or None,
        weights=None if weights is None else column(weights),
        groups=None if groups is None else column(groups),
        **options,
    )
