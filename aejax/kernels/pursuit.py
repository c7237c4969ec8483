"""Matching pursuit: a sparse code that is built greedily, one atom after the other."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aejax.types import Array


class _Path(NamedTuple):
    """The result of the steps so far, for all examples."""

    count: Array  # i32[], the number of steps so far
    codes: Array  # f32[B, m]
    residual: Array  # f32[B, D], x minus codes @ atoms
    done: Array  # bool[B], whether each example needs no further step
    indices: Array  # i32[B, steps], the atom that each step chose
    values: Array  # f32[B, steps], the value that each step added; 0 if the example was done


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def pursue(
    x: Array, atoms: Array, threshold: float, steps: int | None = None, repeats: bool = False
) -> Array:
    """Computes the matching pursuit of each example (Mallat and Zhang 1993; Costa et al. 2025).

    Each step chooses the atom with the largest inner product with the residual, adds this product
    to the value of the atom in the code, and subtracts product * atom from the residual. An example
    is done when the norm of its residual is below the threshold, when no product is positive, when
    an atom is chosen for the second time, or after the last step. Gradients treat the choice of
    atoms as constant.

    Args:
      x: f32[B, D].
      atoms: f32[m, D], usually of norm 1.
      threshold: the norm of the residual below which an example is done.
      steps: the largest number of steps; None: D.
      repeats: whether an example continues after an atom was chosen for the second time.

    Returns:
      The codes, f32[B, m], which are not negative.
    """
    return _walk(x, atoms, threshold, steps, repeats).codes


def _walk(x: Array, atoms: Array, threshold: float, steps: int | None, repeats: bool) -> _Path:
    x, atoms = jnp.asarray(x), jnp.asarray(atoms)
    rows, latents = x.shape[0], atoms.shape[0]
    each, steps = jnp.arange(rows), x.shape[1] if steps is None else steps

    def step(path: _Path) -> _Path:
        products = path.residual @ atoms.T
        chosen = jnp.argmax(products, axis=1).astype(jnp.int32)
        value = jnp.maximum(jnp.take_along_axis(products, chosen[:, None], axis=1)[:, 0], 0.0)
        value = jnp.where(path.done, 0.0, value)
        held = path.codes[each, chosen]
        residual = path.residual - value[:, None] * atoms[chosen]
        same = (value == 0) if repeats else (held != 0) | (value == 0)
        near = jnp.linalg.norm(residual, axis=-1) < threshold
        return _Path(
            path.count + 1,
            path.codes.at[each, chosen].add(value),
            residual,
            path.done | same | near,
            path.indices.at[:, path.count].set(chosen),
            path.values.at[:, path.count].set(value),
        )

    begin = _Path(
        jnp.zeros((), jnp.int32),
        jnp.zeros((rows, latents), x.dtype),
        x,
        jnp.zeros((rows,), bool),
        jnp.zeros((rows, steps), jnp.int32),
        jnp.zeros((rows, steps), x.dtype),
    )
    return jax.lax.while_loop(lambda path: (path.count < steps) & ~jnp.all(path.done), step, begin)


def _forward(x, atoms, threshold, steps, repeats):
    path = _walk(x, atoms, threshold, steps, repeats)
    return path.codes, (path.count, path.residual, path.indices, path.values, atoms)


def _backward(threshold, steps, repeats, saved, cotangent):
    """Differentiates the steps in reverse order.

    The residual before each step is recomputed from the residual after it.
    """
    count, residual, indices, values, atoms = saved

    def step(state):
        left, residual, d_residual, d_atoms = state
        index, value = indices[:, left - 1], values[:, left - 1, None]
        atom, taken = atoms[index], value != 0
        before = residual + value * atom
        d_value = jnp.take_along_axis(cotangent, index[:, None], axis=1)
        d_value = d_value - jnp.sum(d_residual * atom, axis=-1, keepdims=True)
        d_value = jnp.where(taken, d_value, 0.0)
        d_atom = d_value * before - value * d_residual
        return left - 1, before, d_residual + d_value * atom, d_atoms.at[index].add(d_atom)

    begin = count, residual, jnp.zeros_like(residual), jnp.zeros_like(atoms)
    _, _, d_x, d_atoms = jax.lax.while_loop(lambda state: state[0] > 0, step, begin)
    return d_x, d_atoms


pursue.defvjp(_forward, _backward)
