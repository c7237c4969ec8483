"""The von Mises-Fisher distribution on the unit sphere in d dimensions: densities and cosines.

Its density is proportional to exp(concentration * <mean, z>), where mean is a unit vector. With t =
<mean, z>, its normaliser relative to the uniform distribution is M = E[exp(concentration * t)] over
the uniform one. All functions work with 1 - t, which stays precise in float32 where t is near 1.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from aejax.types import Array, Key

HIGH = 16.0  # from this order on, Debye's expansion of the Bessel function is exact to 1e-6
NODES, WEIGHTS = (a.astype(np.float32) for a in np.polynomial.legendre.leggauss(32))
MOST = 1000  # the most rounds of rejection; each accepts two of three draws or more
TINY = 1e-30


def log_area(dimensions: int) -> float:
    """Returns the logarithm of the area of the unit sphere in d dimensions; for d = 3, of 4 pi."""
    half = 0.5 * dimensions
    return math.log(2.0) + half * math.log(math.pi) - math.lgamma(half)


def normaliser(concentration: Array, dimensions: int) -> tuple[Array, Array]:
    """Computes log M - concentration, and concentration * (1 - E[t]), both f32[...].

    M is a Bessel function of order d / 2 - 1. Debye's expansion gives one of a high order, and the
    recursion that leads down to the order sought only adds positive terms.

    Args:
      concentration: f32[...], 0 or more.
      dimensions: d, 2 or more.
    """
    order = 0.5 * dimensions - 1.0
    steps = max(math.ceil(HIGH - order), 0)
    high = functools.partial(_debye, order + steps)
    log_m, slope = jax.jvp(high, (concentration,), (jnp.ones_like(concentration),))
    short = -concentration * slope
    for i in reversed(range(steps)):
        twice = 2.0 * (order + i + 1.0)
        log_m = log_m + jnp.log1p((concentration - short) / twice)
        short = concentration * (twice - short) / (twice + concentration - short)
    return log_m, short


def _debye(order: float, x: Array) -> Array:
    """Computes log M - x of the Bessel function of an order (Olver 1974, chapter 10, (7.16))."""
    root = jnp.sqrt(order**2 + jnp.square(x))
    p = order / root
    square = jnp.square(p)
    first = p * (3.0 - 5.0 * square) / 24.0
    second = square * (81.0 - square * (462.0 - 385.0 * square)) / 1152.0
    third = 30375.0 - square * (369603.0 - square * (765765.0 - 425425.0 * square))
    third = p * square * third / 414720.0
    series = jnp.log1p((first + (second + third / order) / order) / order)
    leading = order**2 / (root + x) - order
    bent = order * jnp.log1p(0.5 * jnp.square(x) / (order * (order + root)))
    stirling = order * math.log(order) - order + 0.5 * math.log(2.0 * math.pi * order)
    return leading - bent + 0.5 * jnp.log(p) + series + (math.lgamma(order + 1.0) - stirling)


def gaps(key: Key, concentration: Array, dimensions: int) -> Array:
    """Draws 1 - t, f32[...], by rejection (Wood 1994), with the gradient to the concentration.

    The gradient is that of the inverse of the distribution function at a fixed probability: no
    correction for the rejected draws is needed (Figurnov et al. 2018, equation 7).
    """
    constant = jax.lax.stop_gradient(concentration)
    return _moved(_wood(key, constant, dimensions), concentration, dimensions)


def _wood(key: Key, concentration: Array, dimensions: int) -> Array:
    """Draws 1 - t by rejection; all examples are drawn again until each has been accepted."""
    count = dimensions - 1
    b = count / (2.0 * concentration + jnp.sqrt(4.0 * jnp.square(concentration) + count**2))
    low = 2.0 * b / (1.0 + b)  # 1 - x_0 in Wood's notation

    def again(carried: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        i, kept, done = carried
        normal_key, uniform_key = jax.random.split(jax.random.fold_in(key, i))
        # A ratio of sums of squares of normals is a draw from Beta(count / 2, count / 2).
        sums = jnp.sum(jnp.square(jax.random.normal(normal_key, (2, *b.shape, count))), axis=-1)
        share = sums[0] / (sums[0] + sums[1])
        gap = 2.0 * b * share / (1.0 - (1.0 - b) * share)
        ratio = (low + (1.0 - low) * gap) / (low * (2.0 - low))
        log_ratio = concentration * (low - gap) + count * jnp.log(ratio)
        accepted = jnp.log(jax.random.uniform(uniform_key, b.shape, minval=TINY)) <= log_ratio
        return i + 1, jnp.where(done, kept, gap), done | accepted

    def going(carried: tuple[Array, Array, Array]) -> Array:
        return (carried[0] < MOST) & ~jnp.all(carried[2])

    start = (jnp.zeros((), jnp.int32), jnp.zeros_like(b), jnp.zeros(b.shape, bool))
    return jax.lax.while_loop(going, again, start)[1]


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _moved(gap: Array, concentration: Array, dimensions: int) -> Array:
    """Returns the gap; its derivative by the concentration is that of a draw."""
    return gap


@_moved.defjvp
def _moved_jvp(
    dimensions: int, primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    gap, concentration = primals
    return gap, tangents[0] + slope(gap, concentration, dimensions) * tangents[1]


def slope(gap: Array, concentration: Array, dimensions: int) -> Array:
    """Computes the derivative of a drawn 1 - t by the concentration, f32[...].

    With the density g(y) of y = 1 - t it is the integral of (y - E[y]) g(y) from 0 to the gap,
    divided by g(gap). Above E[y] the integral from the gap to 2, with the other sign, is computed
    instead, so that the integrand does not change its sign and no digits cancel.
    """
    power = 0.5 * (dimensions - 3.0)
    _, short = normaliser(concentration, dimensions)
    x, w = concentration[..., None], jnp.maximum(gap, TINY)[..., None]
    middle = short[..., None] / jnp.maximum(x, TINY)
    middle = jnp.where(x > 1e-3, middle, 1.0 - x / dimensions)
    place = (0.5 * (1.0 + NODES)).reshape((1,) * gap.ndim + (-1,))
    weight = (0.5 * WEIGHTS).reshape(place.shape)

    def integral(y: Array, measure: Array, log_measure_power: Array) -> Array:
        height = x * (w - y) + power * log_measure_power
        return jnp.sum(weight * measure * jnp.abs(y - middle) * jnp.exp(height), axis=-1)

    other = jnp.maximum(2.0 - w, TINY)
    # Squares of the place remove the singularities of the density at both ends.
    y = w * jnp.square(place)
    ratio = jnp.log(jnp.square(place)) + jnp.log((2.0 - y) / other)
    below = integral(y, 2.0 * w * place, ratio)
    reach = 30.0 + 8.0 * math.sqrt(max(power, 0.0))
    span = jnp.minimum(other, reach / jnp.maximum(x, TINY))
    back = 1.0 - place
    y = w + span * (1.0 - jnp.square(back))
    left = jnp.maximum(other - span * (1.0 - jnp.square(back)), TINY)
    above = integral(y, 2.0 * span * back, jnp.log(y / w) + jnp.log(left / other))
    return -jnp.where(w[..., 0] < middle[..., 0], below, above)
