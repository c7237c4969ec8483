"""What priors that are learned mixtures of Gaussians share: their settings and the first draw."""

from __future__ import annotations

import math

import jax
from flax import linen as nn

from aejax.checks import check, check_count
from aejax.contracts import Prior
from aejax.types import Array, Key


class Components(Prior):
    """Abstract: a mixture of Gaussians whose weights and means are learned.

    Attributes:
      components: the number of Gaussians, C.
      spread: the standard deviation of the means' initial values; each Gaussian's own is
        initially 1.
    """

    components: int = 10
    spread: float = 1.0

    def __post_init__(self) -> None:
        """Raises UserError if components or spread is out of range."""
        check_count(self, 1, "components")
        check(self, "spread", lambda spread: 0 <= spread < math.inf, "0 or more")
        super().__post_init__()

    def weights_and_means(self, latents: int) -> tuple[Array, Array]:
        """Returns the logits of the weights f32[C] and the means f32[C, L], which are parameters.

        It is called in the method of a subclass that declares the other parameters.
        """
        size = (self.components, latents)
        return (
            self.param("logits", nn.initializers.zeros_init(), size[:1]),
            self.param("mean", nn.initializers.normal(self.spread), size),
        )


def chosen(key: Key, logits: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Draws the components i32[n] of n latents, and standard normal noise f32[n, *shape[1:]]."""
    choice_key, noise_key = jax.random.split(key)
    choice = jax.random.categorical(choice_key, logits, shape=shape[:1])
    return choice, jax.random.normal(noise_key, shape)
