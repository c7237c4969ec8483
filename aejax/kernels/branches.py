"""Branches of a program that cost nothing, forward or backward, where they are not taken."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.extend import core

from aejax.types import Array


def switch(index: Array | int, branches: Sequence[Callable[[], Array]]) -> Array:
    """`lax.switch` whose backward pass computes the branch again instead of keeping its insides.

    The derivative of `lax.switch` hands all that backward needs out of the branch, and one that was
    not taken fills the same arrays with zeros: of AuxK a tenth of a whole step. Here backward has
    the closed-over values alone, and a branch not taken costs the zeros of their gradients.

    Args:
      index: i32[], which branch; the same for all members of a sweep (`any_member`), else vmap
        makes a select of it.
      branches: functions of no argument, which close over what they need, to arrays of one shape.
    """
    programs = [jax.make_jaxpr(branch)() for branch in branches]
    found = {id(value): value for program in programs for value in program.consts}
    place = {key: i for i, key in enumerate(found)}
    places = [[place[id(value)] for value in program.consts] for program in programs]

    def branch(i: int, values: list[Any]) -> Array:
        own = core.ClosedJaxpr(programs[i].jaxpr, [values[p] for p in places[i]])
        return core.jaxpr_as_fun(own)()[0]

    def pull(i: int, values: list[Any], cotangent: Array) -> tuple[Array, ...]:
        def of(*chosen: Array) -> Array:
            mixed = dict(enumerate(values)) | dict(zip(wanted, chosen, strict=True))
            return branch(i, [mixed[p] for p in range(len(values))])

        return jax.vjp(of, *(values[p] for p in wanted))[1](cotangent)

    wanted: list[int] = []  # places of the values that somebody differentiates

    @jax.custom_vjp
    def run(index: Array, values: list[Any]) -> Array:
        return jax.lax.switch(index, [functools.partial(branch, i) for i in each], values)

    def forward(index: Any, values: list[Any]) -> tuple[Array, Any]:
        wanted[:] = [
            p
            for p, one in enumerate(values)
            if one.perturbed and jnp.issubdtype(one.value.dtype, jnp.inexact)
        ]
        plain = [one.value for one in values]
        return run(index.value, plain), (index.value, plain)

    def backward(saved: Any, cotangent: Any) -> tuple[None, list[Any]]:
        index, values = saved
        if isinstance(cotangent, SymbolicZero):
            return None, [None] * len(values)
        pulls = [functools.partial(pull, i) for i in each]
        gradients = jax.lax.switch(index, pulls, values, cotangent)
        by_place = dict(zip(wanted, gradients, strict=True))
        return None, [by_place.get(p) for p in range(len(values))]

    each = range(len(programs))
    run.defvjp(forward, backward, symbolic_zeros=True)
    return run(index, list(found.values()))
