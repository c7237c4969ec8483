"""The contracts: what a bottleneck, a code, a prior and a likelihood must define.

A model's bottleneck, prior and likelihood are Linen modules that derive from a class of this file.
These classes define common defaults, so a new module defines only what differs, for example:

    class Laplace(Bottleneck):      shape, __call__(features, key, given) -> a code
    class Wide(Prior):              log_prob, sample; kl if it has a closed form
    class Poisson(Likelihood):      log_prob, mean, sample; shape and support if they differ

An encoder is any Linen module that maps (x, context) to features, and a decoder any Linen module
that maps (z, context) to a prediction.

A code, the output of a bottleneck, is a record, usually a `NamedTuple`, without a base class. The
protocol `Code` lists the attributes that every code has. The protocols after it, such as
`DiagonalCode`, list the attributes of some codes; `isinstance(code, DiagonalCode)` tests for them.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from flax import linen as nn

from aejax.types import Array, Key, Support


class Code(Protocol):
    """The output of a bottleneck."""

    @property
    def z(self) -> Any:
        """Returns the decoder's input, [B, ...]."""
        ...

    @property
    def latent(self) -> Any:
        """Returns the variable that the prior models, [B, *shape]: z, or the indices of codes."""
        ...


@runtime_checkable
class RandomCode(Code, Protocol):
    """A code drawn from q(z | x), or a quantised code, to which q gives probability 1."""

    def log_q(self, stick: bool = False) -> Array:
        """Computes log q(z | x) at the draw, f32[B], in nats.

        Args:
          stick: whether to stop the gradient with respect to the parameters of q while keeping the
            gradient through z ("sticking the landing", Roeder et al. 2017).

        Raises:
          UserError: if stick is True and the code does not support it.
        """
        ...


@runtime_checkable
class DensityCode(RandomCode, Protocol):
    """A draw from a posterior whose density can be computed at any latent, not only at the draw."""

    def log_prob(self, values: Array) -> Array:
        """Computes log q(values_n | x_b) for all pairs (n, b), f32[N, B], from values f32[N, L]."""
        ...

    def redraw(self, key: Key) -> Array:
        """Draws another z from q(z | x) for each example, f32[B, L]."""
        ...


@runtime_checkable
class DiagonalCode(RandomCode, Protocol):
    """A draw from N(mean, exp(log_std)^2).

    Every code with the fields `mean` and `log_std` is treated as such a draw, so codes with another
    distribution must not have both fields.
    """

    @property
    def mean(self) -> Array:
        """Returns the mean of q, f32[B, L]."""
        ...

    @property
    def log_std(self) -> Array:
        """Returns the log standard deviation of q, f32[B, L]."""
        ...


@runtime_checkable
class EntropyCode(RandomCode, Protocol):
    """A draw from a posterior whose entropy has a closed form."""

    def entropy(self) -> Array:
        """Computes the entropy of q(z | x), f32[B], in nats."""
        ...


@runtime_checkable
class CategoricalCode(RandomCode, Protocol):
    """A draw of one class at each position, independent of each other given x.

    Every code with the field `logits` is treated as one.
    """

    @property
    def logits(self) -> Array:
        """Returns the logits of the classes, f32[B, *positions, classes]."""
        ...


@runtime_checkable
class TopDownCode(RandomCode, Protocol):
    """A draw from a hierarchy whose levels are diagonal Gaussians given x and the levels above."""

    @property
    def levels(self) -> Sequence[DiagonalCode]:
        """Returns the codes of the levels from the top down; the first depends on x only."""
        ...


@runtime_checkable
class BottomUpCode(RandomCode, Protocol):
    """A draw from a hierarchy in which x affects all other levels only through one level."""

    @property
    def whole(self) -> RandomCode:
        """Returns the code of the level through which all other levels depend on x."""
        ...


@runtime_checkable
class Codebook(Protocol):
    """A bottleneck that counts how often each of its codes is chosen."""

    def usage(self) -> Array:
        """Returns how often each code was chosen in the last complete window of steps, f32[codes].

        A window is a fixed number of training steps.
        """
        ...


class Given(NamedTuple):
    """What a bottleneck may read besides the features; most bottlenecks read only the features."""

    step: Array | int = 0  # i32[], the training step
    context: Any = None  # the batch's context, a pytree whose leaves have a leading axis B
    prior: Prior | None = None  # the model's prior, whose layers a ladder's posterior shares
    decoder: Any = None  # the model's decoder, whose atoms a sparse bottleneck may read
    # log p(target, z), a pure function of latents [B, *shape] -> f32[B], whose gradient a
    # Hamiltonian posterior follows; None: there is no prior or no likelihood
    log_joint: Any = None


NOTHING = Given()


class Bottleneck(nn.Module, abc.ABC):
    """Abstract: the module that turns the encoder's features into a code.

    A bottleneck behaves as in training, and updates running statistics for example, if and only if
    the variable collection "memory" is mutable.
    """

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[Any, ...]:
        """Returns the shape of one example's latent; for a hierarchy, a tuple of shapes."""

    @abc.abstractmethod
    def __call__(self, features: Any, key: Key | None, given: Given = NOTHING) -> Code:
        """Computes the code of a batch.

        Args:
          features: the encoder's output, [B, ...].
          key: the key of the noise; None: no noise is added, so that a Gaussian's z is its mean.
          given: the training step, the batch's context, and the model's prior and decoder.
        """

    def lift(self, latent: Any, given: Given = NOTHING) -> Any:
        """Converts a latent drawn from the prior to the decoder's input z; by default to itself."""
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
    """Abstract: the distribution p(z) of the latents.

    In the methods, `context` is the batch's context, which a prior may ignore, and `posterior` is a
    function that encodes a Batch to a code without noise, which a VampPrior needs.
    """

    # Whether a latent is a tuple with one array for each level of a hierarchy.
    of_levels: ClassVar[bool] = False
    # Whether a latent holds the integer indices of codes, as that of a quantised bottleneck does.
    of_codes: ClassVar[bool] = False
    # Whether latents are unit vectors and densities those on the sphere; None: those of the model's
    # posterior.
    of_sphere: ClassVar[bool | None] = False

    @abc.abstractmethod
    def log_prob(self, z: Any, context: Any = None, posterior: Any = None) -> Array:
        """Computes log p(z), f32[B], in nats, for z [B, *shape]."""

    @abc.abstractmethod
    def sample(
        self, key: Key, n: int, shape: Sequence[Any], context: Any = None, posterior: Any = None
    ) -> Any:
        """Draws n latents, [n, *shape], where shape is the bottleneck's `shape`."""

    def kl(self, code: Any, context: Any = None, posterior: Any = None) -> Array | None:
        """Computes KL(q || p) per dimension, f32[B, L], in nats; None if it has no closed form."""

    def check_event(self, event: tuple[int, ...]) -> None:
        """Raises UserError if the prior has pseudo-inputs whose shape is not `event`, that of x."""


@runtime_checkable
class TrunkPrior(Protocol):
    """A hierarchical prior with a deterministic net, the trunk, which the posterior shares.

    The trunk has a state. From the top level down, it is updated with the latent of each level. The
    last state is the decoder's input.
    """

    def start(self, n: int, context: Any = None) -> Any:
        """Returns the trunk's first state for n examples, before the top level is drawn."""
        ...

    def advance(self, level: int, state: Any, z: Array, context: Any = None) -> Any:
        """Returns the trunk's state, updated with the latent of a level.

        Args:
          level: the index of the level; 0 is the top.
          state: the trunk's state before this update.
          z: the latent of the level, f32[B, L].
          context: the batch's context.
        """
        ...


class Likelihood(nn.Module, abc.ABC):
    """Abstract: the distribution of the target given the decoder's output, the prediction."""

    # The smallest and largest target, or a Support of whole numbers; None: any number.
    support: ClassVar[tuple[float, float] | Support | None] = None
    binary: ClassVar[bool] = False  # whether targets must be 0 or 1

    def shape(self, event: Sequence[int]) -> tuple[int, ...]:
        """Returns the shape of one example's prediction for a target of shape `event`.

        By default the prediction has one value for each element of the target.
        """
        return tuple(event)

    def text_coding(self) -> Any:
        """Returns the coding by which targets are texts, such as `data.text.coding.Words`.

        By default it is None: targets are not texts.
        """
        return None

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
