"""The contracts: what a bottleneck, a code, a prior and a likelihood must have, stated once.

Three parts of a model are Linen modules that derive from a class of this file; what most of them
have in common is a default of that class, so a new part states only what is its own.

    class Laplace(Bottleneck):      shape, __call__(features, key, given) -> a code
    class Wide(Prior):              log_prob, sample; kl where it has a closed form
    class Poisson(Likelihood):      log_prob, mean, sample; shape and support where they differ

An encoder is any Linen module (x, context) -> features, a decoder any (z, context) -> prediction.

A code is a record, usually a `NamedTuple`, and derives from nothing: `Code` says what each has, and
the protocols after it what some have. `isinstance(code, DiagonalCode)` asks whether it has that.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from flax import linen as nn

from aejax.types import Array, Key


class Code(Protocol):
    """What a bottleneck gives."""

    @property
    def z(self) -> Any:
        """All that the decoder sees, [B, ...]."""
        ...

    @property
    def latent(self) -> Any:
        """What the prior gives a probability to, [B, *shape]: z itself unless it is quantised."""
        ...


@runtime_checkable
class RandomCode(Code, Protocol):
    """A draw from q(z | x)."""

    def log_q(self, stick: bool = False) -> Array:
        """log q(z | x) at the draw, f32[B], nats.

        Args:
          stick: stops the gradient through the parameters of q but not through z (Roeder et al.
            2017); raise UserError where that cannot be done.
        """
        ...


@runtime_checkable
class DensityCode(RandomCode, Protocol):
    """A draw whose posterior has a density that is known at any latent, not at the draw alone."""

    def log_prob(self, values: Array) -> Array:
        """log q(values_n | x_b) of all pairs, f32[N, L] -> f32[N, B]."""
        ...

    def redraw(self, key: Key) -> Array:
        """Another draw for each example, f32[B, L]."""
        ...


@runtime_checkable
class DiagonalCode(RandomCode, Protocol):
    """A draw from N(mean, exp(log_std)^2): no other code may have both of these fields."""

    @property
    def mean(self) -> Array:
        """f32[B, L]."""
        ...

    @property
    def log_std(self) -> Array:
        """f32[B, L]."""
        ...


@runtime_checkable
class TopDownCode(RandomCode, Protocol):
    """A hierarchy of which each level is a diagonal Gaussian, given x and the levels above it."""

    @property
    def levels(self) -> Sequence[DiagonalCode]:
        """From the top down; the first is drawn from x alone."""
        ...


@runtime_checkable
class BottomUpCode(RandomCode, Protocol):
    """A hierarchy of which one level is drawn from x, and all others from that level."""

    @property
    def whole(self) -> RandomCode:
        """The level that is drawn from x: the others tell no more of x."""
        ...


class Given(NamedTuple):
    """What a bottleneck may read beside the features; most read nothing of it."""

    step: Array | int = 0  # i32[], of training
    context: Any = None  # of the batch, a pytree with leading B
    prior: Prior | None = None  # of the model: a ladder's posterior shares its trunk
    decoder: Any = None  # of the model: a sparse bottleneck may read its atoms


NOTHING = Given()


class Bottleneck(nn.Module, abc.ABC):
    """Abstract: features -> code.

    It behaves as in training if and only if the collection "memory" is writable.
    """

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[Any, ...]:
        """Of one example's latent, without B; a tuple of shapes for a hierarchy."""

    @abc.abstractmethod
    def __call__(self, features: Any, key: Key | None, given: Given = NOTHING) -> Code:
        """The code of a batch.

        Args:
          features: what the encoder gives, [B, ...].
          key: of the noise; None: there is none, and z is the mean where it has one.
          given: what else there is.
        """

    def lift(self, latent: Any, given: Given = NOTHING) -> Any:
        """What the decoder sees of a latent that the prior draws: the latent itself."""
        return latent


class VectorBottleneck(Bottleneck):
    """Abstract: a bottleneck whose latent is a vector.

    Attributes:
      latents: L, of its numbers.
    """

    latents: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one example's latent."""
        return (self.latents,)


class Prior(nn.Module, abc.ABC):
    """Abstract: what the latents are drawn from when there is no input.

    In its methods `context` is the batch's, which a prior may ignore, and `posterior` the model's
    own map from a Batch to a code without noise, for priors that are made of posteriors.
    """

    of_levels: ClassVar[bool] = False  # its latents are the levels of a hierarchy, a tuple

    @abc.abstractmethod
    def log_prob(self, z: Any, context: Any = None, posterior: Any = None) -> Array:
        """log p(z), [B, *shape] -> f32[B], nats."""

    @abc.abstractmethod
    def sample(
        self, key: Key, n: int, shape: Sequence[Any], context: Any = None, posterior: Any = None
    ) -> Any:
        """Draws n latents, [n, *shape]; the shape is the bottleneck's."""

    def kl(self, code: Any, context: Any = None, posterior: Any = None) -> Array | None:
        """KL(q || p) per dimension, f32[B, L], nats; None: there is no closed form."""

    def check_event(self, event: tuple[int, ...]) -> None:
        """Raises UserError if the prior is made for inputs x of another shape than `event`."""


@runtime_checkable
class TrunkPrior(Protocol):
    """A prior of levels whose deterministic trunk the posterior and the decoder share."""

    def start(self, n: int, context: Any = None) -> Any:
        """The state above the top level, of n examples."""
        ...

    def advance(self, level: int, state: Any, z: Array, context: Any = None) -> Any:
        """The state below a level, counted from the top, whose latent is z."""
        ...


class Likelihood(nn.Module, abc.ABC):
    """Abstract: how probable a target is under what the decoder ends in, the prediction."""

    support: ClassVar[tuple[float, float] | None] = None  # of targets; None: all real numbers
    binary: ClassVar[bool] = False  # only targets of 0 and 1 have a probability

    def shape(self, event: Sequence[int]) -> tuple[int, ...]:
        """Of one example's prediction, for a target of shape `event`: one number an element."""
        return tuple(event)

    @abc.abstractmethod
    def log_prob(self, prediction: Any, target: Array, mask: Array | None = None) -> Array:
        """log p(target | prediction), f32[B], nats; the mask is multiplied in before the sum."""

    @abc.abstractmethod
    def mean(self, prediction: Any) -> Array:
        """The expected target, [B, *event]."""

    @abc.abstractmethod
    def sample(self, key: Key, prediction: Any) -> Array:
        """A target drawn, [B, *event]."""
