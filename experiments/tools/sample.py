"""Draws from the prior of a finished run; restores prior and decoder alone.

    python -m experiments sample runs/digits-vae --count 64
    python -m experiments sample RUN --context 0 0 0 1 0 0 0 0 0 0   # given the label 3 of ten

Writes figures/samples-COUNT.png and samples.npy (f32[count, *event], the decoder's means).
"""

from __future__ import annotations

import io
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import ScopeParamShapeError

import aejax as ae
from aejax.errors import UserError
from aejax.files import write_bytes
from aejax.types import Array, Key, Variables
from experiments.shared.place import say
from experiments.tools import picture

GENERATING = ("decoder", "prior", "likelihood")  # what generation needs: no encoder


def command(
    run_dir: pathlib.Path,
    count: int = 64,
    member: int = 0,
    seed: int = 0,
    context: tuple[float, ...] = (),
) -> None:
    """Draws samples.

    Args:
      run_dir: folder of a finished run.
      count: how many.
      member: which of the run's seeds, from 0.
      seed: of the draws.
      context: what the model is given beside each draw, such as a label as ones and zeros; for a
        model that was trained with a context.
    """
    if count < 1:
        raise UserError(f"--count is {count}: give 1 or more")
    if seed < 0:
        raise UserError(f"--seed is {seed}: give 0 or more")
    model, variables, _ = ae.load(run_dir, seed=member, parts=GENERATING)
    samples = draw(model, variables, jax.random.key(seed), count, context)
    buffer = io.BytesIO()
    np.save(buffer, samples, allow_pickle=False)
    write_bytes(run_dir / "samples.npy", buffer.getvalue())
    say(f"{count} samples: {run_dir / 'samples.npy'}")
    if picture.drawable(samples):
        columns = max(1, round(count**0.5))
        blank = np.full((-count % columns, *samples.shape[1:]), np.nan, samples.dtype)
        rows = np.concatenate([samples, blank]).reshape(-1, columns, *samples.shape[1:])
        say(f"picture: {picture.save(run_dir, f'samples-{count}', rows)}")


def draw(
    model: ae.Autoencoder,
    variables: Variables,
    key: Key,
    count: int,
    context: Sequence[float] = (),
) -> np.ndarray:
    """Means that the decoder gives to draws from the prior, f32[count, *event].

    Args:
      model: with a prior.
      variables: of one member.
      key: of the draws.
      count: how many.
      context: the same for all of them; () for none.

    Raises:
      UserError: if the model was trained with another context.
    """
    given = jnp.asarray([context] * count, jnp.float32) if context else None

    def means(module: ae.Autoencoder) -> Array:
        return module.mean(module.sample(key, count, given))

    try:
        return np.asarray(jax.jit(lambda variables: means(model.bind(variables)))(variables))
    except ScopeParamShapeError as error:
        raise UserError(
            f"the model was trained with a context of another size than {len(context)} numbers: "
            f"give --context as many as it knows ({error})"
        ) from error
