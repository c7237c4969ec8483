"""The base class of autoregressive likelihoods, whose elements depend on the elements before.

A module that derives from `Autoregressive` has a field `observation`, the likelihood of one element
given the earlier ones, and a net `net`. It defines `parameters`, which computes the parameters of
all elements of a known target in one pass, and `drawn`, which draws one element after the other.
"""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import jax

from aejax.contracts import Likelihood
from aejax.types import Array, Key, Variables


class Unbound(NamedTuple):
    """A likelihood's net and observation with their variables, for calls outside of the module.

    No gradient flows to the variables. Otherwise reverse mode would save every iteration of the
    loop that draws the elements, even if its gradient is not needed.
    """

    net: Any
    net_variables: Variables
    observation: Any
    variables: Variables


class Autoregressive(Likelihood):
    """Base class: log p(x | z) = sum over elements of log p(element | earlier elements, z)."""

    observation: Any

    @abc.abstractmethod
    def parameters(self, prediction: Array, target: Array) -> Array:
        """Computes the parameters of `observation` for each element, given the earlier elements."""

    @abc.abstractmethod
    def drawn(self, key: Key, prediction: Array) -> tuple[Array, Array]:
        """Draws targets, and computes each element's expectation given the elements before it.

        Returns:
          The targets and the expectations, both [B, ...].
        """

    def log_prob(self, prediction: Array, target: Array, mask: Array | None = None) -> Array:
        """Computes log p of the target [B, ...] given the decoder's output, f32[B], in nats."""
        return self.observation.log_prob(self.parameters(prediction, target), target, mask)

    def sample(self, key: Key, prediction: Array) -> Array:
        """Draws targets, element by element, [B, ...]; no gradient flows through them."""
        return self.drawn(key, prediction)[0]

    def mean(self, prediction: Array) -> Array:
        """Estimates the expected target, f32[B, ...]; no gradient flows through it.

        The expectation over all targets has no closed form. One target is drawn, and the result is
        the expectation of each element given the earlier elements of that target. It is unbiased
        and takes as long as a sample. The key is fixed, so that the result is reproducible.
        """
        return self.drawn(jax.random.key(0), prediction)[1]

    def unbound(self) -> Unbound:
        """Returns the net and the observation with their variables, for a loop over elements."""
        net, net_variables = self.net.unbind()
        observation, variables = self.observation.unbind()
        net_variables, variables = jax.lax.stop_gradient((net_variables, variables))
        return Unbound(net, net_variables, observation, variables)
