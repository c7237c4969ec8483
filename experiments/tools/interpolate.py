"""Draws a straight and a spherical path in latent space between two test examples of a run.

    python -m experiments interpolate runs/digits-vae 3 14
    python -m experiments interpolate runs/text-vae "a small dog" "the colour of the sky"

It writes figures/interpolation-A-B.png. The upper row decodes the straight line between the two
codes. The lower row decodes the spherical path, whose points have norms like those of draws from
the prior. Each row begins and ends with the test examples themselves. Between two texts of
one's own it prints the most probable texts of both paths, and writes figures/interpolation.txt and
the page interpolation.html.
"""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import aejax as ae
from aejax import evaluation
from aejax.data.text.coding import encode
from aejax.errors import UserError
from aejax.files import subfolder, write_bytes
from aejax.memory import check_memory, size_of
from aejax.types import Array, Variables
from experiments.shared import texts
from experiments.shared.experiment import recorded_data
from experiments.shared.paths import linear, spherical
from experiments.shared.place import say
from experiments.tools import picture

NAMED = 11  # a path with more points than this has no labels, for lack of room


def command(
    run_dir: pathlib.Path,
    a: str,
    b: str,
    steps: int = 11,
    member: int = 0,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    own: bool = False,
) -> None:
    """Writes a picture of the straight and the spherical path between two test examples.

    Args:
      run_dir: folder of a finished run.
      a: index of the first test example, from 0; for a run on texts the first text itself.
      b: index of the second test example, or the second text.
      steps: number of points of a path, including both ends.
      member: index of one of the run's seeds, from 0.
      data_dir: folder of prepared data sets; that of tensorflow-datasets by default.
      manual_dir: folder with a data set's raw files; then nothing is downloaded.
      own: trusts the run: follows the paths in its config.json, and prepares missing data.
    """
    if steps < 2:
        raise UserError(f"--steps is {steps}: give 2 or more, since a path includes both ends")
    model, variables, _ = ae.load(run_dir, seed=member)
    if texts.coding(model) is not None:
        _between_texts(run_dir, model, variables, (a, b), steps)
        return
    test = recorded_data(run_dir, data_dir, manual_dir, own)[2]
    for word in (a, b):
        if not word.isdecimal() or int(word) >= len(test):
            raise UserError(
                f"there is no test example {word}: give two numbers from 0 to {len(test) - 1}"
            )
    first, second = int(a), int(b)
    batch = next(test.take(max(first, second) + 1).batches(max(first, second) + 1))
    ends = jax.tree.map(lambda leaf: leaf[jnp.asarray([first, second])], batch)

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
        codes = bound.encode(ends)
        latents = both(codes[0], codes[1], steps)
        return bound.mean(bound.decode(bound.lift(latents), None))

    decoded = np.asarray(jax.jit(paths)(variables))
    rows = decoded.reshape(2, steps, *decoded.shape[1:])
    if not picture.drawable(decoded):
        raise UserError(f"the examples of {run_dir} cannot be drawn: choose a run on images")
    say(f"picture: {_draw(run_dir, (first, second), np.asarray(ends.target), rows)}")


def _between_texts(
    run_dir: pathlib.Path, model: Any, variables: Variables, ends: tuple[str, str], steps: int
) -> None:
    """Prints and writes the texts on the two paths between two texts."""
    rows: Any = encode(texts.coding(model), ends, model.likelihood.length, "cut")
    codes = jnp.asarray(evaluation.latents(model, variables, rows))
    found = texts.decoded(model, variables, np.asarray(both(codes[0], codes[1], steps)))
    lines = [f"from: {ends[0]}", f"to:   {ends[1]}"]
    ways = {"straight": found[:steps], "spherical": found[steps:]}
    for name, way in ways.items():
        lines += ["", f"{name}:", *(f"  {text}" for text in way)]
    says = f"The texts on the lines between the codes of “{ends[0]}” and “{ends[1]}”."
    section = texts.table("A path", says, tuple(ways), list(ways.values()))
    page = texts.write_page(run_dir, "interpolation", [section])
    path = subfolder(run_dir, "figures") / "interpolation.txt"
    write_bytes(path, "".join(f"{line}\n" for line in lines).encode())
    say("\n".join([*lines, f"texts: {path}", f"page: {page}"]))


def both(first: Array, last: Array, steps: int) -> Array:
    """Returns the points of the straight and of the spherical path, f32[2 steps, L]."""
    share = jnp.linspace(0.0, 1.0, steps)
    return jnp.concatenate([linear(first, last, share), spherical(first, last, share)])


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
