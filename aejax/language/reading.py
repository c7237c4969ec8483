"""Reads the activations at hooks, in a forward pass that stops after the last of these hooks.

read = reader(model, variables, ("resid_post.3", "mlp_out.15"))
read(tokens)["mlp_out.15"]                                   # f[B, P, D]

read = reader(model, variables, ("resid_post.15",), then=lambda seen: {
    "a": latents(a, seen["resid_post.15"]), "b": latents(b, seen["resid_post.15"])})

collect(read, batches, "activations/smollm2", provenance={...})     # a store on the disk
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from aejax.data.activations.filter import TokenFilter
from aejax.data.activations.index import Index
from aejax.data.activations.writer import ActivationWriter
from aejax.errors import UserError
from aejax.language.layers import PADDING
from aejax.language.llama import Transformer, shortened
from aejax.language.packing import Packed
from aejax.language.taps import Edit, Taps, checked, parse, wrapped
from aejax.types import Array, Variables

# A function (tokens i32[B, P], position i32[B, P]) -> {name: value}.
Read = Callable[..., dict[str, Array]]


def reader(
    model: Transformer,
    variables: Variables,
    hooks: Sequence[str],
    *,
    edits: Mapping[str, Edit] | None = None,
    then: Callable[[dict[str, Array]], dict[str, Array]] | None = None,
) -> Read:
    """Returns a compiled function from tokens to the values at hooks.

    Blocks after the last hook do not run.

    Args:
      model: the transformer.
      variables: its variables.
      hooks: the hooks to read, such as ("resid_post.15",).
      edits: hook -> the edit that the pass applies there.
      then: a pure function {hook: value} -> {name: array} that is applied to the values in the same
        compiled program, for example to encode them by several dictionaries. None: the values
        themselves are returned.

    Returns:
      A function (tokens i32[B, P], position i32[B, P] = 0 to P - 1) -> {hook: f[B, P, ...]}, or
      the result of `then`.

    Raises:
      UserError: if no hook is given, or a hook does not exist.
    """
    layers = model.config.layers
    reads = checked(hooks, layers)
    if not reads:
        raise UserError("no hook is given to read: name one or more, such as resid_post.3")
    depth = Taps(reads=reads).depth(layers)
    short, kept = shortened(model, variables, depth)
    # Edits in blocks after the last hook to read are dropped; they cannot change what is read.
    near = {hook: e for hook, e in wrapped(edits).items() if parse(hook, layers).layer < depth}
    taps = Taps(near, reads)

    @jax.jit
    def run(kept: Variables, taps: Taps, tokens: Array, position: Array | None) -> Any:
        passed: Any = short.apply(kept, tokens, position, taps=taps, method="hidden")
        return passed.seen if then is None else then(passed.seen)

    return lambda tokens, position=None: run(kept, taps, tokens, position)


def collect(
    read: Read,
    batches: Callable[[int], Iterable[Packed]],
    folder: str | Path,
    *,
    provenance: Mapping[str, Any],
    filter: TokenFilter | None = None,
    dtype: str | None = None,
    shard_tokens: int = 2**18,
    progress: Callable[[int], None] = lambda done: None,
) -> Index:
    """Computes the values at hooks for a whole corpus and writes them to an activation store.

    If the process is killed and started again, it continues with the first batch that is not in a
    written shard, and the finished store has the same content. Memory holds two batches.

    Args:
      read: the function that `reader` returned; each of its values is [B, P, d].
      batches: a function of an index n that yields the corpus' batches from index n on; it must
        yield the same batches each time.
      folder: the folder of the store.
      provenance: the model, corpus and packing, and all else that the batches depend on, as JSON
        values.
      filter: which tokens to leave out besides padding; None: no others.
      dtype: the dtype of the store, "float32", "float16" or "bfloat16"; None keeps that of the
        values.
      shard_tokens: the number of tokens in a shard.
      progress: a function that is called after each batch with the number of finished batches,
        including those before a kill.

    Returns:
      The index of the finished store.

    Raises:
      UserError: if the folder holds another store, the disk is full, or there is no token (see
        `ActivationWriter`).
    """
    kwargs: Any = {"filter": filter, "dtype": dtype, "shard_tokens": shard_tokens}
    with ActivationWriter(folder, provenance=provenance, **kwargs) as writer:
        if writer.index.complete:
            return writer.index
        waiting: tuple[Packed, dict[str, Array]] | None = None
        for done, packed in enumerate(batches(writer.appends), writer.appends + 1):
            # JAX computes these values while the previous batch is written.
            values = read(packed.tokens, packed.position)
            if waiting is not None:
                _append(writer, *waiting)
            waiting = packed, values
            progress(done)
        if waiting is not None:
            _append(writer, *waiting)
        return writer.finish()


def _append(writer: ActivationWriter, packed: Packed, values: Mapping[str, Array]) -> None:
    columns = {"token": packed.tokens, "document": packed.text}
    mask = packed.position != PADDING
    writer.append(values, mask=mask, positions=packed.position, columns=columns)
