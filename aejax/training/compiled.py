"""Compiles a learner (the functions that train a model) for the available devices by jit."""

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

# Each rule is a regular expression that is searched in a leaf's path, and the PartitionSpec of the
# leaf's trailing axes. A path looks like params/decoder/atoms. The paths of the optimiser's moments
# end in the same names, so one rule applies to a parameter and its moments.
Rules = Sequence[tuple[str, PartitionSpec]]

# These rules shard the latents of a sparse autoencoder over the mesh axis "model".
dictionary_rules: Rules = (
    (ending(ATOMS), PartitionSpec("model", None)),
    (ending(KERNEL), PartitionSpec(None, "model")),
    (ending(BIAS), PartitionSpec("model")),
    (ending(AGE), PartitionSpec("model")),
)


def mesh(**axes: int) -> Mesh:
    """Builds a mesh of named axes over all devices, for example mesh(data=4, model=2).

    Args:
      **axes: the number of devices along each named axis.

    Raises:
      UserError: if the sizes of the axes do not multiply to the number of devices.
    """
    devices = jax.devices()
    wanted = math.prod(axes.values())
    text = ",".join(f"{name}={size}" for name, size in axes.items())
    if any(size < 1 for size in axes.values()):
        raise UserError(f"mesh {text}: each axis needs at least one device, so give sizes above 0")
    if wanted != len(devices):
        raise UserError(
            f"mesh {text} needs {wanted} devices, but there are {len(devices)} "
            f"({devices[0].platform}): choose axes whose product is {len(devices)}"
        )
    return jax.make_mesh(tuple(axes.values()), tuple(axes), (AxisType.Auto,) * len(axes))


def compiled(
    learner: Learner, mesh: Mesh | None = None, rules: Rules = (), shard_state: bool = False
) -> Learner:
    """Returns the learner with `init`, `step` and `evaluate` compiled by jit.

    `step` donates its state: the given state's buffers are reused and must not be read afterwards.

    Args:
      learner: a learner to which all other wrappers were already applied. In the other order, as in
        seeds(compiled(learner)), the results are the same, but no buffers are donated.
      mesh: the devices. Batches are sharded over the mesh axis "data". An array of the state whose
        path matches a rule is sharded as that rule states; all others are replicated. None uses the
        default device. With several processes, each process passes its own slice of every batch.
      rules: pairs of a regular expression for a leaf's path and the PartitionSpec of the leaf's
        trailing axes. The first rule that matches applies; axes that the mesh lacks are ignored.
      shard_state: whether large parameters and large arrays of the optimiser, such as Adam's
        moments, are divided over the mesh axis "data" as well. Each device then holds and updates
        its share, and parameters are gathered where they are used. The results are the same, to
        rounding.

    Raises:
      UserError: if a mesh axis shards nothing; on the first call, if the mesh does not divide the
        batch or a sharded axis.
    """
    if mesh is None:
        return learner._replace(
            init=jax.jit(learner.init),
            step=jax.jit(learner.step, donate_argnums=0),
            evaluate=jax.jit(learner.evaluate),
        )

    _check_axes(mesh, rules)
    place_data = _Placement(mesh, learner)
    programs: dict[str, Any] = {}

    def laid(state: Any) -> Any:
        return state_layout(state, mesh, rules, shard_state)

    def init(key: Key, batch: Batch) -> State:
        # One key comes with one batch for all S models, S keys with S stacked batches.
        batch = place_data.batch(batch, place_data.lead if key.ndim else 0)
        key = _put(key, NamedSharding(mesh, PartitionSpec()))
        with jax.set_mesh(mesh):
            layout = laid(jax.eval_shape(learner.init, key, batch))
            return jax.jit(learner.init, out_shardings=layout)(key, batch)

    def step(state: State, data: Batch | Source) -> tuple[State, Metrics]:
        layout = laid(state)
        if "step" not in programs:
            programs["step"] = program(learner, mesh, layout)
        state, data = jax.tree.map(_put, state, layout), place_data(data)
        with jax.set_mesh(mesh):
            return programs["step"](state, data)

    evaluation = jax.jit(learner.evaluate)

    def evaluate(*arguments: Any, **named: Any) -> Any:
        with jax.set_mesh(mesh):
            return evaluation(*arguments, **named)

    return learner._replace(init=init, step=step, evaluate=evaluate)


def program(learner: Learner, mesh: Mesh, layout: Any) -> Any:
    """Returns a learner's step, compiled by jit for a mesh; it donates its state.

    It must be called or lowered within `jax.set_mesh(mesh)`, by which parts know the platform.

    Args:
      learner: the learner.
      mesh: the devices.
      layout: the sharding of each leaf of the state, as `state_layout` returns it.
    """
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.jit(learner.step, donate_argnums=0, out_shardings=(layout, whole))


def _check_axes(mesh: Mesh, rules: Rules) -> None:
    """Raises UserError if nothing is sharded over an axis of the mesh that has several devices."""
    used = {"data"} | {axis for _, spec in rules for axis in spec if axis is not None}
    for axis, size in mesh.shape.items():
        if size > 1 and axis not in used:
            raise UserError(
                f"nothing is sharded over the mesh axis {axis!r}, so its {size} devices would all "
                "compute the same: name it 'data', which shards batches, or give a rule that "
                "names it"
            )


def state_layout(state: Any, mesh: Mesh, rules: Rules, shard_state: bool = False) -> Any:
    """Returns the NamedSharding of each leaf of a state.

    Args:
      state: the state, or another pytree.
      mesh: the devices.
      rules: see `compiled`.
      shard_state: whether large leaves of `params` and `opt` are divided over "data" as well.

    Raises:
      UserError: if the mesh does not divide an axis that a rule shards; the error names the leaf.
    """

    def layout(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        axes: list[Any] = [None] * leaf.ndim
        for pattern, spec in rules:
            if re.search(pattern, name) and leaf.ndim >= len(spec):
                # A spec describes the trailing axes, because a seeds axis may precede them.
                # Axes that the mesh lacks become None, so that one rule serves every mesh.
                axes[leaf.ndim - len(spec) :] = [a if a in mesh.shape else None for a in spec]
                break
        for size, axis in zip(leaf.shape, axes, strict=True):
            if axis is not None and size % mesh.shape[axis]:
                raise UserError(
                    f"{name} has an axis of size {size}, which the mesh axis {axis!r} of "
                    f"size {mesh.shape[axis]} does not divide: change one of the two sizes"
                )
        if shard_state and name.startswith(("params/", "opt/")):
            axes = _divided(leaf, axes, mesh)
        return NamedSharding(mesh, PartitionSpec(*axes))

    return jax.tree.map_with_path(layout, state)


LARGE = 2**16  # arrays with fewer numbers are not worth dividing


def _divided(leaf: Any, axes: list[Any], mesh: Mesh) -> list[Any]:
    """Adds the mesh axis "data" to the axis of an array that is longest on each device."""
    count = mesh.shape.get("data", 1)
    own = [n // mesh.shape.get(a, 1) for n, a in zip(leaf.shape, axes, strict=True)]
    if count == 1 or leaf.size < LARGE or "data" in axes:
        return axes
    longest = max(range(leaf.ndim), key=lambda i: own[i] if own[i] % count == 0 else 0)
    if own[longest] % count:
        return axes
    held = axes[longest]
    axes[longest] = "data" if held is None else (held, "data")
    return axes


def _put(leaf: Any, sharding: NamedSharding) -> Array:
    if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
        return leaf
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    if is_key and not sharding.is_fully_addressable:
        # device_put cannot move typed keys to the devices of other processes, only their data.
        data = jax.device_put(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return jax.device_put(leaf, sharding)


class _Placement:
    """Puts batches and sources on the devices of a mesh.

    A data set that stays on the devices is sent there only once.
    """

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
            # Keeping the leaf alive prevents Python from reusing its id for another array.
            self.resident[id(leaf)] = (leaf, placed)
        return self.resident[id(leaf)][1]

    def _batch(self, leaf: Any, axis: int) -> Array:
        """Shards a leaf's batch axis, which has the index `axis`, over the mesh axis "data"."""
        if "data" not in self.mesh.shape:
            return _put(leaf, NamedSharding(self.mesh, PartitionSpec()))
        size = leaf.shape[axis] * jax.process_count()
        if size % self.mesh.shape["data"]:
            raise UserError(
                f"a batch of {size} examples cannot be divided evenly among the "
                f"{self.mesh.shape['data']} devices of the mesh axis 'data': choose a batch size "
                f"that is a multiple of {self.mesh.shape['data']}"
            )
        sharding = NamedSharding(self.mesh, PartitionSpec(*(None,) * axis, "data"))
        if jax.process_count() == 1:
            return _put(leaf, sharding)
        return jax.make_array_from_process_local_data(sharding, leaf)
