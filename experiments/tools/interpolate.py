"""Paths between two test examples of a finished run, straight and along the sphere.

    python -m experiments interpolate runs/digits-vae 3 14

Writes figures/interpolation-A-B.png: above the straight line between the two codes, below the
spherical path, which keeps the norm that draws from the prior have; at both ends the examples.
"""

from __future__ import annotations

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

import aejax as ae
from aejax.errors import UserError
from aejax.types import Array, Variables
from experiments.shared.experiment import named
from experiments.shared.place import Place, say
from experiments.tools import picture

NAMED = 11  # points of a path that have room for their share of the way


def command(
    run_dir: pathlib.Path,
    a: int,
    b: int,
    steps: int = 11,
    member: int = 0,
    data_dir: str | None = None,
    manual_dir: str | None = None,
) -> None:
    """Draws two paths.

    Args:
      run_dir: folder of a finished run.
      a: number of a test example, from 0.
      b: number of another.
      steps: points of a path, both ends among them.
      member: which of the run's seeds, from 0.
      data_dir: where data sets are prepared.
      manual_dir: raw files of a data set.
    """
    if steps < 2:
        raise UserError(f"--steps is {steps}: a path has 2 points or more")
    experiment = named(run_dir)
    model, variables, config = ae.load(run_dir, seed=member)
    test = experiment.data(config, Place(data_dir=data_dir, manual_dir=manual_dir))[2]
    for number in (a, b):
        if not 0 <= number < len(test):
            raise UserError(
                f"there is no test example {number}: give two numbers from 0 to {len(test) - 1}"
            )
    batch = next(test.take(max(a, b) + 1).batches(max(a, b) + 1))
    ends = jax.tree.map(lambda leaf: leaf[jnp.asarray([a, b])], batch)

    latent = jax.eval_shape(lambda v: model.bind(v).encode(ends), variables)
    if getattr(latent, "ndim", 0) != 2:
        raise UserError(f"{run_dir} has codes that are no vectors: there is no line between two")

    def paths(variables: Variables) -> Array:
        bound = model.bind(variables)
        first, last = bound.encode(ends)
        share = jnp.linspace(0.0, 1.0, steps)
        latents = jnp.concatenate([linear(first, last, share), spherical(first, last, share)])
        return bound.mean(bound.decode(bound.lift(latents), None))

    decoded = np.asarray(jax.jit(paths)(variables))
    rows = decoded.reshape(2, steps, *decoded.shape[1:])
    if not picture.drawable(decoded):
        raise UserError(f"{run_dir} is no run on images: there is nothing to draw")
    say(f"picture: {_draw(run_dir, (a, b), np.asarray(ends.target), rows)}")


def _draw(
    run_dir: pathlib.Path, numbers: tuple[int, int], ends: np.ndarray, paths: np.ndarray
) -> pathlib.Path:
    """The two paths f[2, T, H, W, C] between the examples f[2, H, W, C] that they lead to."""
    steps = paths.shape[1]
    first, last = (np.broadcast_to(end, (2, 1, *end.shape)) for end in ends)
    share = [f"{t:.1f}" if steps <= NAMED else "" for t in np.linspace(0, 1, steps)]
    names = [f"test {number}" for number in numbers]
    return picture.save(
        run_dir,
        "interpolation-{}-{}".format(*numbers),
        np.concatenate([first, paths, last], axis=1),
        row_labels=("straight", "spherical"),
        column_labels=[names[0], *share, names[1]],
        gap_after=(0, steps),
    )


def linear(first: Array, last: Array, share: Array) -> Array:
    """The straight line: f32[L], f32[L], f32[T] -> f32[T, L]."""
    share = share[:, None]
    return (1.0 - share) * first[None] + share * last[None]


def spherical(first: Array, last: Array, share: Array) -> Array:
    """The great circle between the directions, with norms in between: f32[T, L] (Shoemake 1985)."""
    norms = jnp.linalg.norm(first), jnp.linalg.norm(last)
    units = first / jnp.maximum(norms[0], 1e-8), last / jnp.maximum(norms[1], 1e-8)
    angle = jnp.arccos(jnp.clip(jnp.sum(units[0] * units[1]), -1.0, 1.0))
    sine = jnp.sin(angle)
    share = share[:, None]
    # Directions that are almost one have no circle between them: the line is the same.
    straight = sine < 1e-4
    safe = jnp.where(straight, 1.0, sine)
    weights = (
        jnp.where(straight, 1.0 - share, jnp.sin((1.0 - share) * angle) / safe),
        jnp.where(straight, share, jnp.sin(share * angle) / safe),
    )
    direction = weights[0] * units[0][None] + weights[1] * units[1][None]
    return ((1.0 - share) * norms[0] + share * norms[1]) * direction
