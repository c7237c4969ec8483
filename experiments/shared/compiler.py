"""Asks the compiler of TPUs what a training step costs; no TPU is needed and nothing runs.

    mesh = compiler.mesh("v5e:4x4", data=4, model=4)
    step = compiler.lowered(learner, batch, mesh, ae.dictionary_rules)
    compiler.price(step).gigabytes

The compiler is in the package libtpu, which only one process may use at a time.
"""

from __future__ import annotations

import importlib.util
import math
import os
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from aejax.errors import UserError
from aejax.training.compiled import Rules, program, state_layout
from aejax.types import Batch, Learner
from experiments.shared import hlo

MISSING = (
    "libtpu, which holds the compiler of TPUs, is not installed: run pip install 'jax[tpu]', in an "
    "environment of its own if this one must keep its version of jax"
)


class Price(NamedTuple):
    """What one step costs on each device, as the compiler sees it."""

    teraflops: float  # operations of a step, in 1e12
    gigabytes: float  # read and written, in 1e9 bytes
    temporary: float  # memory beside the state and the batch, MiB
    arguments: float  # the state and the batch, MiB
    results: float  # memory of the results that does not take the place of arguments, MiB
    collectives: dict[str, float]  # operation -> MiB that a device contributes or receives
    unpriced: dict[str, int]  # call without a price -> how often a step runs it
    loops: tuple[int, ...]  # the trips of each loop, with which its body is multiplied


def mesh(topology: str, **axes: int) -> Mesh:
    """Returns a mesh of TPUs that need not exist.

    Args:
      topology: the name of a slice of TPUs, such as v5e:4x4.
      **axes: the number of chips along each axis, in all those of the slice, or one.

    Raises:
      UserError: if libtpu is missing or does not know the slice, or the mesh is of another size.
    """
    chips = _chips(topology)
    wanted = math.prod(axes.values())
    if wanted not in (1, len(chips)):  # the compiler fails for some of the chips of a slice
        raise UserError(
            f"{topology} has {len(chips)} chips, but the mesh needs {wanted}: give a mesh of all "
            "chips, or a slice of that size"
        )
    grid = np.asarray(chips[:wanted]).reshape(*axes.values())
    return Mesh(grid, tuple(axes), axis_types=(AxisType.Auto,) * len(axes))


def whole(topology: str) -> str:
    """Returns the mesh of all chips of a slice along the axis "data", such as "data=16"."""
    return f"data={len(_chips(topology))}"


def _chips(topology: str) -> list[Any]:
    """Returns the chips of a slice of TPUs."""
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(MISSING)
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there may be no TPU to ask
    if "JAX_PLATFORMS" not in os.environ:
        jax.config.update("jax_platforms", "cpu")
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except Exception as error:  # jaxlib raises several types
        raise UserError(
            f"the compiler of TPUs cannot be asked about {topology} ({str(error).splitlines()[0]}):"
            " give a slice such as v5e:4x4, and let no other process use libtpu"
        ) from error


def lowered(
    learner: Learner,
    batch: Batch,
    mesh: Mesh,
    rules: Rules = (),
    shard_state: bool = False,
) -> jax.stages.Lowered:
    """Lowers the training step that `ae.compiled` runs on a mesh.

    Args:
      learner: the learner of one model, or of several that `ae.seeds` or `ae.swept` made.
      batch: a batch of `jax.ShapeDtypeStruct`, of all chips.
      mesh: the mesh; batches are divided over its axis "data".
      rules: see `ae.compiled`.
      shard_state: see `ae.compiled`.
    """
    with jax.set_mesh(mesh):
        several = learner.seeds is not None
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), learner.seeds or 1))
        key = keys if several else jax.eval_shape(lambda: jax.random.key(0))
        state = jax.eval_shape(learner.init, key, batch)
        layout = state_layout(state, mesh, rules, shard_state)
        state = jax.tree.map(_laid, state, layout)
        lead = (None,) if several and not learner.shared_data else ()
        rows = NamedSharding(mesh, PartitionSpec(*lead, "data" if "data" in mesh.shape else None))
        batch = jax.tree.map(lambda leaf: _laid(leaf, rows), batch)
        return program(learner, mesh, layout).lower(state, batch)


def price(step: jax.stages.Lowered) -> Price:
    """Compiles a step and returns its price.

    Operations and bytes are those of XLA's own analysis, to which the further trips of loops are
    added, as `hlo.counted` counts them. Of a condition the largest branch counts.
    """
    made = step.compile()
    text, found, memory = made.as_text() or "", made.cost_analysis(), made.memory_analysis()
    assert isinstance(found, dict)
    assert memory is not None
    whole, once = hlo.counted(text), hlo.counted(text, trips=False)
    return Price(
        (found["flops"] + whole.flops - once.flops) / 1e12,
        (found["bytes accessed"] + whole.bytes - once.bytes) / 1e9,
        memory.temp_size_in_bytes / 2**20,
        memory.argument_size_in_bytes / 2**20,
        (memory.output_size_in_bytes - memory.alias_size_in_bytes) / 2**20,
        {name: count / 2**20 for name, count in whole.collectives.items()},
        dict(whole.unpriced),
        tuple(hlo.loops(text)),
    )


def _laid(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
