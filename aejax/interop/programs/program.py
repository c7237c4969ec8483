"""A program: a pure function of named arrays, with the weights that it needs, for any batch size.

    traced = trace(parts.decoder(model, variables))
    weights = needed(traced)               # "params.decoder.hidden_0.kernel" -> array, and so on
    run = mapped(traced, pack(weights, "int8"))
    run({"z": z, "noise": noise})          # {"mean": f32[B, *event], "sample": ..., "draw": ...}

The function is traced for one example and mapped over the examples of a batch. So the batch may
have any size, also for operations whose form depends on it, and no example depends on another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr

from aejax.interop.programs.inline import Replace, evaluate
from aejax.interop.programs.weights import Packed, unpack
from aejax.types import Array

Arrays = Mapping[str, Any]
Specs = Mapping[str, jax.ShapeDtypeStruct]


class Program(NamedTuple):
    """A part of a model as a function of named arrays."""

    name: str  # the part's name, such as "decoder"
    # (weights, name of an input -> [B, ...]) -> name of an output -> [B, ...], or [] for a constant
    run: Callable[[Any, Arrays], dict[str, Array]]
    weights: Any  # a pytree of arrays; those that no output depends on are not exported
    inputs: Specs  # the inputs of one example, without the batch axis
    facts: Mapping[str, str] = {}  # what a reader of the file should know, name -> one sentence


class Traced(NamedTuple):
    """A program after tracing, for a batch of one example."""

    program: Program
    closed: ClosedJaxpr  # its arguments are the weights and then the inputs, by sorted names
    weights: dict[str, Array]  # all weights by name
    outputs: dict[str, jax.ShapeDtypeStruct]  # with a batch axis of 1, but for constants


def trace(program: Program) -> Traced:
    """Traces a program.

    Raises:
      UserError: if the model cannot be traced.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(program.weights)
    order = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
    weights = {name: jnp.asarray(leaf) for name, (_, leaf) in zip(order, paths, strict=True)}
    specs = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in weights.items()}

    def run(weights: Arrays, inputs: Arrays) -> dict[str, Array]:
        tree = jax.tree_util.tree_unflatten(structure, [weights[name] for name in order])
        return program.run(tree, inputs)

    # Full float32 products on accelerators, too, so that all platforms agree.
    with jax.default_matmul_precision("float32"):
        closed, outputs = jax.make_jaxpr(run, return_shape=True)(specs, batched(program, 1))
    return Traced(program, closed, weights, outputs)


def batched(program: Program, size: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the specs of the inputs for a batch; its size may be symbolic."""
    specs = program.inputs.items()
    return {name: jax.ShapeDtypeStruct((size, *spec.shape), spec.dtype) for name, spec in specs}


def needed(traced: Traced) -> dict[str, Array]:
    """Returns the weights that the outputs depend on, by name."""
    jaxpr = traced.closed.jaxpr
    used = {id(atom) for atom in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if any(id(result) in used for result in equation.outvars):
            used |= {id(atom) for atom in equation.invars}
    arguments = zip(sorted(traced.weights), jaxpr.invars, strict=False)
    return {name: traced.weights[name] for name, variable in arguments if id(variable) in used}


def mapped(
    traced: Traced,
    packed: Mapping[str, Packed],
    replace: Replace = lambda equation, given: None,
) -> Callable[[Arrays], dict[str, Array]]:
    """Returns the program as a function of its inputs alone, with packed weights inside.

    Args:
      traced: the program.
      packed: the weights that it needs.
      replace: operations that are replaced, as `evaluate` takes them.
    """
    names, inputs = sorted(traced.outputs), sorted(traced.program.inputs)
    constants = {name for name in names if not traced.outputs[name].shape}

    def run(arrays: Arrays) -> dict[str, Array]:
        arrived = unpack(packed)
        weights = [
            arrived[name] if name in arrived else jnp.zeros(leaf.shape, leaf.dtype)
            for name, leaf in sorted(traced.weights.items())
        ]

        def one(example: Arrays) -> dict[str, Array]:
            given = [jax.lax.expand_dims(example[name], (0,)) for name in inputs]
            found = evaluate(traced.closed, [*weights, *given], replace)
            return {
                name: value if name in constants else jax.lax.squeeze(value, (0,))
                for name, value in zip(names, found, strict=True)
            }

        axes = {name: None if name in constants else 0 for name in names}
        return jax.vmap(one, out_axes=axes)(dict(arrays))

    return run
