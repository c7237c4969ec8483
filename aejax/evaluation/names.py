"""Chooses the name under which a result is reported, which depends on the data."""

from __future__ import annotations

from aejax.contracts import Likelihood

# For grey values x, p^x (1 - p)^(1 - x) is not a normalised density, so it is no likelihood.
GREY = {"nll": "bce", "elbo": "bce_bound"}


def figure_name(figure: str, binarised: str, likelihood: Likelihood | None) -> str:
    """Returns the name of a result: grey targets under a Bernoulli likelihood have no NLL.

    Args:
      figure: "nll", "elbo" or any other name, which is returned unchanged.
      binarised: how the split binarises its images: "dynamic", "static" or "none".
      likelihood: the model's likelihood, or None.

    Returns:
      The given name; but for grey targets under a Bernoulli "bce" (importance-weighted
      cross-entropy) instead of "nll", and "bce_bound", which is -(rate + cross-entropy), instead of
      "elbo".
    """
    grey = binarised == "none" and likelihood is not None and likelihood.binary
    return GREY.get(figure, figure) if grey else figure
