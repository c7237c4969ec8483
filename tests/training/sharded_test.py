"""Every sparse code on 8 forced host devices, against one device and against its rows form."""

from __future__ import annotations

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

import aejax as ae
from aejax.training import compiled
from tests import kinds

B, D, M, K, STEPS = 16, 16, 128, 4, 200
RATE = 1e-2
CODES = {
    "TopK": lambda form: ae.TopK(M, K, form=form),
    "AbsTopK": lambda form: ae.AbsTopK(M, K, score_by_norm=True, form=form),
    "BatchTopK": lambda form: ae.BatchTopK(M, K, form=form),
    "JumpReLU": lambda form: ae.JumpReLU(M, form=form),
    "Gated": lambda form: ae.Gated(M, form=form),
    "ReLU": lambda form: ae.ReLU(M, form=form),
    "AnnealedReLU": lambda form: ae.AnnealedReLU(M, begin=20, every=20, form=form),
    "MatchingPursuit": lambda form: ae.MatchingPursuit(M, max_iterations=K, form=form),
}
# Name of a run -> form, mesh, and whether the state is divided over the axis "data" as well.
RUNS = {
    "dense": ("dense", {}, False),
    "rows, sharded": ("rows", {"data": 4, "model": 2}, False),
    "dense, sharded": ("dense", {"data": 4, "model": 2}, False),
    "dense, state sharded": ("dense", {"data": 4, "model": 2}, True),
    "dense, by latents": ("dense", {"model": 8}, False),
}


def test_the_state_is_divided_along_its_longest_axis():
    """Fails if the rule's axis is lost, or if memory, keys or small arrays are divided."""
    shapes = {
        "opt": {"mu": {"decoder": {"atoms": jax.ShapeDtypeStruct((512, 256), jnp.float32)}}},
        "params": {
            "decoder": {
                "atoms": jax.ShapeDtypeStruct((64, 2048), jnp.float32),
                "bias": jax.ShapeDtypeStruct((256,), jnp.float32),
            }
        },
        "memory": {"decoder": {"atoms": jax.ShapeDtypeStruct((512, 256), jnp.float32)}},
    }
    mesh = AbstractMesh((4, 2), ("data", "model"))

    def specs(shard_state):
        found = compiled.state_layout(shapes, mesh, ae.dictionary_rules, shard_state)
        return [leaf.spec for leaf in jax.tree.leaves(found)]

    by_latents = PartitionSpec("model", None)
    assert specs(False) == [by_latents, by_latents, by_latents, PartitionSpec(None)]
    both, data = PartitionSpec(("model", "data"), None), PartitionSpec("model", "data")
    assert specs(True) == [by_latents, both, data, PartitionSpec(None)]


@pytest.fixture(scope="module")
def found():
    """What `python -m tests.training.sharded_test` found on 8 devices."""
    process = kinds.python("-m", "tests.training.sharded_test", devices=8)
    return json.loads(kinds.output(process, seconds=3000).splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("run", RUNS)
def test_each_run_trains_as_the_rows_form_on_one_device(found, name, run):
    """The first gradient to 1e-6 of its largest number, and the losses of 200 steps to 1e-5.

    Fails if candidates are those of one device, if counts are not summed over devices, or if each
    device takes the mean over its own rows.
    """
    step, losses = found[name][run]
    assert step < 1e-6
    assert losses < 1e-5


def main(names):
    """Prints, for each code and run, how far one step and the losses are from the reference."""
    compiled.LARGE = 1
    x = np.random.default_rng(0).normal(size=(4, B, D)).astype(np.float32)
    batches = [ae.Batch(jnp.asarray(a), jnp.asarray(a)) for a in x]
    results = {}
    for name in names:
        make = CODES[name]
        reference = trained(make("rows"), {}, False, batches)
        results[name] = {}
        for run, (form, axes, shard_state) in RUNS.items():
            step, losses = trained(make(form), axes, shard_state, batches)
            leaves = zip(jax.tree.leaves(step), jax.tree.leaves(reference[0]), strict=True)
            apart = [np.max(np.abs(a - b)) / (np.max(np.abs(b)) + 1e-30) for a, b in leaves]
            farthest = np.max(np.abs(losses / reference[1] - 1))
            results[name][run] = [float(max(apart)), float(farthest)]
        print(name, results[name], flush=True)
    print(json.dumps(results))


def trained(code, axes, shard_state, batches):
    """The change of parameters by the first step, which is its gradient, and all 200 losses."""
    model = ae.Autoencoder(ae.nets.Identity(), code, ae.nets.Dictionary((D,)))
    objective = ae.sparse(l1=1e-3, auxk=1 / 32, dead_after=5)
    learner = ae.learner(model, objective, optax.sgd(RATE, momentum=0.5))
    mesh = ae.mesh(**axes) if axes else None
    learner = ae.compiled(learner, mesh, ae.dictionary_rules, shard_state)
    state = learner.init(jax.random.key(0), batches[0])
    states, losses = [jax.device_get(state.params)], []
    for t in range(STEPS):
        state, metrics = learner.step(state, batches[t % len(batches)])
        losses.append(metrics["loss"])
        if t == 0:
            states.append(jax.device_get(state.params))
    before, after = states
    return jax.tree.map(lambda a, b: (a - b) / RATE, after, before), np.asarray(losses)


if __name__ == "__main__":
    main(sys.argv[1:] or list(CODES))
