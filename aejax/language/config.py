"""The numbers of a decoder-only transformer: one record for the Llama family and for Gemma 3."""

from __future__ import annotations

import dataclasses
from typing import Literal

from aejax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """What sets one model of these families apart from another.

    The defaults are Llama's. Qwen 2.5 adds biases to queries, keys and values. Gemma 3 adds norms
    of queries and keys, norms after attention and MLP, GeGLU, a scaled embedding, and local layers
    that see a window of positions and have a rotary base of their own.
    """

    vocabulary: int  # V
    layers: int
    size: int  # D, of the residual stream
    heads: int  # of queries
    kv_heads: int  # of keys and values; heads / kv_heads queries share one
    head_size: int
    hidden: int  # of the MLP
    context: int  # the most positions that the model was trained on
    epsilon: float = 1e-5  # of the norms
    tied: bool = True  # the head is the embedding, transposed
    query_bias: bool = False  # of queries, keys and values
    query_norm: bool = False  # of queries and keys, within each head
    post_norm: bool = False  # of what attention and MLP add to the residual stream
    activation: Literal["silu", "gelu"] = "silu"  # of the MLP's gate; gelu by its tanh formula
    embedding_scale: float = 1.0  # multiplies embeddings on their way in, not in the head
    query_scale: float | None = None  # multiplies scores; None: head_size ** -0.5
    rope_base: float = 1e4
    rope_factors: tuple[float, ...] = ()  # divide the head_size / 2 frequencies; (): none
    local: tuple[bool, ...] = ()  # which layers are local; (): none
    local_rope_base: float = 1e4
    window: int = 0  # positions that a local layer sees, its own included

    def __post_init__(self):
        """Checks what the fields say of each other.

        Raises:
          UserError: names the field.
        """
        if self.heads % self.kv_heads:
            raise UserError(
                f"{self.heads} heads of queries cannot share {self.kv_heads} of keys and values "
                "evenly: kv_heads must divide heads"
            )
        if self.head_size % 2:
            raise UserError(f"head_size is {self.head_size}: rotary pairs need an even number")
        if self.rope_factors and len(self.rope_factors) != self.head_size // 2:
            raise UserError(
                f"rope_factors has {len(self.rope_factors)} numbers, but there are "
                f"{self.head_size // 2} rotary frequencies"
            )
        if self.local and len(self.local) != self.layers:
            raise UserError(
                f"local has {len(self.local)} entries, but there are {self.layers} layers"
            )
        if any(self.local) and self.window < 1:
            raise UserError(f"window is {self.window}: local layers need a window of 1 or more")

    @property
    def parameters(self) -> int:
        """How many numbers the weights have."""
        attention = 2 * self.size * self.head_size * (self.heads + self.kv_heads)
        bias = self.query_bias * self.head_size * (self.heads + 2 * self.kv_heads)
        norms = (2 + 2 * self.post_norm) * self.size + 2 * self.query_norm * self.head_size
        block = attention + bias + norms + 3 * self.size * self.hidden
        embeddings = (2 - self.tied) * self.vocabulary * self.size
        return self.layers * block + embeddings + self.size
