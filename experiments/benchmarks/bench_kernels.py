"""Times all implementations of the sparse kernels, for the table in aejax/kernels/table.py.

    python -m experiments bench-kernels
    python -m experiments bench-kernels --batch 2048 --k 32 --m 8192 --size 576

The benchmark prints a line for each operation, which can be pasted into the table, and writes
result.json. The implementations of an operation are timed alternately, and each time is the minimum
over rounds. It takes 1 minute on 2 otherwise idle CPU cores.
"""

from __future__ import annotations

import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax.errors import UserError
from aejax.files import write_json
from aejax.kernels import rows, select
from aejax.runs.environment import environment
from experiments.shared.place import say


def command(
    out: str = "runs/bench-kernels",
    batch: int = 2048,
    k: int = 32,
    m: int = 8192,
    size: int = 576,
    rounds: int = 8,
    skip: tuple[str, ...] = (),
) -> None:
    """Times every implementation of each kernel, prints the times, and writes result.json.

    Args:
      out: the folder for result.json.
      batch: the number of examples.
      k: the number of active latents of an example.
      m: the number of latents, each of which is a row of the decoder.
      size: the number of values in a row.
      rounds: how many times each implementation is timed.
      skip: implementations to leave out, such as "dense" if it does not fit into memory.
    """
    if min(batch, k, m, size, rounds) < 1 or k > m:
        raise UserError(
            f"--batch is {batch}, --k {k}, --m {m}, --size {size} and --rounds {rounds}: give "
            "numbers of at least 1, and --k of at most --m"
        )
    calls = forms(batch, k, m, size)
    seconds = {
        operation: turns({n: f for n, f in named.items() if n not in skip}, rounds)
        for operation, named in calls.items()
    }
    result: dict[str, Any] = {}
    for operation, found in seconds.items():
        shape = (batch, k, m) if operation == "largest" else (batch, k, m, size)
        milliseconds = {name: round(1e3 * value, 1) for name, value in found.items()}
        result[operation] = {"shape": shape, "milliseconds": milliseconds}
        listed = ", ".join(f'"{name}": {value}' for name, value in milliseconds.items())
        say(f"{operation}: Timing({shape}, {{{listed}}}),")
    folder = pathlib.Path(out).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    backend = jax.default_backend()
    write_json(folder / "result.json", {"backend": backend, **result, "environment": environment()})


def forms(batch: int, k: int, m: int, size: int) -> dict[str, dict[str, Callable[[], Any]]]:
    """Returns functions to time: operation -> name of an implementation -> a function.

    The functions have no arguments, and run the implementation on fixed random arrays.
    """
    generator = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(generator.normal(size=shape), jnp.float32)

    values, vectors, table, bias = normal(batch, k), normal(batch, size), normal(m, size), normal(m)
    product = jax.jit(lambda a, b: a @ b.T)(vectors, table)
    indices = jax.jit(lambda p: jax.lax.top_k(p, k)[1])(product)
    arguments = {
        "combine": (rows.COMBINE, (values, indices, table)),
        "match": (rows.MATCH, (vectors, indices, table)),
        "spread": (
            {name: functools.partial(form, rows=m) for name, form in rows.SPREAD.items()},
            (values, indices, vectors),
        ),
        "largest": (
            {name: functools.partial(f, k=k) for name, f in select.forms_for(m, k).items()},
            (product, bias, jnp.ones_like(bias)),
        ),
    }
    return {
        operation: {name: functools.partial(jax.jit(form), *arrays) for name, form in named.items()}
        for operation, (named, arrays) in arguments.items()
    }


def turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Times functions alternately, and returns the minimum time of each over rounds, in seconds.

    The first call of each, which compiles, does not count.
    """
    least = {name: float("inf") for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            if turn:
                least[name] = min(least[name], time.perf_counter() - start)
    return least
