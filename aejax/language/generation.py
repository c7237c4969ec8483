"""Generation with a cache of keys and values: one program for a batch of prompts of any length.

    prompts = padded([[1, 2, 3], [4, 5]])
    made = generate(model, variables, prompts, key, count=32, ends=(2,))
    made.tokens                                         # i32[B, 32]
    generate(..., choose=Sampling(temperature=0.8, top_p=0.9), edits={"resid_post.15": add(v)})

The prompts go through the model together, then one token a step. Edits act on both.
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

# (key, logits f32[V]) -> i32[]: chooses one text's next token. Hashable, as programs hold it.
Choose = Callable[[Key, Array], Array]


class Prompts(NamedTuple):
    """Texts of different lengths as one array."""

    tokens: Array  # i32[B, P]
    position: Array  # i32[B, P], of each token in its text; -1 for padding


class Generated(NamedTuple):
    """What came after the prompts."""

    tokens: Array  # i32[B, count]; after an end the end is repeated
    lengths: Array  # i32[B], tokens up to the end, it included


def padded(texts: Sequence[Sequence[int]], side: Literal["left", "right"] = "left") -> Prompts:
    """Texts' tokens as one array.

    Args:
      texts: of 1 token or more each.
      side: where the padding stands; it changes nothing but rounding.

    Raises:
      UserError: there is no text, or one without a token.
    """
    lengths = [len(text) for text in texts]
    if not lengths or min(lengths) < 1:
        raise UserError("a prompt holds no token: give each one or more, such as the BOS token")
    tokens = np.zeros((len(texts), max(lengths)), np.int32)
    position = np.full_like(tokens, PADDING)
    for i, (text, length) in enumerate(zip(texts, lengths, strict=True)):
        where = slice(-length, None) if side == "left" else slice(0, length)
        tokens[i, where], position[i, where] = text, np.arange(length)
    return Prompts(jnp.asarray(tokens), jnp.asarray(position))


def greedy(key: Key, logits: Array) -> Array:
    """The likeliest token, i32[]; the key is not used."""
    del key
    return jnp.argmax(logits).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Draws from softmax(logits / temperature), cut to the likeliest tokens.

    Attributes:
      temperature: above 0.
      top_k: only the k likeliest tokens; None: all.
      top_p: only the likeliest tokens that together have this probability, the one that reaches it
        included (Holtzman et al. 2020); None: all. Applied after top_k.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self):
        """Checks the numbers.

        Raises:
          UserError: names the one that makes no sense.
        """
        if not self.temperature > 0:
            raise UserError(
                f"temperature {self.temperature}: give more than 0, or choose=greedy for the "
                "likeliest token"
            )
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k {self.top_k}: give 1 or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p {self.top_p}: give more than 0 and at most 1")

    def __call__(self, key: Key, logits: Array) -> Array:
        """logits f32[V] -> i32[]."""
        logits = logits / self.temperature
        if self.top_k is None and self.top_p is None:
            return jax.random.categorical(key, logits).astype(jnp.int32)
        size = logits.shape[0]
        values, tokens = jax.lax.top_k(logits, min(self.top_k or size, size))
        if self.top_p is not None:
            share = jax.nn.softmax(values)
            before = jnp.cumsum(share) - share  # of the tokens likelier than each
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
    """Continues prompts, compiled once for each shape.

    Args:
      model: the transformer.
      variables: its variables.
      prompts: of `padded`.
      key: of the draws, token i of text b from fold_in(fold_in(key, i), b); None: for `greedy`.
      count: the most tokens to make for each prompt.
      choose: `greedy`, a `Sampling`, or any hashable (key, logits f32[V]) -> i32[].
      ends: tokens after which a text is finished.
      edits: hook -> edit, in every pass.

    Returns:
      The new tokens.

    Raises:
      UserError: prompt and count are more than the model's context, or there is no such hook.
    """
    length, context = prompts.tokens.shape[1], model.config.context
    if count < 1:
        raise UserError(f"count {count}: give 1 or more")
    if length + count > context:
        raise UserError(
            f"a prompt of {length} tokens and {count} new ones are more than the model's context "
            f"of {context}: shorten the prompt or ask for fewer"
        )
    key = jax.random.key(0) if key is None else key
    taps = Taps(wrapped(edits))
    return _generate(model, count, choose, tuple(ends), variables, prompts, key, taps)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _generate(
    model: Transformer,
    count: int,
    choose: Choose,
    ends: tuple[int, ...],
    variables: Variables,
    prompts: Prompts,
    key: Key,
    taps: Taps,
) -> Generated:
    texts, length = prompts.tokens.shape
    cache = empty_cache(model.config, texts, length + count - 1, model.dtype, model.scan)

    def chosen(x: Array, i: Array) -> Array:
        """The next token of each text i32[B], from its last state f[B, D]."""
        logits: Any = model.apply(variables, x, method="head")
        keys = jax.vmap(lambda b: jax.random.fold_in(jax.random.fold_in(key, i), b))
        return jax.vmap(choose)(keys(jnp.arange(texts)), logits)

    def finished(tokens: Array) -> Array:
        return jnp.isin(tokens, jnp.asarray(ends)) if ends else jnp.zeros(texts, bool)

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
    # Where a text's last token stands, whichever side the padding is on.
    last = jnp.argmax(prompts.position, axis=1)
    states = jnp.take_along_axis(passed.x, last[:, None, None], axis=1)[:, 0]
    first = chosen(states, jnp.zeros((), jnp.int32))
    tokens = jnp.zeros((texts, count), jnp.int32).at[:, 0].set(first)
    position = jnp.max(prompts.position, axis=1) + 1
    one = jnp.ones((), jnp.int32)
    state = passed.cache, position, tokens, one, finished(first), jnp.ones(texts, jnp.int32)
    _, _, tokens, _, _, lengths = jax.lax.while_loop(unfinished, step, state)
    # A loop that ended early left zeros behind.
    inside = jnp.arange(count)[None] < lengths[:, None]
    end = jnp.take_along_axis(tokens, lengths[:, None] - 1, axis=1)
    return Generated(jnp.where(inside, tokens, end), lengths)
