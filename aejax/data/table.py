"""Makes train, validation and test splits of the rows of a table, by the names of its columns.

train, validation, test = table(frame, ["age", "dose"], context=["site"], groups="patient")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aejax.data.arrays import divided
from aejax.data.columns import Names
from aejax.data.frame import read_table
from aejax.data.splitting import Splits
from aejax.errors import UserError


def table(
    frame: Any,
    columns: str | Sequence[str],
    *,
    y: str | None = None,
    context: str | Sequence[str] = (),
    weights: str | None = None,
    groups: str | None = None,
    **options: Any,
) -> Splits:
    """Divides the rows of a pandas or polars frame, or of a mapping of arrays, into three splits.

    The values are not standardised. To standardise them inside the model, give the mean and
    standard deviation of each column, `statistics(train)`, to `nets.Standardised` and
    `likelihoods.Standardised`. `rows(new, like=train)` prepares the rows of another table.

    Args:
      frame: the table; frame["age"] must return the N values of the column "age".
      columns: the names of the columns that become x, f32[N, columns].
      y: the name of the column of classes, which are integers or text.
      context: the names of the columns on which the model is conditioned, as `context` of `arrays`.
      weights: the name of the column of weights.
      groups: the name of a column; rows with equal values in it go to the same split.
      **options: further arguments of `arrays`.

    Raises:
      UserError: if the table lacks one of the named columns, if a column of x is not numeric or
        has no value in train, and in the cases that `arrays` names.
    """
    columns, context = (
        (given,) if isinstance(given, str) else tuple(given) for given in (columns, context)
    )
    names = Names(columns, y, context, weights, groups)
    made = divided(read_table(frame, names), **options)
    absent = [] if "mask" not in made[0].arrays else ~made[0].arrays["mask"].any(axis=0)
    for name, missing in zip(columns, np.asarray(absent), strict=False):
        if missing:
            raise UserError(
                f"the column {name!r} has no value in any row of train, so nothing can be learnt "
                "of it: leave it out, or divide the rows otherwise"
            )
    return made
