"""The contracts: what a bottleneck, a code, a prior and a likelihood must define.

A model's bottleneck, prior and likelihood are Linen modules that derive from a class of this file.
These classes define common defaults, so a new module defines only what differs.

    class Laplace(Bottleneck):      shape, __call__(features, key, given) -> a code
    class Wide(Prior):              log_prob, sample; kl if it has a closed form
    class Poisson(Likelihood):      log_prob, mean, sample; shape and support if they differ

An encoder is any Linen module (x, context) -> features, a decoder any (z, context) -> prediction.

A code is a record, usually a `NamedTuple`, without a base class. The protocol `Code` lists what
every code has, and the protocols after it what some codes have. `isinstance(code, DiagonalCode)`
tells whether a code has the latter.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from flax import linen as nn

from aejax.types import Array, Key


class Code(Protocol):
    """The output of a bottleneck."""

    @property
    def z(self) -> Any:
        """Returns what the decoder sees, [B, ...]."""
        ...

    @property
    def latent(self) -> Any:
        """Returns what the prior gives a probability to, [B, *shape]: z, or indices of codes."""
        ...


@runtime_checkable
class RandomCode(Code, Protocol):
    """A draw from q(z | x)."""

    def log_q(self, stick: bool = False) -> Array:
        """Computes log q(z | x) at the draw, f32[B], in nats.

        Args:
          stick: whether to stop the gradient through the parameters of q but not through z (Roeder
            et al. 2017).

        Raises:
          UserError: if stick is True and the code cannot do this.
        """
        ...


@runtime_checkable
class DensityCode(RandomCode, Protocol):
    """A draw from a posterior whose density is known at any latent, not only at the draw."""

    def log_prob(self, values: Array) -> Array:
        """Computes log q(values_n | x_b) of all pairs, f32[N, B], for values f32[N, L]."""
        ...

    def redraw(self, key: Key) -> Array:
        """Draws another z for each example, f32[B, L]."""
        ...


@runtime_checkable
class DiagonalCode(RandomCode, Protocol):
    """A draw from N(mean, exp(log_std)^2); no other code may have both of these fields."""

    @property
    def mean(self) -> Array:
        """Returns the mean of q, f32[B, L]."""
        ...

    @property
    def log_std(self) -> Array:
        """Returns the log standard deviation of q, f32[B, L]."""
        ...


@runtime_checkable
class TopDownCode(RandomCode, Protocol):
    """A hierarchy whose levels are diagonal Gaussians given x and the levels above."""

    @property
    def levels(self) -> Sequence[DiagonalCode]:
        """Returns the levels from the top down; the first depends on x only."""
        ...


@runtime_checkable
class BottomUpCode(RandomCode, Protocol):
    """A hierarchy of which one level is drawn from x, and all others from that level."""

    @property
    def whole(self) -> RandomCode:
        """Returns the level drawn from x; the other levels hold no more information on x."""
        ...


@runtime_checkable
class Codebook(Protocol):
    """A bottleneck that counts how often each of its codes is chosen."""

    def usage(self) -> Array:
        """Returns how often each code was chosen in the last full window of steps, f32[codes]."""
        ...


class Given(NamedTuple):
    """What a bottleneck may read beside the features; most bottlenecks read none of it."""

    step: Array | int = 0  # i32[], the training step
    context: Any = None  # the batch's context, a pytree with leading B
    prior: Prior | None = None  # the model's prior: a ladder's posterior shares its trunk
    decoder: Any = None  # the model's decoder: a sparse bottleneck may read its atoms


NOTHING = Given()


class Bottleneck(nn.Module, abc.ABC):
    """Abstract: turns the encoder's features into a code.

    A bottleneck behaves as in training if and only if the collection "memory" is mutable.
    """

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[Any, ...]:
        """Returns the shape of one example's latent; for a hierarchy a tuple of shapes."""

    @abc.abstractmethod
    def __call__(self, features: Any, key: Key | None, given: Given = NOTHING) -> Code:
        """Computes the code of a batch.

        Args:
          features: the encoder's output, [B, ...].
          key: the key of the noise; None: no noise, so that a Gaussian's z is its mean.
          given: the other things that a bottleneck may read.
        """

    def lift(self, latent: Any, given: Given = NOTHING) -> Any:
        """Converts a latent drawn from the prior to what the decoder sees; by default no change."""
        return latent


class VectorBottleneck(Bottleneck):
    """Abstract: a bottleneck whose latent is a vector.

    Attributes:
      latents: the number of latents L.
    """

    latents: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns the shape of one example's latent."""
        return (self.latents,)


class Prior(nn.Module, abc.ABC):
    """Abstract: the distribution of the latents without an input.

    In the methods, `context` is the batch's context, which a prior may ignore, and `posterior` is
    the model's function from a Batch to a code without noise, which a VampPrior needs.
    """

    of_levels: ClassVar[bool] = False  # whether a latent is a tuple, the levels of a hierarchy

    @abc.abstractmethod
    def log_prob(self, z: Any, context: Any = None, posterior: Any = None) -> Array:
        """Computes log p(z), f32[B], in nats, for z [B, *shape]."""

    @abc.abstractmethod
    def sample(
        self, key: Key, n: int, shape: Sequence[Any], context: Any = None, posterior: Any = None
    ) -> Any:
        """Draws n latents, [n, *shape], where shape is the bottleneck's `shape`."""

    def kl(self, code: Any, context: Any = None, posterior: Any = None) -> Array | None:
        """Computes KL(q || p) per dimension, f32[B, L], in nats; None: there is no closed form."""

    def check_event(self, event: tuple[int, ...]) -> None:
        """Raises UserError if the prior has pseudo-inputs of another shape than `event`."""


@runtime_checkable
class TrunkPrior(Protocol):
    """A hierarchical prior whose deterministic trunk the posterior and the decoder share."""

    def start(self, n: int, context: Any = None) -> Any:
        """Returns the trunk's state above the top level for n examples."""
        ...

    def advance(self, level: int, state: Any, z: Array, context: Any = None) -> Any:
        """Returns the trunk's state below a level, counted from the top, whose latent is z."""
        ...


class Likelihood(nn.Module, abc.ABC):
    """Abstract: the distribution of the target given the decoder's output, the prediction."""

    support: ClassVar[tuple[float, float] | None] = None  # range of targets; None: real numbers
    binary: ClassVar[bool] = False  # whether only the targets 0 and 1 have a probability

    def shape(self, event: Sequence[int]) -> tuple[int, ...]:
        """Returns the shape of one example's prediction for a target of shape `event`.

        By default the prediction has one number for each element of the target.
        """
        return tuple(event)

    @abc.abstractmethod
    def log_prob(self, prediction: Any, target: Array, mask: Array | None = None) -> Array:
        """Computes log p(target | prediction), f32[B], in nats.

        The mask multiplies the log-probability of each element before the sum.
        """

    @abc.abstractmethod
    def mean(self, prediction: Any) -> Array:
        """Computes the expected target, [B, *event]."""

    @abc.abstractmethod
    def sample(self, key: Key, prediction: Any) -> Array:
        """Draws a target for each example, [B, *event]."""
