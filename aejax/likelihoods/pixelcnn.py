"""An autoregressive likelihood of images, which can model them well without any latent.

    decoder       z -> a map f32[H, W, conditioning]
    log p(x | z)  = sum over pixels of log p(pixel | the pixels before it, the map)

A model with such a likelihood may ignore its latents, which is called posterior collapse (Chen et
al. 2017). PixelCNN(..., conditioning=0) ignores the map, so that log p(x | z) is the log p(x) of a
PixelCNN without latents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aejax.checks import check_count
from aejax.errors import UserError
from aejax.likelihoods.autoregressive import Autoregressive
from aejax.likelihoods.gated import GatedPixelCNN
from aejax.types import Array, Key

Shape = tuple[int, ...]


class PixelCNN(Autoregressive):
    """An autoregressive likelihood of pixels in raster order (van den Oord et al. 2016b).

    The log-probability is computed in one pass of the net. A sample needs H * W passes, one after
    the other, each over the rows that a pixel depends on. A mask removes elements from the
    log-probability, but later pixels still depend on them.

    Attributes:
      observation: the likelihood of a pixel given the earlier pixels: `Bernoulli()` for binary
        images, `Categorical`, `DiscretisedLogistic` or a mixture. The channels of one pixel depend
        on each other only through it.
      colours: the number of channels of the image.
      conditioning: the number of channels of the map, which the decoder outputs; if it is 0, the
        map has one channel, which is ignored.
      channels: the number of channels of each layer.
      layers: the number of gated layers.
      kernel: the height and width of the kernels, an odd number.
      dtype: the dtype of the computation; parameters stay float32.
    """

    observation: Any
    colours: int = 1
    conditioning: int = 16
    channels: int = 32
    layers: int = 5
    kernel: int = 5
    dtype: Any = None

    def setup(self) -> None:
        """Declares the net.

        Raises:
          UserError: if kernel, layers, channels or conditioning is out of range.
        """
        if self.kernel % 2 == 0 or min(self.kernel, self.layers, self.channels) < 1:
            raise UserError(
                f"PixelCNN has kernel {self.kernel}, {self.layers} layers and {self.channels} "
                "channels: give an odd kernel, and 1 or more layers and channels"
            )
        check_count(self, 0, "conditioning")
        outputs = math.prod(self._pixel())
        self.net = GatedPixelCNN(outputs, self.channels, self.layers, self.kernel, self.dtype)

    @property
    def support(self) -> tuple[float, float] | None:
        """Returns the range of targets that `observation` accepts, or None if any are accepted."""
        return self.observation.support

    def shape(self, event: Sequence[int]) -> Shape:
        """Returns the shape of one example's prediction: a map of the image's height and width.

        Raises:
          UserError: if the event is not an image with `colours` channels.
        """
        if len(event) != 3 or event[-1] != self.colours:
            raise UserError(
                f"PixelCNN(colours={self.colours}) needs images of shape (height, width, "
                f"{self.colours}), but the target has shape {tuple(event)}: set colours to the "
                "number of the image's channels"
            )
        return (*event[:2], max(self.conditioning, 1))

    def parameters(self, prediction: Array, target: Array) -> Array:
        """Computes the parameters of `observation` for each pixel, given the earlier pixels.

        Args:
          prediction: the map from the decoder, f32[B, H, W, conditioning].
          target: the image, [B, H, W, colours].

        Returns:
          f32[B, H, W, ...], a prediction as `observation` expects it.
        """
        output = self.net(self._scaled(target), prediction[..., : self.conditioning])
        return output.reshape((*output.shape[:3], *self._pixel()))

    def drawn(self, key: Key, prediction: Array) -> tuple[Array, Array]:
        """Draws images, and computes each pixel's expectation given the pixels before it.

        Returns:
          The images and the expectations, both [B, H, W, colours].
        """
        own, prediction = self.unbound(), jax.lax.stop_gradient(prediction)
        size, height, width = prediction.shape[:3]
        rows, pixel_shape = min(height, own.net.reach + 1), self._pixel()

        def pixel(i: Array, image: Array) -> tuple[Array, Array]:
            row, column = i // width, i % width
            start = jnp.clip(row - own.net.reach, 0, height - rows)
            seen, condition = (
                jax.lax.dynamic_slice_in_dim(a, start, rows, axis=1) for a in (image, prediction)
            )
            output = own.net.apply(
                own.net_variables, self._scaled(seen), condition[..., : self.conditioning]
            )
            here = (0, row - start, column, 0)
            output = jax.lax.dynamic_slice(output, here, (size, 1, 1, output.shape[-1]))  # pyright: ignore[reportArgumentType]
            output = output.reshape((size, 1, 1, *pixel_shape))
            noise = jax.random.fold_in(key, i)
            drawn = own.observation.apply(own.variables, noise, output, method="sample")
            return drawn, own.observation.apply(own.variables, output, method="mean")

        def add(i: Array, images: tuple[Array, Array]) -> tuple[Array, Array]:
            here = (0, i // width, i % width, 0)
            new = pixel(i, images[0])
            return jax.tree.map(lambda a, b: jax.lax.dynamic_update_slice(a, b, here), images, new)

        blank = jnp.zeros((size, height, width, self.colours))
        kinds = jax.eval_shape(pixel, jnp.zeros((), jnp.int32), blank)
        images = tuple(blank.astype(kind.dtype) for kind in kinds)
        return jax.lax.fori_loop(0, height * width, add, images)

    def _pixel(self) -> Shape:
        """Returns the shape of the parameters of `observation` for one pixel."""
        return self.observation.shape((1, 1, self.colours))[2:]

    def _scaled(self, image: Array) -> Array:
        """Scales an image to [-1, 1] if its range is known, so that the zero padding is grey."""
        image = image.astype(jnp.float32)
        if self.support is None:
            return image
        low, high = self.support
        return 2.0 * (image - low) / (high - low) - 1.0
