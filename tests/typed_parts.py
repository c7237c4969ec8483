"""Mistakes in a part of a model that pyright must report; no test runs this file.

Each mistake has a comment that ignores the rule which finds it. Pyright reports an `ignore` that
hides nothing, so the type check fails if a contract no longer finds the mistake.
"""
# pyright: standard, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

import aejax as ae
from aejax.bottlenecks import FlowCode, GaussianCode, LevelsCode, PointCode
from aejax.contracts import (
    NOTHING,
    Bottleneck,
    Code,
    DensityCode,
    DiagonalCode,
    Given,
    Likelihood,
    Prior,
    RandomCode,
    TopDownCode,
)
from aejax.types import Array, Key


class WithoutShape(Bottleneck):
    """Forgets the property `shape`."""

    def __call__(self, features: Any, key: Key | None, given: Given = NOTHING) -> Code:
        return PointCode(features)


class WithoutCode(WithoutShape):
    """Returns an array in place of a code."""

    def __call__(self, features: Any, key: Key | None, given: Given = NOTHING) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        return features


class OldArguments(WithoutShape):
    """Takes the step in place of `given`."""

    def __call__(self, features: Any, key: Key | None, step: int = 0) -> Code:  # pyright: ignore[reportIncompatibleMethodOverride]
        return PointCode(features)


class WithoutDraws(Prior):
    """Forgets `sample`."""

    def log_prob(self, z: Any, context: Any = None, posterior: Any = None) -> Array:
        return jnp.zeros(z.shape[0])


class DrawsOne(WithoutDraws):
    """Its `sample` takes no number of draws."""

    def sample(self, key: Key, shape: Sequence[Any]) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return jnp.zeros(shape)


class WithoutMean(Likelihood):
    """Forgets `mean`."""

    support = "all"  # pyright: ignore[reportAssignmentType]

    def log_prob(self, prediction: Any, target: Array, mask: Array | None = None) -> Array:
        return jnp.zeros(target.shape[0])

    def sample(self, key: Key, prediction: Any) -> Array:
        return prediction


class Loose(nn.Module):
    """Derives from no contract."""


WithoutShape()  # pyright: ignore[reportAbstractUsage]
WithoutDraws()  # pyright: ignore[reportAbstractUsage]
WithoutMean()  # pyright: ignore[reportAbstractUsage]
ae.Autoencoder(ae.nets.MLP(()), ae.Gaussian(3), ae.nets.MLP(()), prior=Loose())  # pyright: ignore[reportArgumentType]


def kinds(gaussian: GaussianCode, levels: LevelsCode) -> None:
    """Shows which of the codes' protocols a record has."""
    diagonal: DiagonalCode = gaussian
    density: DensityCode = gaussian
    top_down: TopDownCode = levels
    flow: RandomCode = FlowCode(*[gaussian.z] * 5)
    wrong: DensityCode = levels  # pyright: ignore[reportAssignmentType]
    point: RandomCode = PointCode(gaussian.z)  # pyright: ignore[reportAssignmentType]
    del diagonal, density, top_down, flow, wrong, point


def narrowed(code: Code) -> Array:
    """Asks for a kind of code before it reads what only that kind has."""
    if isinstance(code, DiagonalCode):
        return code.mean + code.log_q()
    return code.mean  # pyright: ignore[reportAttributeAccessIssue]
