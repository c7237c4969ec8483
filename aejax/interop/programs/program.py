"""A program: a pure function of named arrays with the weights that it needs, for any batch size.

    program = parts.decoder(model, variables)
    weights = needed(program)              # "params.decoder.hidden_0.kernel" -> array, and so on
    run = bound(program, pack(weights, "int8"))
    run({"z": z, "noise": noise})          # {"mean": f32[B, *event], "sample": ..., "draw": ...}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from aejax.errors import UserError
from aejax.interop.programs.weights import Packed, unpack
from aejax.types import Array

Arrays = Mapping[str, Any]
Specs = Mapping[str, jax.ShapeDtypeStruct]


class Program(NamedTuple):
    """A part of a model as a function of named arrays."""

    name: str  # the part's name, such as "decoder"
    # (weights, name of an input -> [B, ...]) -> name of an output -> [B, ...], or [] for a constant
    run: Callable[[Any, Arrays], dict[str, Array]]
    weights: Any  # a pytree of arrays; those that `run` does not use are not exported
    inputs: Specs  # the inputs of one example, without the batch axis
    facts: Mapping[str, str] = {}  # what a reader of the file should know, name -> one sentence


def named(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a pytree by their paths, such as "params.decoder.output.bias"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def batched(inputs: Specs, size: Any = None) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the inputs of a batch; its size is symbolic, B, unless one is given."""
    size = jax.export.symbolic_shape("B")[0] if size is None else size
    return {name: jax.ShapeDtypeStruct((size, *s.shape), s.dtype) for name, s in inputs.items()}


def outputs(program: Program, size: int = 2) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the outputs for a batch of a size, without computing them."""
    return jax.eval_shape(program.run, program.weights, batched(program.inputs, size))


def needed(program: Program) -> dict[str, Array]:
    """Returns the weights that the outputs depend on, by name."""
    leaves = named(program.weights)
    specs = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in leaves.items()}

    def run(weights: Arrays, inputs: Arrays) -> dict[str, Array]:
        return program.run(_rebuilt(program.weights, weights), inputs)

    jaxpr = jax.make_jaxpr(run)(specs, batched(program.inputs, 2)).jaxpr
    used = {id(atom) for atom in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if any(id(result) in used for result in equation.outvars):
            used |= {id(atom) for atom in equation.invars}
    # The weights are the first arguments, in the order of their sorted names.
    order = zip(sorted(leaves), jaxpr.invars, strict=False)
    return {name: leaves[name] for name, argument in order if id(argument) in used}


def bound(program: Program, packed: Mapping[str, Packed]) -> Callable[[Arrays], dict[str, Array]]:
    """Returns the program as a function of its inputs alone, with packed weights inside."""

    def run(inputs: Arrays) -> dict[str, Array]:
        return program.run(_rebuilt(program.weights, unpack(packed)), inputs)

    return run


def exported(program: Program, run: Callable[[Arrays], Any], platforms: Sequence[str]) -> Any:
    """Exports a function of the program's inputs for a batch of any size.

    Args:
      program: the program, whose name errors mention.
      run: the function of its inputs.
      platforms: the names of the platforms, such as "cpu".

    Raises:
      UserError: if an operation does not work for a batch of any size.
    """
    try:
        # Full float32 products on accelerators, too, so that all platforms agree.
        with jax.default_matmul_precision("float32"):
            traced = jax.export.export(jax.jit(run), platforms=tuple(platforms))
            return traced(batched(program.inputs))
    except UserError:
        raise
    except Exception as error:  # each operation of jax raises errors of its own kind
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"the {program.name} of this model cannot be exported for a batch of any size, because "
            f"jax cannot trace one of its operations ({reason}): replace that operation"
        ) from error


def _rebuilt(tree: Any, leaves: Arrays) -> Any:
    """Returns the pytree with the given leaves; a leaf that no output depends on is zero."""
    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    found = []
    for path, leaf in paths:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        found.append(leaves[name] if name in leaves else jnp.zeros(leaf.shape, leaf.dtype))
    return jax.tree_util.tree_unflatten(structure, found)
