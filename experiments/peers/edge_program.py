"""Runs an exported decoder in a process of its own, without aejax.

The command `bench-edge` starts it as `python edge_program.py FILE`, to measure its time and memory.
It needs jax for a .stablehlo and onnxruntime for an .onnx. It answers each line of JSON on standard
input with a line of JSON.

    {"batch": 64, "calls": 100}   the median seconds of a call, and the process's peak memory
    {"inputs": PATH.npz}          writes the outputs beside it, PATH.out.npz
"""

import json
import pathlib
import statistics
import sys
import time

import numpy as np


def program(path):
    """Returns a function from a dict of arrays to a dict of arrays, and the inputs' shapes."""
    if path.suffix == ".onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        names = [output.name for output in session.get_outputs()]
        shapes = {one.name: one.shape[1:] for one in session.get_inputs()}
        return lambda given: dict(zip(names, session.run(names, given), strict=True)), shapes
    import jax
    from jax import export

    exported = export.deserialize(bytearray(path.read_bytes()))
    ((inputs,), _) = jax.tree.unflatten(exported.in_tree, exported.in_avals)
    run = jax.jit(exported.call)
    shapes = {name: spec.shape[1:] for name, spec in inputs.items()}
    return lambda given: jax.device_get(run(given)), shapes


def peak():
    """Returns the largest resident size of this process in bytes.

    It is read from /proc, because getrusage would include the memory of the parent process.
    """
    status = pathlib.Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def main():
    """Answers requests until standard input ends."""
    run, shapes = program(pathlib.Path(sys.argv[1]))
    for line in sys.stdin:
        asked = json.loads(line)
        if "inputs" in asked:
            path = pathlib.Path(asked["inputs"])
            with np.load(path, allow_pickle=False) as arrays:
                found = run({name: arrays[name] for name in shapes})
            np.savez(path.with_suffix(".out.npz"), **found)
            answer = {"outputs": sorted(found)}
        else:
            size = asked["batch"]
            given = {n: np.full((size, *s), 0.5, np.float32) for n, s in shapes.items()}
            run(given)  # compiles
            seconds = []
            for _ in range(asked["calls"]):
                start = time.perf_counter()
                run(given)
                seconds.append(time.perf_counter() - start)
            answer = {"seconds": statistics.median(seconds), "peak_bytes": peak()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
