"""The pictures of the conditional experiment."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np

from aejax.data import changed, changes
from aejax.evaluation import decoding as gather
from aejax.report import Picture, Section
from aejax.report.drawing import plots as figures
from aejax.types import Array, Batch, Variables
from experiments.conditional import SEEN, relabel, samples
from experiments.shared.driver import Page, Splits
from experiments.shared.variational import SAMPLE_SEED

Model = tuple[Any, Variables]
NAMES = {1: "lower left", 2: "left half", 3: "all but the lower right"}


def page(title: str, text: str, models: dict[str, Model], splits: Splits) -> Page:
    """Draws of each label, labels set, pictures completed."""
    test = splits[2]
    numbers = gather.varied(test.labels, 10, len(test))
    sections = [_drawn(models["labels"]), _set(models["labels"], test, numbers)]
    pictures = [_completed(models, test, numbers, seen) for seen in SEEN]
    about = (
        "A net that predicts each pixel by itself gives the mean over all completions; a latent "
        "variable makes each draw one completion."
    )
    return Page(title, text, [*sections, Section("Quadrants", about, pictures)])


def _drawn(model: Model) -> Section:
    drawn = samples(*model, jax.random.key(SAMPLE_SEED), 14)
    picture = Picture(
        "labels",
        "Each row: draws from the prior, decoded under one label.",
        partial(figures.image_grid, images=drawn, row_labels=[str(i) for i in range(10)], tile=48),
    )
    text = "The label says which digit, the latents say how it is written."
    return Section("Draws given a label", text, [picture])


def _set(model: Model, test: Any, numbers: np.ndarray) -> Section:
    batch = gather.chosen(changed(test, changes.Labels(10)), numbers)
    turned = relabel(*model, batch)
    grid = np.concatenate([np.asarray(batch.target)[:, None], turned], axis=1)
    picture = Picture(
        "set-label",
        "Each row: a test picture, then what its code becomes under each label.",
        partial(
            figures.image_grid,
            images=grid,
            column_labels=["test", *(str(i) for i in range(10))],
            gap_after=(0,),
            tile=48,
        ),
    )
    text = "One attribute is set, the rest stays: slant and stroke are those of the first column."
    return Section("A label set, the style kept", text, [picture])


def _completed(
    models: dict[str, Model], test: Any, numbers: np.ndarray, seen: int, draws: int = 3
) -> Picture:
    batch = gather.chosen(changed(test, changes.Quadrants(seen)), numbers)
    alone = gather.chosen(changed(test, changes.Quadrants(seen), changes.ContextOnly()), numbers)
    net = gather.reconstruct(*models[f"net-{seen}"], alone)
    drawn = _completions(models[f"cvae-{seen}"], batch, draws)
    known, mask = np.asarray(batch.context), np.asarray(batch.mask)
    rows = [known + 0.25 * mask, np.asarray(batch.target)]
    rows += [known + mask * image for image in (net, *drawn)]
    labels = ["seen", "true", "net", "CVAE", *[""] * (draws - 1)]
    return Picture(
        f"quadrants-{seen}",
        f"{seen} of 4 quadrants seen ({NAMES[seen]}): what is seen, the truth, what a net "
        f"predicts, and {draws} draws of the conditional autoencoder.",
        partial(figures.image_grid, images=np.stack(rows), row_labels=labels, tile=56),
    )


def _completions(model: Model, batch: Batch, draws: int) -> np.ndarray:
    """f32[draws, B, *event], the means of draws from p(z | what is seen)."""
    count = len(batch.x)

    def run(bound: Any, key: Any, context: Array) -> Array:
        return bound.mean(bound.sample(key, count, context))

    module, variables = model
    drawn = jax.jit(lambda key: module.apply(variables, key, batch.context, method=run))
    keys = jax.random.split(jax.random.key(SAMPLE_SEED), draws)
    return np.stack([np.asarray(drawn(key)) for key in keys])
