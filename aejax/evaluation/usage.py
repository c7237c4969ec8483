"""Whether a model uses its latents: what every variational run logs, and when it has collapsed.

A decoder that is strong enough explains x alone; the posterior then falls onto the prior and the
code tells nothing, posterior collapse (Bowman et al. 2016). The loss does not show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax.contracts import BottomUpCode, DensityCode, RandomCode, TopDownCode
from aejax.types import Array, Batch, Key

ACTIVE = 1e-2  # variance of the posterior mean, from which on a unit is active
LEAST = 0.1  # nats of mutual information, below which a code tells nothing
EXAMPLES = 1_000  # whose posteriors make up q(z): mutual information is at most log of their number


def usage(bound: Any, batch: Batch, key: Key) -> dict[str, Array]:
    """What the code of a batch carries; pure and traceable, so that it maps over members.

    Args:
      bound: a model with its variables; without a prior or a random code there is nothing to say.
      batch: examples that the model was not trained on, the first EXAMPLES of which are read.
      key: of one draw an example.

    Returns:
      active_units f32[] (Burda et al. 2016, section 5.2); kl_per_dimension f32[L], nats, where the
      prior has it in closed form; mutual_information f32[], nats, where the posterior's density is
      known everywhere: I(x; z) under the examples, at most the log of their number (Hoffman and
      Johnson 2016). Of a hierarchy drawn from the top down it is mutual_information_of_top, the top
      level's alone. Of a flow it is not known, as its density is known at its own draw alone.
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
    """log q(z | x) - log q(z) at each draw, f32[B], q(z) being the mean of the B posteriors."""

    def aggregate(z: Array) -> Array:
        return jax.nn.logsumexp(code.log_prob(z[None])[0])

    # One draw at a time: all pairs at once would take B^2 L numbers for each member.
    joint = jax.lax.map(aggregate, code.z) - jnp.log(jnp.float32(code.z.shape[0]))
    return code.log_q() - joint


def collapsed(figures: Mapping[str, Any]) -> np.ndarray:
    """Which members have collapsed, bool[S]; empty where `usage` has said nothing.

    Args:
      figures: of `usage`, f[S]: a code has collapsed that tells less than LEAST nats of x, or,
        where that is not known, has no active unit.
    """
    if "mutual_information" in figures:
        return np.atleast_1d(np.asarray(figures["mutual_information"]) < LEAST)
    if "active_units" in figures:
        return np.atleast_1d(np.asarray(figures["active_units"]) < 1)
    return np.zeros(0, bool)
