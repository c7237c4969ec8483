"""The code of AuxK, in which dead latents reconstruct what the others left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from aejax.bottlenecks.sparse.code import Subset
from aejax.kernels.encode import project
from aejax.kernels.mask import mask_of_largest
from aejax.kernels.members import any_member
from aejax.kernels.platform import form_or_default
from aejax.kernels.threshold import kth_of_rows
from aejax.types import Array


def revived(
    bottleneck: Any, features: Array, dead: Array, k: int, decoder: Any, projected: Array | None
) -> Callable[[int], Array | Subset]:
    """Returns a function of `room` that computes the code of AuxK; see `Sparse.revive`."""
    norms, many = bottleneck.norms(decoder), any_member(jnp.sum(dead) > k)
    if form_or_default(bottleneck.form) == "dense":

        def pre() -> Array:
            return bottleneck.pre_activations(features, decoder) if projected is None else projected

        # The search stands outside the function, since a gradient runs the function twice.
        least = jax.lax.cond(
            many,
            lambda: kth_of_rows(_scores(pre(), norms, dead), k),
            lambda: jnp.full((features.shape[0], 1), -jnp.inf),
        )

        def masked(room: int) -> Array:
            values = pre()
            cut = _scores(values, norms, dead) < least  # False for a NaN, which stays visible
            return jnp.where(dead[None] & ~cut, values, 0.0)

        return masked

    def selected(room: int) -> Subset:
        inputs = bottleneck.inputs(features, decoder)
        kernel, bias = bottleneck.projection(inputs.shape[-1], decoder)
        # The indices of dead latents come first; the other indices are masked out below.
        columns = jax.lax.top_k(dead.astype(jnp.float32), room)[1]
        held = jnp.take(dead, columns)
        kernel, bias = jnp.take(kernel, columns, axis=1), jnp.take(bias, columns)
        pre = project(inputs, kernel, bottleneck.dtype) + bias[None]

        def best() -> Array:
            lengths = None if norms is None else jnp.take(norms, columns)
            return mask_of_largest(_scores(pre, lengths, held), k)

        everyone = jnp.ones(pre.shape, bool)
        kept = held[None] & jax.lax.cond(many, best, lambda: everyone)
        return Subset(jnp.where(kept, pre, 0.0), columns, bottleneck.latents)

    return selected


def _scores(pre: Array, norms: Array | None, held: Array) -> Array:
    """Returns the scores by which AuxK selects, f32[B, c]; they are -inf where `held` is False."""
    score = jax.lax.stop_gradient(pre)
    score = score if norms is None else score * norms[None]
    return jnp.where(held[None], score, -jnp.inf)
