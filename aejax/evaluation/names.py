"""What a figure may be called, given what the data is."""

from __future__ import annotations

from aejax.contracts import Likelihood

# Over grey levels p^x (1 - p)^(1 - x) does not sum to one: there is no likelihood to speak of.
GREY = {"nll": "bce", "elbo": "bce_bound"}


def figure_name(figure: str, binarised: str, likelihood: Likelihood | None) -> str:
    """The name under which a figure is reported: grey targets under a Bernoulli have no NLL.

    Args:
      figure: "nll", "elbo" or any other name, which stays.
      binarised: of the split, "dynamic", "static" or "none".
      likelihood: of the model, or None.

    Returns:
      The figure's own name, or "bce" for the importance-weighted cross-entropy of grey targets and
      "bce_bound" for -(rate + cross-entropy).
    """
    grey = binarised == "none" and likelihood is not None and likelihood.binary
    return GREY.get(figure, figure) if grey else figure
