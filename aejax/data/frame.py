"""Reads the columns of a pandas or polars frame, or of a mapping from names to arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from aejax.data.columns import Examples, Names, values_of
from aejax.errors import UserError


def read_table(frame: Any, names: Names, optional: bool = False) -> Examples:
    """Returns the examples of a table, in which each row is one example.

    Args:
      frame: a pandas or polars frame, or a mapping from names to arrays.
      names: the names of the columns to read.
      optional: whether the columns of y, weights and groups may be absent from the table.

    Raises:
      UserError: if the table lacks one of the columns, or a column of x is not numeric.
    """

    def column(name: str | None, optional: bool = False) -> Any:
        if name is None:
            return None
        try:
            return frame[name]
        except Exception as error:  # pandas raises KeyError, but polars an error of its own
            if optional:
                return None
            known = ", ".join(map(str, getattr(frame, "columns", frame)))
            raise UserError(f"the table has no column {name!r}: choose from {known}") from error

    values = [values_of(name, column(name), missing=True) for name in names.columns]
    for name, one in zip(names.columns, values, strict=True):
        if one.ndim != 1:
            raise UserError(
                f"the column {name!r} has shape {one.shape}, but a column has one number for each "
                "row: give such an array to ae.data.arrays"
            )
    lengths = {name: len(one) for name, one in zip(names.columns, values, strict=True)}
    if len(set(lengths.values())) > 1:
        raise UserError(
            f"the columns of x differ in length, {lengths}: give all the same number of values"
        )
    return Examples(
        np.ma.stack([np.ma.asarray(one).astype(np.float32) for one in values], axis=1),
        column(names.y, optional),
        {name: column(name) for name in names.context} or None,
        column(names.weights, optional),
        column(names.groups, optional),
        names,
    )
