"""A decoder-only transformer for the Llama family and Gemma 3: one block, cached or not.

    model = Transformer(config)
    logits = model.apply(variables, tokens)                       # f32[B, P, V]
    passed = model.apply(variables, tokens, taps=Taps(reads=("resid_post.15",)), method="hidden")
    passed.seen["resid_post.15"]                                  # f32[B, P, D]

Each block reads the residual stream through a norm and adds to it, twice:

    resid_pre ──┬─► norm ──► attention ──► attn_out ──(+)──► resid_mid
                └──────────────────────────────────────┘
    resid_mid ──┬─► norm ──► mlp_in ──► MLP ──► mlp_out ──(+)──► resid_post
                └──────────────────────────────────────────┘

Shapes: B texts, P positions of this pass, S slots of keys (P of them, or those of a cache), D the
residual stream, H heads of queries, K of keys and values, h a head's size, V tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import PartitionSpec

from aejax.errors import UserError
from aejax.language.config import Config
from aejax.language.layers import MLP, PADDING, Attention, Dense, Norm, Scene, tables
from aejax.language.taps import HOOKS, Tap, Taps, blank
from aejax.types import Array

NO_TAPS = Taps()
# For aejax.training.compiled.state_layout: heads, the MLP's hidden units, the vocabulary and the
# latents of spliced dictionaries over the mesh axis "model".
language_rules: Sequence[tuple[str, PartitionSpec]] = (
    (r"(query|key|value|gate|up|unembed)/kernel$", PartitionSpec(None, "model")),
    (r"(query|key|value)/bias$", PartitionSpec("model")),
    (r"(out|down)/kernel$", PartitionSpec("model", None)),
    (r"embedding$", PartitionSpec("model", None)),
    (r"W_enc$", PartitionSpec(None, "model")),
    (r"W_dec$", PartitionSpec("model", None)),
    (r"(b_enc|threshold|b_gate|b_mag|r_mag)$", PartitionSpec("model")),
)


class Cache(NamedTuple):
    """Keys and values of the tokens so far: one array a block, or one for all where scanned."""

    keys: Any  # [f[B, S, K, h]] * layers, or f[layers, B, S, K, h]
    values: Any
    position: Array  # i32[B, S], -1 where a slot holds no token
    used: Array  # i32[], the slots that are written


class Passed(NamedTuple):
    """What a pass through the blocks leaves."""

    x: Array  # f[B, P, D], the residual stream after the last block and the final norm
    seen: dict[str, Array]  # hook -> its value
    cache: Cache | None  # with this pass' tokens


class Block(nn.Module):
    """Attention and an MLP, each behind a norm and added to the residual stream."""

    config: Config
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Array, local: Any, kept: Any, scene: Scene, tap: Tap
    ) -> tuple[Array, Any]:
        """One block.

        Args:
          x: f[B, P, D], the residual stream.
          local: 1 for a local layer, 0 for a global one; traced under scan.
          kept: the cache's (keys, values) of this block, or None.
          scene: what all blocks share.
          tap: of this block.
        """
        c = self.config

        def post(name: str, added: Array) -> Array:
            return Norm(c.epsilon, name=name)(added) if c.post_norm else added

        x = tap("resid_pre", x)
        read = Norm(c.epsilon, name="attention_norm")(x)
        added, kept = Attention(c, self.dtype, name="attention")(read, local, kept, scene, tap)
        x = tap("resid_mid", x + tap("attn_out", post("attention_post_norm", added)))
        read = tap("mlp_in", Norm(c.epsilon, name="mlp_norm")(x))
        added = post("mlp_post_norm", MLP(c, self.dtype, name="mlp")(read))
        return tap("resid_post", x + tap("mlp_out", added)), kept


class Transformer(nn.Module):
    """Embedding, blocks, final norm and head.

    Attributes:
      config: its numbers.
      dtype: of the products and the residual stream; norms, softmax and logits are float32.
      scan: whether the blocks are one block under `nn.scan`, with parameters stacked [layers, ...]:
        compiling then takes as long as one block. `weights.stacked` leads from one form to the
        other.
    """

    config: Config
    dtype: Any = jnp.float32
    scan: bool = False

    def setup(self) -> None:
        """Names the parts."""
        c = self.config
        self.embedding = self.param(
            "embedding", nn.initializers.normal(0.02), (c.vocabulary, c.size), self.dtype
        )
        blocks: Any = Block(c, self.dtype)
        self.blocks = blocks if self.scan else [Block(c, self.dtype) for _ in range(c.layers)]
        self.norm = Norm(c.epsilon)
        if not c.tied:
            self.unembed = Dense(c.vocabulary, self.dtype)

    def __call__(self, tokens: Array, position: Array | None = None, taps: Taps = NO_TAPS) -> Array:
        """Logits of the token after each, f32[B, P, V].

        Args:
          tokens: i32[B, P].
          position: i32[B, P] of each token in its text, -1 for padding; None: 0 to P - 1.
          taps: what is edited on the way.
        """
        return self.head(self.hidden(tokens, position, taps=taps).x)

    def head(self, x: Array) -> Array:
        """Logits f32[..., V] of normed residual streams f[..., D]."""
        if not self.config.tied:
            return self.unembed(x).astype(jnp.float32)
        return jnp.einsum("...d,vd->...v", x, self.embedding, preferred_element_type=jnp.float32)

    def hidden(
        self,
        tokens: Array,
        position: Array | None = None,
        cache: Cache | None = None,
        taps: Taps = NO_TAPS,
    ) -> Passed:
        """The pass through all blocks and the final norm; arguments as for `__call__`.

        Args:
          tokens: i32[B, P].
          position: i32[B, P]; None: 0 to P - 1.
          cache: of the tokens before, with room for these; None: there are none, and none is made.
          taps: what is read and edited on the way.

        Raises:
          UserError: more tokens than the model's context, or a hook that there is not.
        """
        c = self.config
        taps.depth(c.layers)
        if position is None:
            position = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        slots: Array = position
        if cache is not None:
            slots = jax.lax.dynamic_update_slice(cache.position, position, (0, cache.used))
        if slots.shape[1] > c.context:
            raise UserError(
                f"texts of {slots.shape[1]} tokens are longer than the model's context of "
                f"{c.context}: cut them"
            )
        scene = Scene(position, slots, tables(c, position), cache and cache.used)
        x = jnp.take(self.embedding, tokens, axis=0) * jnp.asarray(c.embedding_scale, self.dtype)
        x, seen, kept = self._blocks(x, cache, scene, taps)
        if cache is not None:
            cache = Cache(kept[0], kept[1], slots, cache.used + tokens.shape[1])
        return Passed(self.norm(x), {hook: seen[hook] for hook in taps.reads}, cache)

    def _blocks(self, x: Array, cache: Cache | None, scene: Scene, taps: Taps) -> Any:
        """The pass through all blocks: x, what was read, and the cache's keys and values."""
        c, blocks = self.config, cast(Any, self.blocks)
        local = [int(value) for value in c.local] or [0] * c.layers

        def run(block: Block, carry: Any, layer: Any) -> Any:
            (x, seen), (index, local, kept) = carry, layer
            tap = taps.at(index, scene.position, seen)
            x, kept = block(x, local, kept, scene, tap)
            return (x, tap.seen), kept

        if not self.scan:
            carry, kept = (x, {}), []
            for i, block in enumerate(blocks):
                own = None if cache is None else (cache.keys[i], cache.values[i])
                carry, own = run(block, carry, (i, local[i], own))
                kept.append(own)
            kept = None if cache is None else tuple(zip(*kept, strict=True))
            return *carry, kept
        seen = blank(taps, self._shapes(x, scene))
        layers = (jnp.arange(c.layers), jnp.asarray(local), cache and (cache.keys, cache.values))
        scanned = nn.scan(run, variable_axes={"params": 0}, split_rngs={"params": True})
        carry, kept = scanned(blocks, (x, seen), layers)
        return *carry, kept

    def _shapes(self, x: Array, scene: Scene) -> dict[str, jax.ShapeDtypeStruct]:
        """Hook's name -> shape and dtype of its value."""
        B, P, S = *scene.position.shape, scene.slots.shape[1]
        pattern = jax.ShapeDtypeStruct((B, self.config.heads, P, S), jnp.float32)
        stream = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return {name: pattern if name == "attn_pattern" else stream for name in HOOKS}


def empty_cache(config: Config, texts: int, slots: int, dtype: Any, scan: bool) -> Cache:
    """A cache of `slots` tokens for each of `texts` texts, with none written."""
    shape = (texts, slots, config.kv_heads, config.head_size)
    if scan:
        keys: Any = jnp.zeros((config.layers, *shape), dtype)
    else:
        keys = tuple(jnp.zeros(shape, dtype) for _ in range(config.layers))
    # Values are arrays of their own: a donated buffer must not stand in two places.
    values = jax.tree.map(jnp.zeros_like, keys)
    return Cache(keys, values, jnp.full((texts, slots), PADDING), jnp.zeros((), jnp.int32))


def shortened(model: Transformer, variables: Any, layers: int) -> tuple[Transformer, Any]:
    """The same model without the blocks after the first `layers`: where a pass may stop.

    Args:
      model: of more layers.
      variables: its variables; nothing is copied where blocks are unrolled.
      layers: how many blocks to keep, 0 or more.
    """
    params = dict(variables["params"])
    if model.scan:
        params["blocks"] = jax.tree.map(lambda leaf: leaf[:layers], params["blocks"])
    else:
        for i in range(layers, model.config.layers):
            del params[f"blocks_{i}"]
    config = dataclasses.replace(model.config, layers=layers, local=model.config.local[:layers])
    return model.clone(config=config), {**variables, "params": params}
