"""Decoding of sparse codes, which reads only k rows of the dictionary for each example.

The backward pass reads only these rows too.
"""

from __future__ import annotations

import jax

from aejax.kernels.rows import combine, match, spread
from aejax.types import Array


@jax.custom_vjp
def decode_rows(values: Array, indices: Array, atoms: Array) -> Array:
    """Decodes a sparse code: sums values[b, j] * atoms[indices[b, j]] over j.

    Sums are computed in float32 and then rounded once to the dtype of the values.

    Args:
      values: f32[B, k] or bf16[B, k].
      indices: i32[B, k], the indices of rows of `atoms`, which may repeat.
      atoms: f32[m, D] or bf16[m, D].

    Returns:
      [B, D], in the dtype of the values.
    """
    return combine(values, indices, atoms).astype(values.dtype)


def _forward(values, indices, atoms):
    return decode_rows(values, indices, atoms), (values, indices, atoms)


def _backward(saved, cotangent):
    values, indices, atoms = saved
    d_values = match(cotangent, indices, atoms)
    d_atoms = spread(values, indices, cotangent, atoms.shape[0])
    return d_values.astype(values.dtype), None, d_atoms.astype(atoms.dtype)


decode_rows.defvjp(_forward, _backward)
