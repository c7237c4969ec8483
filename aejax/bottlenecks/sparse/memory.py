"""The state of sparse bottlenecks, stored in the variable collection `memory`.

Only training steps update it.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.types import Array

SPAN = 2000.0  # the ratio of the largest price to the smallest


class Ages(nn.Module):
    """Counts the training steps since each latent was last active.

    Attributes:
      latents: the number of latents m.
    """

    latents: int

    @nn.compact
    def __call__(self, active: Array | None = None) -> Array:
        """Resets the ages of active latents and increments the others, in training only.

        Args:
          active: whether each latent is active for any example of the batch, bool[m]; None: the
            ages are returned without an update.

        Returns:
          i32[m], the steps since each latent was last active, after this batch.
        """
        age = self.variable("memory", "age", jnp.zeros, (self.latents,), jnp.int32)
        training = self.is_mutable_collection("memory") and not self.is_initializing()
        if training and active is not None:
            age.value = jnp.where(active, 0, age.value + 1)
        return age.value


class Controller(nn.Module):
    """Adjusts the weight of the sparsity penalty until the mean L0 reaches a target.

    This weight, the sparsity coefficient, is called the price here. Over the first `descent` steps,
    the wanted L0 falls geometrically from its initial value to the target. A price that is high
    from the start would silence latents before they have learned anything, and most of these would
    stay dead.

    The price is exp(integral + excess). The excess is a short moving average of log(L0 / wanted),
    clipped to [-1, 1]. The integral sums rate * (excess + damping * (excess - slow excess)), where
    the slow excess is a longer moving average. The damping stops the price from rising further
    while L0 already moves towards the wanted value: thresholds follow the price slowly, so L0 would
    overshoot otherwise. For the same reason the integral has a maximum, which is the price at which
    `target` active latents cost twice the mean squared norm of an example. An empty code is cheaper
    at that price, so a higher one is useless. The minimum of the integral is lower by log(SPAN):
    such a price has no influence, and an integral that fell further would only have to rise again.
    It is reached if L0 falls below the wanted value by itself; from then on the wanted value falls
    from the present L0.

    The bottleneck does not know the model's targets, so the controller assumes that their mean
    square is that of the inputs, as it is if the targets are the inputs, or if both sides of a
    transcoder have a `Scale`. All averages are of logarithms, so that the same settings suit prices
    of any magnitude.

    Attributes:
      target: the L0 to reach, averaged over the batch.
      descent: the number of steps until the wanted L0 is the target; 0: it is from the first step.
      rate: the gain of the integral in one step.
      damping: the weight of the recent change of the excess, in the formula above. With the default
        rate, what is left of an excess falls by a factor of e in 100 * (1 + 2 * damping) steps, and
        in some more if L0 hardly depends on the price. A ReLU, which has no thresholds that follow
        the price slowly, takes 1 (`Sparse.damping`).
    """

    target: float
    descent: int
    rate: float = 0.01
    damping: float = 5.0

    @nn.compact
    def __call__(
        self,
        l0: Array | None = None,
        inputs: Array | None = None,
        step: Any = 0,
        size: int | None = None,
    ) -> Array:
        """Updates the price, in training only.

        Args:
          l0: the number of active latents of each example, f32[B]; None: the price is returned
            without an update.
          inputs: the bottleneck's inputs, f32[B, D]; needed with l0.
          step: the training step, from 0.
          size: the size of an example's target; None: D, the size of the inputs.

        Returns:
          f32[], the price after this batch.
        """
        start = self.variable("memory", "start", jnp.zeros, (), jnp.float32)
        excess = self.variable("memory", "excess", jnp.zeros, (), jnp.float32)
        slow = self.variable("memory", "slow", jnp.zeros, (), jnp.float32)
        integral = self.variable("memory", "integral", jnp.zeros, (), jnp.float32)
        training = self.is_mutable_collection("memory") and not self.is_initializing()
        if training and l0 is not None and inputs is not None:
            # The mean L0 is replaced by 0.01 if it is smaller, so that the logarithm is finite.
            above = jnp.log(jnp.maximum(jnp.mean(l0), 0.01) / self.target)
            above = jax.lax.stop_gradient(above)
            t = jnp.asarray(step, jnp.float32)
            energy = jnp.mean(jnp.sum(jnp.square(inputs), axis=-1)) + 1e-12
            if size is not None and size != inputs.shape[-1]:
                energy = energy * (size / inputs.shape[-1])
            most = jnp.log(2.0 * jax.lax.stop_gradient(energy) / self.target)
            least = most - math.log(SPAN)
            share = jnp.clip(1.0 - t / jnp.maximum(self.descent, 1), 0.0, 1.0)
            left = jnp.where(jnp.asarray(self.descent) > 0, share, 0.0)
            begun = jnp.where(t == 0, above, start.value)
            # At its minimum the price has no influence: the wanted L0 falls from the present one.
            here = jnp.minimum(begun, above / jnp.maximum(left, 1e-3))
            start.value = jnp.maximum(jnp.where(integral.value <= least, here, begun), 0.0)
            now = jnp.clip(above - left * start.value, -2.0, 2.0)
            excess.value = 0.9 * excess.value + 0.1 * now
            slow.value = 0.995 * slow.value + 0.005 * now
            push = excess.value + self.damping * (excess.value - slow.value)
            integral.value = jnp.clip(integral.value + self.rate * push, least, most)
        return jnp.exp(integral.value + jnp.clip(excess.value, -1.0, 1.0))
