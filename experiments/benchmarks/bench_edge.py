"""An exported decoder compared with the original: size, latency, memory, difference and NLL.

    python -m experiments bench-edge runs/digits-vae --peer-python PATH   # torch, onnx, onnxscript

Each row is one file that `interop.export` writes from a finished run, and "PyTorch's ONNX" is the
same net with the same weights as torch.onnx writes it. Each program runs in a process of its own,
on one thread in onnxruntime, and they are timed alternately. It needs the extra `onnx`.

    kB                    the size of the file
    ms at 1, ms at 64     a call with a batch of 1 and of 64 latents; the median over rounds
    peak MiB              the largest resident size of the process, with the interpreter
    largest difference    from the means that the model itself computes, in float32
    nll                   on the test split with the weights as they are stored, nats
    nll lost              how much larger the NLL is than with float32 weights, in percent
"""

from __future__ import annotations

import importlib.util
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import jax
import numpy as np

import aejax as ae
from aejax import evaluation, interop
from aejax.data import Split
from aejax.errors import UserError
from aejax.files import write_json
from aejax.interop.programs.program import named
from aejax.interop.programs.weights import Packed, pack
from aejax.runs.environment import environment
from experiments.shared.experiment import recorded_data
from experiments.shared.place import prepared, say
from experiments.shared.training import summary

PEERS = pathlib.Path(__file__).parent.parent / "peers"
STORED = ("float32", "bfloat16", "int8")
FORMATS = {"StableHLO": "stablehlo", "ONNX": "onnx"}
TORCH = "PyTorch's ONNX"
KEY = 11  # seed of the NLL's draws
DRAWS = 100
COMPARED = 64  # number of latent vectors whose decoded means are compared


def command(
    run_dir: pathlib.Path,
    out: str = "runs/bench-edge",
    rounds: int = 5,
    calls: int = 50,
    seeds: int = 3,
    peer_python: str | None = None,
    data_dir: str | None = None,
    manual_dir: str | None = None,
) -> None:
    """Exports a run's decoders in all formats, measures each file and writes result.json.

    The size, the latency, the memory, the error and the NLL are measured.

    Args:
      run_dir: folder of a finished run of a VAE with an MLP of one hidden layer, as digits-vae is.
      out: folder for result.json.
      rounds: how many times each program is timed.
      calls: number of calls in one timing.
      seeds: number of the run's seeds whose models are measured, from the first.
      peer_python: path of a Python interpreter with torch, onnx and onnxscript.
      data_dir: folder of prepared data sets; that of tensorflow-datasets by default.
      manual_dir: folder with a data set's raw files; then nothing is downloaded.
    """
    folder = prepared(out, rounds=rounds, calls=calls, seeds=seeds)
    if importlib.util.find_spec("onnxruntime") is None:
        raise UserError("bench-edge needs onnxruntime: pip install -e '.[onnx]'")
    test = recorded_data(run_dir, data_dir, manual_dir)[2]
    rows: dict[str, dict[str, list[float]]] = {}
    result: dict[str, Any] = {}
    for member in range(seeds):
        model, variables, _ = ae.load(run_dir, seed=member)
        with tempfile.TemporaryDirectory() as scratch:
            measured = _member(model, variables, pathlib.Path(scratch), rounds, calls, peer_python)
        for stored, lost in _nlls(model, variables, test).items():
            for form in FORMATS:
                measured[f"{form}, {stored}"] |= lost
        for name, row in measured.items():
            for figure, value in row.items():
                rows.setdefault(name, {}).setdefault(figure, []).append(value)
        result = {name: summary(row) for name, row in rows.items()}
        write_json(folder / "result.json", {**result, "environment": environment()})
        say(f"the model of seed {member} is measured")
    for name, row in result.items():
        figures = ", ".join(f"{figure} {cell['mean']:.4g}" for figure, cell in row.items())
        say(f"  {name:<20} {figures}")


def _member(
    model: Any,
    variables: Any,
    scratch: pathlib.Path,
    rounds: int,
    calls: int,
    peer_python: str | None,
) -> dict[str, dict[str, float]]:
    """Exports and measures the model of one seed.

    Returns:
      A mapping such as {"ONNX, int8": {"kB": 12.3, "ms_at_1": 0.1, ...}}.
    """
    files = {}
    for form, ending in FORMATS.items():
        for stored in STORED:
            path = scratch / f"{stored}.{ending}"
            how: Any = {"weights": stored, "outputs": ("mean",)}
            interop.export(model, variables, path, **how)
            files[f"{form}, {stored}"] = path
    if peer_python is not None:
        files[TORCH] = _torch(model, variables, scratch, peer_python)
    z = np.random.default_rng(0).standard_normal((COMPARED, *model.bottleneck.shape))
    np.savez(scratch / "in.npz", z=z.astype(np.float32))
    decode = jax.jit(lambda v, z: model.bind(v).mean(model.bind(v).decode(z)))
    means = np.asarray(decode(variables, z.astype(np.float32)), np.float64)
    found: dict[str, dict[str, float]] = {}
    times: dict[str, dict[int, list[float]]] = {name: {1: [], 64: []} for name in files}
    with ExitStack() as stack:
        ask = {name: stack.enter_context(_process(path)) for name, path in files.items()}
        for name, path in files.items():
            ask[name]({"inputs": str(scratch / "in.npz")})
            with np.load(scratch / "in.out.npz", allow_pickle=False) as arrays:
                apart = float(np.abs(arrays["mean"] - means).max())
            found[name] = {"kB": path.stat().st_size / 1e3, "largest_difference": apart}
        for _ in range(rounds):
            for name, batches in times.items():
                for batch, seconds in batches.items():
                    answer = ask[name]({"batch": batch, "calls": calls})
                    seconds.append(answer["seconds"])
                    found[name]["peak_MiB"] = answer["peak_bytes"] / 2**20
    for name, batches in times.items():
        for batch, seconds in batches.items():
            found[name][f"ms_at_{batch}"] = 1e3 * statistics.median(seconds)
    return found


def _nlls(model: Any, variables: Any, test: Split) -> dict[str, dict[str, float]]:
    """Computes the test NLL with each type of stored weights, such as "int8", in nats.

    Returns:
      A mapping from the type to "nll" and "nll_lost_%", how much larger it is than with float32
      weights, in percent.
    """
    leaves, structure = jax.tree.flatten(variables)
    names = list(named(variables))
    each = {}
    for stored in STORED:
        packed = pack(dict(zip(names, leaves, strict=True)), stored)
        tree = jax.tree.unflatten(structure, [_restored(packed[name]) for name in names])
        key = jax.random.key(KEY)
        each[stored] = np.asarray(evaluation.nll(model, tree, test, key, draws=DRAWS).nll)
    whole = each["float32"].mean()
    return {
        stored: {"nll": float(nll.mean()), "nll_lost_%": float(100 * (nll.mean() / whole - 1))}
        for stored, nll in each.items()
    }


def _restored(packed: Packed) -> np.ndarray:
    values = packed.values.astype(np.float32)
    return values if packed.scale is None else values * packed.scale


def _torch(model: Any, variables: Any, scratch: pathlib.Path, python: str) -> pathlib.Path:
    """Writes the decoder as ONNX by PyTorch, in another interpreter, and returns the file's path.

    Raises:
      UserError: if the interpreter fails, or the decoder is not an MLP with one hidden layer.
    """
    weights = {name: np.asarray(leaf) for name, leaf in named(variables).items()}
    own = {name: leaf for name, leaf in weights.items() if ".decoder." in name}
    if len(own) != 4:
        raise UserError(
            "the program run by --peer-python supports only an MLP decoder with one hidden layer, "
            "and this run has another decoder: choose a run of digits-vae, or leave out "
            "--peer-python"
        )
    arrays: dict[str, Any] = {"shape": np.asarray(model.decoder.shape), **own}
    np.savez(scratch / "weights.npz", **arrays)
    path = scratch / "torch.onnx"
    words = [python, str(PEERS / "torch_export.py"), str(scratch / "weights.npz"), str(path)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UserError(f"--peer-python {python} cannot be started: {error.strerror}") from error
    if not path.exists():
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise UserError(f"--peer-python {python} wrote no ONNX file ({last}): check its packages")
    return path


@contextmanager
def _process(path: pathlib.Path) -> Iterator[Any]:
    """Runs an exported decoder by edge_program.py in a process of its own.

    It yields a function that sends a request to the process and returns the answer.
    """
    process = subprocess.Popen(
        [sys.executable, str(PEERS / "edge_program.py"), str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )

    def ask(asked: Any) -> Any:
        assert process.stdin is not None
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        for line in process.stdout or ():
            if line.startswith("{"):
                return json.loads(line)
        raise UserError(f"the process that runs {path.name} ended without an answer")

    with process:
        try:
            yield ask
        finally:
            process.kill()
