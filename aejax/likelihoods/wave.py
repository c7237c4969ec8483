"""An autoregressive likelihood of the samples of sounds, conditioned on a map at a lower rate.

    decoder       z -> a map f32[T / hop, conditioning], one vector for each frame of `hop` samples
    log p(x | z)  = sum over samples of log p(sample | the `reach` samples before it, its frame)

One causal filter bank reads the preceding samples. A training step therefore needs one matrix
product with them, and a draw needs no state but the last `reach` samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from aejax.checks import check_count
from aejax.errors import UserError
from aejax.likelihoods.autoregressive import Autoregressive
from aejax.types import Array, Key

Shape = tuple[int, ...]


class WaveNet(nn.Module):
    """Maps the samples before a sample, and its frame, to the parameters of its distribution.

    Attributes:
      outputs: the number of outputs for each sample.
      channels: the number of channels; 0: the outputs are linear in the preceding samples.
      layers: the number of gated layers after the filter bank.
    """

    outputs: int
    channels: int
    layers: int

    @nn.compact
    def __call__(self, past: Array, frames: Array) -> Array:
        """Computes the parameters of all samples.

        Args:
          past: the samples before each sample, f32[B, F, hop, reach].
          frames: the decoder's map, f32[B, F, conditioning].

        Returns:
          f32[B, F, hop, outputs].
        """
        linear = nn.Dense(self.outputs, name="linear")(past)
        if not self.channels:
            return linear
        hidden = _gate(nn.Dense(2 * self.channels, name="bank")(past) + self._given("bank", frames))
        for i in range(self.layers):
            inner = nn.Dense(2 * self.channels, name=f"layer_{i}")(hidden)
            inner = _gate(inner + self._given(f"layer_{i}", frames))
            hidden = hidden + nn.Dense(self.channels, name=f"output_{i}")(inner)
        return linear + nn.Dense(self.outputs, name="output")(nn.silu(hidden))

    def _given(self, name: str, frames: Array) -> Array:
        """Projects each frame once for all of its samples, f32[B, F, 1, 2 channels]."""
        width = 2 * self.channels
        if not frames.shape[-1]:
            return jnp.zeros((*frames.shape[:2], 1, width))
        return nn.Dense(width, use_bias=False, name=f"frame_{name}")(frames)[:, :, None]


def _gate(values: Array) -> Array:
    """Computes tanh(a) sigmoid(b), where a and b are the two halves of the channels."""
    signal, gate = jnp.split(values, 2, axis=-1)
    return jnp.tanh(signal) * jax.nn.sigmoid(gate)


class Wave(Autoregressive):
    """A WaveNet (van den Oord et al. 2016a) with one filter bank instead of dilated convolutions.

    A mask removes samples from the log-probability. Sounds are targets in [0, 1], such as mu-law
    values; samples before the first one count as 1/2, which is silence.

    Attributes:
      observation: the likelihood of a sample given those before it: `LogisticMixture`,
        `DiscretisedLogistic`, or another likelihood of elements in [0, 1].
      hop: the number of samples in a frame; the decoder's output is a map with a vector per frame.
      conditioning: the number of channels of the map; 0: the map has one channel, which is ignored,
        so that the likelihood is a model without latents.
      channels: the number of channels of a layer; 0: a linear predictor.
      reach: the number of preceding samples that a sample depends on.
      layers: the number of gated layers after the filter bank.
    """

    observation: Any
    hop: int = 128
    conditioning: int = 16
    channels: int = 32
    reach: int = 128
    layers: int = 2
    support = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Raises UserError if a number is out of range."""
        check_count(self, 1, "hop", "reach")
        check_count(self, 0, "conditioning", "channels", "layers")
        super().__post_init__()

    def setup(self) -> None:
        """Declares the net."""
        self.net = WaveNet(math.prod(self._sample()), self.channels, self.layers)

    def shape(self, event: Sequence[int]) -> Shape:
        """Returns the shape of one example's prediction: a map with one vector for each frame.

        Raises:
          UserError: if the event is not (T, 1), where T is a multiple of the hop.
        """
        if len(event) != 2 or event[1] != 1 or event[0] % self.hop:
            raise UserError(
                f"Wave(hop={self.hop}) needs sounds of shape (T, 1), where T is a multiple of the "
                f"hop, but the target has shape {tuple(event)}: pad or cut the sounds"
            )
        return (event[0] // self.hop, max(self.conditioning, 1))

    def parameters(self, prediction: Array, target: Array) -> Array:
        """Computes the parameters of `observation` for each sample, given the samples before it."""
        size, length = target.shape[:2]
        padded = jnp.pad(_centred(target[..., 0]), ((0, 0), (self.reach, 0)))[:, :-1]
        place = np.arange(length)[:, None] + np.arange(self.reach)
        past = jnp.take(padded, place.reshape((-1, self.hop, self.reach)), axis=1)
        output = self.net(past, prediction[..., : self.conditioning])
        return output.reshape((size, length, *self._sample()))

    def drawn(self, key: Key, prediction: Array) -> tuple[Array, Array]:
        """Draws sounds, and computes each sample's expectation given the samples before it.

        Returns:
          The sounds and the expectations, both f32[B, T, 1].
        """
        own, prediction = self.unbound(), jax.lax.stop_gradient(prediction)
        size, frames = prediction.shape[:2]

        def draw(past: Array, i: Array) -> tuple[Array, tuple[Array, Array]]:
            frame = jax.lax.dynamic_slice_in_dim(prediction, i // self.hop, 1, axis=1)
            output = own.net.apply(
                own.net_variables, past[:, None, None], frame[..., : self.conditioning]
            )
            output = output.reshape((size, 1, *self._sample()))  # pyright: ignore[reportAttributeAccessIssue]
            noise = jax.random.fold_in(key, i)
            drawn = own.observation.apply(own.variables, noise, output, method="sample")
            expected = own.observation.apply(own.variables, output, method="mean")
            past = jnp.concatenate([past[:, 1:], _centred(drawn[..., 0])], axis=1)
            return past, (drawn[:, 0], expected[:, 0])

        start = jnp.zeros((size, self.reach))
        _, found = jax.lax.scan(draw, start, jnp.arange(frames * self.hop))
        drawn, expected = (jnp.moveaxis(values, 0, 1) for values in found)
        return drawn, expected

    def _sample(self) -> Shape:
        """Returns the shape of the parameters of `observation` for one sample."""
        return self.observation.shape((1, 1))[1:]


def _centred(values: Array) -> Array:
    """Maps values in [0, 1] to [-1, 1], so that zeros before the first sample are silence."""
    return 2.0 * values - 1.0
