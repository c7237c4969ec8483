"""Applies functions to all data in batches of equal size, and to each model trained by `seeds`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax.checks import check_not_rbg
from aejax.data.fixed import Data, as_data
from aejax.errors import UserError
from aejax.events import check_filled
from aejax.types import Array, Batch, Key, Variables

ROWS = 256  # examples per block of `in_blocks`


class Static:
    """Makes a model usable as a static argument of jit, so that equal models share one program.

    A model that cannot be hashed, for example because an attribute is a list, equals only itself.
    """

    def __init__(self, model: Any):
        self.model = model

    def __hash__(self) -> int:
        return id(self.model) if self._value is None else self._value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Static) or self.model is other.model:
            return isinstance(other, Static)
        return None not in (self._value, other._value) and self.model == other.model

    @functools.cached_property
    def _value(self) -> int | None:
        try:
            return hash(self.model)
        except TypeError:
            return None


class FullBatch(NamedTuple):
    """One batch of an evaluation; the last one is padded to the size of the others."""

    batch: Batch  # leaves [B, ...]
    index: Array  # i32[B], the indices of the examples in the data
    valid: Array  # bool[B], False for the rows that only pad the last batch


def full_batches(data: Any, size: int) -> Iterator[FullBatch]:
    """Yields all examples in order, in batches of equal size, so that programs compile only once.

    Args:
      data: a split, an array [N, *event], or a Batch (see `aejax.data.fixed`).
      size: the number of examples at a time.

    Raises:
      UserError: if `data` is of another type or has no examples, or if size < 1.
    """
    if size < 1:
        raise UserError(f"batch is {size}, the number of examples at a time: give 1 or more")
    data = as_data(data)
    if len(data) < 1:
        raise UserError("there are no examples to evaluate: give a split that is not empty")
    size, start = min(size, len(data)), 0
    for batch in data.batches(size):
        count = batch.x.shape[0]
        index = np.arange(start, start + size, dtype=np.int32)
        valid = np.arange(size) < count
        yield FullBatch(_padded(batch, count, size), jnp.asarray(index), jnp.asarray(valid))
        start += count


def in_blocks(function: Callable[..., Any], *arrays: Any) -> Any:
    """Applies a function to consecutive blocks of ROWS examples of a batch of any size B.

    The rounding of a float32 matrix product depends on its shape. Because all blocks have the same
    size, the results do not depend on B.

    Args:
      function: a function of the arrays, with leaves [ROWS, ...], and of a bool[ROWS] that is False
        for the rows that pad the last block.
      *arrays: pytrees with leaves [B, ...].

    Returns:
      The results of the function, with leaves [blocks, ...].
    """
    count = jax.tree.leaves(arrays)[0].shape[0]
    place = jnp.arange(-(-count // ROWS) * ROWS)

    def blocks(leaf: Array) -> Array:
        return leaf[jnp.minimum(place, count - 1)].reshape(-1, ROWS, *leaf.shape[1:])

    within = (place < count).reshape(-1, ROWS)
    return jax.lax.map(lambda part: function(*part), (*jax.tree.map(blocks, arrays), within))


def _padded(batch: Batch, count: int, size: int) -> Batch:
    """Pads a batch to `size` examples, and broadcasts its mask to the shape of the target."""
    if batch.mask is not None:
        batch = batch._replace(mask=jnp.broadcast_to(batch.mask, batch.target.shape))
    if count == size:
        return batch
    # The last example is repeated, because a row of zeros may not be a valid input.
    rows = np.minimum(np.arange(size), count - 1)
    return jax.tree.map(lambda a: a[rows], batch)


def collect(function: Callable[[Batch, Array], Any], data: Data, size: int) -> Any:
    """Applies a function to all data in batches of equal size, and concatenates the results.

    Args:
      function: maps a Batch and the indices i32[B] of its examples to a pytree of leaves [B, ...].
      data: N examples: a split, an array [N, *event], or a Batch.
      size: B, the number of examples at a time.

    Returns:
      The results as numpy arrays [N, ...], without the rows that padded the last batch.
    """
    results = []
    for full in full_batches(data, size):
        count, first = int(full.valid.sum()), int(full.index[0])
        result = jax.tree.map(np.asarray, function(full.batch, full.index))
        check_filled(full.batch.x, result, "the evaluation", first)
        results.append(jax.tree.map(lambda a, n=count: a[:n], result))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *results)


def each(variables: Variables, seeds: int | None) -> Iterator[Variables]:
    """Yields, one after the other, the variables of the models that `seeds` trained together.

    Args:
      variables: variables with leaves [S, ...], or those of a single model if seeds is None.
      seeds: the number of models S, or None.
    """
    if seeds is None:
        yield variables
        return
    for i in range(seeds):
        yield jax.tree.map(lambda a, i=i: a[i], variables)


def over_seeds(
    function: Callable[[Variables], Any], variables: Variables, seeds: int | None
) -> Any:
    """Evaluates each of the models that `seeds` trained together, with one compiled program.

    Args:
      function: a function of the variables of one model, for example
        `lambda v: nll(model, v, test, key, draws=100)`.
      variables: variables with leaves [S, ...], or those of a single model if seeds is None.
      seeds: the number of models S, or None.

    Returns:
      The results of the function, as numpy arrays [S, ...], where S = 1 if seeds is None.
    """
    results = [function(member) for member in each(variables, seeds)]
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(a) for a in leaves]), *results)


def means(record: Any, weights: Any = None) -> dict[str, np.ndarray]:
    """Returns the mean of each field of a result over the examples.

    Args:
      record: a named tuple of arrays [N] or [S, N], such as Elbo.
      weights: f[N], the weight of each example, such as `test.arrays["weight"]`; None: every
        example counts the same, also if the data has weights.

    Returns:
      A mapping from a field's name to f64[] or f64[S].
    """
    return {
        name: np.average(np.asarray(value, np.float64), axis=-1, weights=weights)
        for name, value in record._asdict().items()
    }


def check_key(key: Key) -> None:
    """Raises UserError for an rbg key, because under vmap only the first rbg key is used."""
    check_not_rbg(
        key,
        "an evaluation gives each example a key of its own, and rbg keys would all give the same "
        "noise: give jax.random.key(seed, impl='threefry2x32')",
    )
