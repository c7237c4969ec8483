"""A program: a pure function of named arrays, with the weights that it needs, for any batch size.

    traced = trace(parts.decoder(model, variables))
    traced.weights                         # "params.decoder.hidden_0.kernel" -> array, and so on
    run = mapped(traced, pack(traced.weights, "int8"))
    run({"z": z, "noise": noise})          # {"mean": f32[B, *event], "sample": ..., "draw": ...}

The function is traced for one example and mapped over the examples of a batch. The batch may
therefore have any size, and no example depends on another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from aejax.errors import UserError
from aejax.interop.programs.inline import live
from aejax.interop.programs.rows import Rows, by_rows
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
    inputs: Specs  # the shapes and dtypes of one example's inputs, without the batch axis
    facts: Mapping[str, str] = {}  # facts to store in the exported file, name -> one sentence


def named(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a pytree by their paths, such as "params.decoder.output.bias"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


class Traced(NamedTuple):
    """A program after tracing, for a batch of one example."""

    name: str  # the program's name
    facts: Mapping[str, str]  # facts to store in the exported file, name -> one sentence
    closed: ClosedJaxpr  # the function of all weights and then all inputs, each sorted by name
    arguments: list[str]  # the names of the function's arguments
    weights: dict[str, Array]  # the weights on which an output depends, by name
    # The shapes and dtypes of those inputs of one example on which an output depends.
    inputs: dict[str, jax.ShapeDtypeStruct]
    # The shapes and dtypes of the outputs, with a batch axis of size 1 except for constants.
    outputs: dict[str, jax.ShapeDtypeStruct]


def trace(program: Program, outputs: Sequence[str] = ()) -> Traced:
    """Traces a program, and finds the weights and inputs that its outputs depend on.

    Args:
      program: the program.
      outputs: the names of the outputs to keep; () keeps all.

    Raises:
      UserError: if there is no output of a given name.
    """
    weights = {name: jnp.asarray(leaf) for name, leaf in named(program.weights).items()}
    order, structure = list(weights), jax.tree.structure(program.weights)
    specs = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in weights.items()}

    def run(weights: Arrays, inputs: Arrays) -> dict[str, Array]:
        tree = jax.tree_util.tree_unflatten(structure, [weights[name] for name in order])
        found = program.run(tree, inputs)
        if unknown := sorted(set(outputs) - found.keys()):
            raise UserError(
                f"the {program.name} of this model has no output {unknown[0]!r}: choose from "
                f"{', '.join(sorted(found))}"
            )
        return {name: found[name] for name in outputs} if outputs else found

    # Matrix products use full float32 on accelerators too, so that all platforms agree.
    with jax.default_matmul_precision("float32"):
        closed, found = jax.make_jaxpr(run, return_shape=True)(specs, batched(program.inputs, 1))
    arguments = [*sorted(weights), *sorted(program.inputs)]
    used = live(closed)
    pairs = zip(arguments, closed.jaxpr.invars, strict=True)
    kept = {name for name, variable in pairs if id(variable) in used}
    return Traced(
        program.name,
        program.facts,
        closed,
        arguments,
        {name: weights[name] for name in sorted(weights) if name in kept},
        {name: program.inputs[name] for name in sorted(program.inputs) if name in kept},
        dict(sorted(found.items())),
    )


def batched(inputs: Specs, size: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes and dtypes of the inputs for a batch; the batch size may be symbolic."""
    return {n: jax.ShapeDtypeStruct((size, *s.shape), s.dtype) for n, s in inputs.items()}


def mapped(traced: Traced, packed: Mapping[str, Packed]) -> Callable[[Arrays], dict[str, Array]]:
    """Returns the program as a function of a batch of inputs, with the packed weights as constants.

    Args:
      traced: the program.
      packed: the weights that it needs.
    """

    def run(arrays: Arrays) -> dict[str, Array]:
        weights = unpack(packed)
        given = [
            Rows(arrays[name])
            if name in traced.inputs
            else weights.get(name, np.zeros(aval.shape, aval.dtype))  # no output depends on zeros
            for name, aval in zip(traced.arguments, traced.closed.in_avals, strict=True)
        ]
        size = next(iter(arrays.values())).shape[0]
        found = zip(traced.outputs.items(), by_rows(traced.closed, given), strict=True)
        return {name: _rows(value, spec, size) for (name, spec), value in found}

    return run


def _rows(value: Any, spec: jax.ShapeDtypeStruct, size: Any) -> Array:
    """Returns an output's array, with one row for each example; a common value is repeated."""
    if isinstance(value, Rows):
        return value.array
    return jnp.broadcast_to(value, (size, *spec.shape[1:])) if spec.shape else value
