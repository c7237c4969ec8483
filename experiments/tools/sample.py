"""Draws samples from the prior of a finished run; the encoder is not loaded.

    python -m experiments sample runs/digits-vae --count 64
    python -m experiments sample RUN --context 0 0 0 1 0 0 0 0 0 0   # given the label 3 of ten
    python -m experiments sample runs/prompt-vae --prompt bank --count 10   # answers to a prompt

It writes samples.npy, f32[count, *event] with the means of the likelihood, and for images also
figures/samples-COUNT.png. From a run on texts it prints the texts, and writes samples.txt and the
page samples.html.
"""

from __future__ import annotations

import io
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import aejax as ae
from aejax.data.text.tokens import prompts
from aejax.errors import UserError
from aejax.files import write_bytes
from aejax.memory import check_memory, size_of
from aejax.types import Array, Key, Variables
from experiments.shared import texts
from experiments.shared.place import say
from experiments.tools import picture

# The modules of a model that sampling needs; a bottleneck may hold a codebook.
GENERATING = ("bottleneck", "decoder", "prior", "likelihood")


def command(
    run_dir: pathlib.Path,
    count: int = 64,
    member: int = 0,
    seed: int = 0,
    context: tuple[float, ...] = (),
    prompt: str | None = None,
) -> None:
    """Draws samples from a trained model; writes samples.npy and a picture to the run's folder.

    Args:
      run_dir: folder of a finished run.
      count: number of samples.
      member: index of one of the run's seeds, from 0.
      seed: seed of the draws.
      context: numbers that condition all samples, such as a one-hot label; only for a model that
        was trained with a context.
      prompt: a text that all samples answer; only for a model of prompts and answers.
    """
    if count < 1:
        raise UserError(f"--count is {count}: give 1 or more")
    if seed < 0:
        raise UserError(f"--seed is {seed}: give 0 or more")
    model, variables, _ = ae.load(run_dir, seed=member, parts=GENERATING)
    if texts.coding(model) is not None:
        given: Any = np.asarray(context, np.float32) if context else None
        given = given if prompt is None else prompts([prompt])[0]
        found = texts.samples(model, variables, jax.random.key(seed), count, given)
        write_bytes(run_dir / "samples.txt", "".join(f"{text}\n" for text in found).encode())
        told = "" if prompt is None else f"They answer “{prompt}”."
        page = texts.table("Samples", told, ("text",), [found])
        say("\n".join([*found, f"{count} samples: {texts.write_page(run_dir, 'samples', [page])}"]))
        return
    if prompt is not None:
        raise UserError(f"{run_dir} holds no model of texts: leave out --prompt")
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
    """Draws latents from the prior and returns the means that they decode to, f32[count, *event].

    Args:
      model: a model with a prior.
      variables: the variables of one trained model.
      key: the key of the draws.
      count: the number of samples.
      context: the context of all samples; () for none.

    Raises:
      UserError: if the model was trained with a context of another size.
    """

    def means(module: ae.Autoencoder, count: int = count) -> Array:
        given = jnp.tile(jnp.asarray(context, jnp.float32), (count, 1)) if context else None
        return module.mean(module.sample(key, count, given))

    one = jax.eval_shape(lambda variables: means(model.bind(variables), 1), variables)
    check_memory(count * size_of(one), f"a batch of {count} samples", "lower --count")
    return np.asarray(jax.jit(lambda variables: means(model.bind(variables)))(variables))
