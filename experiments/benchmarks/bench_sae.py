"""Speed of training sparse autoencoders, compared with SAELens, plain PyTorch and a lower bound.

    python -m experiments bench-sae
    python -m experiments bench-sae --peer-python PATH   # an interpreter with sae-lens and torch

The benchmark measures tokens per second in whole training steps (forward, AuxK, backward, clipped
gradients, Adam) with 576 inputs, 32 active latents and batches of 2,048, with and without dead
latents. JumpReLU does not fix its L0, and has thousands of active latents at the start. Each
program runs in its own process; they are timed alternately, and each result is the median over
rounds. The lower bound `floor` is the time of the encoder's matrix product plus the time to copy
the bytes that the optimiser reads and writes (parameters and two moments are read and written,
gradients are read), both at rates that are measured on the same machine. No program that trains
every parameter at every step can be faster. Results that are already in the folder are not measured
again, so the benchmark can be run in parts. It takes 26 minutes on 2 CPU cores with --peer-python
and `--rounds 5 --steps 4`.
"""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.files import read_json, write_json
from aejax.runs.environment import environment
from experiments.shared.place import prepared, say

SIZE, ACTIVE, BATCH = 576, 32, 2048
DEAD = 0.1  # share of latents that are dead in the rounds with dead latents
PEERS = pathlib.Path(__file__).parents[1] / "peers"  # the programs that are timed
# (number of steps, number of dead latents) -> a program's measurements
Ask = Callable[[int, int], dict[str, Any]]


def command(
    out: str = "runs/bench-sae",
    m: tuple[int, ...] = (8192, 32768),
    codes: tuple[str, ...] = ("topk", "batchtopk", "jumprelu"),
    rounds: int = 5,
    steps: int = 8,
    peer_python: str | None = None,
) -> None:
    """Times training steps of all codes and numbers of latents, and writes result.json.

    Args:
      out: the folder for result.json.
      m: the numbers of latents, each at least 1024.
      codes: one or more of topk, batchtopk and jumprelu.
      rounds: how many times each program is timed.
      steps: the number of training steps in one timing.
      peer_python: the path of a Python interpreter with sae-lens and torch; without it, only aejax
        is timed.
    """
    if min(m, default=0) < 1024:
        raise UserError(
            f"--m is {' '.join(map(str, m))}: give one or more numbers, all at least 1024"
        )
    if not codes or not set(codes) <= {"topk", "batchtopk", "jumprelu"}:
        raise UserError(f"--codes is {' '.join(codes)}: choose from topk, batchtopk and jumprelu")
    folder = prepared(out, rounds=rounds, steps=steps)
    path = folder / "result.json"
    result: dict[str, Any] = read_json(path, {}) if path.exists() else {}
    for latents in m:
        rows = result.setdefault(str(latents), {})
        for code in codes:
            if code not in rows:
                rows[code] = compare(code, latents, rounds, steps, peer_python, folder)
            write_json(path, {**result, "environment": environment()})
            show(code, latents, rows[code])


def compare(
    code: str, latents: int, rounds: int, steps: int, peer: str | None, folder: pathlib.Path
) -> dict[str, Any]:
    """Times all programs with one code and number of latents alternately.

    Returns:
      name of a program -> its results.
    """
    programs = {"learner": (sys.executable, "aejax_sae.py")}
    if peer is not None:
        programs["saelens"] = (peer, "saelens_sae.py")
        if code == "topk":
            programs["torch"] = (peer, "torch_sae.py")
    dead = {"": 0}
    if code != "jumprelu":  # it has no AuxK
        dead["with_dead"] = round(DEAD * latents)
    with ExitStack() as stack:
        asks = {
            name: stack.enter_context(started(name, *program, code, latents, folder))
            for name, program in programs.items()
        }
        turns: dict[str, dict[str, list[Any]]] = {n: {d: [] for d in dead} for n in asks}
        floors = []
        for ask in asks.values():  # these calls compile and access the memory for the first time
            for count in dead.values():
                ask(1, count)
        for _ in range(rounds):
            floors.append(floor(latents))
            for name, ask in asks.items():
                for state, count in dead.items():
                    turns[name][state].append(ask(steps, count))
    figures: dict[str, Any] = {"floor": summary(floors, 1)}
    for name, states in turns.items():
        figures[name] = summary(states[""], steps)
        if "with_dead" in states:
            figures[name]["with_dead"] = summary(states["with_dead"], steps)
    own = figures["learner"]
    figures["ratios"] = {
        name: own["tokens_per_second"] / row["tokens_per_second"]
        for name, row in figures.items()
        if name != "learner"
    }
    return figures


def summary(turns: list[dict[str, Any]], steps: int) -> dict[str, Any]:
    """Summarises the measurements of one program over all rounds.

    Args:
      turns: the measurements of each round.
      steps: the number of training steps of a round.

    Returns:
      The median rate in tokens per second, the rate of each round, and the other measurements of
      the last round, such as the loss.
    """
    rates = [BATCH * steps / turn["seconds"] for turn in turns]
    rest = {name: value for name, value in turns[-1].items() if name != "seconds"}
    return {"tokens_per_second": statistics.median(rates), "rounds": rates, **rest}


@contextmanager
def started(
    name: str, python: str, script: str, code: str, latents: int, folder: pathlib.Path
) -> Iterator[Ask]:
    """Starts a program in a process, which waits while other programs are timed.

    Yields:
      A function of the number of training steps and the number of dead latents. It times these
      steps in the program, and returns the measurements, such as the seconds that they took.
    """
    shape = {"size": SIZE, "latents": latents, "k": ACTIVE, "batch": BATCH}
    flags = [text for key, value in shape.items() for text in (f"--{key}", str(value))]
    log = folder / f"{name}-{code}-{latents}.log"
    root = str(PEERS.parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])] if name == "learner" else []
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with log.open("w") as errors:
        try:
            process = subprocess.Popen(
                [python, str(PEERS / script), "--code", code, *flags],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=variables,
            )
        except OSError as error:
            raise UserError(
                f"the interpreter {python} of {name} cannot be started ({error.strerror}): give "
                "--peer-python the path of a Python interpreter"
            ) from error

        def answer() -> dict[str, Any]:
            # The result is a line of JSON; libraries may print other lines.
            for line in process.stdout or ():
                if line.startswith("{"):
                    return json.loads(line)
            raise UserError(
                f"{name} ended without a result, and {log} has its messages: check that the "
                "interpreter --peer-python, if it was given, has sae-lens and torch"
            )

        def ask(steps: int, dead: int) -> dict[str, Any]:
            assert process.stdin is not None
            process.stdin.write(json.dumps({"steps": steps, "dead": dead}) + "\n")
            process.stdin.flush()
            return answer()

        with process:
            try:
                versions = answer()
                yield lambda steps, dead: {**ask(steps, dead), "versions": versions}
            finally:
                process.kill()


def floor(latents: int) -> dict[str, float]:
    """Returns a lower bound of the time of a step in seconds, and the rates that it is based on."""
    parameters = 2 * SIZE * latents + SIZE + latents
    product = product_seconds(latents)
    rate = copy_rate()
    return {
        "seconds": product + 7 * 4 * parameters / rate,
        "flops_per_second": 2 * BATCH * SIZE * latents / product,
        "bytes_per_second": rate,
    }


def product_seconds(latents: int) -> float:
    """Returns the time of the encoder's matrix product in seconds, the minimum of five."""
    x, kernel = jnp.ones((BATCH, SIZE)), jnp.ones((SIZE, latents))
    product = jax.jit(jnp.matmul)
    product(x, kernel).block_until_ready()
    return min(_seconds(lambda: product(x, kernel).block_until_ready()) for _ in range(5))


def copy_rate() -> float:
    """Returns how many bytes per second a copy in memory reads and writes, on all cores."""
    cores = os.cpu_count() or 1
    source, target = (np.ones((cores, 2**24), np.float32) for _ in range(2))
    with ThreadPoolExecutor(cores) as pool:

        def copy() -> None:
            list(pool.map(np.copyto, target, source))

        return 2 * source.nbytes / min(_seconds(copy) for _ in range(5))


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def show(code: str, latents: int, figures: dict[str, Any]) -> None:
    """Prints the results of each program."""
    say(f"{code}, {latents} latents")
    for name, row in figures.items():
        if name == "ratios":
            continue
        peak = f"  peak {row['peak_bytes'] / 2**20:,.0f} MiB" if "peak_bytes" in row else ""
        ratio = "" if name == "learner" else f"  learner / {name} {figures['ratios'][name]:.2f}"
        say(f"  {name:<8} {row['tokens_per_second']:>9,.0f} tokens/s{peak}{ratio}")
        if "with_dead" in row:
            with_dead = row["with_dead"]
            rate, dead = with_dead["tokens_per_second"], with_dead["dead"]
            say(f"  {'':<8} {rate:>9,.0f} tokens/s with {dead:,} dead latents")
