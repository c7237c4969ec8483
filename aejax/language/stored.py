"""A language model in files as a constant part of other models, such as a text autoencoder.

    stored = Stored.of("models/SmolLM2-135M-Instruct.Q4_1.gguf")
    ids = stored.vocabulary().ids("a small dog")

A `Stored` names the files and the sha256 of the weights. It is a field of a model like a number:
compared by value, and written to config.json. The weights are read when they are first needed. They
are constants of the compiled programs, so no optimiser changes them and no checkpoint holds them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax.data.text.coding import END
from aejax.errors import UserError
from aejax.language.llama import Transformer
from aejax.language.load import fingerprint, load
from aejax.language.tokenizer import Tokenizer, load_tokenizer
from aejax.language.weights import stacked
from aejax.types import Array, Variables

SPECIAL = 2  # the ids of a coding before those of tokens: padding, and the end of a text


class Frozen(NamedTuple):
    """A language model that is ready to run, with constant variables."""

    model: Transformer  # its blocks are scanned, so that compiling takes as long as for one
    values: Variables  # its variables, with leaves in the memory of the host
    start: int  # the token before a text
    end: int  # the token that ends a text

    @property
    def variables(self) -> Variables:
        """Returns the variables as constants of a program.

        Without the barrier XLA would compute products of constants while it compiles, which takes
        minutes.
        """
        return jax.lax.optimization_barrier(jax.tree.map(jnp.asarray, self.values))

    def own(self, ids: Array) -> Array:
        """Returns the model's tokens for ids of a `Vocabulary`, in which padding is the start."""
        special = jnp.where(ids == END, self.end, self.start)
        return jnp.where(ids < SPECIAL, special, ids - SPECIAL)


@dataclasses.dataclass(frozen=True)
class Stored:
    """The name of a language model in files.

    Attributes:
      path: a GGUF file, or a folder with config.json, safetensors and tokenizer.json.
      sha256: the sha256 of its weights, as `language.fingerprint` computes it.
    """

    path: str
    sha256: str

    @classmethod
    def of(cls, path: Any) -> Stored:
        """Returns the name of the model at a path.

        Raises:
          UserError: if there is no model.
        """
        return cls(str(path), fingerprint(path))

    def open(self) -> Frozen:
        """Returns the model and its weights, which are read once in a process.

        Raises:
          UserError: if the files are missing or damaged, or hold other weights.
        """
        return _opened(self)

    def vocabulary(self) -> Vocabulary:
        """Returns the model's tokens as a coding of texts.

        Raises:
          UserError: if the tokenizer is missing or damaged.
        """
        return Vocabulary(self, self.open().model.config.vocabulary + SPECIAL)


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The tokens of a language model as a coding of texts; its token i has the id i + 2.

    Attributes:
      stored: the language model.
      size: the number of ids.
    """

    stored: Stored
    size: int

    def ids(self, text: str) -> list[int]:
        """Returns the token ids of a text, without the id 1 that ends a text."""
        return [i + SPECIAL for i in _tokenizer(self.stored.path).encode(text)]

    def text(self, ids: Sequence[int]) -> str:
        """Returns the text of token ids."""
        return _tokenizer(self.stored.path).decode([int(i) - SPECIAL for i in ids])


@functools.lru_cache(maxsize=4)
def _tokenizer(path: str) -> Tokenizer:
    return load_tokenizer(path)


@functools.lru_cache(maxsize=2)
def _opened(stored: Stored) -> Frozen:
    found = fingerprint(stored.path)
    if found != stored.sha256:
        raise UserError(
            f"{stored.path} holds other weights (sha256 {found[:12]}) than the model was made with "
            f"({stored.sha256[:12]}): restore the file"
        )
    with jax.ensure_compile_time_eval():  # the first use may be within a program
        model, variables, tokenizer = load(stored.path)
        values = jax.tree.map(np.asarray, stacked(variables))
    end = tokenizer.ends[0] if tokenizer.ends else tokenizer.bos
    start = end if tokenizer.bos is None else tokenizer.bos
    if start is None or end is None:
        raise UserError(
            f"the tokenizer of {stored.path} has no token that begins or ends a text: add "
            "bos_token or eos_token to its tokenizer_config.json"
        )
    return Frozen(model.clone(scan=True), values, start, end)
