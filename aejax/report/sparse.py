"""The report sections on a sparse autoencoder: its dictionary, and what activates its units."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from aejax.data import Split
from aejax.dictionaries.folding import raw_atoms
from aejax.evaluation.examples import chosen, undrawn
from aejax.evaluation.units import TopExamples, agreement, most_telling, most_used, top_examples
from aejax.report.drawing import plots
from aejax.report.drawing.pictures import Look, shaped, signed
from aejax.report.page import Picture, Section
from aejax.report.results import spoken
from aejax.report.variational import Model, examples, reconstructions
from aejax.types import Key, Variables

EXAMPLES = 12  # the number of strongest examples shown next to each unit


def sparse_sections(
    model: Any,
    variables: Variables,
    splits: tuple[Split, Split, Split],
    key: Key | None = None,
    plain: Model | None = None,
) -> list[Section]:
    """Builds the sections on a sparse autoencoder: reconstructions, atoms, units, sparsity.

    Args:
      model: an `Autoencoder` with a sparse bottleneck and a `Dictionary` as its decoder.
      variables: the variables of one model, without a leading axis of seeds.
      splits: the train, validation and test splits; each unit is shown with the examples that
        activate it most among the first 10,000 training examples.
      key: not used, because nothing here is random.
      plain: another autoencoder and its variables, whose reconstructions are shown for comparison.

    Returns:
      The sections; those with images are left out if examples cannot be drawn as images.

    Raises:
      UserError: if the decoder has no dictionary.
    """
    train, _, test = splits
    found = top_examples(model, variables, train)
    atoms = raw_atoms(variables)
    shown, seen = examples(test)
    sections = []
    if seen.drawable:
        models = {"sparse": (model, variables)} | ({"plain": plain} if plain else {})
        sections.append(reconstructions(models, shown, seen))
        sections.append(_dictionary(atoms, found, seen))
        sections.append(_meaning(atoms, found, train, seen))
    sections.append(_activity(found))
    return sections


def atoms_section(
    models: Mapping[str, Variables], frequencies: Mapping[str, np.ndarray], split: Split
) -> list[Section]:
    """Builds the section that shows the most used atoms of several dictionaries, one row for each.

    Args:
      models: label -> the variables of one model, without a leading axis of seeds.
      frequencies: label -> f[m], the firing frequency of each latent, in [0, 1].
      split: a split of the data; an atom is drawn as an image of the shape of its examples.

    Returns:
      One section, or none if examples cannot be drawn as images.
    """
    _, seen = examples(split)
    if not seen.drawable:
        return []
    columns = 4 if seen.strips else 14
    rows = []
    for label, variables in models.items():
        frequency = frequencies[label]
        order = np.argsort(-frequency, kind="stable")[:columns]
        order = order[frequency[order] > 0]
        drawn = signed(shaped(raw_atoms(variables)[order].reshape(-1, *seen.event), seen.event))
        row = np.full((columns, *drawn.shape[1:]), np.nan, np.float32)
        row[: len(order)] = drawn
        rows.append(row)
    picture = Picture(
        "atoms-of-codes",
        "The most used atoms of each code, from left to right. Orange adds to a pixel, blue "
        "subtracts from it, grey leaves it unchanged. Each atom has its own scale.",
        partial(
            plots.image_grid,
            images=np.stack(rows),
            row_labels=[spoken(label) for label in models],
            tile=46,
        ),
    )
    return [Section("What the codes' atoms look like", "", [picture])]


def _dictionary(atoms: np.ndarray, found: TopExamples, seen: Look) -> Section:
    columns = 4 if seen.strips else 16
    order = most_used(found, 6 * columns)
    rows = -(-len(order) // columns)
    drawn = signed(shaped(atoms[order].reshape(-1, *seen.event), seen.event))
    grid = np.full((rows * columns, *drawn.shape[1:]), np.nan, np.float32)
    grid[: len(order)] = drawn
    picture = Picture(
        "atoms",
        f"The {len(order)} most used atoms, from left to right and top to bottom. Orange adds to a "
        "pixel, blue subtracts from it, grey leaves it unchanged. Each atom has its own scale.",
        partial(plots.image_grid, images=grid.reshape(rows, columns, *drawn.shape[1:]), tile=48),
    )
    text = "Each reconstruction is a weighted sum of a few atoms, which are rows of the dictionary."
    return Section("The dictionary", text, [picture])


def _meaning(atoms: np.ndarray, found: TopExamples, train: Split, seen: Look) -> Section:
    pictures = [
        _units(
            "units-most-used",
            "The most used units. Each row shows the unit's atom, then the training examples that "
            "activate it most, the strongest first. At the left are the unit's number and the "
            "share of examples for which it is active.",
            most_used(found, 8),
            [],
            atoms,
            found,
            train,
            seen,
        )
    ]
    labels = _labels(train, found)
    if labels is not None:
        entropy = agreement(found, labels).entropy
        order = most_telling(found, labels, 8)
        notes = [_majority(labels[found.top[i]], float(entropy[i]), train.classes) for i in order]
        if len(order):
            pictures.append(
                _units(
                    "units-most-telling",
                    "The units whose 20 strongest examples agree most on a label. At the left are "
                    "the unit's number, that label and the entropy of the 20 labels (0 nats if all "
                    "agree).",
                    order,
                    notes,
                    atoms,
                    found,
                    train,
                    seen,
                )
            )
    text = (
        "A unit can be interpreted if the examples that activate it most have something in common."
    )
    return Section("What the units stand for", text, pictures)


def _units(
    name: str,
    caption: str,
    order: np.ndarray,
    notes: list[str],
    atoms: np.ndarray,
    found: TopExamples,
    train: Split,
    seen: Look,
) -> Picture:
    """Returns a picture with a row for each unit: its atom, then its strongest examples.

    Args:
      name: the picture's name.
      caption: the text below the picture.
      order: the indices of the units to show, from the first row on.
      notes: the label of each row.
      atoms: the atoms of all units.
      found: the strongest examples of all units.
      train: the split that holds the examples.
      seen: how examples are drawn.
    """
    count = EXAMPLES if not seen.strips else 3
    top, strength = found.top[order, :count], found.strength[order, :count]
    count = top.shape[1]
    batch = chosen(undrawn(train), top.ravel())
    examples = seen.pictures(np.asarray(batch.target))
    examples = np.repeat(examples, 3, axis=-1) if examples.shape[-1] == 1 else examples
    examples = examples.reshape(len(order), count, *examples.shape[1:]).astype(np.float32)
    examples[strength <= 0] = np.nan
    drawn = signed(shaped(atoms[order].reshape(-1, *seen.event), seen.event))
    grid = np.concatenate([drawn[:, None], examples], axis=1)
    notes = notes or [f"{100 * found.frequency[i]:.1f} %" for i in order]
    labels = [f"unit {i}\n{note}" for i, note in zip(order, notes, strict=True)]
    draw = partial(plots.image_grid, images=grid, row_labels=labels, gap_after=(0,), tile=50)
    return Picture(name, caption, draw)


def _labels(train: Split, found: TopExamples) -> np.ndarray | None:
    labels = train.labels
    return None if labels is None else labels[: len(found.l0)]


def _majority(labels: np.ndarray, entropy: float, classes: tuple[str, ...]) -> str:
    values, counts = np.unique(labels, return_counts=True)
    label = values[counts.argmax()]
    name = classes[label] if label < len(classes) else str(label)
    return f"{name}, {abs(entropy):.2f} nats"


def _activity(found: TopExamples) -> Section:
    alive = found.frequency[found.frequency > 0]
    dead = found.frequency.size - alive.size
    frequency = Picture(
        "frequency",
        f"The firing frequency of each unit: the share of the first {len(found.l0):,} train "
        f"examples for which it is active (logarithmic). {dead:,} of {found.frequency.size:,} "
        "units are dead, that is active for none of these examples, and are not shown.",
        partial(
            plots.histogram,
            values=alive,
            name="units",
            axis_name="firing frequency",
            shares=True,
        ),
    )
    l0 = Picture(
        "l0",
        "The number of active units (L0) of each of these examples; it is "
        f"{found.l0.mean():.1f} on average.",
        partial(plots.histogram, values=found.l0, name="examples", axis_name="active units, L0"),
    )
    return Section(
        "Sparsity",
        "Few units should be active for one example, and few should never be active.",
        [frequency, l0],
    )
