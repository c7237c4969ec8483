"""Draws a straight and a spherical path in latent space between two test examples of a run.

    python -m experiments interpolate runs/digits-vae 3 14

It writes figures/interpolation-A-B.png. The upper row decodes the straight line between the two
codes. The lower row decodes the spherical path, whose points have norms like those of draws from
the prior. Each row begins and ends with the test examples themselves.
"""

from __future__ import annotations

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

import aejax as ae
from aejax.errors import UserError
from aejax.memory import check_memory, size_of
from aejax.types import Array, Variables
from experiments.shared.experiment import recorded_data
from experiments.shared.place import say
from experiments.tools import picture

NAMED = 11  # a path with more points than this has no labels, for lack of room


def command(
    run_dir: pathlib.Path,
    a: int,
    b: int,
    steps: int = 11,
    member: int = 0,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    own: bool = False,
) -> None:
    """Writes a picture of the straight and the spherical path between two test examples.

    Args:
      run_dir: folder of a finished run.
      a: index of the first test example, from 0.
      b: index of the second test example, from 0.
      steps: number of points of a path, including both ends.
      member: index of one of the run's seeds, from 0.
      data_dir: folder of prepared data sets; that of tensorflow-datasets by default.
      manual_dir: folder with a data set's raw files; then nothing is downloaded.
      own: the run is your own: follow the paths in its config.json, and prepare missing data.
    """
    if steps < 2:
        raise UserError(f"--steps is {steps}: give 2 or more, since a path includes both ends")
    model, variables, _ = ae.load(run_dir, seed=member)
    test = recorded_data(run_dir, data_dir, manual_dir, own)[2]
    for number in (a, b):
        if not 0 <= number < len(test):
            raise UserError(
                f"there is no test example {number}: give two numbers from 0 to {len(test) - 1}"
            )
    batch = next(test.take(max(a, b) + 1).batches(max(a, b) + 1))
    ends = jax.tree.map(lambda leaf: leaf[jnp.asarray([a, b])], batch)

    latent = jax.eval_shape(lambda v: model.bind(v).encode(ends), variables)
    if getattr(latent, "ndim", 0) != 2:
        raise UserError(
            f"the codes of {run_dir} are not vectors, so there is no line between two of them: "
            "choose a run whose code of an example is one vector"
        )

    needed = 2 * steps * size_of(jax.tree.map(lambda leaf: leaf[:1], ends.target))
    check_memory(needed, f"a picture of two paths of {steps} points", "lower --steps")

    def paths(variables: Variables) -> Array:
        bound = model.bind(variables)
        first, last = bound.encode(ends)
        share = jnp.linspace(0.0, 1.0, steps)
        latents = jnp.concatenate([linear(first, last, share), spherical(first, last, share)])
        return bound.mean(bound.decode(bound.lift(latents), None))

    decoded = np.asarray(jax.jit(paths)(variables))
    rows = decoded.reshape(2, steps, *decoded.shape[1:])
    if not picture.drawable(decoded):
        raise UserError(f"the examples of {run_dir} cannot be drawn: choose a run on images")
    say(f"picture: {_draw(run_dir, (a, b), np.asarray(ends.target), rows)}")


def _draw(
    run_dir: pathlib.Path, numbers: tuple[int, int], ends: np.ndarray, paths: np.ndarray
) -> pathlib.Path:
    """Writes a picture of the straight and the spherical path between two test examples.

    Args:
      run_dir: folder of the run, in which the picture is written.
      numbers: indices of the two test examples.
      ends: the two examples, f[2, H, W, C].
      paths: the decoded points of the straight and of the spherical path, f[2, T, H, W, C].

    Returns:
      The path of the picture.
    """
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
    """Returns points f32[T, L] on the line between two points f32[L].

    Args:
      first: the point at share 0.
      last: the point at share 1.
      share: the shares of the way at which the points lie, f32[T].
    """
    share = share[:, None]
    return (1.0 - share) * first[None] + share * last[None]


def spherical(first: Array, last: Array, share: Array) -> Array:
    """Returns points f32[T, L] on the spherical path between two points f32[L].

    Directions follow the great circle (Shoemake 1985), and norms are interpolated linearly. The
    arguments are those of `linear`.
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
