"""Terms that bring silent latents back: AuxK and ghost gradients. Free while none is dead."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from aejax.errors import UserError
from aejax.kernels.branches import switch
from aejax.kernels.members import any_member
from aejax.losses.scaled import masked, residual, scaled_error
from aejax.losses.sparsity import ages, dictionary
from aejax.types import Array, Forward, Term

Division = Callable[[Array], Array]  # target f32[B, D] -> f32[B]


def residual_variance(target: Array) -> Array:
    """The variance of what is to be explained, summed over D, the same for all B (Marks et al.)."""
    centred = target - jnp.mean(target, axis=0, keepdims=True)
    return jnp.full((target.shape[0],), jnp.mean(jnp.sum(jnp.square(centred), axis=-1)))


def residual_norm(target: Array) -> Array:
    """The squared norm of what is to be explained, of each example (Gao et al. 2024)."""
    return jnp.sum(jnp.square(target), axis=-1)


def revival(
    k: int | None = None,
    after: int = 1000,
    share: bool = True,
    divide: Division | None = None,
    bias: bool = False,
    rectify: bool = False,
) -> Term:
    """AuxK: the k dead latents that answer most explain the residual (Gao et al. 2024, A.2).

    ||sg(e) - sum of dead latents||^2, in the dictionary's own units, where e is the residual. Its
    gradient reaches the atoms and the encoder of the dead latents. k is fixed, so nothing waits for
    their number, and nothing is computed while there is none (in a sweep: while no member has one).

    Args:
      k: dead latents used for each example; None: half of the dictionary's D, at most all.
      after: steps of silence after which a latent is dead.
      share: weighs by min(dead / k, 1), so that few latents need not explain everything.
      divide: what the squared error is divided by: `residual_norm` (OpenAI),
        `residual_variance` (dictionary_learning, sparsify), or None.
      bias: adds the decoder's bias to the residual, as a constant, and to its explanation (OpenAI):
        what `divide` sees is another, and the term's gradient reaches the bias too.
      rectify: cuts the dead latents' values at zero, as most libraries do; a latent that is
        negative for every input then gets no gradient, and stays dead.

    Raises:
      UserError: if k is less than 1.
    """
    if k is not None and k < 1:
        raise UserError(f"revival by k = {k} dead latents revives none: give 1 or more, or None")

    def revival(model: Any, forward: Forward) -> Array:
        size = forward.batch.target.shape[0]
        dead, decoder = ages(model) > after, dictionary(model)
        error = jax.lax.stop_gradient(residual(model, forward))
        slots = min(error.shape[-1] // 2 if k is None else k, dead.shape[0])

        def explain(room: int) -> Array:
            few = model.bottleneck.revive(forward.features, dead, slots, decoder, room)
            if rectify:
                few = jax.tree.map(_rectified, few)
            explained, target = masked(model, decoder.combine(few), forward.batch), error
            if bias:
                own = jnp.broadcast_to(decoder.weights(few.latents).bias[None], error.shape)
                own = masked(model, own, forward.batch)
                explained, target = explained + own, target + jax.lax.stop_gradient(own)
            cost = jnp.sum(jnp.square(explained - target), axis=-1)
            if divide is not None:
                scale = divide(target)
                cost = jnp.where(scale > 0, cost / jnp.where(scale > 0, scale, 1.0), 0.0)
            if share:
                cost = cost * jnp.minimum(jnp.sum(dead) / slots, 1.0)
            # Zero where no latent of this member is dead, whatever another member needs.
            return cost * jnp.any(dead)

        # While few are dead the others cost nothing: an eighth of all is room for most runs.
        rooms = sorted({max(slots, dead.shape[0] // 8), dead.shape[0]})
        branches = [lambda: jnp.zeros((size,)), *(functools.partial(explain, r) for r in rooms)]
        count = jnp.sum(dead)
        wanted = sum(any_member(count > limit).astype(jnp.int32) for limit in (0, *rooms[:-1]))
        return switch(wanted, branches)

    return revival


def ghost(after: int = 1000) -> Term:
    """Ghost gradients: dead latents, as exp(pre), explain the residual (Jermyn et al. 2024).

    Their output is rescaled to half the residual's norm for each example, and the squared error to
    the main loss's size; both scales are constants to the gradient.

    Args:
      after: steps of silence after which a latent is dead.
    """

    def ghost(model: Any, forward: Forward) -> Array:
        size = forward.batch.target.shape[0]
        dead, decoder = ages(model) > after, dictionary(model)
        error = jax.lax.stop_gradient(residual(model, forward))
        main = jax.lax.stop_gradient(scaled_error(model, forward))

        def explain() -> Array:
            pre = model.bottleneck.pre_activations(forward.features, decoder)
            z = jnp.where(dead[None], jnp.exp(jnp.where(dead[None], pre, 0.0)), 0.0)
            output = masked(model, decoder.combine(z), forward.batch)
            lengths = (jnp.linalg.norm(a, axis=-1, keepdims=True) for a in (error, output))
            wanted, had = (jax.lax.stop_gradient(length) for length in lengths)
            output = output * (0.5 * wanted / jnp.maximum(had, 1e-12))
            cost = jnp.sum(jnp.square(output - error), axis=-1)
            scale = main / jnp.maximum(jax.lax.stop_gradient(cost), 1e-12)
            return cost * scale * jnp.any(dead)

        some = any_member(jnp.any(dead)).astype(jnp.int32)
        return switch(some, [lambda: jnp.zeros((size,)), explain])

    return ghost


def _rectified(leaf: Array) -> Array:
    return leaf if jnp.issubdtype(leaf.dtype, jnp.integer) else jax.nn.relu(leaf)
