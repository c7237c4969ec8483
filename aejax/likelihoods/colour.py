"""PixelCNN++'s likelihood of colour images: a mixture for each pixel, shared by its channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aejax.checks import check_count
from aejax.contracts import Likelihood
from aejax.errors import UserError
from aejax.events import sum_events
from aejax.likelihoods.logistic import (
    level,
    level_log_prob,
    level_mean,
    level_sample,
    value,
)
from aejax.types import Array, Key

Shape = tuple[int, ...]


class _Mixture(NamedTuple):
    """The parameters of each pixel's mixture of C components."""

    logits: Array  # f32[B, H, W, C], the logits of the components' weights
    means: Array  # f32[B, H, W, 3, C], the channels' means if the earlier channels are 0
    raw: Array  # f32[B, H, W, 3, C], the log-scales of the channels
    slopes: Array  # f32[B, H, W, 3, C], the slopes of green on red, blue on red, blue on green


class ColourLogisticMixture(Likelihood):
    """A mixture of discretised logistics for each colour pixel, whose channels are dependent.

    The mean of green depends linearly on red, and the mean of blue on red and green (Salimans et
    al. 2017, equation 3). Unlike in `LogisticMixture`, one component explains all three channels of
    a pixel. A mask removes channels from the log-probability, but the means of later channels still
    depend on their values.

    Attributes:
      components: the number of components of each pixel's mixture.
      levels: the number of values from 0 to 1; a target is rounded to the nearest.
    """

    components: int = 10
    levels: int = 256
    support = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Raises UserError if components or levels is out of range."""
        check_count(self, 1, "components")
        check_count(self, 2, "levels")
        super().__post_init__()

    def shape(self, event: Sequence[int]) -> Shape:
        """Returns the prediction's shape: ten parameters for each component of each pixel.

        Raises:
          UserError: if the event is not an image with three channels.
        """
        if len(event) != 3 or event[-1] != 3:
            raise UserError(
                "ColourLogisticMixture needs images of shape (height, width, 3), but the target "
                f"has shape {tuple(event)}: use LogisticMixture"
            )
        return (*event[:-1], 10 * self.components)

    def log_prob(self, prediction: Array, target: Array, mask: Array | None = None) -> Array:
        """Computes log p, f32[B], of f32[B, H, W, 3] given a prediction f32[B, H, W, 10 C]."""
        mixture = self._read(prediction)
        number = level(target, self.levels)
        means = _follow(mixture, 2.0 * value(number, self.levels) - 1.0)
        number = jnp.broadcast_to(number[..., None], means.shape)
        each = level_log_prob(number, means, mixture.raw, self.levels)
        if mask is not None:
            each = each * jnp.broadcast_to(mask, target.shape)[..., None]
        weighed = jax.nn.log_softmax(mixture.logits) + jnp.sum(each, axis=-2)
        return sum_events(jax.nn.logsumexp(weighed, axis=-1))

    def mean(self, prediction: Array) -> Array:
        """Computes the expected image; a channel's mean is taken at the earlier channels' means.

        This is exact for red. For green and blue it assumes that a channel's expectation is linear
        in the earlier channels, which is slightly wrong because values are rounded and clipped.

        Returns:
          f32[B, H, W, 3].
        """
        mixture = self._read(prediction)
        seen = jnp.zeros_like(mixture.means)
        for channel in range(3):
            mean = _follow_each(mixture, seen)[..., channel, :]
            expected = level_mean(mean, mixture.raw[..., channel, :], self.levels)
            seen = seen.at[..., channel, :].set(2.0 * expected - 1.0)
        weights = jax.nn.softmax(mixture.logits)[..., None, :]
        return jnp.sum(weights * 0.5 * (seen + 1.0), axis=-1)

    def sample(self, key: Key, prediction: Array) -> Array:
        """Draws an image, f32[B, H, W, 3]: for each pixel a component, then red, green and blue."""
        choice_key, value_key = jax.random.split(key)
        mixture = self._read(prediction)
        chosen = jax.random.categorical(choice_key, mixture.logits)[..., None, None]
        mixture = _Mixture(
            mixture.logits, *(jnp.take_along_axis(a, chosen, axis=-1) for a in mixture[1:])
        )
        drawn = jnp.zeros(mixture.means.shape[:-1])
        for channel, channel_key in enumerate(jax.random.split(value_key, 3)):
            means = _follow(mixture, 2.0 * drawn - 1.0)
            mean, raw = means[..., channel, 0], mixture.raw[..., channel, 0]
            new = level_sample(channel_key, mean, raw, self.levels)
            drawn = drawn.at[..., channel].set(new)
        return drawn

    def _read(self, prediction: Array) -> _Mixture:
        """Splits the prediction f32[B, H, W, 10 C] into the parameters of C mixture components."""
        count = self.components
        logits, rest = prediction[..., :count], prediction[..., count:]
        rest = rest.reshape((*rest.shape[:-1], 3, 3, count))
        means, raw, slopes = (rest[..., i, :, :] for i in range(3))
        return _Mixture(logits, means, raw, jnp.tanh(slopes))


def _follow(mixture: _Mixture, seen: Array) -> Array:
    """Computes the mean of each channel in each of C components, f32[B, H, W, 3, C].

    A mean depends on the values of the pixel's earlier channels.

    Args:
      mixture: the parameters of each pixel's mixture.
      seen: the image, f32[B, H, W, 3] in [-1, 1].
    """
    return _follow_each(mixture, jnp.broadcast_to(seen[..., None], mixture.means.shape))


def _follow_each(mixture: _Mixture, seen: Array) -> Array:
    """Computes the means as `_follow` does, but from another image for each component.

    Args:
      mixture: the parameters of each pixel's mixture.
      seen: the images, f32[B, H, W, 3, C] in [-1, 1].
    """
    red, green = seen[..., 0, :], seen[..., 1, :]
    on_red, blue_on_red, on_green = (mixture.slopes[..., i, :] for i in range(3))
    shift = [jnp.zeros_like(red), on_red * red, blue_on_red * red + on_green * green]
    return mixture.means + jnp.stack(shift, axis=-2)
