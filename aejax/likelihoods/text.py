"""An autoregressive likelihood of texts with a causal net that is trained with the model."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from aejax.likelihoods.text_likelihood import PAD, TextLikelihood
from aejax.types import Array


class Text(TextLikelihood):
    """A language model of texts whose net also reads the decoder's output.

    Attributes:
      coding: converts texts to token ids and back (see `TextLikelihood`).
      net: a causal net, such as `nets.CausalTransformer` or `nets.CausalGRU`, which maps the
        embeddings of the tokens before a place to the features of that place.
      length: the largest number of tokens of a drawn text, with its end.
      prefix: the number of vectors that the decoder gives; 0: none, and its output is ignored.
    """

    def setup(self) -> None:
        """Declares the layers; the row after those of the tokens embeds a hidden token."""
        self.embed = nn.Embed(self.coding.size + 1, self.net.width)
        self.output = nn.Dense(self.coding.size)

    @property
    def width(self) -> int:
        """Returns the size of the vectors, which is that of the net's embeddings."""
        return self.net.width

    def logits(self, prediction: Array, target: Array, hidden: Array | None = None) -> Array:
        """Computes the logits of each token given those before it, f32[B, T, size]."""
        seen = target if hidden is None else jnp.where(hidden, self.coding.size, target)
        # Padding stands for the start, since it is never before a token.
        before = jnp.pad(seen, ((0, 0), (1, 0)))[:, :-1]
        return self._outputs(self.net(self.embed(before), self._given(prediction)))

    def begin(self, size: int, prediction: Array) -> Any:
        """Returns the net's cache before the first token of `size` texts."""
        return self.net.begin(size, self.length, self._given(prediction))

    def step(self, token: Array, cache: Any, position: Array) -> tuple[Array, Any]:
        """Returns the logits at one place, f32[B, size], from the token before it, i32[B]."""
        hidden, cache = self.net.step(self.embed(token), cache, position)
        return self._outputs(hidden), cache

    def _given(self, prediction: Array) -> Array | None:
        return prediction if self.prefix else None

    def _outputs(self, hidden: Array) -> Array:
        """Returns logits f32[..., size]; that of padding is -inf, since the end comes before it."""
        logits = self.output(hidden)
        places = jnp.broadcast_to(jnp.arange(self.coding.size), logits.shape)
        return jnp.where(places == PAD, -jnp.inf, logits)
