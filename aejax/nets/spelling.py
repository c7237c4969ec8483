"""A net of the spelling of short texts, such as prompts of a word or two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from aejax.checks import check, check_count, whole
from aejax.nets.tokens import checked_tokens
from aejax.types import Array

FACTOR = 16_777_619  # the prime of the hash FNV-1a of 32 bits


class Spelling(nn.Module):
    """Embeds a text as the mean of the embeddings of its runs of tokens, and of the whole text.

    A run is known by its hash, so that no vocabulary is needed, and texts with common parts are
    near to each other (Bojanowski et al. 2017, section 3.2). Padding changes nothing.

    Attributes:
      width: the number of features.
      buckets: the number of embeddings; runs whose hashes are equal modulo `buckets` share one.
      lengths: the lengths of the runs, in tokens; tokens are usually bytes.
    """

    width: int
    buckets: int = 2**14
    lengths: Sequence[int] = (3, 4, 5)

    def __post_init__(self) -> None:
        """Raises UserError if a number is out of range."""
        check_count(self, 1, "width", "buckets")
        check(self, "lengths", _are_lengths, "lengths of runs, 1 or more, such as (3, 4, 5)")
        super().__post_init__()

    @nn.compact
    def __call__(self, values: Array, context: Any = None) -> Array:
        """Maps tokens i32[B, T], in which 0 is padding, to f32[B, width]; ignores the context."""
        tokens = checked_tokens(self, values).astype(jnp.uint32)
        # A mark before the first token tells the runs at the start from those inside.
        marked = jnp.pad(tokens, ((0, 0), (1, 0)), constant_values=1)
        hashes, real = [], []
        for n in self.lengths:
            padded = jnp.pad(marked, ((0, 0), (0, n - 1)))
            parts = [padded[:, i : i + marked.shape[1]] for i in range(n)]
            hashes.append(_hash(parts, n))
            real.append(parts[-1] > 0)
        whole_text = _hash([marked[:, i : i + 1] for i in range(marked.shape[1])], 0)
        places = (jnp.concatenate([*hashes, whole_text], axis=1) % self.buckets).astype(jnp.int32)
        embedded = nn.Embed(self.buckets, self.width, name="embed")(places)
        there = jnp.concatenate(real, axis=1)[..., None].astype(jnp.float32)
        runs = jnp.sum(embedded[:, :-1] * there, axis=1)
        # The whole text counts as much as all of its runs together.
        return runs / jnp.maximum(jnp.sum(there, axis=1), 1.0) + embedded[:, -1]


def _hash(parts: Sequence[Array], start: int) -> Array:
    """Returns the FNV-1a hash of the tokens of each place, u32; padding leaves a hash as it is."""
    found = jnp.full(parts[0].shape, 2_166_136_261 + start, jnp.uint32)
    for part in parts:
        found = jnp.where(part > 0, (found ^ part) * jnp.uint32(FACTOR), found)
    return found


def _are_lengths(lengths: Any) -> bool:
    return isinstance(lengths, Sequence) and all(whole(n) and n >= 1 for n in lengths)
