"""The sizes and options of a decoder-only transformer of the Llama family or Gemma 3."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, Literal

from aejax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """The sizes and options of one model.

    The defaults of the options are Llama's. Qwen 2.5 adds biases to queries, keys and values.
    Gemma 3 adds norms of queries and keys, norms after attention and MLP, GeGLU, a scaled
    embedding, and local layers, whose attention reaches back only a window of positions and whose
    rotary embedding has its own base.
    """

    vocabulary: int  # V, the number of tokens
    layers: int  # the number of blocks
    size: int  # D, the width of the residual stream
    heads: int  # the number of query heads
    kv_heads: int  # the number of key and value heads; heads / kv_heads query heads share each
    head_size: int  # the width of one head
    hidden: int  # the number of hidden units of the MLP
    context: int  # the longest text that the model was trained on, in tokens
    epsilon: float = 1e-5  # added to the mean square in every norm
    tied: bool = True  # whether the head is the transposed embedding
    query_bias: bool = False  # whether queries, keys and values have biases
    query_norm: bool = False  # whether queries and keys pass through a norm within each head
    post_norm: bool = False  # whether the outputs of attention and MLP pass through a norm
    activation: Literal["silu", "gelu"] = "silu"  # the activation of the MLP's gate; gelu by tanh
    embedding_scale: float = 1.0  # multiplies the embeddings of the input, but not the head
    query_scale: float | None = None  # multiplies the attention scores; None: head_size ** -0.5
    rope_base: float = 1e4  # the rotary base of global layers
    rope_factors: tuple[float, ...] = ()  # divisors of the head_size / 2 frequencies; (): all are 1
    local: tuple[bool, ...] = ()  # whether each layer is local; (): all layers are global
    local_rope_base: float = 1e4  # the rotary base of local layers
    window: int = 0  # how many positions a token attends to in a local layer, including its own

    def __post_init__(self):
        """Checks that the fields do not contradict each other.

        Raises:
          UserError: if fields contradict each other; the message names the field to change.
        """
        if self.heads % self.kv_heads:
            raise UserError(
                f"heads is {self.heads} and kv_heads is {self.kv_heads}: kv_heads must divide "
                "heads, because each head of keys and values serves equally many heads of queries"
            )
        if self.head_size % 2:
            raise UserError(
                f"head_size is {self.head_size}: give an even number, because rotary positions "
                "turn the elements of a head in pairs"
            )
        if self.rope_factors and len(self.rope_factors) != self.head_size // 2:
            raise UserError(
                f"rope_factors has {len(self.rope_factors)} numbers, but a head of size "
                f"{self.head_size} has {self.head_size // 2} rotary frequencies: give one for each"
            )
        if self.local and len(self.local) != self.layers:
            raise UserError(
                f"local has {len(self.local)} entries, but there are {self.layers} layers: give "
                "one for each"
            )
        if any(self.local) and self.window < 1:
            raise UserError(f"window is {self.window}: local layers need a window of 1 or more")

    @property
    def parameters(self) -> int:
        """The number of the model's parameters."""
        attention = 2 * self.size * self.head_size * (self.heads + self.kv_heads)
        bias = self.query_bias * self.head_size * (self.heads + 2 * self.kv_heads)
        norms = (2 + 2 * self.post_norm) * self.size + 2 * self.query_norm * self.head_size
        block = attention + bias + norms + 3 * self.size * self.hidden
        embeddings = (2 - self.tied) * self.vocabulary * self.size
        return self.layers * block + embeddings + self.size


def check_sizes(layers: Any, head_size: Any, path: pathlib.Path) -> None:
    """Checks two sizes that a file states, before anything is made for each layer or element.

    Raises:
      UserError: if one is no integer, or larger than that of any known model.
    """
    for name, value, most in (("layers", layers, 4_096), ("elements of a head", head_size, 65_536)):
        if type(value) is not int or not 1 <= value <= most:
            raise UserError(
                f"{path} states {value!r:.40} {name}, which cannot be right: fetch it again"
            )
