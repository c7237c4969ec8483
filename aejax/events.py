"""Functions that sum, flatten and join event axes, which are all axes after the batch axis."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.types import Array, Batch


def sum_events(values: Array, mask: Array | None = None) -> Array:
    """Multiplies values by the mask and sums them over all axes but the first.

    Args:
      values: f32[B, *event].
      mask: an array that broadcasts to `values`; None: no mask.

    Returns:
      f32[B].
    """
    if mask is not None:
        values = values * jnp.broadcast_to(mask, values.shape)
    return jnp.sum(values, axis=tuple(range(1, values.ndim)))


def spread(statistic: Array, values: Array) -> Array:
    """Broadcasts a scalar or an array [*event] to the shape of values [B, *event], as float32.

    Raises:
      UserError: if the examples have another shape than the statistic.
    """
    shape, event = jnp.shape(statistic), jnp.shape(values)[1:]
    if shape not in ((), event):
        raise UserError(
            f"values of shape {jnp.shape(values)} cannot be standardised by statistics of shape "
            f"{shape}: give [N, {', '.join(map(str, shape))}]"
        )
    return jnp.broadcast_to(statistic.astype(jnp.float32), values.shape)


def as_batch(data: Any) -> Batch:
    """Converts data to a Batch, in which missing targets, which are NaN, have mask 0.

    Args:
      data: a Batch; an array f32[N, *event], which becomes both x and target; or a split, whose
        examples all become one batch.

    Raises:
      UserError: if the data is not numeric, or has fewer than two axes.
    """
    if hasattr(data, "batches"):
        data = next(iter(data.batches(len(data))))
    if not isinstance(data, Batch):
        x = jnp.asarray(numbers(data))
        data = Batch(x, x)
    return marked(data)


def numbers(data: Any, pictures: bool = True) -> Any:
    """Returns data as an array [N, ...] of numbers; a traced array is returned unchanged.

    Args:
      data: the data.
      pictures: whether the data may be pictures, of which some are refused.

    Raises:
      UserError: if the data is not numeric, has no rows or fewer than two axes, or looks like
        pictures of bytes or with their channels first.
    """
    if isinstance(data, jax.Array):
        values = data
    else:
        values = np.asarray(data) if hasattr(data, "__array__") or isinstance(data, list) else None
    if (
        values is None
        or values.ndim < 2
        or (isinstance(values, np.ndarray) and _not_numeric(values))
    ):
        what = f"type {type(data).__name__}" if values is None else f"shape {values.shape}"
        raise UserError(
            f"the model cannot read data of {what}: give an array [N, ...] of numbers, a Batch or "
            "a split, as in train, validation, test = ae.data.arrays(x)"
        )
    if not values.shape[0]:
        raise UserError(f"the data has shape {values.shape}, no rows: give one row or more")
    if pictures and values.dtype == np.uint8 and are_pictures(values.shape):
        raise UserError(
            f"x holds bytes of shape {values.shape}, which look like pictures, and training may "
            "have divided them by 255: give ae.data.rows(x, like=train), which scales them as train"
        )
    if pictures and channels_first(values.shape):
        raise UserError(
            f"x has shape {values.shape}, which looks like pictures with the {values.shape[1]} "
            "channels first: give ae.data.rows(x, like=train), or numpy.moveaxis(x, 1, -1)"
        )
    return values


PICTURE_CHANNELS = (1, 3, 4)


def are_pictures(shape: tuple[int, ...]) -> bool:
    """Returns whether an array of bytes is probably pictures, [N, H, W] or [N, H, W, 1, 3 or 4]."""
    return len(shape) == 3 or (len(shape) == 4 and shape[3] in PICTURE_CHANNELS)


def channels_first(shape: tuple[int, ...]) -> bool:
    """Returns whether an array of this shape is probably pictures [N, C, H, W]."""
    channels = PICTURE_CHANNELS
    return len(shape) == 4 and shape[1] in channels and shape[3] not in channels


def _not_numeric(values: np.ndarray) -> bool:
    """Returns whether an array holds no numbers, such as text or objects."""
    return not (values.dtype.kind in "iubf" or jnp.issubdtype(values.dtype, jnp.floating))


def marked(batch: Batch) -> Batch:
    """Returns a batch whose missing targets, which are NaN, have mask 0.

    A traced batch, whose values are unknown, is returned unchanged.
    """
    target = batch.target
    if isinstance(target, jax.core.Tracer) or not jnp.issubdtype(target.dtype, jnp.floating):
        return batch
    target = np.asarray(target)
    if not np.isnan(target.sum(dtype=np.float64)):  # usual, and cheaper than looking at each
        return batch
    missing = np.isnan(target)
    mask = 1.0 if batch.mask is None else np.asarray(batch.mask)
    return batch._replace(mask=np.where(missing, 0.0, mask).astype(np.float32))


def check_filled(x: Any, results: Any, who: str, first: int = 0) -> None:
    """Checks that no result is NaN because x is NaN in the same row.

    Traced arrays, whose values are unknown, are not checked.

    Args:
      x: a pytree with leaves [B, ...].
      results: what was computed from x, a pytree with leaves [B, ...].
      who: how the error message names what computed the results, such as "the encoder".
      first: the index of the first row.

    Raises:
      UserError: if a row holds NaN both in x and in the results; the message names the row.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((x, results))):
        return
    bad = _rows_with_nan(results)
    if bad is None or not bad.any():
        return
    missing = _rows_with_nan(x)
    if missing is not None and (missing & bad).any():
        raise UserError(
            f"row {first + int(np.argmax(missing & bad))} of x holds NaN, and so does what {who} "
            "returns for it: prepare new rows by ae.data.rows(new, like=train), or give the "
            "encoder as nets.Standardised(net, *ae.data.statistics(train)), which reads NaN as the "
            "mean over train"
        )


def _rows_with_nan(tree: Any) -> np.ndarray | None:
    """Returns whether each of B rows holds NaN in one of the leaves [B, ...], bool[B].

    The result is None if a leaf is traced, so that its values are unknown.
    """
    found: np.ndarray | None = None
    for leaf in map(np.asarray, jax.tree.leaves(tree)):
        if jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.ndim:
            own = np.asarray(np.isnan(leaf.reshape(len(leaf), -1)).any(axis=1))
            found = own if found is None or len(found) != len(own) else found | own
    return found


def without_missing(batch: Batch) -> Batch:
    """Replaces missing targets, which are NaN where the mask is 0, by 0.

    Multiplying by the mask would not remove them, because NaN times 0 is NaN, both in the loss and
    in its gradient. Other targets are not changed.
    """
    target, mask = batch.target, batch.mask
    if mask is None or not jnp.issubdtype(target.dtype, jnp.floating):
        return batch
    missing = jnp.isnan(target) & (jnp.broadcast_to(mask, target.shape) == 0)
    return batch._replace(target=jnp.where(missing, 0.0, target))


def is_dense(z: Any) -> bool:
    """Returns whether z is an array, as opposed to a sparse record such as `Rows`.

    A sparse record stores only the values of z that may be nonzero; see
    `aejax.bottlenecks.sparse.code`.
    """
    return isinstance(z, jax.Array | np.ndarray)


def dense(z: Any) -> Array:
    """Converts z, an array or a sparse record, to an array f32[B, m]."""
    return z if is_dense(z) else z.dense()


def flatten(values: Any) -> Array:
    """Flattens [B, *event] to [B, size of the event]; a sparse z is converted to an array first.

    Raises:
      UserError: if values is a tuple, such as the levels of a hierarchy, or no array at all.
    """
    if isinstance(values, tuple):
        raise UserError(
            f"this net takes one array, but was given a tuple of {len(values)} arrays, such as the "
            "levels of a hierarchy: put nets.Joined around this net"
        )
    if not is_dense(values) and not hasattr(values, "dense"):
        raise UserError(
            f"this net takes one array, but was given a {type(values).__name__}: let the net "
            "before it return one array [B, ...]"
        )
    values = dense(values)
    return values.reshape((values.shape[0], -1))


def batch_axes(values: Any, size: int, event: tuple[int, ...] | None, whose: str) -> int:
    """Returns how many leading axes of an array are batch axes, if an example has `size` elements.

    An example may have one axis, as in [N, size] and [B, T, size], or several, as in a crosscoder's
    [N, layers, size of a layer]. If the last axes have the shape `event`, they are the axes of an
    example. Otherwise these are the fewest last axes whose sizes multiply to `size`.

    Args:
      values: an array with one or more batch axes, followed by the axes of one example.
      size: the number of elements of one example.
      event: the shape that an example probably has; None: no such shape is known.
      whose: the words before the size in the error message, such as "these weights read".

    Raises:
      UserError: if the array has fewer than two axes, or no choice of last axes has `size`
        elements; the message states both sizes.
    """
    shape = tuple(values.shape)
    if event is not None and math.prod(event) == size and shape[-len(event) :] == event:
        found = len(shape) - len(event)
        if found > 0:
            return found
    for first in range(len(shape) - 1, 0, -1):
        if math.prod(shape[first:]) == size:
            return first
    if len(shape) < 2:
        raise UserError(
            f"x has shape {list(shape)}, which has no axis of examples: give [N, {size}] or "
            f"[B, T, {size}]"
        )
    last = math.prod(shape[1:]) if len(shape) == 2 else shape[-1]
    raise UserError(
        f"x has {last} values per example, but {whose} {size}: pass inputs of the size that the "
        f"weights were trained on, [N, {size}] or [B, T, {size}] instead of {list(shape)}"
    )


def joined(latent: Any) -> Array:
    """Flattens a latent to f32[B, L]; the latents of a hierarchy's levels are concatenated.

    Args:
      latent: [B, *shape], or a tuple of such arrays, one for each level from the top down.
    """
    return jnp.concatenate([flatten(leaf) for leaf in jax.tree.leaves(latent)], axis=-1)


def join_context(values: Array, context: Any) -> Array:
    """Appends the flattened context to values [B, D] and returns [B, D + size of the context].

    Raises:
      UserError: if a leaf of the context holds integers, which must be one-hot encoded first.
    """
    leaves = jax.tree.leaves(context)
    for leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise UserError(
                f"an array of the context has dtype {leaf.dtype}, which a dense net would read as "
                "a magnitude: pass jax.nn.one_hot(labels, classes) instead, or a context made by "
                "ae.data.context(values, like=train)"
            )
    if not leaves:
        return values
    return jnp.concatenate([values, *(flatten(a).astype(values.dtype) for a in leaves)], axis=-1)
