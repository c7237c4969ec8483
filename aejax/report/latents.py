"""Plots of the latent space: the codes of examples, and the KL of each latent."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from aejax.data import Split
from aejax.evaluation.decoding import Latents
from aejax.evaluation.principal import plane
from aejax.report.drawing import plots
from aejax.report.page import Picture, Section

# A latent is active if the variance of its posterior mean exceeds this (Burda et al. 2016).
ACTIVE = 0.01


def latents(models: Mapping[str, Latents], test: Split) -> Section:
    """Builds the section on the latent space: codes as points in a plane, and each latent's KL.

    Args:
      models: name of a model -> its codes of test examples. Models without a KL have no KL plot.
      test: the test split, which has the names of the classes.
    """
    pictures = [_plane(name, codes, test.classes) for name, codes in models.items()]
    pictures += [_activity(name, codes) for name, codes in models.items() if codes.nats]
    text = "Where the codes of test examples lie, and how much each latent encodes."
    return Section("The latent space", text, pictures)


def _activity(name: str, codes: Latents) -> Picture:
    """Returns a picture with a bar for each latent, its mean KL over test examples.

    Args:
      name: the name of the model.
      codes: the codes of test examples, and each latent's KL.
    """
    active = codes.mean.var(axis=0) > ACTIVE
    order = np.argsort(-codes.activity, kind="stable")
    rest = "" if active.all() else "; grey latents follow the prior and carry no information"
    return Picture(
        f"activity-{slug(name)}",
        f"The mean KL of each latent of the {name} over {len(codes.mean):,} test examples. "
        f"{active.sum()} of {active.size} are active (blue: the variance of their posterior mean "
        f"over these examples exceeds {ACTIVE}){rest}.",
        partial(
            plots.bars,
            values=codes.activity[order],
            marked=active[order],
            name="KL per latent, nats",
            axis_name="latents, most active first",
        ),
    )


def _plane(name: str, codes: Latents, classes: tuple[str, ...]) -> Picture:
    """Returns a picture of a model's codes of test examples as points in a plane.

    The axes are the two latents or, if there are more, the first two principal components.
    """
    size = codes.mean.shape[1]
    noise = np.random.default_rng(0).uniform(-0.35, 0.35, len(codes.mean))
    if size == 1:
        height = noise + (codes.labels if codes.labels is not None else 0)
        points, axes = np.stack([codes.mean[:, 0], height], axis=1), ("z[0]", "class, spread out")
        how = "their one latent from left to right, their class from bottom to top"
    elif size == 2:
        points, axes, how = codes.mean, ("z[0]", "z[1]"), "their two latents"
    else:
        flat = plane(codes.mean)
        points, axes = flat.points, ("first principal component", "second principal component")
        how = (
            f"the first two principal components of their {size} latents, which keep "
            f"{100 * flat.share:.0f} % of the variance"
        )
    coloured = ", coloured by label" if codes.labels is not None else ""
    return Picture(
        f"latents-{slug(name)}",
        f"The codes of {len(points):,} test examples under the {name}{coloured}: {how}."
        + (" The labels were not used in training." if coloured else ""),
        partial(
            plots.scatter,
            points=points,
            labels=codes.labels,
            classes=classes,
            axis_names=axes,
            equal=size > 1,
        ),
    )


def slug(name: str) -> str:
    """Converts a model's name for use in a file name: lower case, with hyphens for spaces."""
    return name.lower().replace(" ", "-")
