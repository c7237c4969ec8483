"""Freezes log-probabilities that scvi-tools computes, for a test where it is not installed.

    pip install scvi-tools && python tests/likelihoods/parity/freeze_scvi.py

It writes scvi.json beside this file: the inputs, the version, and what `scvi.distributions` gives
in float64.
"""

import itertools
import json
import pathlib

import numpy as np
import scvi
import torch
from scvi.distributions import NegativeBinomial, ZeroInflatedNegativeBinomial

COUNTS = (0.0, 1.0, 2.0, 7.0, 40.0, 1000.0)
MEANS = (1e-2, 1.0, 5.0, 300.0)
THETAS = (0.05, 1.0, 30.0, 1e3)
LOGITS = (-3.0, 0.0, 2.0)


def frozen() -> dict:
    """Returns the inputs and the log-probabilities of both distributions."""
    rows = np.array(list(itertools.product(COUNTS, MEANS, THETAS, LOGITS)))
    count, mean, theta, logit = (torch.tensor(column, dtype=torch.float64) for column in rows.T)
    plain = NegativeBinomial(mu=mean, theta=theta).log_prob(count)
    inflated = ZeroInflatedNegativeBinomial(mu=mean, theta=theta, zi_logits=logit).log_prob(count)
    return {
        "version": scvi.__version__,
        "rows": rows.tolist(),
        "negative_binomial": plain.reshape(-1).tolist(),
        "zero_inflated": inflated.reshape(-1).tolist(),
    }


if __name__ == "__main__":
    path = pathlib.Path(__file__).parent / "scvi.json"
    path.write_text(json.dumps(frozen()) + "\n")
