"""Report sections on a set of pictures: extremes, suspects of wrong labels, pairs, clusters."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from aejax.evaluation.curation import Pairs
from aejax.report.drawing.grids import image_grid
from aejax.report.drawing.pictures import in_colour, signed
from aejax.report.page import Picture, Section, Table

ROW = 12  # pictures in a row
CLUSTERS, MEMBERS = 12, 8  # clusters that are shown, and pictures of each
PAIRS = 24  # pairs of near duplicates that are shown


def extremes_section(pictures: np.ndarray, rarity: np.ndarray, order: np.ndarray) -> Section:
    """Builds the section with the rarest and the most typical pictures.

    Args:
      pictures: f[N, H, W, C] in [0, 1].
      rarity: f[N], how rare each picture is, such as -ELBO in nats.
      order: i[N], the indices of the pictures by increasing rarity.
    """
    typical, rare = order[: 2 * ROW], order[::-1][: 2 * ROW]
    figures = []
    for name, chosen in (("rarest", rare), ("typical", typical)):
        low, high = rarity[chosen].min(), rarity[chosen].max()
        caption = f"{2 * ROW} pictures, {low:.4g} to {high:.4g} nats"
        figures.append(_grid(name, f"The {_most(name)}: {caption}.", pictures[chosen]))
    text = (
        "Rarity is the negative ELBO of the variational autoencoder, in nats: how long the "
        "description of a picture is. Plain pictures are typical, and pictures with unusual forms "
        "or much detail are rare."
    )
    return Section("Rarest and most typical", text, figures)


def _most(name: str) -> str:
    return "rarest" if name == "rarest" else "most typical"


def suspects_section(pictures: np.ndarray, said: Sequence[str]) -> Section:
    """Builds the section with the labels that are most probably wrong.

    Args:
      pictures: f[n, H, W, C] in [0, 1].
      said: for each, its label and the label that its neighbours suggest, on two lines.
    """
    text = (
        "Most of the neighbours of these pictures, by the means of the variational autoencoder, "
        "have another label. The table has the given label and that of the neighbours."
    )
    rows = [(i + 1, *words.split("\n")) for i, words in enumerate(said)]
    half = -(-len(rows) // 2)
    joined = [
        (*rows[i], *(rows[i + half] if i + half < len(rows) else ("", "", ""))) for i in range(half)
    ]
    header = ("picture", "label", "suggested", "picture", "label", "suggested")
    figure = _grid("suspects", "The first suspects, row by row.", pictures)
    return Section("Suspects of wrong labels", text, [figure], Table(header, joined))


def pairs_section(pictures: np.ndarray, pairs: Pairs, across: np.ndarray) -> Section:
    """Builds the section with near duplicates.

    Args:
      pictures: f[N, H, W, C] in [0, 1].
      pairs: the pairs.
      across: bool[P], whether the pictures of a pair belong to different splits.
    """
    figures = []
    for name, what, chosen in (
        ("leaks", "between splits: a model is tested on what it was trained on", across),
        ("duplicates", "within a split", ~across),
    ):
        rows = np.flatnonzero(chosen)[:PAIRS]
        if len(rows):
            both = np.stack([pictures[pairs.first[rows]], pictures[pairs.second[rows]]])
            for start in range(0, len(rows), ROW):
                part = in_colour(both[:, start : start + ROW])
                draw = functools.partial(image_grid, part, tile=56)
                said = f"Pairs {what}." if start == 0 else ""
                figures.append(Picture(f"{name}-{start // ROW}", said, draw))
    text = (
        f"{len(across)} pairs are equal but for a small shift, brightness and contrast; in "
        f"{int(across.sum())} of them the pictures belong to different splits. Each column is a "
        "pair."
    )
    return Section("Near duplicates", text, figures)


def clusters_section(
    pictures: np.ndarray, atoms: np.ndarray, groups: np.ndarray, active: np.ndarray
) -> Section:
    """Builds the section with the largest clusters, each with its atom and strongest pictures.

    Args:
      pictures: f[N, H, W, C] in [0, 1].
      atoms: f[m, H, W, C], the rows of the dictionary.
      groups: i[N], the dominant latent of each picture, or -1.
      active: f[N, m], the activations.
    """
    sizes = np.bincount(groups[groups >= 0], minlength=len(atoms))
    largest = np.argsort(-sizes, kind="stable")[:CLUSTERS]
    largest = largest[sizes[largest] > 0]
    rows, labels = [], []
    for latent in largest:
        members = np.flatnonzero(groups == latent)
        members = members[np.argsort(-active[members, latent], kind="stable")][:MEMBERS]
        shown = np.full((MEMBERS, *pictures.shape[1:3], 3), np.nan)
        shown[: len(members)] = in_colour(pictures[members])
        rows.append(np.concatenate([signed(atoms[latent][None]), shown]))
        labels.append(f"{latent}: {sizes[latent]}")
    draw = functools.partial(image_grid, np.stack(rows), labels, ("atom",), gap_after=(0,), tile=56)
    caption = (
        "Each row is a latent: its number and how many pictures it dominates, its atom (orange "
        "adds brightness, blue removes it), and the pictures that activate it most."
    )
    text = (
        "A picture belongs to the latent of the sparse autoencoder that is strongest in it, "
        f"relative to the latent's mean. The {len(largest)} largest clusters are shown."
    )
    return Section("Clusters by dominant latent", text, [Picture("clusters", caption, draw)])


def _grid(name: str, caption: str, pictures: np.ndarray) -> Picture:
    """Returns a grid of pictures f[n, H, W, C] in rows of ROW as a `Picture` of the page."""
    blank = np.full((-len(pictures) % ROW, *pictures.shape[1:3], 3), np.nan)
    rows = np.concatenate([in_colour(pictures), blank])
    rows = rows.reshape(-1, ROW, *rows.shape[1:])
    return Picture(name, caption, functools.partial(image_grid, rows, tile=56))
