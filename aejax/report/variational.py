"""The report sections on a model with a prior, compared with an autoencoder without one."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np

from aejax.data import Split
from aejax.evaluation import decoding
from aejax.evaluation.examples import chosen, nearest, varied
from aejax.events import joined
from aejax.report.drawing import plots
from aejax.report.drawing.pictures import Look, look
from aejax.report.latents import latents, slug
from aejax.report.page import Picture, Section
from aejax.types import Batch, Key, Variables

RANGE = 2.5  # traversals vary a latent from -RANGE to RANGE
Model = tuple[Any, Variables]  # a model and its variables, without a leading axis of seeds


def variational_sections(
    model: Any,
    variables: Variables,
    splits: tuple[Split, Split, Split],
    key: Key,
    plain: Model | None = None,
) -> list[Section]:
    """Builds the sections on a variational autoencoder: samples, reconstructions, latents.

    Args:
      model: an `Autoencoder`. Without a prior, its samples come from a Gaussian fitted to its
        codes.
      variables: the variables of one model, without a leading axis of seeds.
      splits: the train, validation and test splits.
      key: the random key of the samples.
      plain: an autoencoder without a prior and its variables, which is shown for comparison.

    Returns:
      The sections. Those with images are left out if examples cannot be drawn, and those on latent
      vectors if the latent is not a vector.
    """
    train, _, test = splits
    shown, seen = examples(test)
    vector = _is_vector(model, variables, shown)
    codes = decoding.encode(model, variables, test) if vector else None
    sections = []
    if seen.drawable:
        key_own, key_plain = jax.random.split(key)
        models: dict[str, Model] = {_name(model): (model, variables)}
        if plain is not None:
            models["plain autoencoder"] = plain
        draws = {
            name: _draws(*each, train, shown, key)
            for (name, each), key in zip(models.items(), (key_own, key_plain), strict=False)
            if each[0].prior is not None or _is_vector(*each, shown)
        }
        if draws:
            sections += [_samples(draws, models, seen), _nearest(draws, train, seen)]
        sections.append(reconstructions(models, shown, seen))
        sections.append(_interpolations(model, variables, test, seen))
        if codes is not None:
            sections.append(_traversals(model, variables, codes, shown, seen))
    if codes is not None:
        both = {_name(model): codes}
        if plain is not None and _is_vector(*plain, shown):
            both["plain autoencoder"] = decoding.encode(*plain, test)
        sections.append(latents(both, test))
    return sections


def examples(test: Split) -> tuple[Batch, Look]:
    """Returns the test examples that a report shows, from all classes, and how to draw them."""
    some = chosen(test, varied(test.labels, 14, len(test)))
    seen = look(np.asarray(some.target))
    if seen.strips:
        some = jax.tree.map(lambda a: a[:4], some)
    return some, seen


def _is_vector(model: Any, variables: Variables, batch: Batch) -> bool:
    """Returns whether an example's latent is a vector of floats, or a tuple of such vectors."""
    shape = jax.eval_shape(lambda v, b: model.apply(v, b, method="encode"), variables, batch)
    levels = shape if isinstance(shape, tuple) else (shape,)
    return all(
        isinstance(level, jax.ShapeDtypeStruct)
        and level.ndim == 2
        and np.issubdtype(level.dtype, np.floating)
        for level in levels
    )


def _name(model: Any) -> str:
    return "autoencoder" if model.prior is None else "VAE"


def _draws(
    model: Any, variables: Variables, train: Split, shown: Batch, key: Key, n: int = 64
) -> np.ndarray:
    """Draws n samples f[n, *event] from the prior, or from a Gaussian fitted to training codes."""
    context = jax.tree.map(lambda a: a[np.arange(n) % len(a)], shown.context)
    return decoding.generated(model, variables, train, key, n, context)


def _samples(draws: dict[str, np.ndarray], models: dict[str, Model], seen: Look) -> Section:
    columns = 4 if seen.strips else 8
    pictures = []
    for name, values in draws.items():
        if models[name][0].prior is not None:
            how = "latents are drawn from the prior and decoded; the encoder is not used."
        else:
            how = (
                "latents are drawn from a Gaussian fitted to its training codes, since it has no "
                "prior."
            )
        grid = _grid(seen.pictures(values), columns)
        title = f"{name[0].upper()}{name[1:]}"
        pictures.append(
            Picture(
                f"samples-{slug(name)}",
                f"{title}: {how}",
                partial(plots.image_grid, images=grid, tile=48),
            )
        )
    text = (
        "None of these pictures is from the data. Each is the mean of the likelihood for a random "
        "latent. Good samples are sharp and varied, and there are some of every class."
    )
    return Section("Samples", text, pictures)


def _nearest(draws: dict[str, np.ndarray], train: Split, seen: Look) -> Section:
    pictures, n = [], 4 if seen.strips else 12
    for name, values in draws.items():
        found = nearest(values[:n], train)
        grid = np.stack([seen.pictures(values[:n]), seen.pictures(found.images)])
        distances = [f"{distance:.2f}" for distance in found.distance]
        pictures.append(
            Picture(
                f"nearest-{slug(name)}",
                f"Samples of the {name} (above), the nearest training example of each (below), and "
                "the L2 distance between the two.",
                partial(
                    plots.image_grid,
                    images=grid,
                    row_labels=("sample", "nearest"),
                    column_labels=distances,
                ),
            )
        )
    text = (
        "A model that has memorised its training data shows the same picture twice, at distance 0. "
        f"All {len(train):,} training examples were compared."
    )
    return Section("Nearest training examples", text, pictures)


def reconstructions(models: dict[str, Model], shown: Batch, seen: Look) -> Section:
    """Builds the section that shows test examples and each model's reconstructions below them."""
    rows = [seen.pictures(np.asarray(shown.target))]
    rows += [seen.pictures(decoding.reconstruct(*each, shown)) for each in models.values()]
    labels = ["input", *(name.replace(" ", "\n") for name in models)]
    picture = Picture(
        "reconstructions",
        "Test examples are in the first row, and their noiseless reconstructions are below.",
        partial(plots.image_grid, images=np.stack(rows), row_labels=labels, tile=56),
    )
    text = "Reconstructions show what passes the bottleneck: the decoder sees only the code."
    return Section("Reconstructions", text, [picture])


def _interpolations(model: Any, variables: Variables, test: Split, seen: Look) -> Section:
    pairs, steps = (3, 5) if seen.strips else (6, 11)
    ends = varied(test.labels, 2 * pairs, len(test))
    pairs = len(ends) // 2
    start, end = chosen(test, ends[:pairs]), chosen(test, ends[pairs : 2 * pairs])
    path = decoding.interpolate(model, variables, start, end, steps)
    inputs = [seen.pictures(np.asarray(batch.target))[:, None] for batch in (start, end)]
    grid = np.concatenate([inputs[0], seen.pictures(path), inputs[1]], axis=1)
    labels = ["A", *(f"{t:.1f}" for t in np.linspace(0, 1, steps)), "B"]
    picture = Picture(
        "interpolation",
        "Each row leads from a test example A to another one, B. Between them are decoded points "
        "(1 − t) a + t b of the straight line between their codes a and b, with t above.",
        partial(plots.image_grid, images=grid, column_labels=labels, gap_after=(0, steps)),
    )
    text = (
        "If all pictures of a path are plausible, the latent space has no holes between examples; "
        "if they are cross-fades of two pictures, it has."
    )
    return Section("Interpolation", text, [picture])


def _traversals(
    model: Any, variables: Variables, codes: decoding.Latents, shown: Batch, seen: Look
) -> Section:
    order = np.argsort(-codes.activity, kind="stable")[:8]
    values = np.linspace(-RANGE, RANGE, 5 if seen.strips else 11, dtype=np.float32)
    labels, where = [f"{v:+.1f}".replace("-", "−") if v else "0" for v in values], values
    unit = "from −2.5 to +2.5"
    if not codes.nats:
        # Without a KL the latents do not follow a standard normal prior, so that the range of a
        # traversal depends on their mean and standard deviation over the examples.
        centre, scale = codes.mean.mean(axis=0)[order], codes.mean.std(axis=0)[order]
        where = centre[:, None] + scale[:, None] * values
        unit = "from −2.5 to +2.5 standard deviations about its mean"
    context = jax.tree.map(lambda a: a[:1], shown.context)
    latent = np.asarray(joined(decoding.latent(model, variables, shown)))[0]
    grid = seen.pictures(decoding.traverse(model, variables, latent, order, where, context))
    names = [
        f"z[{i}]\n{codes.activity[i]:.2f} nats"
        if codes.nats
        else f"z[{i}]\nvar {codes.activity[i]:.2g}"
        for i in order
    ]
    measure = "KL from the prior" if codes.nats else "variance"
    picture = Picture(
        "traversals",
        f"Each row moves one latent {unit}; the others stay at the code of the first test example "
        f"shown above. The most active latents come first, by their {measure} over "
        f"{len(codes.mean):,} test examples.",
        partial(plots.image_grid, images=grid, row_labels=names, column_labels=labels),
    )
    if not isinstance(model.bottleneck.shape[0], int):
        picture = picture._replace(
            caption=f"{picture.caption} The latents of the levels are counted from the top down; "
            "lower levels stay as they are when a higher one moves."
        )
    pictures = [picture]
    if codes.mean.shape[1] == 2 and model.prior is not None:
        pictures.append(_map(model, variables, context, seen))
    return Section("Traversals", "What each latent controls in the picture.", pictures)


def reconstructions_section(models: dict[str, Model], test: Split) -> Section:
    """Builds the section that shows test examples and several models' reconstructions below them.

    Args:
      models: name -> a model and its variables, without a leading axis of seeds.
      test: the test split, of images.
    """
    return reconstructions(models, *examples(test))


def traversals_section(models: dict[str, Model], test: Split) -> Section:
    """Builds the section that shows for each model how its latents change the decoded picture.

    Args:
      models: name -> a model with a prior, whose code is a vector, and its variables, without a
        leading axis of seeds.
      test: the test split, of images; all traversals start from the code of its first example.
    """
    shown, seen = examples(test)
    pictures = []
    for name, (model, variables) in models.items():
        codes = decoding.encode(model, variables, test)
        (picture, *_) = _traversals(model, variables, codes, shown, seen).figures
        caption = f"{name}. {picture.caption}" if not pictures else f"{name}, in the same way."
        pictures.append(picture._replace(name=f"traversals-{slug(name)}", caption=caption))
    return Section("Traversals", "What each latent controls in the picture.", pictures)


def _map(model: Any, variables: Variables, context: Any, seen: Look, side: int = 15) -> Picture:
    """Returns a picture of what a model with two latents decodes on a grid of their values."""
    line = np.linspace(-RANGE, RANGE, side, dtype=np.float32)
    # The first latent increases to the right, and the second upwards, as in the plot of the codes.
    plane = np.stack(np.meshgrid(line, line[::-1]), axis=-1).reshape(-1, 2)
    repeated = jax.tree.map(lambda a: np.repeat(a, side * side, axis=0), context)
    means = seen.pictures(decoding.decode(model, variables, plane, repeated))
    return Picture(
        "plane",
        "Decoded points of the latent plane: z[0] goes from −2.5 at the left to +2.5 at the right, "
        "z[1] from −2.5 at the bottom to +2.5 at the top.",
        partial(plots.image_grid, images=_grid(means, side), tile=36),
    )


def _grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Arranges images [N, H, W, C] in R full rows, [R, columns, H, W, C]; the rest is omitted."""
    return images[: len(images) // columns * columns].reshape(-1, columns, *images.shape[1:])
