"""A frozen language model in a text autoencoder: as the likelihood of texts, and in the encoder.

    stored = lm.Stored.of("models/SmolLM2-135M-Instruct.Q4_1.gguf")
    spoken = lm.Spoken(stored.vocabulary(), length=20, prefix=4)
    model = ae.Autoencoder(
        lm.HiddenStates(stored, layer=9),
        ae.Gaussian(32),
        ae.nets.MLP((), shape=spoken.shape((20,))),
        ae.priors.Standard(),
        spoken,
    )

The decoder maps z to `prefix` vectors. Each of them becomes a token before the text, to whose
embedding a linear map of the vector is added (a soft prefix, Lester et al. 2021), and a key and a
value in every layer (Li and Liang 2021, section 4.3). Only these maps are trained.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax.checks import check, check_count
from aejax.events import join_context
from aejax.language.layers import PADDING
from aejax.language.llama import Cache, empty_cache
from aejax.language.stored import Stored, Vocabulary
from aejax.language.taps import Taps
from aejax.likelihoods.text_likelihood import PAD, TextLikelihood
from aejax.types import Array


class Spoken(TextLikelihood):
    """A frozen language model of texts that also reads the decoder's output.

    With `prefix` = 0 it is the language model alone.

    Attributes:
      coding: the tokens of the language model (`Stored.vocabulary()`).
      net: None, since the language model takes its place.
      length: the largest number of tokens of a drawn text, with its end.
      prefix: the number of vectors that the decoder gives.
      width: the number of values of each of these vectors.
    """

    net: Any = None
    width: int = 64

    def __post_init__(self) -> None:
        """Raises UserError if a number is out of range, or the coding is that of no model."""
        check_count(self, 1, "width")
        check(self, "coding", _is_vocabulary, "the tokens of a model, Stored.vocabulary()")
        super().__post_init__()

    def setup(self) -> None:
        """Declares the maps from the decoder's vectors to soft tokens, keys and values."""
        c = self.coding.stored.open().model.config
        # Small weights, so that training begins with the texts of the language model alone.
        small = nn.initializers.normal(0.02)
        self.soft = nn.Dense(c.size, kernel_init=small)
        wide = 2 * c.layers * c.kv_heads * c.head_size
        self.prefixed = nn.Dense(wide, kernel_init=small)

    def logits(self, prediction: Array, target: Array, hidden: Array | None = None) -> Array:
        """Computes the logits of each token given those before it, f32[B, T, size]."""
        seen = target if hidden is None else jnp.where(hidden, PAD, target)
        before = jnp.pad(seen, ((0, 0), (1, 0)))[:, :-1]
        # One pass reads the soft tokens and the text.
        ids = jnp.pad(before, ((0, 0), (self.prefix, 0)))
        cache = self._cache(len(target), ids.shape[1], prediction)
        states, _ = self._run(ids, 0, cache, prediction)
        return self._outputs(states[:, self.prefix :])

    def begin(self, size: int, prediction: Array) -> Any:
        """Returns the cache before the first token, which holds the prefix."""
        cache = self._cache(size, self.prefix + self.length, prediction)
        if not self.prefix:
            return cache
        _, cache = self._run(jnp.zeros((size, self.prefix), jnp.int32), 0, cache, prediction)
        return cache

    def step(self, token: Array, cache: Any, position: Array) -> tuple[Array, Any]:
        """Returns the logits at one place, f32[B, size], from the token before it, i32[B]."""
        states, cache = self._run(token[:, None], self.prefix + position, cache, None)
        return self._outputs(states)[:, 0], cache

    def _run(self, ids: Array, first: Any, cache: Any, prediction: Any) -> tuple[Array, Any]:
        """Runs the language model; returns its states f32[B, P, D] and the new cache.

        Args:
          ids: the ids of the tokens, i32[B, P].
          first: the position of the first one.
          cache: the keys and values before them.
          prediction: the decoder's vectors, if the first tokens are soft ones.
        """
        frozen, taps = self.coding.stored.open(), Taps()
        if prediction is not None and self.prefix:
            edit = jax.tree_util.Partial(_added, self.soft(prediction))
            taps = Taps({"resid_pre.0": edit})
        position = jnp.broadcast_to(first + jnp.arange(ids.shape[1]), ids.shape)
        passed: Any = frozen.model.apply(
            frozen.variables, frozen.own(ids), position, cache, taps, method="hidden"
        )
        return passed.x, passed.cache

    def _cache(self, size: int, count: int, prediction: Array) -> Cache:
        """Returns a cache for `count` tokens that begins with the prefix' keys and values."""
        c, prefix = self.coding.stored.open().model.config, self.prefix
        cache = empty_cache(c, size, prefix + count, jnp.float32, scan=True)
        if not prefix:
            return cache
        rows = self.prefixed(prediction)
        rows = rows.reshape((size, prefix, c.layers, 2, c.kv_heads, c.head_size))
        # A cache has [layers, K * B, h, S] keys and [layers, K * B, S, h] values.
        keys = rows[:, :, :, 0].transpose((2, 3, 0, 4, 1))
        values = rows[:, :, :, 1].transpose((2, 3, 0, 1, 4))
        keys, values = (x.reshape((c.layers, -1, *x.shape[3:])) for x in (keys, values))
        return cache._replace(
            keys=cache.keys.at[:, :, :, :prefix].set(keys),
            values=cache.values.at[:, :, :prefix].set(values),
            position=cache.position.at[:, :prefix].set(0),
            used=jnp.asarray(prefix, jnp.int32),
        )

    def _outputs(self, hidden: Array) -> Array:
        """Returns logits f32[..., size]; those of padding and of the end's second id are -inf."""
        frozen = self.coding.stored.open()
        logits: Any = frozen.model.apply(frozen.variables, hidden, method="head")
        end = logits[..., frozen.end : frozen.end + 1]
        places = jnp.broadcast_to(jnp.arange(logits.shape[-1]), logits.shape)
        others = jnp.where(places == frozen.end, -jnp.inf, logits)
        return jnp.concatenate([jnp.full_like(end, -jnp.inf), end, others], axis=-1)


class HiddenStates(nn.Module):
    """Reads a text by a frozen language model, and pools the states of one layer by attention.

    Attributes:
      stored: the language model.
      layer: the block after which the states are read, counted from 0.
      width: the number of features of a head.
      heads: the number of poolings, each with weights of its own.
    """

    stored: Stored
    layer: int
    width: int = 64
    heads: int = 8

    def __post_init__(self) -> None:
        """Raises UserError if a number is out of range."""
        check_count(self, 0, "layer")
        check_count(self, 1, "width", "heads")
        super().__post_init__()

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """Maps ids i32[B, T] to f32[B, heads * width], with the context appended.

        Raises:
          UserError: if the model has no such layer.
        """
        real = values > PAD
        hook, frozen = f"resid_post.{self.layer}", self.stored.open()
        # The start of a text comes first: the state of the first token is an attention sink.
        ids = jnp.pad(values, ((0, 0), (1, 0)))
        there = jnp.pad(real, ((0, 0), (1, 0)), constant_values=True)
        places = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
        position = jnp.where(there, places, PADDING)
        passed: Any = frozen.model.apply(
            frozen.variables, frozen.own(ids), position, None, Taps(reads=(hook,)), method="hidden"
        )
        states = nn.LayerNorm(name="norm")(jax.lax.stop_gradient(passed.seen[hook][:, 1:]))
        score = nn.Dense(self.heads, name="attention")(states)
        least = jnp.finfo(score.dtype).min
        weight = jax.nn.softmax(jnp.where(real[..., None], score, least), axis=1)
        read = nn.Dense(self.heads * self.width, name="values")(states)
        read = read.reshape((*read.shape[:2], self.heads, self.width))
        pooled = jnp.sum(weight[..., None] * read, axis=1)
        return join_context(pooled.reshape((len(values), -1)), context)


def _added(soft: Array, value: Array, position: Array) -> Array:
    """Adds soft tokens f32[B, P, D] to the first P places of a value f32[B, P + T, D]."""
    del position
    return value + jnp.pad(soft, ((0, 0), (0, value.shape[1] - soft.shape[1]), (0, 0)))


def _is_vocabulary(coding: Any) -> bool:
    return isinstance(coding, Vocabulary)
