"""How an evaluation walks through data: batches of one size, members of one run, means."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from aejax.checks import check_not_rbg
from aejax.errors import UserError
from aejax.types import Array, Batch, Key, Variables

ROWS = 256  # of a block


@runtime_checkable
class Data(Protocol):
    """What an evaluation needs of data; `aejax.data.Split` is one."""

    def __len__(self) -> int: ...

    def batches(self, size: int) -> Iterator[Batch]:
        """All examples once, in order; the last batch may be smaller."""
        ...


class Static:
    """A model as a static argument of jit: equal models share one compiled program.

    A model that has no hash, because one of its attributes is a list, is equal to itself alone.
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


class Part(NamedTuple):
    """One batch of an evaluation, always of the full size."""

    batch: Batch  # leaves [B, ...]
    index: Array  # i32[B], the numbers of the examples
    valid: Array  # bool[B], False for the rows that only fill the last batch up


def parts(data: Data, size: int) -> Iterator[Part]:
    """All examples in order, in batches of one size, so that a program compiles once.

    Raises:
      UserError: if this is no split or has no examples, or size < 1.
    """
    if size < 1:
        raise UserError(f"the evaluation's batch is {size}: give 1 or more examples")
    if not isinstance(data, Data):
        raise UserError(
            f"an evaluation was given a {type(data).__name__} in place of a split: give one, as in "
            "train, validation, test = ae.data.arrays(x)"
        )
    if len(data) < 1:
        raise UserError("there are no examples to evaluate on: give a split that has some")
    size, start = min(size, len(data)), 0
    for batch in data.batches(size):
        count = batch.x.shape[0]
        index = np.arange(start, start + size, dtype=np.int32)
        valid = np.arange(size) < count
        yield Part(_filled(batch, count, size), jnp.asarray(index), jnp.asarray(valid))
        start += count


def in_blocks(function: Callable[..., Any], *arrays: Any) -> Any:
    """Applies a function to blocks of ROWS examples, whatever B is.

    The rounding of a float32 product depends on its shape: only in blocks of one size are figures
    the same for any B.

    Args:
      function: of arrays with leaves [ROWS, ...], and bool[ROWS], which are not there to fill the
        last block up.
      arrays: leaves [B, ...].

    Returns:
      What the function returns, its leaves [blocks, ...].
    """
    count = jax.tree.leaves(arrays)[0].shape[0]
    place = jnp.arange(-(-count // ROWS) * ROWS)

    def blocks(leaf: Array) -> Array:
        return leaf[jnp.minimum(place, count - 1)].reshape(-1, ROWS, *leaf.shape[1:])

    within = (place < count).reshape(-1, ROWS)
    return jax.lax.map(lambda part: function(*part), (*jax.tree.map(blocks, arrays), within))


def _filled(batch: Batch, count: int, size: int) -> Batch:
    """A batch of `size`, each example with a mask of its own where there is one."""
    if batch.mask is not None:
        batch = batch._replace(mask=jnp.broadcast_to(batch.mask, batch.target.shape))
    if count == size:
        return batch
    # The last example repeated: a row of zeros might be no valid input.
    rows = np.minimum(np.arange(size), count - 1)
    return jax.tree.map(lambda a: a[rows], batch)


def collect(function: Callable[[Batch, Array], Any], data: Data, size: int) -> Any:
    """Applies (batch, index) -> leaves [B, ...] to all data.

    Returns:
      The leaves as numpy arrays [N, ...], without the rows that filled the last batch up.
    """
    results = []
    for part in parts(data, size):
        count = int(part.valid.sum())
        result = function(part.batch, part.index)
        results.append(jax.tree.map(lambda a, n=count: np.asarray(a)[:n], result))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *results)


def each(variables: Variables, seeds: int | None) -> Iterator[Variables]:
    """The variables of each member; leaves lead with S = seeds, or with nothing for None."""
    if seeds is None:
        yield variables
        return
    for i in range(seeds):
        yield jax.tree.map(lambda a, i=i: a[i], variables)


def over_seeds(
    function: Callable[[Variables], Any], variables: Variables, seeds: int | None
) -> Any:
    """Evaluates each member in turn; one compiled program serves them all.

    Args:
      function: of one member's variables, for example
        `lambda v: nll(model, v, test, key, draws=100)`.
      variables: leaves [S, ...], or those of one member where seeds is None.
      seeds: S, or None.

    Returns:
      What the function returns, its leaves numpy arrays [S, ...] (S = 1 for None).
    """
    results = [function(member) for member in each(variables, seeds)]
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(a) for a in leaves]), *results)


def means(record: Any) -> dict[str, np.ndarray]:
    """The mean over the examples of each field of a record of arrays [N] or [S, N].

    Returns:
      name -> f64[] or f64[S].
    """
    return {
        name: np.mean(np.asarray(value, np.float64), axis=-1)
        for name, value in record._asdict().items()
    }


def check_key(key: Key) -> None:
    """Raises UserError for an rbg key, which under vmap draws from the first key only."""
    check_not_rbg(
        key,
        "an evaluation gives each example a key of its own, which rbg keys cannot: give "
        "jax.random.key(seed, impl='threefry2x32')",
    )
