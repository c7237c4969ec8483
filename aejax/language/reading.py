"""Reading: what stands at hooks, in one pass that stops at the last of them.

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

# (tokens i32[B, P], position i32[B, P]) -> name -> value
Read = Callable[..., dict[str, Array]]


def reader(
    model: Transformer,
    variables: Variables,
    hooks: Sequence[str],
    *,
    edits: Mapping[str, Edit] | None = None,
    then: Callable[[dict[str, Array]], dict[str, Array]] | None = None,
) -> Read:
    """A compiled function that reads hooks; blocks after the last hook do not run.

    Args:
      model: the transformer.
      variables: its variables.
      hooks: such as "resid_post.15".
      edits: hook -> edit, done on the way.
      then: a pure function of the values, in the same program: such as the latents of several
        dictionaries. None: the values themselves.

    Returns:
      (tokens i32[B, P], position i32[B, P] = 0 to P - 1) -> {hook: f[B, P, ...]}, or what `then`
      makes of that.

    Raises:
      UserError: no hook is given, or there is no such one.
    """
    layers = model.config.layers
    reads = checked(hooks, layers)
    if not reads:
        raise UserError("no hook is given to read: name one or more, such as resid_post.3")
    depth = Taps(reads=reads).depth(layers)
    short, kept = shortened(model, variables, depth)
    # An edit behind the last read changes nothing that is read.
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
    """Streams what is read into an activation store; started again, it goes on after a kill.

    One batch is one append, so a killed collection goes on with the first batch that is in no shard
    and the store ends with the same content. Memory holds two batches, whatever the corpus.

    Args:
      read: of `reader`; every value [B, P, d], of the same tokens.
      batches: number of the first batch -> it and all after it; the same ones each time.
      folder: of the store.
      provenance: model, corpus, packing: all that the batches depend on, as plain values.
      filter: tokens to leave out beside padding.
      dtype: of the store, "float32", "float16" or "bfloat16"; None: as the model computes.
      shard_tokens: of a shard.
      progress: called after each batch with how many are done, those before a kill included.

    Returns:
      The index of the store, which is whole.

    Raises:
      UserError: as for `ActivationWriter`: another store in the folder, a full disk, no token.
    """
    kwargs: Any = {"filter": filter, "dtype": dtype, "shard_tokens": shard_tokens}
    with ActivationWriter(folder, provenance=provenance, **kwargs) as writer:
        if writer.index.complete:
            return writer.index
        waiting: tuple[Packed, dict[str, Array]] | None = None
        for done, packed in enumerate(batches(writer.appends), writer.appends + 1):
            values = read(packed.tokens, packed.position)  # runs while the last one is written
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
