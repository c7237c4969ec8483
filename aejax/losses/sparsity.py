"""What an overcomplete code costs, and how much of it is in use."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from aejax.errors import UserError
from aejax.types import Array, Forward, LinearDecoder, Term
from aejax.variables import get


def l1(model: Any, forward: Forward) -> Array:
    """The L1 norm of z, f32[B] (Bricken et al. 2023)."""
    return forward.code.magnitude()


def weighted_l1(model: Any, forward: Forward) -> Array:
    """sum |z_i| ||atom_i||, f32[B]: no norm of the atoms makes it small (Conerly et al. 2024)."""
    return forward.code.magnitude(norms(model))


def layered_l1(model: Any, forward: Forward) -> Array:
    """sum |z_i| sum_l ||atom_i of layer l||, f32[B]: a crosscoder's (Lindsey et al. 2024).

    The target is [B, layers, size]; norms are taken over the last axis and summed over the rest.
    """
    atoms = dictionary(model).weights(model.bottleneck.latents).atoms
    lengths = safe_norm(atoms.reshape((-1, *forward.batch.target.shape[1:])))
    return forward.code.magnitude(lengths.reshape((lengths.shape[0], -1)).sum(axis=-1))


def l0(model: Any, forward: Forward) -> Array:
    """The number of active latents, f32[B]; its gradient is a threshold's, or zero."""
    return forward.code.l0


def tanh_l0(scale: float = 4.0) -> Term:
    """sum tanh(scale z_i ||atom_i||), f32[B], a smooth L0 (Conerly et al. 2025)."""

    def tanh_l0(model: Any, forward: Forward) -> Array:
        z = forward.code.dense()
        return jnp.sum(jnp.tanh(scale * z * norms(model)[None]), axis=-1)

    return tanh_l0


def quadratic_l0(target: float) -> Term:
    """2 / target (L0 - target)^2 of each example, f32[B] (Gemma Scope 2)."""
    _check_target(target)

    def quadratic_l0(model: Any, forward: Forward) -> Array:
        return 2.0 / target * jnp.square(forward.code.l0 - target)

    return quadratic_l0


def relative_l0(target: float) -> Term:
    """(mean L0 / target - 1)^2 of the batch, the same for all B, f32[B] (dictionary_learning)."""
    _check_target(target)

    def relative_l0(model: Any, forward: Forward) -> Array:
        l0 = forward.code.l0
        return jnp.full(l0.shape, jnp.square(jnp.mean(l0) / target - 1.0))

    return relative_l0


def lp(model: Any, forward: Forward) -> Array:
    """The present stage's sum z^p of an AnnealedReLU, rescaled, f32[B] (p-annealing)."""
    if not model.bottleneck.powers:
        raise UserError("lp needs the stages of p-annealing: use the bottleneck AnnealedReLU")
    return model.bottleneck.penalty(forward.code)


def pre_activation(model: Any, forward: Forward) -> Array:
    """sum relu(theta_i - pre_i) ||atom_i||, f32[B]: lifts JumpReLU's silent latents.

    Its weight is small, 3e-6 (Conerly et al. 2025).
    """
    _check_window(model, "pre_activation")
    below = jax.nn.relu(model.bottleneck.thresholds()[None] - forward.code.pre)
    return jnp.sum(below * norms(model)[None], axis=-1)


def penalty(model: Any, forward: Forward) -> Array:
    """What the bottleneck's own class says must be small for few latents to be active, f32[B].

    The L1 norm of ReLU's z, the sum z^p of AnnealedReLU, L0 of JumpReLU, the L1 norm of Gated's
    gate: to be steered, `ae.sparse(steered=losses.penalty)`.
    """
    return model.bottleneck.penalty(forward.code)


def priced(penalty: Term) -> Term:
    """A penalty times the price at which the bottleneck's `l0` latents are active, f32[B].

    The price is steered batch by batch (see `bottlenecks.sparse.memory.Controller`); the term needs
    no coefficient, so its weight is 1.
    """

    def priced(model: Any, forward: Forward) -> Array:
        if getattr(model.bottleneck, "l0", None) is None:
            raise UserError(
                "a priced penalty needs a target: give the bottleneck one, such as l0=32"
            )
        price = jax.lax.stop_gradient(model.bottleneck.controller(None))
        return price * penalty(model, forward)

    return priced


def dead(after: int = 1000) -> Term:
    """The share of latents silent for more than `after` training steps, the same for all B."""

    def dead(model: Any, forward: Forward) -> Array:
        silent = ages(model) > after
        return jnp.full(forward.code.l0.shape, jnp.mean(silent))

    return dead


def window(model: Any, forward: Forward) -> Array:
    """The share of latents in JumpReLU's window, f32[B]: zero, and no threshold ever moves."""
    _check_window(model, "window")
    return model.bottleneck.window(forward.code.pre)


def gamma(model: Any, forward: Forward) -> Array:
    """||mean|| / ||std|| of the data that the encoder's `Scale` was set from, the same for all B.

    Large values predict dead latents unless the mean is removed.
    """
    found = get(model.encoder.variables, ("memory", "gamma"))
    if found is None:
        raise UserError(
            f"gamma is remembered by a Scale, but the encoder is a {type(model.encoder).__name__}: "
            "use nets.Scale as the encoder"
        )
    return jnp.full(forward.code.l0.shape, found)


def ages(model: Any) -> Array:
    """Training steps since each latent was last active, i32[m], before this batch.

    Raises:
      UserError: if the bottleneck counts none.
    """
    found = get(model.bottleneck.variables, ("memory", "ages", "age"))
    if found is None:
        raise UserError(
            f"dead latents are told by their silent steps, and a {type(model.bottleneck).__name__} "
            "counts no silent steps: use a sparse bottleneck, such as TopK"
        )
    return found


def dictionary(model: Any) -> Any:
    """The decoder, of which the atoms are needed.

    Raises:
      UserError: if it is no `Dictionary`.
    """
    if not isinstance(model.decoder, LinearDecoder):
        raise UserError(
            f"the atoms of a Dictionary are needed, but the decoder is a "
            f"{type(model.decoder).__name__}: use Dictionary as the decoder"
        )
    return model.decoder


def norms(model: Any) -> Array:
    """||atom||, f32[m], with its gradient."""
    return safe_norm(dictionary(model).weights(model.bottleneck.latents).atoms)


def safe_norm(values: Array) -> Array:
    """The norm over the last axis, whose gradient at zero is zero and not NaN."""
    squares = jnp.sum(jnp.square(values), axis=-1)
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)


def _check_target(target: Any) -> None:
    if not isinstance(target, jax.Array) and not target > 0:
        raise UserError(f"the target is {target} active latents: give a number above 0")


def _check_window(model: Any, term: str) -> None:
    if not model.bottleneck.windowed:
        raise UserError(f"{term} needs a threshold of each latent: use the bottleneck JumpReLU")
