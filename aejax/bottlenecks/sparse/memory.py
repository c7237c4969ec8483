"""The memory of sparse bottlenecks, which is updated in training only."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.types import Array


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
          active: whether any example of the batch uses each latent, bool[m]; None: only read.

        Returns:
          i32[m], the ages after this batch.
        """
        age = self.variable("memory", "age", jnp.zeros, (self.latents,), jnp.int32)
        training = self.is_mutable_collection("memory") and not self.is_initializing()
        if training and active is not None:
            age.value = jnp.where(active, 0, age.value + 1)
        return age.value


class Controller(nn.Module):
    """Adjusts the price of an active latent until the mean L0 reaches a target.

    The wanted L0 falls geometrically from its initial value to the target over the first steps,
    because most latents that a high price silences before they have learned anything never return.

    The price is exp(integral + excess). The excess is a short moving average of log(L0 / wanted),
    cut to [-1, 1]. The integral sums rate * (excess + damping * (excess - slow excess)), where the
    slow excess is a longer moving average: while L0 moves towards the wanted value the price stays,
    so that it does not overshoot while the slowly trained thresholds still follow. For the same
    reason the integral has a maximum: if the target number of latents costs twice the mean squared
    norm of what they explain, an empty code is cheaper, so a higher price has no use. The
    bottleneck does not see the batch's target, so the controller assumes that it has the inputs'
    mean square. That holds if the target is the input, or if both sides of a transcoder have a
    `Scale`. All averages are of logarithms, so that one setting suits prices of any size.

    Attributes:
      target: the L0 to reach, averaged over the batch.
      descent: steps until the wanted L0 is the target; 0: it is the target from the first step.
      rate: the integral's gain per step.
      damping: the weight of the excess's recent change.
    """

    target: float
    descent: int
    rate: float = 0.01
    damping: float = 2.0

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
          l0: the number of active latents of each example, f32[B]; None: only read the price.
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
            # L0 is at least 0.01 here, so that the logarithm is finite if no latent is active.
            above = jnp.log(jnp.maximum(jnp.mean(l0), 0.01) / self.target)
            above = jax.lax.stop_gradient(above)
            t = jnp.asarray(step, jnp.float32)
            start.value = jnp.where(t == 0, jnp.maximum(above, 0.0), start.value)
            share = jnp.clip(1.0 - t / jnp.maximum(self.descent, 1), 0.0, 1.0)
            left = jnp.where(jnp.asarray(self.descent) > 0, share, 0.0)
            now = jnp.clip(above - left * start.value, -2.0, 2.0)
            excess.value = 0.9 * excess.value + 0.1 * now
            slow.value = 0.995 * slow.value + 0.005 * now
            push = excess.value + self.damping * (excess.value - slow.value)
            energy = jnp.mean(jnp.sum(jnp.square(inputs), axis=-1)) + 1e-12
            if size is not None and size != inputs.shape[-1]:
                energy = energy * (size / inputs.shape[-1])
            most = jnp.log(2.0 * jax.lax.stop_gradient(energy) / self.target)
            integral.value = jnp.minimum(integral.value + self.rate * push, most)
        return jnp.exp(integral.value + jnp.clip(excess.value, -1.0, 1.0))
