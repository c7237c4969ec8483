"""Measures whether a model uses its latents, and decides whether its posterior has collapsed.

A strong decoder may model x without the code. The posterior then equals the prior, and the code
carries no information about x (posterior collapse, Bowman et al. 2016). The loss alone does not
reveal this, so every training run of a variational model logs these measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax.contracts import BottomUpCode, DensityCode, RandomCode, TopDownCode
from aejax.types import Array, Batch, Key

ACTIVE = 1e-2  # a unit is active if the variance of its posterior mean is larger
LEAST = 0.1  # nats; a code whose mutual information with x is below this has collapsed
EXAMPLES = 1_000  # the number of examples used; its logarithm is the largest mutual information


def usage(bound: Any, batch: Batch, key: Key) -> dict[str, Array]:
    """Computes how much information the code of a batch carries: active units, KL, I(x; z).

    The function is pure and can be traced, so jax.vmap can map it over models.

    Args:
      bound: a model bound to its variables. If it has no prior, or its code is not drawn at random,
        the result is empty.
      batch: examples on which the model was not trained; only the first 1,000 are used.
      key: the key of one draw per example.

    Returns:
      A mapping with the following entries.
      active_units: f32[], the number of latents whose posterior mean has a variance above 0.01
        (Burda et al. 2016, section 5.2); for quantised codes, the number of positions whose index
        has a variance above 0.01.
      kl_per_dimension: f32[L], nats, if the prior has it in closed form.
      mutual_information: f32[], nats, unless the posterior's density can be computed only at its
        own draws, as for flows. It is I(x; z) over the examples, which is at most the logarithm
        of their number (Hoffman and Johnson 2016).
      mutual_information_of_top: f32[], nats, instead of mutual_information if the latents are a
        hierarchy that is drawn from the top down; it is I(x; z) of the top level.
    """
    if bound.prior is None:
        return {}
    batch = jax.tree.map(lambda leaf: leaf[:EXAMPLES], batch)
    features = bound.features(batch)
    code = bound.code(batch, features, key)
    if not isinstance(code, RandomCode):
        return {}
    still = jax.tree.leaves(bound.code(batch, features, None).latent)
    spread = [jnp.sum(jnp.var(leaf, axis=0) > ACTIVE, dtype=jnp.float32) for leaf in still]
    found = {"active_units": sum(spread, jnp.zeros(()))}
    kl = bound.prior.kl(code, batch.context, bound.posterior)
    if kl is not None:
        found["kl_per_dimension"] = jnp.mean(kl, axis=0)
    if isinstance(code, TopDownCode):
        found["mutual_information_of_top"] = jnp.mean(_information(code.levels[0]))
    whole = code.whole if isinstance(code, BottomUpCode) else code
    if isinstance(whole, DensityCode):
        found["mutual_information"] = jnp.mean(_information(whole))
    return found


def _information(code: Any) -> Array:
    """Returns log q(z | x) - log q(z) at each draw z, f32[B], where q(z) is the mean posterior."""

    def aggregate(z: Array) -> Array:
        return jax.nn.logsumexp(code.log_prob(z[None])[0])

    # Draws are processed one at a time, because all pairs would need memory for B^2 L floats.
    joint = jax.lax.map(aggregate, code.latent) - jnp.log(jnp.float32(code.latent.shape[0]))
    return code.log_q() - joint


def collapsed(figures: Mapping[str, Any]) -> np.ndarray:
    """Returns for each of S models whether its posterior has collapsed, bool[S].

    A posterior has collapsed if its mutual information is below LEAST nats. If `figures` has no
    mutual information, a posterior has collapsed if no unit is active. If `figures` does not have
    the number of active units either, the result is empty.

    Args:
      figures: the result of `usage`, with entries f[S] or f[].
    """
    if "mutual_information" in figures:
        return np.atleast_1d(np.asarray(figures["mutual_information"]) < LEAST)
    if "active_units" in figures:
        return np.atleast_1d(np.asarray(figures["active_units"]) < 1)
    return np.zeros(0, bool)
