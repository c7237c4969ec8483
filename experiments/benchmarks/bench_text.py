"""Speed of training a text VAE, compared with a plain PyTorch loop of the same sizes.

    python -m experiments bench-text --peer-python PATH   # an interpreter that has PyTorch

The model is a bidirectional transformer, a Gaussian of 32 latents and a causal transformer that
reads two vectors of the latents, each with 2 blocks of width 128, on random texts of 8 to 19 of
8,000 tokens, trained by Adam. Padding is not counted. The programs are timed alternately, and each
figure is the median over rounds.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

import aejax as ae
from aejax.data.text.coding import Words
from aejax.errors import UserError
from aejax.files import write_json
from aejax.runs.environment import environment
from experiments.shared.place import prepared, say

SIZES = {
    "vocabulary": 8_000,
    "width": 128,
    "layers": 2,
    "heads": 4,
    "latents": 32,
    "prefix": 2,
    "length": 20,
}


def command(
    out: str = "runs/bench-text",
    rounds: int = 5,
    steps: int = 20,
    batch: int = 64,
    peer_python: str | None = None,
) -> None:
    """Times the programs and writes result.json.

    Args:
      out: folder for result.json.
      rounds: how many times each program is timed.
      steps: number of training steps in one timing.
      batch: number of texts in a batch.
      peer_python: path of a Python interpreter with PyTorch.
    """
    folder = prepared(out, rounds=rounds, steps=steps, batch=batch)
    rows = texts(batch * steps)
    np.save(folder / "texts.npy", rows, allow_pickle=False)
    programs: dict[str, Callable[[], float]] = {"aejax": learner(rows, batch, steps)}
    with contextlib.ExitStack() as stack:
        if peer_python is not None:
            process = stack.enter_context(peer(peer_python, folder / "texts.npy", batch, steps))
            stack.callback(process.kill)
            answer(process)  # the version of torch
            programs["torch"] = lambda: asked(process)
        for program in programs.values():
            program()  # the warm-up
        measured: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(rounds):
            for name, program in programs.items():
                measured[name].append(program())
    result: dict[str, Any] = {
        name: {"tokens_per_second": statistics.median(values), "rounds": values}
        for name, values in measured.items()
    }
    for name, row in result.items():
        say(f"  {name:<6} {row['tokens_per_second']:>10,.0f} tokens/s")
    if "torch" in measured:
        pairs = zip(measured["aejax"], measured["torch"], strict=True)
        result["ratios"] = {"torch": statistics.median(a / b for a, b in pairs)}
        say(f"  aejax / torch: {result['ratios']['torch']:.2f}")
    write_json(folder / "result.json", {**result, "environment": environment()})


def texts(count: int) -> np.ndarray:
    """Returns random texts, i32[count, length], each of 8 to length - 1 tokens and the end.

    Tokens are as frequent as words are: token i has a probability proportional to 1 / i.
    """
    random = np.random.default_rng(0)
    weight = 1.0 / np.arange(1, SIZES["vocabulary"] - 2)
    length = SIZES["length"]
    rows = 3 + random.choice(len(weight), (count, length), p=weight / weight.sum())
    ends = random.integers(8, length, count)[:, None]
    place = np.arange(length)[None]
    return np.where(place < ends, rows, (place == ends).astype(int)).astype(np.int32)


def learner(rows: np.ndarray, batch: int, steps: int) -> Callable[[], float]:
    """Returns a function that trains by aejax and returns the tokens per second."""
    width, layers, heads = SIZES["width"], SIZES["layers"], SIZES["heads"]
    coding = Words(tuple(str(i) for i in range(SIZES["vocabulary"] - 3)))
    net = ae.nets.CausalTransformer(width, layers, heads)
    likelihood = ae.likelihoods.Text(coding, net, SIZES["length"], SIZES["prefix"])
    model = ae.Autoencoder(
        ae.nets.TokenTransformer(coding.size, width, layers, heads),
        ae.Gaussian(SIZES["latents"]),
        ae.nets.MLP((), shape=likelihood.shape((SIZES["length"],))),
        ae.priors.Standard(),
        likelihood,
    )
    single = ae.learner(model, ae.elbo(), optax.adam(1e-3))
    compiled = ae.compiled(ae.chunked(single, steps))
    train = ae.data.splits(rows, validation=None)[0]
    batches = ae.data.Batches(train, batch)
    state = compiled.init(jax.random.key(0), batches[0])
    tokens = float((rows > 0).sum()) * steps * batch / len(rows)

    def one() -> float:
        nonlocal state
        start = time.perf_counter()
        goal = int(state.step) + steps
        for new, _ in ae.loop(compiled, state, batches, goal, progress=False):
            state = new
        jax.block_until_ready(state.params)
        return tokens / (time.perf_counter() - start)

    return one


def peer(python: str, path: pathlib.Path, batch: int, steps: int) -> Any:
    """Starts the PyTorch program, with as many threads as there are CPUs.

    Raises:
      UserError: if the interpreter cannot be started.
    """
    script = pathlib.Path(__file__).parents[1] / "peers" / "torch_text.py"
    threads = len(os.sched_getaffinity(0))
    numbers = {**SIZES, "batch": batch, "steps": steps, "threads": threads}
    flags = [word for name, value in numbers.items() for word in (f"--{name}", str(value))]
    try:
        return subprocess.Popen(
            [python, str(script), *flags, "--texts", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    except OSError as error:
        raise UserError(
            f"--peer-python {python} cannot be started ({error.strerror}): give the path of a "
            "Python interpreter with PyTorch"
        ) from error


def asked(process: Any) -> float:
    """Lets the PyTorch program train once, and returns its tokens per second."""
    process.stdin.write("go\n")
    process.stdin.flush()
    return answer(process)["tokens_per_second"]


def answer(process: Any) -> dict[str, Any]:
    """Returns the next line that the program prints.

    Raises:
      UserError: if the program has ended.
    """
    line = process.stdout.readline()
    if not line:
        raise UserError("the program of --peer-python ended without a result: check it has torch")
    return json.loads(line)
