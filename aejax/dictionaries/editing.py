"""Edits of plain weights after training: thresholds set to reach an L0, latents removed or merged.

    plain = recalibrated(plain, x, l0=32)     # 32 latents are active for an example of x
    plain = pruned(plain, x)                  # without the latents that no example of x uses
    plain = merged(plain, above=0.99)         # one latent in place of several that are alike
    plain = ordered(plain, x)                 # the most frequent latent first

Each function returns new weights; all but `recalibrated` select and reorder latents with `taken`.
The examples x are an array f32[N, d] or f32[B, T, d], or a split.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from aejax.data.fixed import as_data
from aejax.dictionaries.plain import Plain, encode, inputs, kind_of
from aejax.errors import UserError

BATCH = 2048  # examples at a time
ROWS = 1024  # latents at a time that are compared with all others


def frequency(plain: Plain, x: Any) -> np.ndarray:
    """Returns the firing frequency of each latent: the share of examples that use it, f64[m].

    Args:
      plain: the weights.
      x: the examples.

    Raises:
      UserError: if the size of an example is not the input size of the weights.
    """
    used, examples = np.zeros(plain.latents, np.int64), 0
    for rows in _chunks(plain, x):
        used += np.asarray((encode(plain, rows) != 0).sum(axis=0), np.int64)
        examples += len(rows)
    return used / examples


def taken(plain: Plain, latents: Any) -> Plain:
    """Returns the weights of some latents, in the given order.

    The k of a code that selects the k largest becomes the number of latents that are left if there
    are fewer than k.

    Args:
      plain: the weights.
      latents: the indices of the latents, from 0, each once.

    Raises:
      UserError: if no index is given, one is out of range, or one is given twice.
    """
    rows = np.asarray(latents, np.int64).reshape(-1)
    known = len(rows) and 0 <= rows.min() <= rows.max() < plain.latents
    if not known or len(np.unique(rows)) < len(rows):
        raise UserError(
            f"the {len(rows)} given latents are not one or more distinct indices from 0 to "
            f"{plain.latents - 1}: give such indices, each once"
        )
    fields = {name: plain.needed(name)[rows] for name in kind_of(plain).vectors}
    kept = plain.changed(fields)._replace(W_enc=plain.W_enc[:, rows], W_dec=plain.W_dec[rows])
    return kept if kept.k is None else kept._replace(k=min(int(kept.k), len(rows)))


def pruned(plain: Plain, x: Any, least: float = 0.0) -> Plain:
    """Returns the weights without latents that are active for at most a share `least` of examples.

    The output for these examples stays the same if `least` is 0.

    Args:
      plain: the weights.
      x: the examples.
      least: the firing frequency that a latent must exceed to be kept.

    Raises:
      UserError: if no latent would be left.
    """
    often = frequency(plain, x)
    if not (often > least).any():
        raise UserError(
            f"no latent fires for more than a share of {least:g} of the examples: give a smaller "
            "share, or other examples"
        )
    return taken(plain, np.flatnonzero(often > least))


def ordered(plain: Plain, x: Any) -> Plain:
    """Returns the weights with the latents sorted by firing frequency, the most frequent first."""
    return taken(plain, np.argsort(-frequency(plain, x), kind="stable"))


def merged(plain: Plain, above: float = 0.99) -> Plain:
    """Returns the weights with each group of duplicate latents merged into one latent.

    Latents are duplicates if both their encoder columns and their decoder rows have a larger cosine
    than `above`. The first of several duplicates keeps its decoder row w. Its encoder column, and
    its biases and thresholds (the fields that the code's class lists in `scales`), become weighted
    sums over the duplicates; the weight of a duplicate with decoder row v is <v, w> / <w, w>. If
    the duplicates are multiples of each other, biases included, this does not change the output.
    But a code that selects the k largest then selects another latent in the place of a duplicate.

    Args:
      plain: the weights.
      above: the cosine, between 0 and 1.

    Raises:
      UserError: if the code's class has no `scales`, or the cosine is out of range.
    """
    kind = kind_of(plain)
    if kind.scales is None:
        raise UserError(
            f"the latents of {kind.__name__} cannot be merged, because it does not say which "
            "fields grow with a latent's values: set its class attribute `scales` to their names, "
            "as in scales = ('b_enc',)"
        )
    if not 0.0 < above < 1.0:
        raise UserError(f"above is {above}, but it is a cosine: give a number between 0 and 1")
    atoms, columns = (np.asarray(a, np.float64) for a in (plain.W_dec, np.transpose(plain.W_enc)))
    first = _first_alike(_unit(atoms), _unit(columns), above)
    square = np.sum(np.square(atoms), axis=1)
    share = np.sum(atoms * atoms[first], axis=1) / np.where(square > 0, square, 1.0)[first]
    share = np.where(first == np.arange(len(first)), 1.0, share)

    def summed(values: Any) -> Any:
        values = np.asarray(values, np.float64)
        total = np.zeros_like(values)
        np.add.at(total, first, values * share.reshape(-1, *[1] * (values.ndim - 1)))
        return jnp.asarray(total.astype(np.float32))

    grown = {name: summed(plain.needed(name)) for name in kind.scales}
    whole = plain.changed(grown)._replace(W_enc=summed(columns).T)
    return taken(whole, np.unique(first))


def recalibrated(plain: Plain, x: Any, l0: float) -> Plain:
    """Returns JumpReLU weights whose thresholds leave `l0` latents active on average.

    All thresholds are multiplied by one factor, so the learned thresholds of a JumpReLU keep their
    ratios. The thresholds of a folded BatchTopK, which come from one threshold for all latents, are
    multiplied too. The factor is exact: over N examples, the l0 * N pre-activations that are
    largest relative to their threshold are active. If no threshold is above 0, all latents get the
    same threshold.

    Args:
      plain: the weights, with the activation jumprelu.
      x: the examples.
      l0: the mean number of active latents to reach.

    Raises:
      UserError: if the activation is not jumprelu, or fewer than `l0` latents have a positive
        pre-activation on average.
    """
    if plain.activation != "jumprelu":
        raise UserError(
            f"only thresholds of jumprelu weights can be recalibrated, but these are {plain.called}"
            ": fold a BatchTopK or a JumpReLU"
        )
    threshold = np.asarray(plain.needed("threshold"), np.float64)
    positive = threshold[(threshold > 0) & np.isfinite(threshold)]
    base = np.where(threshold > 0, threshold, positive.min() if len(positive) else 1.0)
    best, examples, total = np.zeros(0), 0, len(as_data(x, *_size(plain)))
    wanted = round(l0 * total)
    if not 0 < l0 <= plain.latents or wanted < 1:
        raise UserError(
            f"l0 is {l0} for {total} examples: give a number above 0 and at most {plain.latents}, "
            "the number of latents"
        )
    bias = np.asarray(plain.needed("b_enc"), np.float32)
    for rows in _chunks(plain, x):
        pre = np.asarray(inputs(plain, rows) @ plain.W_enc) + bias[None]
        multiple = (pre / base[None])[pre > 0]
        multiple = np.concatenate([best, multiple[multiple > 0]])
        # The l0 N largest so far, and the next one, between which the factor lies.
        keep = min(len(multiple), wanted + 1)
        best = np.partition(multiple, len(multiple) - keep)[len(multiple) - keep :]
        examples += len(rows)
    best = np.sort(best)[::-1]
    if len(best) < wanted:
        raise UserError(
            f"only {len(best) / examples:.3g} latents have a positive pre-activation on average, "
            f"fewer than l0 = {l0}: give a smaller l0"
        )
    below = best[wanted] if len(best) > wanted else 0.0
    factor = 0.5 * (best[wanted - 1] + below)
    return plain._replace(threshold=jnp.asarray((base * factor).astype(np.float32)))


def _size(plain: Plain) -> tuple[int, tuple[int, ...] | None]:
    return plain.W_enc.shape[0], plain.shape


def _chunks(plain: Plain, x: Any) -> Iterator[Any]:
    """Yields the examples x in batches f32[BATCH, ...], as inputs of the weights."""
    for batch in as_data(x, *_size(plain)).batches(BATCH):
        yield batch.x


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0)


def _first_alike(atoms: np.ndarray, columns: np.ndarray, above: float) -> np.ndarray:
    """Returns for each latent the index of the first latent that it duplicates, i64[m].

    For a latent that duplicates no earlier one, it is the latent's own index.

    Args:
      atoms: the decoder rows, f64[m, d_out], of norm 1 or 0.
      columns: the encoder columns, f64[m, d], of norm 1 or 0.
      above: the number that the cosines of both must exceed.
    """
    first = np.arange(len(atoms))
    for start in range(0, len(atoms), ROWS):
        part = slice(start, start + ROWS)
        alike = (atoms[part] @ atoms.T > above) & (columns[part] @ columns.T > above)
        for i, row in enumerate(alike, start):
            if first[i] == i:  # a latent that duplicates an earlier one has no duplicates itself
                others = np.flatnonzero(row[i + 1 :]) + i + 1
                first[others[first[others] == others]] = i
    return first
