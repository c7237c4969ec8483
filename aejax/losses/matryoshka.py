"""Nested dictionaries: every prefix of the latents is to explain the target by itself."""

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

# Of m, as dictionary_learning divides it: 1/32, 1/16, 1/8, 1/4 and the rest, cumulated.
FRACTIONS = (1 / 32, 3 / 32, 7 / 32, 15 / 32, 1.0)


def prefix_error(
    prefixes: Sequence[int], weights: Sequence[float] | None = None, bias: bool = False
) -> Term:
    """The squared errors of the dictionary's prefixes, f32[B] (Bussmann et al. 2025, equation 5).

    sum_j w_j ||y - (z[:m_j] atoms[:m_j] + bias)||^2 in the dictionary's own units; a skip
    connection belongs to every prefix, as the bias does. The last prefix is the whole, so this
    takes the place of the error itself.

    Args:
      prefixes: m_1 < ... < m_G = m.
      weights: w_j; None: their mean, 1 / G each (SAELens: 1 each).
      bias: counts the bias alone as a further prefix, m_0 = 0, as the authors' code does.

    Raises:
      UserError: if the prefixes do not rise from 1 or more to m.
    """
    prefixes = tuple(prefixes)
    if not prefixes or not all(map(whole, prefixes)) or prefixes[0] < 1:
        raise UserError(f"the prefixes {list(prefixes)} must be whole numbers of 1 latent or more")
    levels = (0, *prefixes) if bias else tuple(prefixes)
    shares = tuple(weights) if weights is not None else (1.0 / len(levels),) * len(levels)
    if any(b <= a for a, b in itertools.pairwise(levels)):
        raise UserError(f"the prefixes {list(prefixes)} must rise from level to level")
    if len(shares) != len(levels):
        raise UserError(f"there are {len(shares)} weights for {len(levels)} prefixes")

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
            prediction = decoder.finish(output)
            error = residual(model, forward._replace(prediction=prediction))
            total = total + share * jnp.sum(jnp.square(error), axis=-1)
            low = high
        return total

    return prefix_error


def fractions(latents: int, parts: Sequence[float] = FRACTIONS) -> tuple[int, ...]:
    """Prefixes as parts of the latents, the last one all of them.

    Of a few latents some parts are less than one, or equal: a prefix has at least one, and is named
    once.
    """
    return tuple(dict.fromkeys(max(1, round(part * latents)) for part in parts))


def _between(z: Any, low: int, high: int) -> Any:
    if not is_dense(z):
        return z.between(low, high)
    column = jnp.arange(z.shape[-1])[None]
    return jnp.where((column >= low) & (column < high), z, 0.0)
