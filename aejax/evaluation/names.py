"""Chooses the name under which an NLL or ELBO is reported, which depends on the data."""

from __future__ import annotations

from aejax.contracts import Likelihood

# For grey values x, p^x (1 - p)^(1 - x) is not a normalised density, so it is not a likelihood.
GREY = {"nll": "bce", "elbo": "bce_bound"}


def figure_name(figure: str, binarised: str, likelihood: Likelihood | None) -> str:
    """Returns the name under which to report a result, such as "bce" instead of "nll".

    For grey targets in (0, 1), a Bernoulli "likelihood" is a cross-entropy and not an NLL.

    Args:
      figure: "nll", "elbo", or any other name, which is returned unchanged.
      binarised: how the split binarises its images: "dynamic", "static" or "none".
      likelihood: the model's likelihood, or None.

    Returns:
      The given name, unless targets are grey and the likelihood is Bernoulli: then "nll" becomes
      "bce" (importance-weighted cross-entropy), and "elbo" becomes "bce_bound", which is
      -(rate + cross-entropy).
    """
    grey = binarised == "none" and likelihood is not None and likelihood.binary
    return GREY.get(figure, figure) if grey else figure
