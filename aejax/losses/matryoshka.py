"""Nested (Matryoshka) dictionaries: each prefix of the latents must reconstruct the target."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from aejax.checks import whole
from aejax.errors import UserError
from aejax.events import is_dense
from aejax.losses.scaled import residual
from aejax.losses.sparsity import dictionary
from aejax.types import Array, Forward, Term

# The prefix lengths of the library dictionary_learning as fractions of the number of latents: the
# cumulative sums of 1/32, 1/16, 1/8, 1/4 and the rest.
FRACTIONS = (1 / 32, 3 / 32, 7 / 32, 15 / 32, 1.0)


def prefix_error(
    prefixes: Sequence[int], weights: Sequence[float] | None = None, bias: bool = False
) -> Term:
    """Returns the weighted sum of the squared errors of the dictionary's prefixes, f32[B].

    The term is sum_j w_j ||y - (z[:m_j] atoms[:m_j] + bias)||^2 in the decoder's scaled units
    (Bussmann et al. 2025, equation 5). The output of a skip connection, if the decoder has one, is
    added to every prediction, as the bias is. The last prefix is the whole dictionary, so use this
    term instead of a reconstruction error.

    Args:
      prefixes: the prefix lengths m_1 < ... < m_G = m.
      weights: the weights w_j; None: equal weights that sum to 1 (in SAELens each weight is 1).
      bias: whether to add a first prefix without latents, m_0 = 0, which predicts the bias, as in
        the authors' code; `weights` must then start with its weight.

    Raises:
      UserError: if the prefixes do not increase from 1 or more to m, or if the number of weights
        differs from the number of prefixes.
    """
    prefixes = tuple(prefixes)
    if not prefixes or not all(map(whole, prefixes)) or prefixes[0] < 1:
        raise UserError(
            f"the prefixes are {list(prefixes)}, but they count latents: give one or more whole "
            "numbers, each 1 or more"
        )
    levels = (0, *prefixes) if bias else tuple(prefixes)
    shares = tuple(weights) if weights is not None else (1.0 / len(levels),) * len(levels)
    if any(b <= a for a, b in itertools.pairwise(levels)):
        raise UserError(
            f"the prefixes are {list(prefixes)}: give them in ascending order, without repetition"
        )
    if len(shares) != len(levels):
        raise UserError(
            f"there are {len(shares)} weights for {len(levels)} prefixes: give one for each"
            + (", and one for the bias" if bias else "")
        )

    def prefix_error(model: Any, forward: Forward) -> Array:
        z, decoder = forward.code.z, dictionary(model)
        if levels[-1] != model.bottleneck.latents:
            raise UserError(
                f"the last prefix is {levels[-1]}, but the bottleneck has "
                f"{model.bottleneck.latents} latents: end the prefixes with that number"
            )
        size = forward.batch.target.shape[0]
        offset = decoder.offset(levels[-1], forward.batch.context)
        output = jnp.broadcast_to(offset, (size, offset.shape[-1]))
        total, low = jnp.zeros((size,)), 0
        for high, share in zip(levels, shares, strict=True):
            if high > low:
                output = output + decoder.combine(_between(z, low, high))
            prediction = decoder.finish(output, forward.batch.context)
            error = residual(model, forward._replace(prediction=prediction))
            total = total + share * jnp.sum(jnp.square(error), axis=-1)
            low = high
        return total

    return prefix_error


def fractions(latents: int, parts: Sequence[float] = FRACTIONS) -> tuple[int, ...]:
    """Returns prefix lengths as fractions of the number of latents, for `prefix_error`.

    Each length is at least 1; lengths that are equal in a small dictionary are returned once.

    Args:
      latents: m, the number of latents.
      parts: the fractions, ascending; by default those of dictionary_learning.
    """
    return tuple(dict.fromkeys(max(1, round(part * latents)) for part in parts))


def _between(z: Any, low: int, high: int) -> Any:
    """Returns z with all latents set to zero except those with low <= index < high."""
    if not is_dense(z):
        return z.between(low, high)
    column = jnp.arange(z.shape[-1])[None]
    return jnp.where((column >= low) & (column < high), z, 0.0)
