"""Compiling a learner for the devices at hand: jit, donated buffers, NamedSharding."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from aejax.errors import UserError
from aejax.types import Array, Batch, Key, Learner, Metrics, Source, State
from aejax.variables import AGE, ATOMS, BIAS, KERNEL, ending

# (regular expression searched in a leaf's path, PartitionSpec of the leaf's trailing axes).
# Paths look like params/decoder/atoms; the optimiser's moments end in the same words.
Rules = Sequence[tuple[str, PartitionSpec]]

# The rows of a dictionary and of its moments over the mesh axis "model".
dictionary_rules: Rules = (
    (ending(ATOMS), PartitionSpec("model", None)),
    (ending(KERNEL), PartitionSpec(None, "model")),
    (ending(BIAS), PartitionSpec("model")),
    (ending(AGE), PartitionSpec("model")),
)


def mesh(**axes: int) -> Mesh:
    """A mesh of named axes, as in mesh(data=8) or mesh(data=4, model=2).

    Raises:
      UserError: if the axes do not fit the devices that there are.
    """
    devices = jax.devices()
    wanted = math.prod(axes.values())
    text = ",".join(f"{name}={size}" for name, size in axes.items())
    if any(size < 1 for size in axes.values()):
        raise UserError(f"mesh {text}: each axis needs at least one device")
    if wanted != len(devices):
        raise UserError(
            f"mesh {text} needs {wanted} devices, but there are {len(devices)} "
            f"({devices[0].platform}): choose axes whose product is {len(devices)}"
        )
    return jax.make_mesh(tuple(axes.values()), tuple(axes), (AxisType.Auto,) * len(axes))


def compiled(learner: Learner, mesh: Mesh | None = None, rules: Rules = ()) -> Learner:
    """The learner with `init`, `step`, `evaluate` compiled; the state given to `step` is donated.

    Args:
      learner: complete, as this is the outermost wrapper.
      mesh: batches are laid over its axis "data", leaves that a rule names over the rule's axes,
        all else is replicated. None: the default device. With several processes each hands over
        its own slice of every batch.
      rules: (path regex, PartitionSpec of the trailing axes); the first that is found applies, in
        the axes that the mesh has.

    Raises:
      UserError: when first called, if a batch or a sharded axis does not divide over the mesh.
    """
    if mesh is None:
        return learner._replace(
            init=jax.jit(learner.init),
            step=jax.jit(learner.step, donate_argnums=0),
            evaluate=jax.jit(learner.evaluate),
        )

    place_data = _Placement(mesh, learner)
    programs: dict[str, Any] = {}

    def init(key: Key, batch: Batch) -> State:
        # One key and one batch for all seeds, or one of each for every seed.
        batch = place_data.batch(batch, place_data.lead if key.ndim else 0)
        key = _put(key, NamedSharding(mesh, PartitionSpec()))
        layout = state_layout(jax.eval_shape(learner.init, key, batch), mesh, rules)
        return jax.jit(learner.init, out_shardings=layout)(key, batch)

    def step(state: State, data: Batch | Source) -> tuple[State, Metrics]:
        layout = state_layout(state, mesh, rules)
        if "step" not in programs:
            whole = NamedSharding(mesh, PartitionSpec())
            programs["step"] = jax.jit(
                learner.step, donate_argnums=0, out_shardings=(layout, whole)
            )
        state = jax.tree.map(_put, state, layout)
        return programs["step"](state, place_data(data))

    return learner._replace(init=init, step=step, evaluate=jax.jit(learner.evaluate))


def state_layout(state: Any, mesh: Mesh, rules: Rules) -> Any:
    """The NamedSharding of each leaf of a state.

    Raises:
      UserError: if a rule's axis does not divide the leaf's, naming the leaf.
    """

    def layout(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for pattern, spec in rules:
            if re.search(pattern, name) and leaf.ndim >= len(spec):
                # A spec names the trailing axes: seeds may stand in front of them.
                # An axis that the mesh lacks divides nothing, so one rule serves every mesh.
                named = (axis if axis in mesh.shape else None for axis in spec)
                full = (None,) * (leaf.ndim - len(spec)) + tuple(named)
                for size, axis in zip(leaf.shape, full, strict=True):
                    if axis is not None and size % mesh.shape[axis]:
                        raise UserError(
                            f"{name} has an axis of {size}, which the mesh axis {axis!r} of "
                            f"{mesh.shape[axis]} does not divide: change one of the two"
                        )
                return NamedSharding(mesh, PartitionSpec(*full))
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree.map_with_path(layout, state)


def _put(leaf: Any, sharding: NamedSharding) -> Array:
    if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
        return leaf
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    if is_key and not sharding.is_fully_addressable:
        # device_put takes numbers, but no keys, to the devices of other processes.
        data = jax.device_put(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return jax.device_put(leaf, sharding)


class _Placement:
    """Lays batches and sources over the mesh; a resident data set is moved there once."""

    def __init__(self, mesh: Mesh, learner: Learner):
        self.mesh = mesh
        self.lead = 0 if learner.seeds is None or learner.shared_data else 1
        self.resident: dict[int, tuple[Any, Array]] = {}

    def batch(self, batch: Any, axis: int) -> Any:
        return jax.tree.map(lambda a: self._batch(a, axis), batch)

    def __call__(self, data: Batch | Source) -> Batch | Source:
        if isinstance(data, Batch):
            return self.batch(data, self.lead)
        whole = NamedSharding(self.mesh, PartitionSpec())
        key, count = _put(data.key, whole), _put(data.count, whole)
        first = _put(jnp.asarray(data.first, jnp.int32), whole)
        if data.rows is None:
            arrays, rows = self.batch(data.arrays, self.lead + 1), None
        else:
            arrays = jax.tree.map(self._keep, data.arrays)
            rows = self._batch(data.rows, self.lead + 1)
        return Source(arrays, rows, key, count, data.prepare, first)

    def _keep(self, leaf: Any) -> Array:
        if id(leaf) not in self.resident:
            placed = _put(leaf, NamedSharding(self.mesh, PartitionSpec()))
            self.resident[id(leaf)] = (leaf, placed)  # the leaf too, so that its id stays its own
        return self.resident[id(leaf)][1]

    def _batch(self, leaf: Any, axis: int) -> Array:
        """Shards one axis, the batch's, over "data"."""
        if "data" not in self.mesh.shape:
            return _put(leaf, NamedSharding(self.mesh, PartitionSpec()))
        size = leaf.shape[axis] * jax.process_count()
        if size % self.mesh.shape["data"]:
            raise UserError(
                f"a batch of {size} does not divide over the mesh axis data of "
                f"{self.mesh.shape['data']}: choose a multiple of it"
            )
        sharding = NamedSharding(self.mesh, PartitionSpec(*(None,) * axis, "data"))
        if jax.process_count() == 1:
            return _put(leaf, sharding)
        return jax.make_array_from_process_local_data(sharding, leaf)
