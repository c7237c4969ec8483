"""The vocabulary: what flows from the data to the report, and nothing that computes.

Read top to bottom it is the whole of aejax. Data becomes a `Batch`; a model turns a batch into a
`Forward`; an `Objective` is a mapping of named, weighted terms that read a forward; a `Learner` is
the record of pure functions that an objective, a model and an optimiser make together.

    batch   = batches[0]                            # a pure function of (seed, step)
    forward = model.apply(variables, batch, key)
    state, metrics = learner.step(state, batch)

Letters, once and everywhere: B batch, L latents, K draws, D features, S seeds, T steps in a chunk,
N examples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import optax
from flax import linen as nn

Array: TypeAlias = jax.Array
Key: TypeAlias = jax.Array  # of jax.random.key; an argument named key is consumed by its receiver
Params: TypeAlias = Any
Memory: TypeAlias = Any  # the one mutable collection: moving averages, ages of dead latents
Variables: TypeAlias = Mapping[str, Any]  # {"params": ..., "memory": ...}
Metrics: TypeAlias = Mapping[str, Array]  # name -> f32[], f32[S], f32[T] or f32[S, T]


class Batch(NamedTuple):
    """What a model sees and what it must explain."""

    x: Array  # f32[B, *event], what the encoder sees
    target: Array  # [B, *event'], what the likelihood explains: x unless denoising or transcoding
    context: Any = None  # pytree with leading B; encoder, bottleneck, decoder and prior receive it
    # Broadcasts to target; multiplied in before the event sum. Where it is 0 a target may be NaN.
    mask: Array | None = None


class Forward(NamedTuple):
    """All that one pass saw, and all that a term may read."""

    batch: Batch
    features: Any  # the encoder's output
    code: Any  # a Code of aejax.bottlenecks: code.z is all that the decoder saw
    prediction: Any  # the decoder's output, in the likelihood's own parametrisation
    step: Array  # i32[], the step that weights and schedules read
    key: Key | None  # one draw's key; None: no noise


# A term is a pure function of the bound model and its forward pass, f32[B], in nats per example
# (squared error for sparse codes). One that carries `part = "ratio"` belongs to the log-ratio
# log p(x, z) - log q(z | x), which a bound reduces over its K draws; any other is a penalty.
Term: TypeAlias = Callable[[nn.Module, Forward], Array]

# name -> (weight, term); the weight None watches the term: it is measured and never added.
Objective: TypeAlias = Mapping[str, tuple[optax.ScalarOrSchedule | None, Term]]


@runtime_checkable
class LinearDecoder(Protocol):
    """A decoder whose output is z @ atoms + bias, as that of `nets.Dictionary` is.

    Sparse codes and their terms read its atoms and its own units; any other decoder has none.
    """

    def weights(self, latents: int, inputs: int | None = None) -> Any:
        """The atoms f32[m, D], the bias f32[D] and the skip connection f32[D_in, D] or None."""
        ...

    def measure(self, differences: Array) -> Array:
        """Differences [B, *shape] in the target's units -> f32[B, D] in the decoder's own."""
        ...

    def finish(self, output: Array) -> Array:
        """f32[B, D] in the decoder's own units -> f32[B, *shape] in the target's."""
        ...


class Bound(NamedTuple):
    """How K draws of the log-ratio become one cost."""

    reduce: Callable[[Array], Array]  # cost f32[K, B] -> f32[B]
    # (the bound's own weights f32[K, B], total weight f32[] of the rates that stick) -> the weights
    # f32[K, B] that replace them on the gradient that flows back through the codes.
    regrade: Callable[[Array, Array], Array] | None = None
    sticks: bool = False  # the regrade is of use under a rate that sticks alone


class State(NamedTuple):
    """What the next step needs, and nothing else."""

    step: Array  # i32[]: steps taken; shared by all seeds
    key: Key  # the run's key; step t draws from fold_in(key, t)
    params: Params
    memory: Memory
    opt: optax.OptState


class Learner(NamedTuple):
    """A record of pure functions; the wrappers of aejax.training take one and give one back."""

    init: Callable[[Key, Batch], State]
    step: Callable[[State, Any], tuple[State, Metrics]]  # takes a Batch, or a Source where chunked
    variables: Callable[[State], Variables]  # what evaluation, sampling and export use
    # (variables, batch, key, step) -> the loss and each term on a batch, by the weights of a step
    evaluate: Callable[[Variables, Batch, Key, Array], Metrics]
    seeds: int | None = None  # members trained side by side: every field of State but step leads S
    chunk: int | None = None  # at most so many steps a call: step takes a Source, metrics trail T
    shared_data: bool = False  # all members see one stream of batches
    support: tuple[float, float] | None = None  # what targets the likelihood can explain


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Source:
    """The batches of the next steps: a resident data set and rows to gather, or stacked batches.

    `aejax.training.gathering` takes batch i out of it, on the device. Members of `seeds` that see
    streams of their own have a leading S on `rows` and `key` (resident) or on every leaf and `key`
    (stacked).
    """

    arrays: Any  # leaves [N, ...] where rows is given, else [T, B, ...] or [S, T, B, ...]
    rows: Array | None  # i32[T, B] or i32[S, T, B]
    key: Key  # of the data, Key[] or Key[S]; the noise of step t comes from fold_in(key, t)
    count: Array  # i32[], how many of the T batches to take, from `first` on
    # arrays of one batch -> Batch, on the device; hashable, so that it does not retrace
    prepare: Callable[[Key, Any], Batch] = dataclasses.field(metadata={"static": True})
    first: Array | int = 0  # i32[], which batch to begin with: calls may share a chunk's batches
