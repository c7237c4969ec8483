"""The types that all modules of aejax share; this file defines records and computes nothing.

It is also an overview of aejax. Data becomes a `Batch`. A model turns a batch into a `Forward`. An
`Objective` is a mapping of named, weighted loss terms, which are functions of a `Forward`. A
`Learner` holds the pure functions that train a model; it is made from a model, an objective and an
optimiser.

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
Key: TypeAlias = jax.Array  # made by jax.random.key; do not use a key again after passing it on
Params: TypeAlias = Any
# The variables that change without a gradient: those of the collection "memory", such as a
# codebook's running averages, and those of further collections, such as BatchNorm's running
# averages, which `aejax.variables.remembered` packs into the same mapping.
Memory: TypeAlias = Any
Variables: TypeAlias = Mapping[str, Any]  # {"params": ..., "memory": ...} and further collections
Metrics: TypeAlias = Mapping[str, Array]  # name -> f32[], f32[S], f32[T] or f32[S, T]


class Batch(NamedTuple):
    """The model's input and the target that it must reconstruct.

    Attributes:
      x: f32[B, *event], the encoder's input.
      target: [B, *event'], what the model reconstructs: x, except in denoising models and
        transcoders.
      context: what the model is conditioned on, such as labels: a pytree whose leaves have a
        leading axis B. Encoder, bottleneck, decoder and prior receive it. None: nothing.
      mask: an array that broadcasts to target and multiplies its elements' log-probabilities before
        they are summed over the event; None: all count. A target may be NaN where the mask is 0.
      weight: f32[B], the weight of each example's loss; None: all are 1.
    """

    x: Array
    target: Array
    context: Any = None
    mask: Array | None = None
    weight: Array | None = None


class Support(NamedTuple):
    """The targets to which a likelihood gives a probability: numbers from `low` to `high`."""

    low: float
    high: float
    whole: bool = False  # whether targets must be whole numbers, such as counts


class Forward(NamedTuple):
    """The inputs and results of one forward pass: everything that a loss term may read.

    Attributes:
      batch: the batch; missing targets are 0.
      features: the encoder's output.
      code: the bottleneck's Code; the decoder's input was code.z.
      prediction: the decoder's output: the likelihood's parameters, such as logits.
      step: i32[], the training step, on which scheduled weights depend.
      key: the key of the noise of this draw; None: there is no noise.
    """

    batch: Batch
    features: Any
    code: Any
    prediction: Any
    step: Array
    key: Key | None


# A loss term is a pure function of the bound model and its forward pass. It returns f32[B], in nats
# per example (for sparse autoencoders, in squared units of the data). In an ELBO with weights of 1,
# the terms marked by `losses.ratio` sum to log q(z | x) - log p(x, z), which a bound combines over
# K draws of z. Other terms are penalties.
Term: TypeAlias = Callable[[nn.Module, Forward], Array]

# Maps a name to (weight, term). A term with weight None is logged but not added to the loss.
Objective: TypeAlias = Mapping[str, tuple[optax.ScalarOrSchedule | None, Term]]


@runtime_checkable
class LinearDecoder(Protocol):
    """A decoder that computes z @ atoms + bias, such as `nets.Dictionary`.

    A `Scale` may convert this sum to the target's units. Values before this conversion are in
    scaled units, which sparse bottlenecks and their loss terms use.
    """

    def weights(self, latents: int, inputs: int | None = None) -> Any:
        """Returns atoms f32[m, D], bias f32[D], and the skip connection f32[D_in, D] or None."""
        ...

    def measure(self, differences: Array, context: Any = None) -> Array:
        """Converts differences [B, *shape] from the target's units to scaled units f32[B, D]."""
        ...

    def finish(self, output: Array, context: Any = None) -> Array:
        """Converts f32[B, D] from scaled units to f32[B, *shape] in the target's units.

        The context is that of the batch; it may contain the scale of each example.
        """
        ...


class Bound(NamedTuple):
    """A bound on -log p(x): how the costs of K draws are reduced to one cost per example.

    The cost of a draw is the weighted sum of the terms marked by `losses.ratio`.
    """

    reduce: Callable[[Array], Array]  # maps the costs f32[K, B] to f32[B]
    # Maps the weights that `reduce` gives the draws in the gradient, f32[K, B], to those to use
    # instead in the gradient that flows back through the codes. The second argument is the total
    # weight f32[] of the terms rate(stick=True). None: the weights are not replaced.
    regrade: Callable[[Array, Array], Array] | None = None
    sticks: bool = False  # whether the bound requires the term rate(stick=True) in the objective


class State(NamedTuple):
    """The state of training: everything that the next training step needs besides its batch.

    With S models that are trained together, every leaf but `step` has a leading axis S.

    Attributes:
      step: i32[], the number of completed steps, which is the same for all seeds.
      key: the run's key; the noise of step t is drawn with fold_in(key, t).
      params: the trained parameters, a pytree.
      memory: the variables that change without a gradient, such as running averages.
      opt: the optimiser's state.
    """

    step: Array
    key: Key
    params: Params
    memory: Memory
    opt: optax.OptState


class Learner(NamedTuple):
    """The pure functions that train a model.

    The wrappers in `aejax.training`, such as `seeds`, return a changed copy of a given Learner.

    Attributes:
      init: initialises the model: (key, batch) -> State. With seeds it takes one key and one batch,
        or S keys and a batch whose leaves have a leading axis S.
      step: runs one training step: (state, batch) -> (state, metrics); if `chunk` is given it takes
        a Source in place of the batch and runs several steps. With seeds the batch has a leading
        axis S, unless `shared_data` is True.
      variables: maps a state to the variables for evaluation, sampling and export.
      evaluate: maps (variables, batch, key, step) to the loss and the value of each term; scheduled
        weights have their values at that step.
      seeds: S, the number of models trained together; if it is given, all fields of State but
        `step` have a leading axis S. None: one model.
      chunk: the largest number of training steps in one call of `step`. If it is given, the call
        takes a Source of several batches, and the metrics have a last axis of length `chunk`, with
        one entry for each batch of the Source.
      shared_data: whether all S models are trained on the same batches.
      support: the range of targets that the likelihood accepts; None: all real numbers.
      subtracts_bias: whether the bottleneck subtracts the decoder's bias from its input. A
        transcoder must not do so, because its inputs and outputs differ.
    """

    init: Callable[[Key, Batch], State]
    step: Callable[[State, Any], tuple[State, Metrics]]
    variables: Callable[[State], Variables]
    evaluate: Callable[[Variables, Batch, Key, Array], Metrics]
    seeds: int | None = None
    chunk: int | None = None
    shared_data: bool = False
    support: Support | None = None
    subtracts_bias: bool = False


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Source:
    """The batches of the next T training steps, which run in one call.

    The batches are either given by the indices of their rows in a data set that is on the device,
    or stacked in arrays; `aejax.training.gathering` extracts batch i on the device. If S models are
    trained on different batches, `key` has a leading axis S, and so has `rows` or, if the batches
    are stacked, every leaf of `arrays`.
    """

    # If `rows` is given, the data set with leaves [N, ...]; else the stacked batches, with leaves
    # [T, B, ...] or [S, T, B, ...].
    arrays: Any
    rows: Array | None  # i32[T, B] or i32[S, T, B], the rows of each batch; None: stacked batches
    # The key of random changes of the data, Key[] or Key[S]; step t uses fold_in(key, t).
    key: Key
    count: Array  # i32[], how many of the T batches to use, starting with batch `first`
    # Turns a key and the arrays of one batch into a Batch, on the device. It must be hashable, so
    # that an equal function does not cause a recompilation.
    prepare: Callable[[Key, Any], Batch] = dataclasses.field(metadata={"static": True})
    # i32[], the index of the first batch to use, so that several calls can use the same arrays.
    first: Array | int = 0
