"""The types that all of aejax shares; this file defines records and computes nothing.

Read top to bottom, this file is an overview of aejax. Data becomes a `Batch`. A model turns a batch
into a `Forward`. An `Objective` is a mapping of named, weighted loss terms, functions of a
`Forward`. A `Learner` is the record of pure functions that train a model: it is made from a model,
an objective and an optimiser.

    batch   = batches[0]                            # a pure function of (seed, step)
    forward = model.apply(variables, batch, key)
    state, metrics = learner.step(state, batch)

Shapes use the same letters everywhere: B batch size, L latents, K draws of z, D features, S models
trained together with different seeds, T training steps in one call, N examples, and m latents of a
sparse dictionary.
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
# The variables that change without a gradient: the collection "memory" (a codebook's running
# averages, each latent's steps since it fired) and, packed into it by
# `aejax.variables.remembered`, further collections such as BatchNorm's running averages.
Memory: TypeAlias = Any
Variables: TypeAlias = Mapping[str, Any]  # {"params": ..., "memory": ...} and further collections
Metrics: TypeAlias = Mapping[str, Array]  # name -> f32[], f32[S], f32[T] or f32[S, T]


class Batch(NamedTuple):
    """The model's input and the target that it must explain."""

    x: Array  # f32[B, *event], what the encoder sees
    target: Array  # [B, *event'], what the model reconstructs: x unless denoising or transcoding
    context: Any = None  # pytree with leading B; encoder, bottleneck, decoder and prior receive it
    # Broadcasts to target and multiplies its elements' log-probabilities before they are summed
    # over the event. A target may be NaN where the mask is 0.
    mask: Array | None = None
    weight: Array | None = None  # f32[B], multiplies each example's loss; None: all weights are 1


class Forward(NamedTuple):
    """The inputs and results of one forward pass: everything that a loss term may read."""

    batch: Batch
    features: Any  # the encoder's output
    code: Any  # the bottleneck's Code, of which the decoder has read only code.z
    prediction: Any  # the decoder's output: the likelihood's parameters, such as logits
    step: Array  # i32[], the training step, which weights and schedules read
    key: Key | None  # the key of one draw; None: no noise


# A term is a pure function of the bound model and its forward pass. It returns f32[B], in nats per
# example (squared error for sparse codes). The terms marked by `losses.ratio`, with weights 1, sum
# to log q(z | x) - log p(x, z), which a bound reduces over its K draws. Other terms are penalties.
Term: TypeAlias = Callable[[nn.Module, Forward], Array]

# Maps a name to (weight, term). A term with weight None is logged but not added to the loss.
Objective: TypeAlias = Mapping[str, tuple[optax.ScalarOrSchedule | None, Term]]


@runtime_checkable
class LinearDecoder(Protocol):
    """A decoder that computes z @ atoms + bias, such as `nets.Dictionary`.

    A `Scale` may convert this sum to the target's units. The values before this conversion are said
    to be in scaled units. Sparse bottlenecks and their loss terms read the atoms and use scaled
    units.
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
    """How a bound on -log p(x) reduces the log-ratios of K draws to one cost per example."""

    reduce: Callable[[Array], Array]  # maps the cost f32[K, B] to f32[B]
    # Replaces the bound's own weights f32[K, B] in the gradient that flows back through the codes.
    # Its second argument is the total weight f32[] of the terms rate(stick=True).
    regrade: Callable[[Array, Array], Array] | None = None
    sticks: bool = False  # whether the bound requires the objective's term rate(stick=True)


class State(NamedTuple):
    """The state of training: all that the next training step needs besides its batch."""

    step: Array  # i32[], the number of steps taken, which is the same for all seeds
    key: Key  # the run's key; step t draws from fold_in(key, t)
    params: Params
    memory: Memory
    opt: optax.OptState


class Learner(NamedTuple):
    """The pure functions that train a model.

    The wrappers in `aejax.training`, such as `seeds`, take a Learner and return a changed one.
    """

    init: Callable[[Key, Batch], State]
    # Maps (state, Batch), or (state, Source) if `chunk` is given, to the new state and metrics.
    step: Callable[[State, Any], tuple[State, Metrics]]
    variables: Callable[[State], Variables]  # the variables for evaluation, sampling and export
    # Maps (variables, batch, key, step) to the loss and the value of each term; the loss uses the
    # weights that the schedules have at that step.
    evaluate: Callable[[Variables, Batch, Key, Array], Metrics]
    seeds: int | None = None  # S; if given, all fields of State but step have a leading axis S
    # The largest number of training steps in one call of `step`. If it is given, `step` takes a
    # Source of several batches, and the metrics have a last axis T.
    chunk: int | None = None
    shared_data: bool = False  # whether all S models see the same batches
    support: tuple[float, float] | None = None  # the range of targets that the likelihood accepts
    # Whether the bottleneck subtracts the decoder's bias from its input, which a transcoder, whose
    # input and output differ, must not do.
    subtracts_bias: bool = False


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Source:
    """The batches of the next T training steps, which run in one call.

    The batches are either given by the indices of their rows in a data set on the device, or
    stacked in arrays; `aejax.training.gathering` extracts batch i on the device. If each of S
    models sees batches of its own, `key` has a leading axis S, and so has `rows` (data set on the
    device) or every leaf (stacked batches).
    """

    # The data set, leaves [N, ...], if rows is given; else batches [T, B, ...] or [S, T, B, ...].
    arrays: Any
    rows: Array | None  # i32[T, B] or i32[S, T, B]
    key: Key  # the data's key, Key[] or Key[S]; the noise of step t comes from fold_in(key, t)
    count: Array  # i32[], how many of the T batches to take, from `first` on
    # A function that turns the arrays of one batch into a Batch, on the device. It must be
    # hashable, so that an equal function does not cause a retrace.
    prepare: Callable[[Key, Any], Batch] = dataclasses.field(metadata={"static": True})
    first: Array | int = 0  # i32[], index of the first batch to use: calls may share one Source
