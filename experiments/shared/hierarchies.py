"""The models of the VampPrior paper (Tomczak and Welling 2018): VAE, HVAE and ConvHVAE."""

from __future__ import annotations

import math
from typing import Any, Literal

import jax

import aejax as ae
from aejax.errors import UserError

Event = tuple[int, ...]
Kind = Literal["vae", "hvae", "convhvae"]
# The gated convolutions of the ConvHVAE, (channels, kernel, stride), in the encoder of the top
# level, and in that of the level below.
TOP = ((32, 7, 1), (32, 3, 2), (64, 5, 1), (64, 3, 2), (6, 3, 1))
BELOW = ((32, 3, 1), (32, 3, 2), (64, 3, 1), (64, 3, 2), (6, 3, 1))


def gated(widths: tuple[int, ...], shape: Event | None = None) -> Any:
    """Returns an MLP of gated dense layers: half of a layer's outputs gate the other half."""
    return ae.nets.MLP(tuple(2 * width for width in widths), shape, jax.nn.glu)


def model(kind: Kind, event: Event, latents: int, width: int, top: Any) -> ae.Autoencoder:
    """Builds one of the paper's models of binary images.

    Args:
      kind: "vae" has one level, "hvae" two, "convhvae" two with convolutional features.
      event: the shape of an image.
      latents: the number of latents of each level.
      width: the number of units of the dense layers, 300 in the paper.
      top: the prior of the top level.

    Raises:
      UserError: if `kind` is "convhvae" and `event` is not (height, width, channels).
    """
    likelihood = ae.likelihoods.Bernoulli()
    if kind == "vae":
        decoder = gated((width, width), event)
        return ae.Autoencoder(gated((width, width)), ae.Gaussian(latents), decoder, top, likelihood)
    if kind == "hvae":
        encoder = ae.nets.Branches((gated((width, width)), gated((width,))))
        read, image = gated((width,)), gated((width,), event)
    else:
        if len(event) != 3:
            raise UserError(
                "--model convhvae needs images of (height, width, channels), but the shape of an "
                f"example is {event}: use vae or hvae"
            )
        encoder = ae.nets.Branches((ae.nets.GatedConv(TOP), ae.nets.GatedConv(BELOW)))
        features = BELOW[-1][0] * math.prod(math.ceil(side / 4) for side in event[:2])
        read, image = gated((features,)), ae.nets.GatedImage(event)
    statistics = (2 * latents,)
    below = ae.nets.Joined((None, read), gated((width,), statistics))
    return ae.Autoencoder(
        encoder,
        ae.Levels((latents, latents), (ae.nets.MLP((), statistics), below)),
        ae.nets.Joined((gated((width,)), gated((width,))), image),
        ae.priors.Levels((gated((width, width), statistics),), top),
        likelihood,
    )
