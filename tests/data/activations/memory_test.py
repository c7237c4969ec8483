"""Tests that a run trains on a store larger than its memory, and resumes in the same bits."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
import time

import jax
import numpy as np
import optax
import pytest

import aejax as ae
from aejax.data.activations import TokenBatches, activations
from aejax.data.activations.writer import ActivationWriter
from tests import kinds

D, TOKENS, SHARDS = 64, 2**18, 96  # shards of 64 MiB
ALLOWED = 5 * 2**30  # bytes of virtual memory; jax takes 1.7 GiB of them when it starts
STEPS, CHUNK = 48, 8


def many_shards(folder) -> int:
    """Makes a store whose shards are all hard links to one file; returns its size in bytes."""
    x = np.random.default_rng(0).normal(size=(TOKENS, D)).astype(np.float32)
    with ActivationWriter(folder, provenance={}, shard_tokens=TOKENS) as writer:
        writer.append({"h": x})
    path = folder / "index.json"
    index = json.loads(path.read_text())
    (shard,) = index["shards"]
    for i in range(1, SHARDS):
        name = f"h-{i:05d}.bin"
        os.link(folder / shard["files"][0], folder / name)
        index["shards"].append({**shard, "files": [name]})
    index["tokens"] = index["offered"] = SHARDS * TOKENS
    path.write_text(json.dumps(index))
    return SHARDS * x.nbytes


@pytest.mark.slow
def test_a_store_larger_than_memory_trains_and_resumes_to_the_bit(tmp_path):
    """Fails if the whole store is read or mapped, or if a kill loses the state of a pool."""
    assert many_shards(tmp_path / "store") > ALLOWED

    def run(name, kill=0):
        arguments = [str(tmp_path / "store"), str(tmp_path / name), str(kill)]
        return kinds.python("-m", "tests.data.activations.memory_test", *arguments, devices=1)

    whole = re.findall(r"^sha (\w{64})$", kinds.output(run("whole")), re.M)
    killed = run("killed", kill=STEPS // 2)
    killed.communicate(timeout=300)
    assert killed.returncode == -signal.SIGKILL
    said = kinds.output(run("killed"))
    begun = int(re.findall(r"^from (\d+)$", said, re.M)[0])
    assert 0 < begun <= STEPS // 2
    assert re.findall(r"^sha (\w{64})$", said, re.M) == whole
    assert len(whole) == 1


# The code below is the run, in a process of its own with a limit on its memory.


def main(store: str, folder: str, kill: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ALLOWED, ALLOWED))
    split = activations(store).split("h")
    model = ae.Autoencoder(ae.nets.Identity(), ae.TopK(256, 8), ae.nets.Dictionary(D))
    learner = ae.learner(model, ae.sparse(), optax.adam(1e-3), initialise=ae.tied)
    learner = ae.compiled(ae.chunked(learner, CHUNK))
    batches = TokenBatches(split, size=512, seed=0, pool=8192)
    with ae.Run(folder, {"steps": STEPS}, checkpoint_seconds=0.0) as run:
        begun = run.restore(learner.init(jax.random.key(0), batches[0]))
        print("from", int(begun.step))
        for state, metrics in ae.loop(learner, begun, batches, steps=STEPS, progress=False):
            run.log(state, metrics)
            run.save(state)
            if int(state.step) == int(kill):
                time.sleep(1.0)  # wait until a checkpoint is on the disk
                os.kill(os.getpid(), signal.SIGKILL)
        print("sha", run.finish({"loss": metrics["loss"][-1:]}, state)["params_sha256"])


if __name__ == "__main__":
    main(*sys.argv[1:])
