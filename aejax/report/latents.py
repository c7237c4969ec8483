"""The latent space as pictures: where examples lie in it, and what each latent carries."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from aejax.data import Split
from aejax.evaluation.decoding import Latents
from aejax.evaluation.principal import plane
from aejax.report.drawing import plots
from aejax.report.page import Picture, Section

ACTIVE = 0.01  # variance of the mean, from which on a latent is active (Burda et al. 2016)


def latents(models: Mapping[str, Latents], test: Split) -> Section:
    """The codes of each model in the plane, and the KL of each latent where there is one.

    Args:
      models: name -> its codes of test examples.
      test: the split that they came from, which names the classes.
    """
    pictures = [_plane(name, codes, test.classes) for name, codes in models.items()]
    pictures += [_activity(name, codes) for name, codes in models.items() if codes.nats]
    text = "Where examples lie among their codes, and how much each latent says of them."
    return Section("The latent space", text, pictures)


def _activity(name: str, codes: Latents) -> Picture:
    """The KL of each latent as bars."""
    active = codes.mean.var(axis=0) > ACTIVE
    order = np.argsort(-codes.activity, kind="stable")
    rest = "" if active.all() else "; grey ones follow the prior and carry nothing"
    return Picture(
        f"activity-{slug(name)}",
        f"What each latent of the {name} tells of {len(codes.mean):,} test examples. "
        f"{active.sum()} of {active.size} are active (blue: the variance of their mean over these "
        f"examples exceeds {ACTIVE}){rest}.",
        partial(
            plots.bars,
            values=codes.activity[order],
            marked=active[order],
            name="KL per latent, nats",
            axis_name="latents, most active first",
        ),
    )


def _plane(name: str, codes: Latents, classes: tuple[str, ...]) -> Picture:
    """The picture of the codes in two dimensions."""
    size = codes.mean.shape[1]
    noise = np.random.default_rng(0).uniform(-0.35, 0.35, len(codes.mean))
    if size == 1:
        height = noise + (codes.labels if codes.labels is not None else 0)
        points, axes = np.stack([codes.mean[:, 0], height], axis=1), ("z[0]", "class, spread out")
        how = "their one latent across, their class upwards"
    elif size == 2:
        points, axes, how = codes.mean, ("z[0]", "z[1]"), "their two latents, as they are"
    else:
        flat = plane(codes.mean)
        points, axes = flat.points, ("first principal component", "second principal component")
        how = (
            f"the two principal components of their {size} latents, which keep "
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
    """A name as a part of a file's name."""
    return name.lower().replace(" ", "-")
