"""Loss terms that revive dead latents: AuxK and ghost gradients.

While no latent is dead, they are zero and skip their computation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from aejax.errors import UserError
from aejax.kernels.branches import switch
from aejax.kernels.members import any_member
from aejax.kernels.platform import form_or_default
from aejax.losses.scaled import masked, residual, scaled_error
from aejax.losses.sparsity import ages, dictionary
from aejax.types import Array, Forward, Term

# Maps AuxK's target, the residual f32[B, D], to the divisor of its squared error, f32[B].
Division = Callable[[Array], Array]


def residual_variance(target: Array) -> Array:
    """Computes the variance of a residual f32[B, D] over the batch, summed over D, f32[B].

    The value is repeated for all examples. The library dictionary_learning (Marks et al.) divides
    the term AuxK by this variance.
    """
    centred = target - jnp.mean(target, axis=0, keepdims=True)
    return jnp.full((target.shape[0],), jnp.mean(jnp.sum(jnp.square(centred), axis=-1)))


def residual_norm(target: Array) -> Array:
    """Computes the squared norm of each example's residual, f32[B], for residuals f32[B, D].

    Gao et al. 2024 divide the term AuxK by this squared norm.
    """
    return jnp.sum(jnp.square(target), axis=-1)


def auxk(
    k: int | None = None,
    after: int = 1000,
    share: bool = True,
    divide: Division | None = None,
    bias: bool = False,
    rectify: bool = False,
) -> Term:
    """Returns the term AuxK, which trains dead latents to reconstruct the residual, f32[B].

    For each example, let e be the residual, and e_hat the sum of the atoms of the k dead latents
    with the largest pre-activations, weighted by these. The term is ||sg(e) - e_hat||^2, where sg
    stops the gradient (Gao et al. 2024, A.2); both vectors are in units in which the data has
    mean square 1, if the decoder has a `Scale`. The term trains the atoms and encoder columns of
    these latents. Nothing is computed while no latent is dead or, if several models are trained
    together, while no model has a dead latent.

    Args:
      k: the number of dead latents used for each example; None: half of the residual's size D, but
        at most all m latents.
      after: the number of steps without activation after which a latent is dead.
      share: whether to multiply the term by min(n / k, 1), where n is the number of dead latents.
      divide: the function of the residual that the squared error is divided by: `residual_norm`
        (OpenAI), `residual_variance` (dictionary_learning, sparsify), or None.
      bias: whether to add the decoder's bias to e, without a gradient, and to e_hat, with one, as
        OpenAI does. `divide` then receives e + bias.
      rectify: whether negative pre-activations become zero, as in most libraries; a latent whose
        pre-activation is negative for every input then gets no gradient and stays dead.

    Raises:
      UserError: if k is less than 1.
    """
    if k is not None and k < 1:
        raise UserError(
            f"auxk has k = {k}, the number of dead latents it uses: give 1 or more, or None"
        )

    def auxk(model: Any, forward: Forward) -> Array:
        size = forward.batch.target.shape[0]
        dead, decoder = ages(model) > after, dictionary(model)
        error = jax.lax.stop_gradient(residual(model, forward))
        slots = min(error.shape[-1] // 2 if k is None else k, dead.shape[0])
        known = forward.code.projected
        revived = model.bottleneck.revive(forward.features, dead, slots, decoder, known)

        def explain(room: int) -> Array:
            few = revived(room)
            if rectify:
                few = jax.tree.map(_rectified, few)
            explained, target = masked(model, decoder.combine(few), forward.batch), error
            if bias:
                own = jnp.broadcast_to(decoder.weights(dead.shape[0]).bias[None], error.shape)
                own = masked(model, own, forward.batch)
                explained, target = explained + own, target + jax.lax.stop_gradient(own)
            cost = jnp.sum(jnp.square(explained - target), axis=-1)
            if divide is not None:
                scale = divide(target)
                cost = jnp.where(scale > 0, cost / jnp.where(scale > 0, scale, 1.0), 0.0)
            if share:
                cost = cost * jnp.minimum(jnp.sum(dead) / slots, 1.0)
            # If several models are trained together, this runs for all of them if one has a dead
            # latent. The factor any(dead) makes the term 0 for the others.
            return cost * jnp.any(dead)

        # The time of a branch grows with `room`, the largest number of dead latents that it can
        # handle. In most runs at most an eighth of all latents are dead. The dense form always
        # computes with all latents.
        dense = form_or_default(model.bottleneck.form) == "dense"
        rooms = sorted({dead.shape[0] if dense else max(slots, dead.shape[0] // 8), dead.shape[0]})
        branches = [lambda: jnp.zeros((size,)), *(functools.partial(explain, r) for r in rooms)]
        count = jnp.sum(dead)
        wanted = sum(any_member(count > limit).astype(jnp.int32) for limit in (0, *rooms[:-1]))
        return switch(wanted, branches)

    return auxk


def ghost(after: int = 1000) -> Term:
    """Returns the "ghost gradients" term, which trains dead latents to reconstruct the residual.

    The dead latents have the values exp(pre-activation). Their reconstruction of the residual is
    rescaled to half the norm of each example's residual, and the value of the term, f32[B], is
    rescaled to the example's squared error. No gradient flows through these two scale factors
    (Jermyn et al. 2024).

    Args:
      after: the number of steps without activation after which a latent is dead.
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
    """Applies relu to an array of floats; returns integers, such as indices, unchanged."""
    return leaf if jnp.issubdtype(leaf.dtype, jnp.integer) else jax.nn.relu(leaf)
