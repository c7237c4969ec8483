"""Loss terms of regularised autoencoders (RAE): the size of codes, and the slope of the decoder.

    RAE-L2    merge(reconstruction(), {"size": (0.01, code_size)})
              with optax.add_decayed_weights, masked to the decoder's parameters, in the optimiser
    RAE-GP    merge(reconstruction(), {"size": (0.01, code_size), "slope": (0.01, decoder_slope)})

A RAE has the bottleneck `Point` and no prior; `ae.samplers` fits one to its codes afterwards.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from aejax.events import joined, sum_events
from aejax.types import Array, Forward


def code_size(model: Any, forward: Forward) -> Array:
    """Computes ||z||^2 / 2, f32[B] (Ghosh et al. 2020, equation 5)."""
    return 0.5 * jnp.sum(jnp.square(joined(forward.code.latent)), axis=-1)


def decoder_slope(model: Any, forward: Forward) -> Array:
    """Computes the squared Frobenius norm of the decoder's Jacobian by z, f32[B].

    See Ghosh et al. 2020, section 3.2 ("RAE-GP"); the mean of the prediction is differentiated.
    With a key the value is estimated without bias from one random direction (Hutchinson 1989), at
    the cost of one more pass; without a key it is exact, at the cost of L passes.
    """
    z, context = forward.code.z, forward.batch.context
    if model.is_initializing():
        return jnp.zeros(forward.batch.target.shape[0])  # there is nothing to initialise
    # Flax's bound modules cannot be differentiated, so the decoder is called as a pure function.
    unbound, variables = model.unbind()

    def decoded(z: Array) -> Array:
        return unbound.apply(variables, z, context, method=_decoded)

    def along(direction: Array) -> Array:
        return sum_events(jnp.square(jax.jvp(decoded, (z,), (direction,))[1]))

    if forward.key is not None:
        return along(jax.random.rademacher(forward.key, z.shape, z.dtype))
    axes = jnp.eye(z[0].size, dtype=z.dtype).reshape((-1, 1, *z.shape[1:]))
    return sum((along(jnp.broadcast_to(axis, z.shape)) for axis in axes), jnp.zeros(z.shape[0]))


def _decoded(model: Any, z: Any, context: Any) -> Array:
    return model.mean(model.decode(z, context))
