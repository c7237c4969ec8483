"""The base class of autoregressive likelihoods of texts, which are sequences of token ids.

    a text        i32[T]: tokens from 2 on, then 1, which ends the text, then 0, which is padding
    decoder       z -> `prefix` vectors, f32[prefix, width]
    log p(x | z)  = sum over the tokens up to the end of log p(token | the tokens before, vectors)

With `prefix` = 0 the decoder's output is ignored, so that the likelihood is a language model
without latents. Padding never counts: a text padded to any length has the same probability.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aejax.checks import check_count
from aejax.contracts import Likelihood
from aejax.errors import UserError
from aejax.types import Array, Key, Support

PAD, END = 0, 1


class TextLikelihood(Likelihood):
    """Base class of likelihoods that give the tokens of a text one after the other.

    A subclass defines the size of the decoder's vectors (`width`), the logits of all tokens of
    given texts (`logits`), and those of one token after the other with a cache (`begin` and
    `step`), for drawing.

    Attributes:
      coding: converts texts to token ids and back, such as `data.text.coding.Words`; the likelihood
        reads its `size`, the number of ids. It is saved with the model, which therefore can print
        what it draws.
      net: the net that computes the logits, or None if the subclass has another.
      length: the largest number of tokens of a drawn text, with its end.
      prefix: the number of vectors that the decoder gives; 0: none, and its output is ignored.
    """

    coding: Any
    net: Any
    length: int = 32
    prefix: int = 1

    def __post_init__(self) -> None:
        """Raises UserError if a number is out of range, or the coding has no size."""
        check_count(self, 1, "length")
        check_count(self, 0, "prefix")
        if not hasattr(self.coding, "size"):
            raise UserError(
                f"the coding of {type(self).__name__} is {self.coding!r}, which has no `size`: "
                "give a coding, such as that of ae.data.tokens(...).coding"
            )
        super().__post_init__()

    def text_coding(self) -> Any:
        """Returns the coding of the texts."""
        return self.coding

    @property
    def support(self) -> Support:
        """Returns the smallest and the largest token id."""
        return Support(0, self.coding.size - 1, whole=True)

    def shape(self, event: Sequence[int]) -> tuple[int, ...]:
        """Returns the shape of the decoder's output, (prefix, width), or (1, 1) if it is ignored.

        Raises:
          UserError: if the targets are not sequences.
        """
        if len(event) != 1:
            raise UserError(
                f"{type(self).__name__} needs texts of shape (T,), but the target has shape "
                f"{tuple(event)}: encode texts by ae.data.tokens"
            )
        return (self.prefix, self.width) if self.prefix else (1, 1)

    def log_prob(self, prediction: Array, target: Array, mask: Array | None = None) -> Array:
        """Computes log p(text | prediction), f32[B], in nats, of i32[B, T].

        A row that is no text, because a token is before or after padding in the wrong place, has
        the probability 0.

        Raises:
          UserError: if the target does not hold integers.
        """
        return self.log_prob_seen(prediction, target, mask, None)

    def log_prob_seen(
        self, prediction: Array, target: Array, mask: Array | None, hidden: Array | None
    ) -> Array:
        """Computes log p of texts where the net does not see some of the earlier tokens, f32[B].

        Args:
          prediction: the decoder's output, f32[B, prefix, width].
          target: the texts, i32[B, T].
          mask: an array that broadcasts to `target` and multiplies the tokens' log-probabilities.
          hidden: bool[B, T], which tokens later ones do not see; None: they see all.
        """
        if not jnp.issubdtype(target.dtype, jnp.integer):
            raise UserError(
                f"{type(self).__name__} reads the target as token ids, but its dtype is "
                f"{target.dtype}: give integers, as ae.data.tokens does"
            )
        logits = self.logits(prediction, target, hidden)
        chosen = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
        each = chosen - jax.nn.logsumexp(logits, axis=-1)
        # Behind the end of a text there is padding, with probability 1.
        is_end = target == END
        end = jnp.where(jnp.any(is_end, axis=1), jnp.argmax(is_end, axis=1), target.shape[1])
        ended = jnp.arange(target.shape[1])[None] > end[:, None]
        each = jnp.where(ended, jnp.where(target == PAD, 0.0, -jnp.inf), each)
        if mask is None:
            return jnp.sum(each, axis=1)
        mask = jnp.broadcast_to(mask, each.shape)
        return jnp.sum(jnp.where(mask == 0, 0.0, each) * mask, axis=1)

    @property
    @abc.abstractmethod
    def width(self) -> int:
        """Returns the size of each of the vectors that the decoder gives."""

    @abc.abstractmethod
    def logits(self, prediction: Array, target: Array, hidden: Array | None = None) -> Array:
        """Computes the logits of each token given those before it, f32[B, T, size].

        Args:
          prediction: the decoder's output, f32[B, prefix, width].
          target: the texts, i32[B, T].
          hidden: bool[B, T], which tokens later ones do not see; None: they see all.
        """

    @abc.abstractmethod
    def begin(self, size: int, prediction: Array) -> Any:
        """Returns the cache before the first token of `size` texts."""

    @abc.abstractmethod
    def step(self, token: Array, cache: Any, position: Array) -> tuple[Array, Any]:
        """Computes the logits at one place from the token before it.

        Args:
          token: i32[B]; 0 before the first place.
          cache: what `begin` or the last step returned.
          position: the index of the place, i32[].

        Returns:
          The logits, f32[B, size], and the new cache.
        """

    def sample(self, key: Key, prediction: Array) -> Array:
        """Draws texts, token by token, i32[B, length]; no gradient flows through them."""
        return self.drawn(prediction, key)

    def mean(self, prediction: Array) -> Array:
        """Returns the text whose every token is the most probable one, i32[B, length].

        Token ids have no expectation; this text takes its place where one text is to stand for a
        prediction. No gradient flows through it.
        """
        return self.drawn(prediction, None)

    def drawn(
        self,
        prediction: Array,
        key: Key | None,
        choose: Callable[[Key, Array], Array] = jax.random.categorical,
    ) -> Array:
        """Draws texts, i32[B, length], one token after the other.

        Args:
          prediction: the decoder's output, f32[B, prefix, width].
          key: the key of the draws; None: the most probable token is taken.
          choose: a function (key, logits f32[size]) -> i32[] that draws one token, such as
            `language.Sampling(temperature=0.8, top_p=0.9)`.
        """
        module, variables = self.unbind()
        # Without this, reverse mode would save every iteration even if nothing is differentiated.
        variables, prediction = jax.lax.stop_gradient((variables, prediction))
        size = prediction.shape[0]

        def draw(carried: Any, i: Array) -> tuple[Any, Array]:
            token, ended, cache = carried
            logits, cache = module.apply(variables, token, cache, i, method="step")
            if key is None:
                token = jnp.argmax(logits, axis=-1)
            else:
                noise = jax.random.split(jax.random.fold_in(key, i), size)
                token = jax.vmap(choose)(noise, logits)
            token = jnp.where(ended, PAD, token).astype(jnp.int32)
            return (token, ended | (token == END), cache), token

        cache = module.apply(variables, size, prediction, method="begin")
        start = (jnp.zeros((size,), jnp.int32), jnp.zeros((size,), bool), cache)
        _, tokens = jax.lax.scan(draw, start, jnp.arange(self.length))
        return tokens.T
