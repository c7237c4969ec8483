"""What a language model loses if the values at a hook are replaced: cross-entropy and KL by token.

    hook = "resid_post.15"
    replacements = {"zero": lambda seen: jnp.zeros_like(seen[hook]),
                    "dictionary": spliced(dictionary, hook)}
    found = token_losses(model, variables, batches, hook, replacements)
    found.nll["dictionary"] - found.nll["clean"]          # nats lost by each token, f64[R, P - 1]

`spliced` replaces values by a dictionary's reconstructions, and `unless(replacement, ...)` keeps
the values of attention sinks. `aejax.evaluation.recovered` turns losses into recovered shares.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from aejax.dictionaries.plain import Plain, decode, encode
from aejax.errors import UserError
from aejax.language.edits import patch
from aejax.language.layers import PADDING
from aejax.language.llama import Transformer
from aejax.language.packing import Packed
from aejax.language.taps import Taps
from aejax.types import Array, Variables

# (hook -> the clean value there, f[B, P, D]) -> the new value at the edited hook, f[B, P, D].
Replacement: TypeAlias = Callable[[Mapping[str, Array]], Array]


class TokenLosses(NamedTuple):
    """The losses of R rows of P tokens; entry [r, p] is of the prediction of token p + 1."""

    nll: dict[str, np.ndarray]  # name -> f64[R, P - 1], nats; "clean" is the unchanged model
    kl: dict[str, np.ndarray]  # name -> f64[R, P - 1], nats, KL(clean || replaced)
    position: np.ndarray  # i32[R, P - 1], the position of the token that predicts; -1: no target


def token_losses(
    model: Transformer,
    variables: Variables,
    batches: Iterable[Packed],
    hook: str,
    replacements: Mapping[str, Replacement],
    *,
    reads: Sequence[str] = (),
) -> TokenLosses:
    """Measures the next-token losses of a model, unchanged and with replaced values at a hook.

    All replacements share one compiled program of the model. Their new values are computed from the
    values of a pass of the unchanged model, called clean, and are inserted in a second pass.

    Args:
      model: the transformer.
      variables: its variables.
      batches: rows of tokens, as `packs` yields them; without padding on the left.
      hook: the hook whose values are replaced, such as "resid_post.15".
      replacements: name -> pure function that maps the clean values (hook -> value) to the new
        value at `hook`.
      reads: further hooks whose clean values the replacements need, such as a transcoder's input.

    Raises:
      UserError: if there is no batch, or a hook does not exist.
    """
    hooks = tuple(dict.fromkeys((hook, *reads)))
    compiled = {name: jax.jit(function) for name, function in replacements.items()}
    nll: dict[str, list[np.ndarray]] = {name: [] for name in ("clean", *replacements)}
    kl: dict[str, list[np.ndarray]] = {name: [] for name in replacements}
    positions = []
    for packed in batches:
        tokens, position = jnp.asarray(packed.tokens), jnp.asarray(packed.position)
        there = (packed.position[:, :-1] != PADDING) & (packed.position[:, 1:] != PADDING)
        positions.append(np.where(there, packed.position[:, :-1], PADDING))
        logits, seen, own = _clean(model, hooks, variables, tokens, position)
        nll["clean"].append(np.asarray(own, np.float64))
        for name, function in compiled.items():
            value = function(seen)
            lost, apart = _replaced(model, hook, variables, tokens, position, value, logits)
            nll[name].append(np.asarray(lost, np.float64))
            kl[name].append(np.asarray(apart, np.float64))
    if not positions:
        raise UserError("there is no batch of tokens to measure losses on: give at least one")
    return TokenLosses(
        {name: np.concatenate(parts) for name, parts in nll.items()},
        {name: np.concatenate(parts) for name, parts in kl.items()},
        np.concatenate(positions),
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _clean(
    model: Transformer, hooks: tuple[str, ...], variables: Variables, tokens: Array, position: Array
) -> tuple[Array, dict[str, Array], Array]:
    """Runs the unchanged model on a batch of rows.

    Returns:
      The log-probabilities of each next token, f32[B, P - 1, V]; the values at the hooks, by hook;
      and the loss of each next token, f32[B, P - 1].
    """
    passed: Any = model.apply(variables, tokens, position, taps=Taps(reads=hooks), method="hidden")
    logits = _log_probabilities(model, variables, passed.x)
    return logits, passed.seen, _nll(logits, tokens)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _replaced(
    model: Transformer,
    hook: str,
    variables: Variables,
    tokens: Array,
    position: Array,
    value: Array,
    clean: Array,
) -> tuple[Array, Array]:
    """Runs the model with other values at a hook.

    Args:
      model: the transformer.
      hook: the hook whose values are replaced.
      variables: the model's variables.
      tokens: i32[B, P].
      position: the position of each token in its row, i32[B, P].
      value: the values to put in, f[B, P, D].
      clean: the log-probabilities of the unchanged model, f32[B, P - 1, V].

    Returns:
      The loss of each next token, and KL(clean || replaced), f32[B, P - 1] each.
    """
    taps = Taps({hook: patch(value)})
    passed: Any = model.apply(variables, tokens, position, taps=taps, method="hidden")
    found = _log_probabilities(model, variables, passed.x)
    return _nll(found, tokens), jnp.sum(jnp.exp(clean) * (clean - found), axis=-1)


def _log_probabilities(model: Transformer, variables: Variables, x: Array) -> Array:
    logits: Any = model.apply(variables, x[:, :-1], method="head")
    return jax.nn.log_softmax(logits, axis=-1)


def _nll(log_probabilities: Array, tokens: Array) -> Array:
    return -jnp.take_along_axis(log_probabilities, tokens[:, 1:, None], axis=-1)[..., 0]


def spliced(dictionary: Plain, reads: str) -> Replacement:
    """Returns a replacement for `token_losses`: a dictionary's reconstructions of values at a hook.

    Args:
      dictionary: the dictionary; a transcoder's output replaces another hook than `reads`.
      reads: the hook whose values the dictionary encodes.
    """

    def replacement(seen: Mapping[str, Array]) -> Array:
        value = seen[reads]
        rows = value.reshape(-1, value.shape[-1]).astype(jnp.float32)
        return decode(dictionary, encode(dictionary, rows), rows).reshape(*value.shape[:2], -1)

    return replacement


def unless(
    replacement: Replacement,
    hook: str,
    limit: float = np.inf,
    first_positions: int = 0,
    reads: str | None = None,
) -> Replacement:
    """Returns a replacement that leaves the values of attention sinks unchanged.

    Args:
      replacement: the replacement of all other values.
      hook: the hook whose values are replaced.
      limit: values with a norm above this limit are kept.
      first_positions: the number of values that are kept at the start of each row.
      reads: the hook whose norms are compared with the limit; None: `hook`.
    """

    def kept(seen: Mapping[str, Array]) -> Array:
        sink = jnp.linalg.norm(seen[reads or hook].astype(jnp.float32), axis=-1) > limit
        sink |= (jnp.arange(sink.shape[1]) < first_positions)[None]
        return jnp.where(sink[..., None], seen[hook], replacement(seen))

    return kept
