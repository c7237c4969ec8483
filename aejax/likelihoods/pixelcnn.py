"""An autoregressive likelihood of images: strong enough to explain them without any latent.

    decoder       z -> a map f32[H, W, conditioning]
    log p(x | z)  = sum over pixels of log p(pixel | the pixels before it, the map)

Such a decoder can leave its latents unused, posterior collapse (Chen et al. 2017); what remedies it
can be studied here. PixelCNN(..., conditioning=0) is that decoder without latents: the map, of one
channel then, is not read, and log p(x | z) is the log p(x) of a plain PixelCNN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aejax.checks import check_count
from aejax.contracts import Likelihood
from aejax.errors import UserError
from aejax.likelihoods.gated import GatedPixelCNN
from aejax.types import Array, Key

Shape = tuple[int, ...]


class PixelCNN(Likelihood):
    """Pixels explained one after the other, in raster order (van den Oord et al. 2016b).

    Training is one pass. Drawing takes a pass for each pixel: H * W in sequence, over the rows that
    a pixel depends on. A mask leaves elements out of the score; the pixels after still see them.

    Attributes:
      observation: the likelihood of a pixel given those before it: `Bernoulli()` for binary images,
        `Categorical`, `DiscretisedLogistic` or a mixture. Channels of one pixel see each other
        through it alone.
      colours: channels of the image.
      conditioning: channels of the map that the decoder ends in; with 0 it ends in one channel,
        which is not read.
      channels: of each layer.
      layers: how many gated layers.
      kernel: height and width of what a layer sees, odd.
      dtype: of the computation; parameters stay float32.
    """

    observation: Any
    colours: int = 1
    conditioning: int = 16
    channels: int = 32
    layers: int = 5
    kernel: int = 5
    dtype: Any = None

    def setup(self) -> None:
        """Declares the net."""
        if self.kernel % 2 == 0 or min(self.kernel, self.layers, self.channels) < 1:
            raise UserError(
                f"a PixelCNN of kernel {self.kernel}, {self.layers} layers and {self.channels} "
                "channels cannot be built: give an odd kernel and at least one of the others"
            )
        check_count(self, 0, "conditioning")
        outputs = math.prod(self._pixel())
        self.net = GatedPixelCNN(outputs, self.channels, self.layers, self.kernel, self.dtype)

    @property
    def support(self) -> tuple[float, float] | None:
        """That of the observation."""
        return self.observation.support

    def shape(self, event: Sequence[int]) -> Shape:
        """A map of the image's height and width.

        Raises:
          UserError: if the event is no image with so many colours.
        """
        if len(event) != 3 or event[-1] != self.colours:
            raise UserError(
                f"PixelCNN(colours={self.colours}) explains images (height, width, "
                f"{self.colours}), not {tuple(event)}: set colours to the image's channels"
            )
        return (*event[:2], max(self.conditioning, 1))

    def parameters(self, prediction: Array, target: Array) -> Array:
        """The observation's own prediction for each pixel, seeing the pixels before it.

        Args:
          prediction: f32[B, H, W, conditioning], from the decoder.
          target: [B, H, W, colours].

        Returns:
          f32[B, H, W, ...], in the parametrisation of `observation`.
        """
        output = self.net(self._scaled(target), prediction[..., : self.conditioning])
        return output.reshape((*output.shape[:3], *self._pixel()))

    def log_prob(self, prediction: Array, target: Array, mask: Array | None = None) -> Array:
        """Log-probability, summed: f32[B, H, W, F], [B, H, W, colours] -> f32[B]."""
        return self.observation.log_prob(self.parameters(prediction, target), target, mask)

    def sample(self, key: Key, prediction: Array) -> Array:
        """An image drawn pixel by pixel, [B, H, W, colours]; no gradient flows through it."""
        return self._draw(key, prediction)[0]

    def mean(self, prediction: Array) -> Array:
        """An estimate of the expected image, f32[B, H, W, colours]; no gradient flows through it.

        The expectation over all images has no closed form. This is each pixel's expectation given
        the pixels before it in one draw: an unbiased estimate, at the cost of a draw. The key is
        fixed, so that it repeats.
        """
        return self._draw(jax.random.key(0), prediction)[1]

    def _draw(self, key: Key, prediction: Array) -> tuple[Array, Array]:
        """A drawn image, and the expectation of each pixel given those before it."""
        net, net_variables = self.net.unbind()
        observation, variables = self.observation.unbind()
        # Else a figure that is only watched would keep every pass of the loop for a backward one.
        net_variables, variables, prediction = jax.lax.stop_gradient(
            (net_variables, variables, prediction)
        )
        size, height, width = prediction.shape[:3]
        rows, pixel_shape = min(height, net.reach + 1), self._pixel()

        def pixel(i: Array, image: Array) -> tuple[Array, Array]:
            row, column = i // width, i % width
            start = jnp.clip(row - net.reach, 0, height - rows)
            seen, condition = (
                jax.lax.dynamic_slice_in_dim(a, start, rows, axis=1) for a in (image, prediction)
            )
            output = net.apply(
                net_variables, self._scaled(seen), condition[..., : self.conditioning]
            )
            here = (0, row - start, column, 0)
            output = jax.lax.dynamic_slice(output, here, (size, 1, 1, output.shape[-1]))  # pyright: ignore[reportArgumentType]
            output = output.reshape((size, 1, 1, *pixel_shape))
            noise = jax.random.fold_in(key, i)
            drawn = observation.apply(variables, noise, output, method="sample")
            return drawn, observation.apply(variables, output, method="mean")

        def add(i: Array, images: tuple[Array, Array]) -> tuple[Array, Array]:
            here = (0, i // width, i % width, 0)
            new = pixel(i, images[0])
            return jax.tree.map(lambda a, b: jax.lax.dynamic_update_slice(a, b, here), images, new)

        blank = jnp.zeros((size, height, width, self.colours))
        kinds = jax.eval_shape(pixel, jnp.zeros((), jnp.int32), blank)
        images = tuple(blank.astype(kind.dtype) for kind in kinds)
        return jax.lax.fori_loop(0, height * width, add, images)

    def _pixel(self) -> Shape:
        """The shape of what the observation needs for one pixel."""
        return self.observation.shape((1, 1, self.colours))[2:]

    def _scaled(self, image: Array) -> Array:
        """To [-1, 1] where the range is known, so that zero padding is neither black nor white."""
        image = image.astype(jnp.float32)
        if self.support is None:
            return image
        low, high = self.support
        return 2.0 * (image - low) / (high - low) - 1.0
