"""Paths between two points of latent space."""

from __future__ import annotations

import jax.numpy as jnp

from aejax.types import Array


def linear(first: Array, last: Array, share: Array) -> Array:
    """Returns points at the shares f32[T] of the line between two f32[L], f32[T, L]."""
    share = share[:, None]
    return (1.0 - share) * first[None] + share * last[None]


def spherical(first: Array, last: Array, share: Array) -> Array:
    """Returns points at the shares f32[T] of the spherical path between two f32[L], f32[T, L].

    Directions follow the great circle (Shoemake 1985), and norms are interpolated linearly.
    """
    norms = jnp.linalg.norm(first), jnp.linalg.norm(last)
    units = first / jnp.maximum(norms[0], 1e-8), last / jnp.maximum(norms[1], 1e-8)
    angle = jnp.arccos(jnp.clip(jnp.sum(units[0] * units[1]), -1.0, 1.0))
    sine = jnp.sin(angle)
    share = share[:, None]
    # The great circle is undefined between almost equal directions; the line is the same there.
    straight = sine < 1e-4
    safe = jnp.where(straight, 1.0, sine)
    weights = (
        jnp.where(straight, 1.0 - share, jnp.sin((1.0 - share) * angle) / safe),
        jnp.where(straight, share, jnp.sin(share * angle) / safe),
    )
    direction = weights[0] * units[0][None] + weights[1] * units[1][None]
    return ((1.0 - share) * norms[0] + share * norms[1]) * direction
