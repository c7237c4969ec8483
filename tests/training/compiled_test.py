"""Compiling: donated buffers, and meshes of 8 forced host devices in a process of their own."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import aejax as ae
from tests import kinds
from tests.kinds import B

STEPS = 40
DEVICES = 8
# TopK selects: runs part where two latents are within rounding, the sooner the faster they learn.
RATES = {"vae": 3e-3, "sae-topk": 5e-4}


def test_a_state_given_to_step_is_donated():
    learner = ae.compiled(kinds.learner("vae"))
    state = learner.init(jax.random.key(0), kinds.batch())
    after, _ = learner.step(state, kinds.batch())
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after.params))


def test_a_mesh_of_one_device_computes_what_none_computes():
    """Bits are those without a mesh: nothing but the placement changes."""
    results = []
    for mesh in (None, ae.mesh(data=1)):
        learner = ae.compiled(ae.chunked(kinds.learner("sae-topk"), 5), mesh, ae.dictionary_rules)
        state = learner.init(jax.random.key(0), kinds.batch())
        results.append(kinds.raw(kinds.train(learner, state, 10)[0]))
    assert results[0] == results[1]


def test_a_mesh_that_does_not_fit_the_devices_is_refused():
    count = len(jax.devices())
    said = f"mesh data={count + 1} needs {count + 1} devices, but there are {count}"
    with pytest.raises(ae.UserError, match=re.escape(said)):
        ae.mesh(data=count + 1)
    with pytest.raises(ae.UserError, match="mesh data=0: each axis needs at least one device"):
        ae.mesh(data=0)


@pytest.fixture(scope="module")
def found():
    """What `python -m tests.compiled_test` found on 8 devices."""
    process = kinds.python("-m", "tests.training.compiled_test", devices=DEVICES)
    return json.loads(kinds.output(process).splitlines()[-1])


MESHES = {
    "sae-topk": ["data=4,model=2", "model=8"],
    "vae x 2": ["data=8"],
    "sae-topk x 2": ["data=4,model=2"],
}
CASES = [(kind, mesh) for kind, meshes in MESHES.items() for mesh in meshes]


@pytest.mark.parametrize(("kind", "mesh"), CASES)
def test_a_mesh_trains_to_the_losses_of_one_device(found, kind, mesh):
    """40 steps, 1e-4 relative. Fails if each device takes the mean over its own rows alone."""
    alone, together = found["losses"][kind]["one device"], found["losses"][kind][mesh]
    assert np.shape(together)[-1] == STEPS
    np.testing.assert_allclose(together, alone, rtol=1e-4)
    assert np.mean(np.asarray(alone)[..., -8:]) < 0.9 * np.mean(np.asarray(alone)[..., :8])


@pytest.mark.parametrize(
    ("kind", "mesh", "share"), [("sae-topk", "data=4,model=2", 4), ("vae x 2", "data=8", 8)]
)
def test_each_device_computes_its_share_of_the_batch(found, kind, mesh, share):
    """Inside the compiled chunk, where terms see it: fails if rows or batches are replicated."""
    members = [2] if " x 2" in kind else []
    assert found["batch"][kind][mesh] == [*members, B // share, *kinds.EVENT]
    assert found["first batch"][kind][mesh] == [B // share, *kinds.EVENT]


@pytest.mark.parametrize(("mesh", "share"), [("model=8", 8), ("data=4,model=2", 2)])
def test_each_device_holds_its_rows_of_the_dictionary_and_of_their_moments(found, mesh, share):
    """Read off addressable_shards. Fails if moments or ages stay whole, or columns are cut."""
    shards = found["shards"]["sae-topk"][mesh]
    for path in ("params/decoder/atoms", "opt/0/mu/decoder/atoms", "opt/0/nu/decoder/atoms"):
        assert shards[path] == [[128 // share, 64]] * DEVICES
    for tree in ("params", "opt/0/mu", "opt/0/nu"):
        encode = f"{tree}/bottleneck/encode"
        assert shards[f"{encode}/kernel"] == [[64, 128 // share]] * DEVICES
        assert shards[f"{encode}/bias"] == [[128 // share]] * DEVICES
    assert shards["memory/bottleneck/ages/age"] == [[128 // share]] * DEVICES
    assert shards["params/decoder/bias"] == [[64]] * DEVICES


def test_the_axis_of_members_is_never_cut(found):
    """Fails if a rule's spec is aligned to the left: 'model' would then cut the seeds."""
    shards = found["shards"]["sae-topk x 2"]["data=4,model=2"]
    assert shards["params/decoder/atoms"] == [[2, 64, 64]] * DEVICES
    assert shards["opt/0/nu/bottleneck/encode/kernel"] == [[2, 64, 64]] * DEVICES


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("mesh", "mesh data=4,model=3 needs 12 devices, but there are 8 (cpu)"),
        ("batch", "a batch of 30 examples cannot be divided evenly among the 8 devices of the"),
        (
            "rows",
            "params/bottleneck/encode/bias has an axis of size 100, which the mesh axis 'model' of "
            "size 8 does not divide",
        ),
    ],
)
def test_what_does_not_divide_is_refused_in_one_sentence(found, case, said):
    assert found["refused"][case].startswith(said)
    assert "\n" not in found["refused"][case]


def test_batch_norm_sees_the_whole_batch_on_every_device(found):
    """Four shards of a batch, 5 steps, to 1e-6. Fails if each device takes its own rows' mean."""
    assert found["batch norm"] < 1e-6


# Below: the process with 8 devices.


def look(seen: dict[str, Any]) -> ae.Term:
    """A term that notes how the batch lies on the devices in the compiled program."""

    def term(model, forward):
        x = forward.batch.x
        note = functools.partial(seen.__setitem__, "x")
        jax.debug.inspect_array_sharding(x, callback=note)
        return jnp.zeros(x.shape[:1])

    return term


def parse(text: str):
    return ae.mesh(**{name: int(size) for name, size in (p.split("=") for p in text.split(","))})


def trained(name: str, mesh: str | None) -> dict[str, Any]:
    kind, *members = name.split(" x ")
    seen: dict[str, Any] = {}
    model, objective, options = kinds.KINDS[kind]
    objective = ae.merge(objective, ae.watch(look=look(seen)))
    learner = ae.learner(model, objective, optax.adam(RATES[kind]), **options)
    lead, seed = [], 0
    if members:
        learner, lead, seed = ae.seeds(learner, 2), [2], [0, 1]
    learner = ae.chunked(learner, STEPS)
    learner = ae.compiled(learner, mesh and parse(mesh), ae.dictionary_rules)
    state = learner.init(jax.random.key(0), kinds.batch())
    result = {}
    if mesh:
        result["first batch"] = seen["x"].shard_shape((B, *kinds.EVENT))
    state, losses = kinds.train(learner, state, STEPS, seed)
    if mesh:
        result["batch"] = seen["x"].shard_shape((*lead, B, *kinds.EVENT))
    leaves = jax.tree.leaves_with_path(state)
    shards = {
        jax.tree_util.keystr(path, simple=True, separator="/"): [
            shard.data.shape for shard in leaf.addressable_shards
        ]
        for path, leaf in leaves
    }
    return {**result, "losses": losses.tolist(), "shards": shards}


def refused(act) -> str:
    try:
        act()
    except ae.UserError as error:
        return str(error)
    return "nothing was refused"


def odd_rows():
    model = kinds.dictionary(ae.TopK(100, 8))
    learner = ae.compiled(
        ae.learner(model, ae.sparse(), optax.adam(1e-3)), ae.mesh(model=8), ae.dictionary_rules
    )
    learner.init(jax.random.key(0), kinds.batch())


def odd_batch():
    learner = ae.compiled(kinds.learner("vae"), ae.mesh(data=8))
    state = learner.init(jax.random.key(0), kinds.batch())
    learner.step(state, kinds.batch(size=30))


def batch_norm() -> float:
    """How far parameters and running averages are apart on one device and on four shards."""
    layers = [lambda x: x.reshape((x.shape[0], -1)), nn.BatchNorm(), nn.Dense(16), nn.relu]
    model = kinds.variational().clone(encoder=nn.Sequential(layers))
    ends = []
    for mesh in (None, "data=4,model=2"):
        learner = ae.chunked(ae.learner(model, ae.elbo(), optax.sgd(1e-3)), 5)
        learner = ae.compiled(learner, mesh and parse(mesh), ae.dictionary_rules)
        state = learner.init(jax.random.key(0), kinds.batch())
        state, _ = kinds.train(learner, state, 5)
        ends.append(jax.device_get((state.params, state.memory)))
    apart = jax.tree.map(lambda a, b: np.max(np.abs(a - b)), *ends)
    return float(max(jax.tree.leaves(apart)))


def main() -> None:
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    for kind, meshes in MESHES.items():
        for mesh in (None, *meshes):
            for table, entry in trained(kind, mesh).items():
                tables.setdefault(table, {}).setdefault(kind, {})[mesh or "one device"] = entry
    refusals = {
        "mesh": refused(lambda: ae.mesh(data=4, model=3)),
        "batch": refused(odd_batch),
        "rows": refused(odd_rows),
    }
    print(json.dumps({**tables, "refused": refusals, "batch norm": batch_norm()}))


if __name__ == "__main__":
    main()
