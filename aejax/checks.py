"""Checks of the arguments that a user gave to a module; an invalid one raises UserError."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax

from aejax.errors import UserError
from aejax.types import Key


def check(part: Any, name: str, holds: Callable[[Any], Any], wanted: str) -> None:
    """Checks the value of a module's attribute; a traced value, which is unknown, is not checked.

    Args:
      part: the module whose attribute is checked, such as a bottleneck.
      name: the attribute's name; if its value is None, the check fails.
      holds: a function that returns whether a value is valid.
      wanted: the valid values in words, for the message "give ...".

    Raises:
      UserError: if the value is not valid.
    """
    value = getattr(part, name)
    if not sensible(value, holds):
        raise UserError(f"{type(part).__name__} has {name} = {value}: give {wanted}")


def sensible(value: Any, holds: Callable[[Any], Any]) -> bool:
    """Returns holds(value), or False if the value is None, or True if the value is traced."""
    if isinstance(value, jax.core.Tracer):
        return True
    # Inside a traced function the comparison of a jax array would return a tracer instead of a
    # bool, so the array is converted to a Python number first.
    value = value.item() if isinstance(value, jax.Array) else value
    return value is not None and bool(holds(value))


def check_is_key(key: Any) -> None:
    """Raises UserError unless `key` is a random key of jax, or an array of such keys."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not (
        jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) or (dtype == "uint32" and key.ndim)
    ):
        raise UserError(f"the key is {key!r}, which is not a random key: give jax.random.key(seed)")


def check_not_rbg(key: Key, refusal: str) -> None:
    """Raises UserError with the given message for an rbg key.

    Under vmap over keys, jax's rbg generator uses the first key for all of them. Models that are
    trained together with one key each would therefore all draw the same noise.
    """
    if "rbg" in str(jax.random.key_impl(key)):
        raise UserError(refusal)


def check_positive(part: Any, name: str) -> None:
    """Raises UserError unless an attribute is a finite number above 0."""
    check(part, name, lambda value: 0 < value < math.inf, "a number above 0")


def check_count(part: Any, least: int, *names: str) -> None:
    """Raises UserError unless the named attributes are whole numbers, `least` or more."""
    for name in names:
        check(part, name, lambda n: whole(n) and n >= least, f"a whole number, {least} or more")


READS = "x has {} values per example, but the weights read {}"


def check_size(
    module: Any,
    name: str,
    axis: int,
    size: int | None,
    message: str = READS,
    collection: str = "params",
) -> None:
    """Checks that the size of a module's input equals that of a parameter that already exists.

    Args:
      module: a Linen module.
      name: the name of its parameter.
      axis: the axis of the parameter whose length must equal `size`.
      size: the size of the module's input; None: nothing is checked.
      message: the error message, with a {} for the input's size and a {} for the parameter's size.
      collection: the collection that holds the parameter.

    Raises:
      UserError: if the sizes differ.
    """
    held = module.get_variable(collection, name)
    if held is not None and size is not None and held.shape[axis] != size:
        said = message.format(size, held.shape[axis])
        raise UserError(f"{said}: pass data of the size with which this model was initialised")


def check_rows(prior: Any, n: int, context: Any, what: str = "latents") -> None:
    """Checks that a context, if there is one, has one row for each of the n draws from a prior.

    Args:
      prior: the prior that is sampled.
      n: the number of draws.
      context: the context of the draws, a pytree with leaves [n, ...], or None.
      what: the word in the error message for what is drawn.

    Raises:
      UserError: if the context has another number of rows.
    """
    for leaf in jax.tree.leaves(context):
        shape = jax.numpy.shape(leaf)
        if shape[:1] != (n,):
            raise UserError(
                f"the prior {type(prior).__name__} was asked for {n} {what} with a context of "
                f"shape {shape}: pass a context with {n} rows, [{n}, columns], such as that of "
                "ae.data.context(values, like=train)"
            )


def at_least(least: int, what: str, number: int) -> None:
    """Raises UserError if a number is below `least`; the message begins with `what`."""
    if number < least:
        raise UserError(f"{what} is {number}: give {least} or more")


def whole(value: Any) -> bool:
    """Returns whether a number is whole: 2 and 2.0 are; 2.5, infinity and NaN are not."""
    return float(value).is_integer()
