"""What sparse bottlenecks remember from batch to batch; written in training alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.types import Array


class Ages(nn.Module):
    """The memory of a sparse bottleneck: training steps since each latent was last active."""

    latents: int

    @nn.compact
    def __call__(self, active: Array | None = None) -> Array:
        """Resets the active latents and ages the others, in training only.

        Args:
          active: bool[m], latents that some example of the batch uses; None only reads.

        Returns:
          i32[m], the ages after this batch.
        """
        age = self.variable("memory", "age", jnp.zeros, (self.latents,), jnp.int32)
        training = self.is_mutable_collection("memory") and not self.is_initializing()
        if training and active is not None:
            age.value = jnp.where(active, 0, age.value + 1)
        return age.value


class Controller(nn.Module):
    """Finds the price of a latent at which a wanted number of them is active.

    What is wanted falls from the number that is active at the start to the target, by the same
    factor a step, over the first steps: of latents that a high price silences before they have
    learned anything most never return.

    The price is exp(integral + excess), where excess is a short moving average of log(L0 / wanted),
    cut to [-1, 1], and the integral sums rate * (excess + damping * (excess - slow excess)): while
    L0 is on its way the price rests, so that it does not run on while thresholds, which an
    optimiser moves by little a step, still follow. For the same reason the integral stops where a
    price has no more to buy: at twice the target's mean squared norm for all wanted latents
    together an empty code is the cheaper one. No bottleneck sees the target: it is taken to have
    the inputs' mean square, as it has where it is the input, and where both sides of a transcoder
    have a `Scale`. In logarithms, so that one setting serves prices of any size.

    Attributes:
      target: L0 wanted in the end, the mean over a batch.
      descent: steps until then; 0 wants it from the first step on.
      rate: of the integral, a step.
      damping: of a change that is under way.
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
        """Moves the price, in training only.

        Args:
          l0: f32[B], active latents of each example; None only reads.
          inputs: f32[B, D], what the code describes; needed with l0.
          step: of training, from 0.
          size: values of an example's target; None: D, as many as the inputs have.

        Returns:
          f32[], the price after this batch.
        """
        start = self.variable("memory", "start", jnp.zeros, (), jnp.float32)
        excess = self.variable("memory", "excess", jnp.zeros, (), jnp.float32)
        slow = self.variable("memory", "slow", jnp.zeros, (), jnp.float32)
        integral = self.variable("memory", "integral", jnp.zeros, (), jnp.float32)
        training = self.is_mutable_collection("memory") and not self.is_initializing()
        if training and l0 is not None and inputs is not None:
            # A batch without any active latent counts as one latent a hundred examples.
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
