"""Sparsity penalties, and metrics of sparse codes such as L0 and the share of dead latents."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from aejax.errors import UserError
from aejax.losses.marks import Mark
from aejax.types import Array, Forward, LinearDecoder, Term
from aejax.variables import get


def l1(model: Any, forward: Forward) -> Array:
    """Computes the L1 norm of z, f32[B] (Bricken et al. 2023)."""
    return forward.code.magnitude()


def weighted_l1(model: Any, forward: Forward) -> Array:
    """Computes the L1 norm weighted by atom norms, sum_i |z_i| ||atom_i||, f32[B].

    Unlike the L1 norm, it cannot be lowered by longer atoms and smaller z (Conerly et al. 2024).
    """
    return forward.code.magnitude(norms(model))


def layered_l1(model: Any, forward: Forward) -> Array:
    """Computes the L1 penalty of a crosscoder, sum_i |z_i| sum_l ||atom_i in layer l||, f32[B].

    The target has shape [B, layers, size], and an atom has one norm for each layer (Lindsey et al.
    2024).
    """
    atoms = dictionary(model).weights(model.bottleneck.latents).atoms
    lengths = safe_norm(atoms.reshape((-1, *forward.batch.target.shape[1:])))
    return forward.code.magnitude(lengths.reshape((lengths.shape[0], -1)).sum(axis=-1))


def l0(model: Any, forward: Forward) -> Array:
    """Returns the number of active latents, f32[B].

    Its gradient is zero, except for JumpReLU, whose thresholds get a straight-through estimate.
    """
    return forward.code.l0


def tanh_l0(scale: float = 4.0) -> Term:
    """Returns the term sum_i tanh(scale z_i ||atom_i||), f32[B] (Conerly et al. 2025).

    It is a smooth substitute for L0.
    """

    def tanh_l0(model: Any, forward: Forward) -> Array:
        z = forward.code.dense()
        return jnp.sum(jnp.tanh(scale * z * norms(model)[None]), axis=-1)

    return tanh_l0


def quadratic_l0(target: float) -> Term:
    """Returns the term (2 / target) (L0 - target)^2, f32[B], of Gemma Scope 2."""
    _check_target(target)

    def quadratic_l0(model: Any, forward: Forward) -> Array:
        return 2.0 / target * jnp.square(forward.code.l0 - target)

    return quadratic_l0


def relative_l0(target: float) -> Term:
    """Returns the term (mean L0 / target - 1)^2, as in dictionary_learning.

    The mean is taken over the batch, and the value is repeated for all examples, f32[B].
    """
    _check_target(target)

    def relative_l0(model: Any, forward: Forward) -> Array:
        l0 = forward.code.l0
        return jnp.full(l0.shape, jnp.square(jnp.mean(l0) / target - 1.0))

    return relative_l0


def lp(model: Any, forward: Forward) -> Array:
    """Computes the penalty of AnnealedReLU, a rescaled sum of (z ||atom||)^p, f32[B].

    The power p depends on the stage of training.

    Raises:
      UserError: if the bottleneck is not an AnnealedReLU.
    """
    if not model.bottleneck.powers:
        raise UserError("lp needs a bottleneck that changes p in stages: use AnnealedReLU")
    return penalty(model, forward)


def pre_activation(model: Any, forward: Forward) -> Array:
    """Computes sum_i relu(theta_i - pre_i) ||atom_i||, f32[B].

    Minimising it raises the pre-activations that are below their thresholds theta_i, which keeps
    JumpReLU's latents alive. Give it a small weight; Conerly et al. 2025 use 3e-6.
    """
    _check_window(model, "pre_activation")
    below = jax.nn.relu(model.bottleneck.thresholds()[None] - forward.code.pre)
    return jnp.sum(below * norms(model)[None], axis=-1)


def penalty(model: Any, forward: Forward) -> Array:
    """Computes the sparsity penalty that the bottleneck's class defines, f32[B].

    It is the L1 norm of z for ReLU, sum z^p for AnnealedReLU, L0 for JumpReLU and the L1 norm of
    the gate for Gated. If the decoder is a dictionary, each z is first multiplied by the norm of
    its atom, because longer atoms would otherwise lower the penalty. With
    `ae.sparse(steered=losses.penalty)`, a controller adjusts its weight to reach a target L0.
    """
    sizes = norms(model) if isinstance(model.decoder, LinearDecoder) else None
    return model.bottleneck.penalty(forward.code, sizes)


def priced(penalty: Term) -> Term:
    """Returns the term coefficient * penalty, whose coefficient is adjusted to reach a target L0.

    The target is the bottleneck's `l0`. A controller changes the coefficient after every batch (see
    `bottlenecks.sparse.memory.Controller`), so the weight of the term in an objective must be 1.
    """

    def priced(model: Any, forward: Forward) -> Array:
        _target(model)
        price = jax.lax.stop_gradient(model.bottleneck.controller(None))
        return price * penalty(model, forward)

    priced.mark = Mark(steered=True)  # type: ignore[attr-defined]
    return priced


def off_target(model: Any, forward: Forward) -> Array:
    """Computes mean L0 / target - 1, where the target is the bottleneck's `l0`, f32[B].

    The mean is taken over the batch, and the value is repeated for all examples.
    """
    target = _target(model)
    return jnp.full(forward.code.l0.shape, jnp.mean(forward.code.l0) / target - 1.0)


def dead(after: int = 1000) -> Term:
    """Returns the share of dead latents as a term, f32[B]; its value is repeated for all examples.

    A latent is dead if it has not been active for more than `after` training steps.
    """

    def dead(model: Any, forward: Forward) -> Array:
        silent = ages(model) > after
        return jnp.full(forward.code.l0.shape, jnp.mean(silent))

    return dead


def window(model: Any, forward: Forward) -> Array:
    """Computes the share of latents whose JumpReLU threshold gets a gradient, f32[B].

    These are the latents whose pre-activation differs from the threshold by less than half the
    bandwidth. If the share stays at zero, the thresholds are not trained.
    """
    _check_window(model, "window")
    return model.bottleneck.window(forward.code.pre)


def gamma(model: Any, forward: Forward) -> Array:
    """Returns ||mean|| / ||std|| of the data that initialised the encoder's `Scale`, f32[B].

    The value is repeated for all examples. If it is large, subtract the mean of the data before
    training; otherwise many latents die.
    """
    found = get(model.encoder.variables, ("memory", "gamma"))
    if found is None:
        raise UserError(
            f"gamma is stored by a Scale, but the encoder is a {type(model.encoder).__name__}: use "
            "nets.Scale as the encoder"
        )
    return jnp.full(forward.code.l0.shape, found)


def ages(model: Any) -> Array:
    """Returns the number of training steps since each latent was last active, i32[m].

    The current batch is not counted.

    Raises:
      UserError: if the bottleneck does not count the steps in which a latent is inactive.
    """
    found = get(model.bottleneck.variables, ("memory", "ages", "age"))
    if found is None:
        raise UserError(
            "a dead latent is one that was inactive for many steps, but a "
            f"{type(model.bottleneck).__name__} does not count these steps: use a sparse "
            "bottleneck, such as TopK"
        )
    return found


def dictionary(model: Any) -> Any:
    """Returns the model's decoder if it is a dictionary.

    Raises:
      UserError: if the decoder is not a `Dictionary`.
    """
    if not isinstance(model.decoder, LinearDecoder):
        raise UserError(
            f"the atoms of a Dictionary are needed, but the decoder is a "
            f"{type(model.decoder).__name__}: use Dictionary as the decoder"
        )
    return model.decoder


def norms(model: Any) -> Array:
    """Computes the norm of each atom, f32[m]; gradients flow to the atoms."""
    return safe_norm(dictionary(model).weights(model.bottleneck.latents).atoms)


def safe_norm(values: Array) -> Array:
    """Computes the norm over the last axis; its gradient at a zero vector is 0 instead of NaN."""
    squares = jnp.sum(jnp.square(values), axis=-1)
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)


def _target(model: Any) -> Any:
    target = getattr(model.bottleneck, "l0", None)
    if target is None:
        raise UserError(
            f"this term needs a target L0, but {type(model.bottleneck).__name__} "
            "has none: give the bottleneck a target, such as l0=32"
        )
    return target


def _check_target(target: Any) -> None:
    if not isinstance(target, jax.Array) and not target > 0:
        raise UserError(f"the target L0 is {target}, but must be a number above 0")


def _check_window(model: Any, term: str) -> None:
    if not model.bottleneck.windowed:
        raise UserError(f"{term} needs a bottleneck with learned thresholds: use JumpReLU")
