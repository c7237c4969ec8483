"""A prior over integer codes that are independent of each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.checks import check_count
from aejax.contracts import CategoricalCode, Prior
from aejax.types import Array, Key


class Categorical(Prior):
    """Classes that are independent at each position, with learned probabilities; at first uniform.

    The context is ignored. `priors.Codes` learns how positions depend on each other.

    Attributes:
      classes: the number of classes, or of codes.
    """

    classes: int
    of_codes = True

    def __post_init__(self) -> None:
        """Raises UserError if classes is not a whole number, 1 or more."""
        check_count(self, 1, "classes")
        super().__post_init__()

    def log_prob(self, z: Array, context: Any = None, posterior: Any = None) -> Array:
        """Computes log p(z), f32[B], in nats, for classes z i32[B, *positions]."""
        each = jnp.broadcast_to(self._logits(z.shape[1:])[None], (*z.shape, self.classes))
        chosen = jnp.take_along_axis(each, z[..., None], axis=-1)
        return jnp.sum(chosen, axis=tuple(range(1, chosen.ndim)))

    def sample(
        self, key: Key, n: int, shape: Sequence[int], context: Any = None, posterior: Any = None
    ) -> Array:
        """Draws n examples' classes, i32[n, *shape]."""
        logits = self._logits(tuple(shape))
        return jax.random.categorical(key, logits, shape=(n, *shape)).astype(jnp.int32)

    def kl(self, code: Any, context: Any = None, posterior: Any = None) -> Array | None:
        """Computes KL(q || p) of each position, f32[B, L], in nats.

        It returns None if the code is not a draw of independent classes.
        """
        if not isinstance(code, CategoricalCode):
            return None
        log_q = jax.nn.log_softmax(code.logits)
        each = jnp.exp(log_q) * (log_q - self._logits(log_q.shape[1:-1])[None])
        return jnp.sum(each, axis=-1).reshape((log_q.shape[0], -1))

    @nn.compact
    def _logits(self, positions: tuple[int, ...]) -> Array:
        """Returns the log-probabilities of the classes, f32[*positions, classes]."""
        zeros = nn.initializers.zeros_init()
        return jax.nn.log_softmax(self.param("logits", zeros, (*positions, self.classes)))
