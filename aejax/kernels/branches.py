"""A `lax.switch` whose untaken branches cost almost nothing, also when it is differentiated."""

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
    """Runs one branch, as `lax.switch` does, and recomputes it in the backward pass.

    The derivative of `lax.switch` saves the intermediate results of every branch, with zeros for
    branches that are not taken; for the AuxK loss, this takes a tenth of the time of a training
    step. Here only the values that the branches close over are saved.

    Args:
      index: the index of the branch, i32[]. Under vmap it must not be batched, because vmap would
        then run all branches and select among the results; `members.any_member` helps with this.
      branches: functions without arguments that close over their inputs and return arrays of the
        same shape.
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

    wanted: list[int] = []  # indices of the closed-over values that need a gradient

    @jax.custom_vjp
    def run(index: Array, values: list[Any]) -> Array:
        return jax.lax.switch(index, [functools.partial(branch, i) for i in each], values)

    def forward(index: Any, values: list[Any]) -> tuple[Array, Any]:
        wanted[:] = [
            p
            for p, one in enumerate(values)
            if one.perturbed and jnp.issubdtype(one.value.dtype, jnp.inexact)
        ]
        primals = [one.value for one in values]
        return run(index.value, primals), (index.value, primals)

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
