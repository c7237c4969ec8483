"""Runs a traced function operation by operation, so that some operations can be replaced.

    closed = jax.make_jaxpr(function)(x)
    evaluate(closed, [x])      # what function(x) computes

Functions called inside it are inlined, including those with a custom derivative, and operations on
which no result depends are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

# (operation, its arguments) -> its results, or None to run the operation as it is.
Replace: TypeAlias = Callable[[Any, list[Any]], list[Any] | None]
LOOPS = ("scan", "while")


def evaluate(
    closed: ClosedJaxpr,
    arguments: list[Any],
    replace: Replace = lambda operation, given: None,
) -> list[Any]:
    """Runs a traced function and returns a flat list of its results.

    Args:
      closed: the traced function.
      arguments: a flat list of its arguments, which may be other objects than arrays if `replace`
        handles the operations on them.
      replace: returns the results of an operation that it replaces; by default it replaces none.
    """
    jaxpr = closed.jaxpr
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    values |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    used = live(closed)
    for equation in jaxpr.eqns:
        if not any(id(result) in used for result in equation.outvars):
            continue
        given = [read(atom) for atom in equation.invars]
        results = replace(equation, given)
        if results is None:
            results = _run(equation, given, replace)
        values |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def called(equation: Any, given: list[Any]) -> tuple[ClosedJaxpr, list[Any]] | None:
    """Returns the function that an operation calls once, and its arguments.

    For a `cond` whose index is known while tracing, it is the chosen branch. The result is None if
    the operation calls no function, or calls one in a loop.
    """
    params = equation.params
    if equation.primitive.name == "cond" and _known(given[0]):
        return params["branches"][int(given[0])], given[1:]
    inner = params.get("jaxpr", params.get("call_jaxpr", params.get("fun_jaxpr")))
    once = isinstance(inner, ClosedJaxpr) and equation.primitive.name not in LOOPS
    return (inner, given) if once else None


def live(closed: ClosedJaxpr) -> set[int]:
    """Returns the ids of those variables of a traced function on which its results depend."""
    used = {id(atom) for atom in closed.jaxpr.outvars}
    for equation in reversed(closed.jaxpr.eqns):
        if any(id(result) in used for result in equation.outvars):
            used |= {id(atom) for atom in equation.invars}
    return used


def _run(equation: Any, given: list[Any], replace: Replace) -> list[Any]:
    if (inner := called(equation, given)) is not None:
        return evaluate(*inner, replace)
    if given and all(map(_known, given)) and _no_larger(equation):
        with jax.ensure_compile_time_eval():
            return bind(equation, given)
    return bind(equation, given)


def bind(equation: Any, given: list[Any], **changed: Any) -> list[Any]:
    """Runs one operation, with `changed` values of some of its parameters.

    Returns:
      The list of its results.
    """
    result = equation.primitive.bind(*given, **{**equation.params, **changed})
    return list(result) if equation.primitive.multiple_results else [result]


def _known(value: Any) -> bool:
    """Returns whether a value is a number or an array whose values are known while tracing."""
    kinds = jax.Array | np.ndarray | np.generic | int | float
    return isinstance(value, kinds) and not isinstance(value, jax.core.Tracer)


def _no_larger(equation: Any) -> bool:
    """Returns whether an operation's results have no more elements than its arguments."""
    given, results = (
        sum(math.prod(atom.aval.shape) for atom in atoms)
        for atoms in (equation.invars, equation.outvars)
    )
    return results <= given
