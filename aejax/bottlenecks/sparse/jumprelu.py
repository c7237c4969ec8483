"""JumpReLU: a learned threshold for each latent, trained by straight-through estimates."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from aejax.bottlenecks.sparse.base import Sparse
from aejax.bottlenecks.sparse.code import SparseCode
from aejax.bottlenecks.sparse.plain import Architectures, Plain
from aejax.checks import check_positive
from aejax.types import Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def jump(z: Array, threshold: Array, bandwidth: float, to_input: bool = False) -> Array:
    """Returns z where z is above the threshold, else 0 (Rajamanoharan et al. 2024, equation 4).

    The derivative with respect to the threshold theta is a kernel estimate with bandwidth eps:
    -theta / eps where |z - theta| < eps / 2, else 0. The estimate uses z before thresholding,
    because after it no value lies just below theta.

    Args:
      z: the pre-activations, f32[B, m].
      threshold: theta of each latent, f32[m].
      bandwidth: eps, the width of the window |z - theta| < eps / 2; it may be a traced array.
      to_input: whether to add the same estimate, with the opposite sign, to the derivative with
        respect to z.
    """
    return jnp.where(z > threshold[None], z, 0.0)


def _jump_forward(z, threshold, bandwidth, to_input):
    return jump(z, threshold, bandwidth, to_input), (z, threshold, bandwidth)


def _jump_backward(to_input, saved, cotangent):
    z, threshold, bandwidth = saved
    estimate = threshold[None] / bandwidth * window(z, threshold, bandwidth) * cotangent
    d_z = jnp.where(z > threshold[None], cotangent, 0.0)
    d_z = d_z + estimate if to_input else d_z
    return d_z, -jnp.sum(estimate, axis=0), jnp.zeros_like(bandwidth)


jump.defvjp(_jump_forward, _jump_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def above(z: Array, threshold: Array, bandwidth: float, to_input: bool = False) -> Array:
    """Returns 1 where z is above the threshold, else 0, f32[B, m]; its sum over latents is L0.

    The derivative with respect to the threshold is estimated as -1 / bandwidth where
    |z - threshold| < bandwidth / 2, else 0 (Rajamanoharan et al. 2024, equation 12). The derivative
    with respect to z is 0 or, if `to_input` is True, the negative of this estimate.
    """
    return (z > threshold[None]).astype(z.dtype)


def _above_forward(z, threshold, bandwidth, to_input):
    return above(z, threshold, bandwidth, to_input), (z, threshold, bandwidth)


def _above_backward(to_input, saved, cotangent):
    z, threshold, bandwidth = saved
    estimate = window(z, threshold, bandwidth) / bandwidth * cotangent
    d_z = estimate if to_input else jnp.zeros_like(z)
    return d_z, -jnp.sum(estimate, axis=0), jnp.zeros_like(bandwidth)


above.defvjp(_above_forward, _above_backward)


def window(z: Array, threshold: Array, bandwidth: float) -> Array:
    """Returns 1 where |z - theta| < eps / 2, else 0, f32[B, m].

    The gradient of a threshold theta comes only from pre-activations z in this window. The
    `bandwidth` is eps.
    """
    return (jnp.abs((z - threshold[None]) / bandwidth) < 0.5).astype(z.dtype)


class JumpReLU(Sparse):
    """Keeps x W + b where it is above a learned threshold, else 0 (Rajamanoharan et al. 2024).

    With pre-activations z = x W + b, the code is z if z > theta, and 0 otherwise. Each latent has a
    threshold theta = exp(t) with the parameter t.

    A threshold gets a gradient only from pre-activations in the window |z - theta| < eps / 2.
    Inputs should have mean square 1 (`nets.Scale`): at another scale the window may be empty, and
    then the thresholds are not trained. `losses.window` is the share of latents in the window.
    Thresholds are float32 whatever `dtype` is, because bfloat16 would round small updates away.

    Attributes:
      latents: the number of latents m.
      threshold: the initial theta.
      bandwidth: eps, the width of the window around theta.
      to_input: whether the thresholds' gradient estimate is also passed, with the opposite sign, to
        the pre-activations (Conerly et al. 2025).
      rectified: whether the window is evaluated on relu(z), as in Gemma Scope, instead of z.
    """

    latents: int
    threshold: float = 0.1
    bandwidth: float = 0.05
    to_input: bool = False
    rectified: bool = False

    windowed = True
    kind = "jumprelu"
    scales = ("b_enc", "threshold")
    saelens = Architectures("jumprelu", "jumprelu_transcoder", "jumprelu_skip_transcoder")
    vectors = ("b_enc", "threshold")

    def check(self) -> None:
        """Raises UserError unless the threshold and the bandwidth are positive and finite."""
        check_positive(self, "threshold")
        check_positive(self, "bandwidth")

    def activate(self, inputs: Array, step: Any, decoder: Any) -> SparseCode:
        """Computes the code of inputs f32[B, D], with a dense z and pre-activations in `pre`."""
        pre = self.project(inputs)
        pre = nn.relu(pre) if self.rectified else pre
        theta = self.thresholds()
        z = jump(pre, theta, self.bandwidth, self.to_input)
        l0 = jnp.sum(above(pre, theta, self.bandwidth, self.to_input), axis=-1)
        return SparseCode(z, l0, pre)  # pyright: ignore[reportArgumentType]

    def fresh(self) -> dict[str, float]:
        """Returns the initial value of a latent's parameter, the logarithm of its threshold."""
        return {"log_threshold": math.log(self.threshold)}

    @nn.compact
    def thresholds(self) -> Array:
        """Returns the threshold theta of each latent, f32[m]."""
        start = nn.initializers.constant(jnp.log(self.threshold))
        return jnp.exp(self.param("log_threshold", start, (self.latents,), jnp.float32))

    def window(self, pre: Array) -> Array:
        """Computes the share of latents with |pre - theta| < eps / 2 for each example, f32[B].

        Args:
          pre: the pre-activations, f32[B, m].
        """
        return jnp.mean(window(pre, self.thresholds(), self.bandwidth), axis=-1)

    def plain(self, params: Mapping[str, Any], memory: Any, norms: Array) -> dict[str, Any]:
        """Returns the fields of `Plain` that describe the encoder: its bias and its thresholds."""
        return {
            "activation": self.kind,
            "b_enc": params["encode"]["bias"],
            "threshold": jnp.exp(params["log_threshold"]),
        }

    @classmethod
    def from_plain(cls, plain: Plain) -> tuple[Sparse, dict[str, Any]]:
        """Returns a bottleneck and its parameters, which compute the codes of the plain weights.

        A threshold of 0 or less becomes the smallest positive float, because the parameter is the
        logarithm of the threshold. Plain weights do not hold the width of the window in which
        thresholds are trained. As in `recipes.jumprelu` it is half a threshold, here half the
        median of the positive ones, so that it has their units.
        """
        given = np.asarray(plain.needed("threshold"), np.float32)
        threshold = np.maximum(given, np.finfo(np.float32).tiny)
        own: dict[str, Any] = {"subtract_bias": plain.apply_b_dec_to_input}
        if np.any(given > 0):
            middle = float(np.median(given[given > 0]))
            own |= {"threshold": middle, "bandwidth": middle / 2}
        params = {**plain.projection(), "log_threshold": jnp.log(threshold)}
        return cls(plain.latents, **own), params

    @classmethod
    def apply_plain(cls, plain: Plain, pre: Array) -> Array:
        """Returns relu(pre + b_enc) where pre + b_enc is above the threshold, else 0, f32[B, m]."""
        bias, threshold = (plain.needed(name)[None] for name in cls.vectors)
        return jnp.where(pre + bias > threshold, nn.relu(pre + bias), 0.0)

    def penalty(self, code: SparseCode, norms: Array | None = None) -> Array:
        """Returns L0, the number of active latents, f32[B]; its gradient trains the thresholds."""
        return code.l0
