"""Objectives of the sparse autoencoder papers, each a mapping name -> (weight, loss term).

    objective = objectives.gated(l1=0.1)
    objective = merge(objectives.april(optax.linear_schedule(0.0, 5.0, 10_000)), watch(...))

Terms sum over the values of an example, and the default weights assume data in the paper's own
scale: use `initialise.mean_square` or `initialise.expected_norm`.
"""

from __future__ import annotations

from collections.abc import Sequence

import optax

from aejax import losses
from aejax.objective import merge, sparse, watch
from aejax.types import Objective, Term


def april(l1: optax.ScalarOrSchedule = 5.0) -> Objective:
    """Returns the objective with an L1 penalty weighted by the atoms' norms (Conerly et al. 2024).

    It is meant for ReLU with atoms of any norm.

    Multiplying the atoms by c and dividing the encoder and its bias by c does not change the loss.

    Args:
      l1: the weight of the penalty. The paper raises it from 0 over the first 5 % of the steps, on
        data with E||x|| = sqrt(D).
    """
    return merge(sparse(), {"l1": (l1, losses.weighted_l1)})


def annealed(lp: optax.ScalarOrSchedule) -> Objective:
    """Returns the objective of AnnealedReLU: error and sum z^p, p falling (Karvonen et al. 2024).

    Args:
      lp: the weight of the penalty.
    """
    return merge(sparse(), {"lp": (lp, losses.lp)})


def gated(l1: optax.ScalarOrSchedule, detach: bool = True, weighted: bool = False) -> Objective:
    """Returns the objective of Gated: errors and an L1 penalty of the gate (Rajamanoharan 2024).

    Args:
      l1: the weight of the L1 penalty.
      detach: whether the gate's reconstruction has no gradient in the decoder; False in SAELens.
      weighted: whether the L1 penalty is weighted by the atoms' norms; True in SAELens.
    """
    terms = {"l1": (l1, losses.gate_l1(weighted)), "gate": (1.0, losses.gate_error(detach))}
    return merge(sparse(), terms)


def jumprelu(
    weight: optax.ScalarOrSchedule,
    penalty: Term = losses.l0,
    lift: optax.ScalarOrSchedule | None = None,
) -> Objective:
    """Returns the objective of JumpReLU: an error and a penalty on the number of active latents.

    Args:
      weight: the weight of the penalty.
      penalty: `losses.l0` (Rajamanoharan et al. 2024), `losses.tanh_l0()` (Conerly et al. 2025),
        `losses.quadratic_l0(target)` (Gemma Scope 2) or `losses.relative_l0(target)`.
      lift: the weight of `losses.pre_activation` (3e-6 in Conerly et al. 2025); None: no such term.
    """
    objective = merge(sparse(), {"penalty": (weight, penalty)}, watch(window=losses.window))
    return objective if lift is None else merge(objective, {"lift": (lift, losses.pre_activation)})


def matryoshka(
    prefixes: Sequence[int],
    weights: Sequence[float] | None = None,
    auxk: optax.ScalarOrSchedule | None = 1 / 32,
    bias: bool = False,
) -> Objective:
    """Returns the objective of nested dictionaries: the errors of prefixes (Bussmann et al. 2025).

    A prefix of length m_i reconstructs with the first m_i latents alone. Use it with BatchTopK.

    Args:
      prefixes: the prefix lengths m_1 < ... < m_G = m; `losses.fractions(m)` gives the usual ones.
      weights: the weight of each prefix; None: 1 / G each. SAELens uses 1 each.
      auxk: the weight of AuxK, which explains the residual of the whole dictionary; None: no
        AuxK.
      bias: whether the bias alone counts as a further prefix, of length 0.
    """
    return sparse(auxk=auxk, error=losses.prefix_error(prefixes, weights, bias))


def crosscoder(l1: optax.ScalarOrSchedule = 2.0) -> Objective:
    """Returns the objective of a crosscoder with ReLU (Lindsey et al. 2024).

    Its L1 penalty weights each latent by the norms of its atom, summed over layers.

    Args:
      l1: the weight of the penalty.
    """
    return merge(sparse(), {"l1": (l1, losses.layered_l1)})
