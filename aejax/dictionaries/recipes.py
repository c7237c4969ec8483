"""Objectives of the sparse autoencoder papers, each a few named terms to be merged or changed.

    objective = recipes.gated(l1=0.1)
    objective = merge(recipes.april(optax.linear_schedule(0.0, 5.0, 10_000)), watch(...))

Coefficients are for sums over the event, on data in the paper's own scale (`initialise.mean_square`
or `initialise.expected_norm`).
"""

from __future__ import annotations

from collections.abc import Sequence

import optax

from aejax import losses
from aejax.objective import merge, sparse, watch
from aejax.types import Objective, Term


def april(l1: optax.ScalarOrSchedule = 5.0) -> Objective:
    """L1 weighted by the atoms' norms, which are free (Conerly et al. 2024); with ReLU.

    Invariant: atoms times c, encoder and its bias over c leave the loss as it is.

    Args:
      l1: the weight, from 0 over the first 5 % of the steps; data with E||x|| = sqrt(D).
    """
    return merge(sparse(), {"l1": (l1, losses.weighted_l1)})


def annealed(lp: optax.ScalarOrSchedule) -> Objective:
    """sum z^p with p falling from 1 (Karvonen et al. 2024); with AnnealedReLU."""
    return merge(sparse(), {"lp": (lp, losses.lp)})


def gated(l1: optax.ScalarOrSchedule, detach: bool = True, weighted: bool = False) -> Objective:
    """L1 of the gate, and its own reconstruction (Rajamanoharan et al. 2024); with Gated.

    Args:
      l1: the weight.
      detach: the atoms are constants to the gate's reconstruction; SAELens: False.
      weighted: L1 times the atoms' norms; SAELens: True.
    """
    terms = {"l1": (l1, losses.gate_l1(weighted)), "gate": (1.0, losses.gate_error(detach))}
    return merge(sparse(), terms)


def jumprelu(
    weight: optax.ScalarOrSchedule,
    penalty: Term = losses.l0,
    lift: optax.ScalarOrSchedule | None = None,
) -> Objective:
    """A penalty on L0 by straight-through estimates; with JumpReLU.

    Args:
      weight: of the penalty.
      penalty: `losses.l0` (Rajamanoharan et al. 2024), `losses.tanh_l0()` (Conerly et al. 2025),
        `losses.quadratic_l0(target)` (Gemma Scope 2) or `losses.relative_l0(target)`.
      lift: weight of `losses.pre_activation`, 3e-6, or None.
    """
    objective = merge(sparse(), {"penalty": (weight, penalty)}, watch(window=losses.window))
    return objective if lift is None else merge(objective, {"lift": (lift, losses.pre_activation)})


def matryoshka(
    prefixes: Sequence[int],
    weights: Sequence[float] | None = None,
    revival: optax.ScalarOrSchedule | None = 1 / 32,
    bias: bool = False,
) -> Objective:
    """Every prefix of the latents explains the target (Bussmann et al. 2025); with BatchTopK.

    Args:
      prefixes: m_1 < ... < m_G = m; `losses.fractions(m)` makes the usual ones.
      weights: of the prefixes; None: 1 / G each; SAELens: 1 each.
      revival: weight of AuxK, on the residual of the whole.
      bias: counts the bias alone as a prefix too.
    """
    return sparse(revival=revival, error=losses.prefix_error(prefixes, weights, bias))


def crosscoder(l1: optax.ScalarOrSchedule = 2.0) -> Objective:
    """L1 weighted by the sum of the atoms' norms over layers (Lindsey et al. 2024); with ReLU."""
    return merge(sparse(), {"l1": (l1, losses.layered_l1)})
