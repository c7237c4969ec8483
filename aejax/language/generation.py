"""Generation of text with a cache of keys and values, for a batch of prompts.

    prompts = padded([[1, 2, 3], [4, 5]])
    made = generate(model, variables, prompts, key, count=32, ends=(2,))
    made.tokens                                         # i32[B, 32]
    generate(..., choose=Sampling(temperature=0.8, top_p=0.9), edits={"resid_post.15": add(v)})

The first forward pass processes the whole prompts; each further pass generates one token for every
text. The edits are applied in all passes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.language.layers import PADDING
from aejax.language.llama import Transformer, empty_cache
from aejax.language.taps import Edit, Taps, wrapped
from aejax.types import Array, Key, Variables

# A function (key, logits f32[V]) -> i32[] that chooses the next token of one text. It must be
# hashable, because `generate` is compiled once for each such function.
Choose = Callable[[Key, Array], Array]


class Prompts(NamedTuple):
    """Texts of different lengths, padded to the longest."""

    tokens: Array  # i32[B, P]
    position: Array  # i32[B, P], the position of each token in its text; -1 for padding


class Generated(NamedTuple):
    """The tokens that continue the prompts."""

    tokens: Array  # i32[B, count]; after a text's end token, that token is repeated
    lengths: Array  # i32[B], the number of tokens up to and including the end token


def padded(texts: Sequence[Sequence[int]], side: Literal["left", "right"] = "left") -> Prompts:
    """Pads the tokens of several texts to equal length and returns them as `Prompts`.

    Args:
      texts: the tokens of each text, at least 1.
      side: the side of the padding; the choice changes the model's results only by rounding.

    Raises:
      UserError: if there is no text, or a text has no token.
    """
    lengths = [len(text) for text in texts]
    if not lengths or min(lengths) < 1:
        raise UserError(
            "there is no prompt, or one that holds no token: give each prompt 1 token or more, "
            "such as the BOS token"
        )
    tokens = np.zeros((len(texts), max(lengths)), np.int32)
    position = np.full_like(tokens, PADDING)
    for i, (text, length) in enumerate(zip(texts, lengths, strict=True)):
        where = slice(-length, None) if side == "left" else slice(0, length)
        tokens[i, where], position[i, where] = text, np.arange(length)
    return Prompts(jnp.asarray(tokens), jnp.asarray(position))


def greedy(key: Key, logits: Array) -> Array:
    """Returns the first token with the largest logit, i32[]; the key is not used."""
    del key
    # On CPUs XLA computes a maximum and then a minimum several times as fast as an argmax.
    tokens = jnp.arange(len(logits), dtype=jnp.int32)
    return jnp.min(jnp.where(logits == jnp.max(logits), tokens, tokens[-1]))


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Draws tokens from softmax(logits / temperature), optionally among the likeliest tokens only.

    Attributes:
      temperature: a number above 0; lower ones favour the likeliest tokens more.
      top_k: draws among the k likeliest tokens; None: among all.
      top_p: draws among the fewest likeliest tokens whose probabilities sum to at least this number
        (Holtzman et al. 2020), after top_k was applied; None: among all.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self):
        """Checks the fields.

        Raises:
          UserError: if a field is out of range; the message names it.
        """
        if not self.temperature > 0:
            raise UserError(
                f"temperature is {self.temperature}: give more than 0, or choose=greedy for the "
                "likeliest token"
            )
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k is {self.top_k}: give 1 or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}: give more than 0 and at most 1")

    def __call__(self, key: Key, logits: Array) -> Array:
        """Draws one token, i32[], from logits f32[V]."""
        logits = logits / self.temperature
        if self.top_k is None and self.top_p is None:
            return jax.random.categorical(key, logits).astype(jnp.int32)
        size = logits.shape[0]
        values, tokens = jax.lax.top_k(logits, min(self.top_k or size, size))
        if self.top_p is not None:
            share = jax.nn.softmax(values)
            before = jnp.cumsum(share) - share  # the probability of all likelier tokens
            values = jnp.where(before < self.top_p, values, -jnp.inf)
        return tokens[jax.random.categorical(key, values)].astype(jnp.int32)


def generate(
    model: Transformer,
    variables: Variables,
    prompts: Prompts,
    key: Key | None = None,
    *,
    count: int,
    choose: Choose = greedy,
    ends: Sequence[int] = (),
    edits: Mapping[str, Edit] | None = None,
) -> Generated:
    """Generates tokens that continue prompts; it is compiled once for each shape of the prompts.

    Args:
      model: the transformer.
      variables: its variables.
      prompts: the token ids of the prompts, padded to one length by `padded`.
      key: the key of the draws: new token i of text b is drawn with fold_in(fold_in(key, i), b).
        None is allowed for `greedy`, which draws nothing.
      count: the largest number of tokens to make for each prompt.
      choose: `greedy`, a `Sampling`, or any hashable function (key, logits f32[V]) -> i32[].
      ends: the tokens that end a text.
      edits: hook -> the edit that every pass applies there.

    Returns:
      The new tokens.

    Raises:
      UserError: if prompt and count exceed the model's context, or a hook does not exist.
    """
    length, context = prompts.tokens.shape[1], model.config.context
    if count < 1:
        raise UserError(f"count is {count}: give 1 or more")
    if length + count > context:
        raise UserError(
            f"a prompt of {length} tokens and {count} new ones are more than the model's context "
            f"of {context}: shorten the prompt or make count smaller"
        )
    key = jax.random.key(0) if key is None else key
    taps = Taps(wrapped(edits))
    stops = jnp.asarray(ends, jnp.int32).reshape(-1)
    return _generate(model, count, choose, variables, prompts, key, taps, stops)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _generate(
    model: Transformer,
    count: int,
    choose: Choose,
    variables: Variables,
    prompts: Prompts,
    key: Key,
    taps: Taps,
    ends: Array,
) -> Generated:
    texts, length = prompts.tokens.shape
    cache = empty_cache(model.config, texts, length + count - 1, model.dtype, model.scan)

    def chosen(x: Array, i: Array) -> Array:
        """Chooses the next token of each text, i32[B], from its last state f[B, D]."""
        logits: Any = model.apply(variables, x, method="head")
        keys = jax.vmap(lambda b: jax.random.fold_in(jax.random.fold_in(key, i), b))
        return jax.vmap(choose)(keys(jnp.arange(texts)), logits)

    def finished(tokens: Array) -> Array:
        return jnp.any(tokens[:, None] == ends[None], axis=1)

    def unfinished(state: Any) -> Array:
        _, _, _, i, done, _ = state
        return (i < count) & ~jnp.all(done)

    def step(state: Any) -> Any:
        cache, position, tokens, i, done, lengths = state
        last = tokens[:, i - 1]
        passed: Any = model.apply(
            variables, last[:, None], position[:, None], cache, taps, method="hidden"
        )
        token = jnp.where(done, last, chosen(passed.x[:, 0], i))
        tokens = jax.lax.dynamic_update_slice(tokens, token[:, None], (0, i))
        lengths = jnp.where(done, lengths, i + 1)
        return passed.cache, position + 1, tokens, i + 1, done | finished(token), lengths

    passed: Any = model.apply(variables, *prompts, cache, taps, method="hidden")
    # The index of each text's last token, whichever side the padding is on.
    last = jnp.argmax(prompts.position, axis=1)
    states = jnp.take_along_axis(passed.x, last[:, None, None], axis=1)[:, 0]
    first = chosen(states, jnp.zeros((), jnp.int32))
    tokens = jnp.zeros((texts, count), jnp.int32).at[:, 0].set(first)
    position = jnp.max(prompts.position, axis=1) + 1
    one = jnp.ones((), jnp.int32)
    state = passed.cache, position, tokens, one, finished(first), jnp.ones(texts, jnp.int32)
    _, _, tokens, _, _, lengths = jax.lax.while_loop(unfinished, step, state)
    # If all texts ended early, zeros follow the tokens that the loop wrote.
    inside = jnp.arange(count)[None] < lengths[:, None]
    end = jnp.take_along_axis(tokens, lengths[:, None] - 1, axis=1)
    return Generated(jnp.where(inside, tokens, end), lengths)
