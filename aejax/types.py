"""The vocabulary: the records that flow from the data to the report. Nothing here computes.

Read top to bottom, this file is an overview of aejax. Data becomes a `Batch`. A model turns a batch
into a `Forward`. An `Objective` is a mapping of named, weighted terms that read a `Forward`. A
`Learner` is the record of pure functions made from an objective, a model and an optimiser.

    batch   = batches[0]                            # a pure function of (seed, step)
    forward = model.apply(variables, batch, key)
    state, metrics = learner.step(state, batch)

Shapes use the same letters everywhere: B batch, L latents, K draws, D features, S seeds, T steps in
a chunk, N examples, and m latents of a sparse dictionary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import optax
from flax import linen as nn

Array: TypeAlias = jax.Array
Key: TypeAlias = jax.Array  # made by jax.random.key; a function consumes its argument named key
Params: TypeAlias = Any
# The mutable collections: "memory" (a codebook's averages, ages of dead latents) and, in it, those
# of the nets, such as BatchNorm's running averages; see `aejax.variables.remembered`.
Memory: TypeAlias = Any
Variables: TypeAlias = Mapping[str, Any]  # {"params": ..., "memory": ...} and further collections
Metrics: TypeAlias = Mapping[str, Array]  # name -> f32[], f32[S], f32[T] or f32[S, T]


class Batch(NamedTuple):
    """The model's input and the target that it must explain."""

    x: Array  # f32[B, *event], what the encoder sees
    target: Array  # [B, *event'], what the likelihood explains: x unless denoising or transcoding
    context: Any = None  # pytree with leading B; encoder, bottleneck, decoder and prior receive it
    # Broadcasts to target and multiplies its elements' log-probabilities before they are summed
    # over the event. A target may be NaN where the mask is 0.
    mask: Array | None = None
    weight: Array | None = None  # f32[B], multiplies each example's loss; None: all count alike


class Forward(NamedTuple):
    """The inputs and results of one forward pass, which are all that a term may read."""

    batch: Batch
    features: Any  # the encoder's output
    code: Any  # the bottleneck's Code; the decoder saw code.z only
    prediction: Any  # the decoder's output, in the likelihood's own parametrisation
    step: Array  # i32[], the training step, which weights and schedules read
    key: Key | None  # the key of one draw; None: no noise


# A term is a pure function of the bound model and its forward pass. It returns f32[B], in nats per
# example (squared error for sparse codes). A term marked by `losses.ratio` is a summand of the
# log-ratio log p(x, z) - log q(z | x), which a bound reduces over its K draws. Other terms are
# penalties.
Term: TypeAlias = Callable[[nn.Module, Forward], Array]

# Maps a name to (weight, term). A term with weight None is measured but not added to the loss.
Objective: TypeAlias = Mapping[str, tuple[optax.ScalarOrSchedule | None, Term]]


@runtime_checkable
class LinearDecoder(Protocol):
    """A decoder that computes z @ atoms + bias, such as `nets.Dictionary`.

    Its scaled units are those of z @ atoms + bias, before a `Scale` converts them to the target's
    units. Sparse codes and their terms read the atoms and use these units.
    """

    def weights(self, latents: int, inputs: int | None = None) -> Any:
        """Returns the atoms f32[m, D], bias f32[D], and skip weights f32[D_in, D] or None."""
        ...

    def measure(self, differences: Array, context: Any = None) -> Array:
        """Converts differences [B, *shape] from the target's units to scaled units f32[B, D]."""
        ...

    def finish(self, output: Array, context: Any = None) -> Array:
        """Converts f32[B, D] from scaled units to f32[B, *shape] in the target's units.

        The context is the batch's, from which a decoder may take the scale of each example.
        """
        ...


class Bound(NamedTuple):
    """How a bound reduces the K draws of the log-ratio to one cost."""

    reduce: Callable[[Array], Array]  # maps the cost f32[K, B] to f32[B]
    # Replaces the bound's own weights f32[K, B] in the gradient that flows back through the codes.
    # Its second argument is the total weight f32[] of the terms rate(stick=True).
    regrade: Callable[[Array, Array], Array] | None = None
    sticks: bool = False  # whether the bound needs rate(stick=True)


class State(NamedTuple):
    """The state of training: all that the next step needs."""

    step: Array  # i32[], the number of steps taken, which is the same for all seeds
    key: Key  # the run's key; step t draws from fold_in(key, t)
    params: Params
    memory: Memory
    opt: optax.OptState


class Learner(NamedTuple):
    """A record of pure functions that train; wrappers in aejax.training return a changed one."""

    init: Callable[[Key, Batch], State]
    step: Callable[[State, Any], tuple[State, Metrics]]  # takes a Batch, or a Source if chunked
    variables: Callable[[State], Variables]  # the variables for evaluation, sampling and export
    # Maps (variables, batch, key, step) to the loss and each term, with the weights of that step.
    evaluate: Callable[[Variables, Batch, Key, Array], Metrics]
    seeds: int | None = None  # S; if given, all fields of State but step have a leading axis S
    # The largest number of steps per call. If given, step takes a Source, and metrics have a last
    # axis T.
    chunk: int | None = None
    shared_data: bool = False  # whether all seeds see the same batches
    support: tuple[float, float] | None = None  # the range of targets that the likelihood accepts
    # Whether the bottleneck subtracts the output's bias from its input, as no transcoder may.
    subtracts_bias: bool = False


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Source:
    """The batches of the next steps: a resident data set with rows to gather, or stacked batches.

    `aejax.training.gathering` extracts batch i on the device. If seeds see batches of their own,
    `key` has a leading axis S, and so has `rows` (resident data) or every leaf (stacked batches).
    """

    arrays: Any  # leaves [N, ...] if rows is given, else [T, B, ...] or [S, T, B, ...]
    rows: Array | None  # i32[T, B] or i32[S, T, B]
    key: Key  # the data's key, Key[] or Key[S]; the noise of step t comes from fold_in(key, t)
    count: Array  # i32[], how many of the T batches to take, from `first` on
    # Turns the arrays of one batch into a Batch, on the device. It must be hashable, so that equal
    # functions do not cause a retrace.
    prepare: Callable[[Key, Any], Batch] = dataclasses.field(metadata={"static": True})
    first: Array | int = 0  # i32[], the first batch to take: several calls may share one Source
