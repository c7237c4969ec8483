"""A decoder-only transformer for the Llama family and Gemma 3, with or without a cache.

    model = Transformer(config)
    logits = model.apply(variables, tokens)                       # f32[B, P, V]
    passed = model.apply(variables, tokens, taps=Taps(reads=("resid_post.15",)), method="hidden")
    passed.seen["resid_post.15"]                                  # f32[B, P, D]

In each block first attention and then an MLP read the residual stream through a norm and add their
output to it. The names in the diagram are the block's hooks:

    resid_pre ──┬─► norm ──► attention ──► attn_out ──(+)──► resid_mid
                └──────────────────────────────────────┘
    resid_mid ──┬─► norm ──► mlp_in ──► MLP ──► mlp_out ──(+)──► resid_post
                └──────────────────────────────────────────┘

Letters in shapes: B texts, P tokens of each in this pass, S slots that hold keys (those P tokens,
or all slots of a cache), D the width of the residual stream, H query heads, K key and value heads,
h the size of a head, V the size of the vocabulary.
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
from aejax.language.layers import MLP, PADDING, Attention, Dense, Norm, Scene, product, tables
from aejax.language.taps import HOOKS, Tap, Taps, blank
from aejax.types import Array

NO_TAPS = Taps()
# Rules for aejax.training.compiled.state_layout. They divide the heads, the MLP's hidden units, the
# vocabulary and the latents of spliced dictionaries over the mesh axis "model".
language_rules: Sequence[tuple[str, PartitionSpec]] = (
    (r"(qkv|gate_up|unembed)/kernel$", PartitionSpec("model", None)),
    (r"qkv/bias$", PartitionSpec("model")),
    (r"(out|down)/kernel$", PartitionSpec(None, "model")),
    (r"embedding$", PartitionSpec("model", None)),
    (r"W_enc$", PartitionSpec(None, "model")),
    (r"W_dec$", PartitionSpec("model", None)),
    (r"(b_enc|threshold|b_gate|b_mag|r_mag)$", PartitionSpec("model")),
)


class Cache(NamedTuple):
    """The keys and values of the tokens so far."""

    keys: Any  # one f[K * B, h, S] for each block; if blocks are scanned, f[layers, K * B, h, S]
    values: Any  # one f[K * B, S, h] for each block; if blocks are scanned, f[layers, K * B, S, h]
    position: Array  # i32[B, S], the position of the token in each slot; -1 if the slot is empty
    used: Array  # i32[], the number of slots that are written


class Passed(NamedTuple):
    """The results of a pass through the blocks."""

    x: Array  # f[B, P, D], the residual stream after the last block and the final norm
    seen: dict[str, Array]  # hook -> the value there, for the hooks in Taps.reads
    cache: Cache | None  # the cache with this pass' tokens added; None: no cache was given


class Block(nn.Module):
    """One transformer block: attention and an MLP, each added to the residual stream."""

    config: Config
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Array, local: Any, kept: Any, scene: Scene, tap: Tap
    ) -> tuple[Array, Any]:
        """Runs one block.

        Args:
          x: the residual stream, f[B, P, D].
          local: 1 for a local layer, 0 for a global one; it is traced if blocks are scanned.
          kept: this block's (keys, values) in the cache, or None.
          scene: the arrays that all blocks share.
          tap: the function that reads and edits the values at this block's hooks.

        Returns:
          The new residual stream f[B, P, D], and `kept` with this pass' keys and values added.
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
    """A language model: embedding, blocks, final norm and head.

    Attributes:
      config: the model's sizes and options.
      dtype: the dtype of the matrix products and the residual stream; norms, softmax and logits are
        float32.
      scan: whether the blocks run as a `scan` over parameters that are stacked along a first axis
        of layers (by `weights.stacked`), so that compiling takes only as long as for one block.
    """

    config: Config
    dtype: Any = jnp.float32
    scan: bool = False

    def setup(self) -> None:
        """Declares the embedding, the blocks, the final norm and, unless it is tied, the head."""
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
        """Computes the logits of the token that follows each token, f32[B, P, V].

        Args:
          tokens: i32[B, P].
          position: the position of each token in its text, i32[B, P], -1 for padding; None means
            0 to P - 1.
          taps: the edits at hooks.
        """
        return self.head(self.hidden(tokens, position, taps=taps).x)

    def head(self, x: Array) -> Array:
        """Maps the residual stream after the final norm, f[..., D], to logits f32[..., V]."""
        if not self.config.tied:
            return self.unembed(x).astype(jnp.float32)
        return product(x, self.embedding, jnp.float32)

    def hidden(
        self,
        tokens: Array,
        position: Array | None = None,
        cache: Cache | None = None,
        taps: Taps = NO_TAPS,
    ) -> Passed:
        """Runs all blocks and the final norm, but not the head.

        Args:
          tokens: i32[B, P].
          position: the position of each token in its text, i32[B, P]; None means 0 to P - 1.
          cache: the keys and values of the earlier tokens, with empty slots for those of this pass;
            None: there are no earlier tokens, and no cache is returned.
          taps: the hooks to read, and the edits at hooks.

        Raises:
          UserError: if a text has no token or more than the model's context, or a hook does not
            exist.
        """
        c = self.config
        taps.depth(c.layers)
        if tokens.ndim != 2 or tokens.shape[1] < 1:
            raise UserError(
                f"the tokens have the shape {tokens.shape}: give i32[B, P], texts of 1 token or "
                "more, such as the BOS token"
            )
        if position is None:
            position = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        slots: Array = position
        if cache is not None:
            slots = jax.lax.dynamic_update_slice(cache.position, position, (0, cache.used))
        if slots.shape[1] > c.context:
            raise UserError(
                f"texts of {slots.shape[1]} tokens are longer than the model's context of "
                f"{c.context}: give shorter texts"
            )
        scene = Scene(position, slots, tables(c, position), cache and cache.used)
        x = jnp.take(self.embedding, tokens, axis=0) * jnp.asarray(c.embedding_scale, self.dtype)
        x, seen, kept = self._blocks(x, cache, scene, taps)
        if cache is not None:
            cache = Cache(kept[0], kept[1], slots, cache.used + tokens.shape[1])
        return Passed(self.norm(x), {hook: seen[hook] for hook in taps.reads}, cache)

    def _blocks(self, x: Array, cache: Cache | None, scene: Scene, taps: Taps) -> Any:
        """Runs all blocks.

        Returns:
          The residual stream after the last block, the values that were read (hook -> value), and
          the new keys and values of the cache, or None without a cache.
        """
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
        """Returns the shape and dtype of the value at each hook, by its name without a layer."""
        B, P, S = *scene.position.shape, scene.slots.shape[1]
        pattern = jax.ShapeDtypeStruct((B, self.config.heads, P, S), jnp.float32)
        stream = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return {name: pattern if name == "attn_pattern" else stream for name in HOOKS}


def empty_cache(config: Config, texts: int, slots: int, dtype: Any, scan: bool) -> Cache:
    """Returns an empty cache, with room for the keys and values of `slots` tokens of each text.

    Args:
      config: the model's sizes and options.
      texts: the number of texts, B.
      slots: the number of tokens of a text for which there is room, S.
      dtype: the dtype of keys and values.
      scan: whether the model's blocks are scanned.
    """

    def empty(*shape: int) -> Any:
        # An axis of the texts alone would have length 1 for a single text. XLA drops such axes, and
        # then copies the whole cache in every pass.
        shape = config.kv_heads * texts, *shape
        if scan:
            return jnp.zeros((config.layers, *shape), dtype)
        return tuple(jnp.zeros(shape, dtype) for _ in range(config.layers))

    keys, values = empty(config.head_size, slots), empty(slots, config.head_size)
    return Cache(keys, values, jnp.full((texts, slots), PADDING), jnp.zeros((), jnp.int32))


def shortened(model: Transformer, variables: Any, layers: int) -> tuple[Transformer, Any]:
    """Returns the model and its variables with the first `layers` blocks only.

    Args:
      model: a model with at least that many blocks.
      variables: its variables; they are copied only if blocks are scanned.
      layers: the number of blocks to keep, 0 or more.
    """
    params = dict(variables["params"])
    if model.scan:
        params["blocks"] = jax.tree.map(lambda leaf: leaf[:layers], params["blocks"])
    else:
        for i in range(layers, model.config.layers):
            del params[f"blocks_{i}"]
    config = dataclasses.replace(model.config, layers=layers, local=model.config.local[:layers])
    return model.clone(config=config), {**variables, "params": params}
