"""Tests that two processes, each with its slice of every batch, train like a single one."""

from __future__ import annotations

import json
import socket
import sys

import jax
import numpy as np
import optax
import pytest

import aejax as ae
from tests import kinds
from tests.kinds import B

STEPS, CHUNK, PROCESSES = 20, 10, 2
KINDS = {"vae": 1e-3, "sae-topk": 1e-4}


def learner(kind: str) -> ae.Learner:
    model, objective, options = kinds.KINDS[kind]
    return ae.learner(model, objective, optax.adam(KINDS[kind]), **options)


def stacked(start: int, part: int, parts: int) -> ae.Source:
    """Returns batches [T, B / parts, ...] with one process' slice of each, contiguous along B."""
    whole = kinds.source(start, CHUNK, STEPS)
    share = B // parts
    chosen = np.asarray(whole.rows)[:, part * share : (part + 1) * share]
    return ae.Source(kinds.pixels()[chosen], None, whole.key, whole.count, kinds.as_batch)


def sliced(batch: ae.Batch, part: int, parts: int) -> ae.Batch:
    share = B // parts
    return jax.tree.map(lambda a: np.asarray(a)[part * share : (part + 1) * share], batch)


def run(kind: str, mesh, part: int = 0, parts: int = 1) -> dict[str, list[float]]:
    """Returns the losses of chunks and of single steps, and the sum of all final parameters."""
    single = ae.compiled(learner(kind), mesh)
    chunked = ae.compiled(ae.chunked(learner(kind), CHUNK), mesh)
    first = sliced(kinds.batch(), part, parts)
    begun = single.init(jax.random.key(0), first)
    state, chunks = kinds.restored(begun), []
    for start in range(0, STEPS, CHUNK):
        state, metrics = chunked.step(state, stacked(start, part, parts))
        chunks += np.asarray(metrics["loss"]).tolist()
        state = kinds.restored(state)  # each process restores the whole state
    sums = [float(np.sum(np.abs(np.asarray(leaf)))) for leaf in jax.tree.leaves(state.params)]
    state, singles = begun, []
    for t in range(STEPS):
        state, metrics = single.step(state, sliced(kinds.batch(t), part, parts))
        singles.append(float(metrics["loss"]))
    return {"chunks": chunks, "singles": singles, "sums": sums}


@pytest.fixture(scope="module", params=["vae", pytest.param("sae-topk", marks=pytest.mark.slow)])
def found(request):
    """Returns what each of the two processes printed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    started = [
        kinds.python(
            "-m", "tests.training.processes_test", port, str(rank), request.param, devices=1
        )
        for rank in range(PROCESSES)
    ]
    try:
        return [json.loads(kinds.output(process).splitlines()[-1]) for process in started]
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.communicate()


def test_two_processes_give_the_losses_of_one(found):
    """They agree to 1e-5. Fails if a process trains on its slice alone, or passes on all of it."""
    expected = run(found[0]["kind"], None)
    for results in found:
        for name in ("chunks", "singles", "sums"):
            np.testing.assert_allclose(results[name], expected[name], rtol=1e-5)
    assert found[0] == found[1]
    assert expected["chunks"][-1] < expected["chunks"][0]


def test_each_process_has_one_of_the_devices(found):
    """Otherwise the losses above would show nothing."""
    for results in found:
        assert results["devices"] == [1, PROCESSES]


# The code below is one of the two processes.


def main(port: str, rank: str, kind: str) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", PROCESSES, int(rank))
    mesh = ae.mesh(data=PROCESSES)
    results = run(kind, mesh, int(rank), PROCESSES)
    devices = [jax.local_device_count(), jax.device_count()]
    print(json.dumps({**results, "devices": devices, "kind": kind}))
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
