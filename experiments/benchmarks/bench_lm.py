"""Measures a language model's speed and memory, and compares it with transformers on the same CPU.

    python -m experiments bench-lm --peer-python PATH   # an interpreter with torch and transformers

The shapes are those of SmolLM2-135M; the weights are random, which costs the same. aejax and
transformers are timed alternately: transformers has its own process, which waits while aejax runs.
Each speed is the median over rounds, and each ratio of speeds the median of the rounds' ratios; the
ratio of `splice` is their mean.

    read       tokens per second through 15 of 30 layers into an activation store on the disk;
               transformers computes the same layers but stores nothing
    products   the same for the matrix products of these layers alone, the most that XLA could reach
    splice     the seconds of a whole forward pass with a TopK dictionary's reconstruction at
               resid_post.15, divided by those of a pass without an edit
    generate   tokens per second with a cache, 64 new ones after prompts of 64, for 1 and 8 prompts
    memory     the largest resident size of the process, in MiB, after collecting 4 and 40 batches
"""

from __future__ import annotations

import json
import pathlib
import resource
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from aejax import language as lm
from aejax.dictionaries.plain import Plain
from aejax.errors import UserError
from aejax.files import write_json
from aejax.language.layers import product
from aejax.runs.environment import environment
from experiments.shared.place import prepared, say

SHAPES = {
    "vocabulary": 49_152,
    "layers": 30,
    "size": 576,
    "heads": 9,
    "kv_heads": 3,
    "hidden": 1_536,
}
STOP = 15  # the number of blocks that `read` runs
PROMPT, NEW = 64, 64  # the tokens of a prompt, and those that follow it
PEER = pathlib.Path(__file__).parent.parent / "peers" / "transformers_lm.py"
Measure = Literal["read", "products", "generate", "splice", "memory"]
Turn = Callable[[], float]  # runs a task once and returns its seconds


def command(
    out: str = "runs/bench-lm",
    rows: int = 16,
    length: int = 128,
    batches: int = 2,
    latents: int = 8_192,
    k: int = 32,
    rounds: int = 5,
    only: tuple[Measure, ...] = ("read", "products", "generate", "splice", "memory"),
    peer_python: str | None = None,
) -> None:
    """Measures a language model's speed and memory, and writes result.json.

    Args:
      out: the folder for result.json.
      rows: the number of rows in a pass.
      length: the number of tokens in a row.
      batches: the number of passes in one timing of `read`.
      latents: the number of latents of the dictionary.
      k: the number of active latents of the dictionary.
      rounds: how many times each library is timed.
      only: the measurements to make.
      peer_python: path of a Python interpreter with torch and transformers, for the comparison.
    """
    counts = {"rows": rows, "length": length, "batches": batches, "latents": latents, "k": k}
    folder = prepared(out, **counts, rounds=rounds)
    shapes: dict[str, Any] = SHAPES
    config = lm.Config(**shapes, head_size=64, context=8_192, rope_base=1e5)
    model = lm.Transformer(config)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    result: dict[str, Any] = {"settings": {**counts, "rounds": rounds, **SHAPES}}
    with _peer(peer_python, folder) as ask:

        def add(name: str, own: Turn, tokens: int, times: int, **asked: Any) -> None:
            def peer() -> float:
                assert ask is not None
                return sum(ask(asked) for _ in range(times))

            result[name] = _compared(own, ask and peer, tokens, rounds)
            write_json(folder / "result.json", {**result, "environment": environment()})
            say(f"{name:<12} {_line(result[name])}")

        read = {"task": "read", "rows": rows, "length": length}
        if "read" in only:
            turn = _reading(model, variables, folder / "store", rows, length, batches)
            add("read", turn, rows * length * batches, batches, **read)
        if "products" in only:
            add("products", _products(variables, rows, length), rows * length, 1, **read)
        for texts in (1, 8) if "generate" in only else ():
            turn = _generating(model, variables, texts)
            asked = {"task": "generate", "rows": texts, "length": PROMPT, "count": NEW}
            add(f"generate-{texts}", turn, texts * NEW, 1, **asked)
    if "splice" in only:
        clean, spliced = _splicing(model, variables, rows, length, latents, k)
        found = _ratio(spliced, clean, rounds)
        ratios, fastest = found["ratios"], found["fastest"]
        mean, std = statistics.mean(ratios), statistics.stdev(ratios) if rounds > 1 else 0.0
        cell = {"mean": mean, "std": std, "values": ratios, "fastest": fastest}
        result["splice"] = {"of_the_clean_pass": cell}
        say(f"splice       {mean:.3f} of the clean pass ({fastest:.3f} by the shortest times)")
    if "memory" in only:
        result["memory"] = _memory(model, variables, folder / "store", rows, length)
        say(f"memory       {result['memory']}")
    write_json(folder / "result.json", {**result, "environment": environment()})


def _reading(
    model: Any, variables: Any, store: pathlib.Path, rows: int, length: int, batches: int
) -> Turn:
    """Returns a function that collects activations into a new store and returns its seconds.

    Only its first call compiles.
    """
    read = lm.reader(model, variables, (f"resid_post.{STOP - 1}",))
    rng = np.random.default_rng(0)
    position = np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length))
    tokens = rng.integers(0, SHAPES["vocabulary"], (rows, length)).astype(np.int32)
    packed = lm.Packed(tokens, position, np.zeros_like(position))

    def turn(count: int = batches) -> float:
        shutil.rmtree(store, ignore_errors=True)
        start = time.perf_counter()
        lm.collect(read, lambda begun: [packed] * (count - begun), store, provenance={})
        return time.perf_counter() - start

    return turn


def _products(variables: Any, rows: int, length: int) -> Turn:
    """Returns a function that computes only the products of the blocks that `read` runs."""
    size, hidden = SHAPES["size"], SHAPES["hidden"]
    x = jnp.ones((rows, length, size))

    @jax.jit
    def run(params: Any, x: Any) -> Any:
        for i in range(STOP):
            attention, mlp = (params[f"blocks_{i}"][name] for name in ("attention", "mlp"))
            rows = product(x, attention["qkv"]["kernel"])
            x = x + product(rows[..., :size], attention["out"]["kernel"])
            rows = product(x, mlp["gate_up"]["kernel"])
            x = x + product(rows[..., :hidden], mlp["down"]["kernel"])
        return x

    def turn() -> float:
        start = time.perf_counter()
        jax.block_until_ready(run(variables["params"], x))
        return time.perf_counter() - start

    return turn


def _generating(model: Any, variables: Any, texts: int) -> Turn:
    prompts = lm.padded([[1] * PROMPT] * texts)

    def turn() -> float:
        start = time.perf_counter()
        jax.block_until_ready(lm.generate(model, variables, prompts, count=NEW))
        return time.perf_counter() - start

    return turn


def _splicing(
    model: Any, variables: Any, rows: int, length: int, latents: int, k: int
) -> tuple[Turn, Turn]:
    """Returns two functions that run a forward pass and return its seconds.

    The first runs it without an edit, the second with a dictionary's reconstruction at a hook.
    """
    rng = np.random.default_rng(0)
    size = SHAPES["size"]
    atoms = rng.standard_normal((latents, size)).astype(np.float32)
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    plain = Plain(
        activation="topk",
        W_enc=jnp.asarray(atoms.T),
        W_dec=jnp.asarray(atoms),
        b_dec=jnp.zeros(size),
        b_enc=jnp.zeros(latents),
        k=k,
    )
    tokens = jnp.asarray(rng.integers(0, SHAPES["vocabulary"], (rows, length)), jnp.int32)
    run = jax.jit(lambda v, taps: model.apply(v, tokens, taps=taps, method="hidden").x)

    def turn(taps: lm.Taps) -> float:
        start = time.perf_counter()
        jax.block_until_ready(run(variables, taps))
        return time.perf_counter() - start

    edited = lm.Taps({f"resid_post.{STOP}": lm.replace(plain)})
    apart = jnp.abs(run(variables, edited) - run(variables, lm.Taps())).max()
    assert apart > 0.1, "the dictionary was not spliced in"
    return lambda: turn(lm.Taps()), lambda: turn(edited)


def _memory(model: Any, variables: Any, store: pathlib.Path, rows: int, length: int) -> Any:
    """Returns the process's largest resident size in MiB after 4 and after 40 more batches."""
    turn: Any = _reading(model, variables, store, rows, length, 4)
    found = {}
    for count in (4, 40):
        turn(count)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found[f"after_{count}_batches"] = round(peak / 1024)
    return found


def _compared(own: Turn, peer: Turn | None, tokens: int, rounds: int) -> dict[str, Any]:
    """Times aejax and transformers alternately, or aejax alone if `peer` is None.

    Returns:
      Each library's tokens per second, the ratios aejax / transformers of all rounds, and their
      median and the ratio of the shortest times as `ratios`.
    """
    if peer is None:
        own()
        return {"aejax": _rate(tokens, [own() for _ in range(rounds)])}
    found = _ratio(peer, own, rounds)
    return {
        "aejax": _rate(tokens, found["below"]),
        "transformers": _rate(tokens, found["above"]),
        "ratios": {"transformers": found["ratio"], "fastest": found["fastest"]},
        "rounds": found["ratios"],
    }


def _rate(tokens: int, seconds: list[float]) -> dict[str, float]:
    return {"tokens_per_second": tokens / statistics.median(seconds)}


def _ratio(above: Turn, below: Turn, rounds: int) -> dict[str, Any]:
    """Times two functions alternately, and returns the ratios of their seconds, above / below.

    `ratio` is the median of the ratios of all rounds. On a machine with other work `fastest`, the
    ratio of the shortest times, varies less.
    """
    for turn in (above, below):
        turn()
    pairs = [(above(), below()) for _ in range(rounds)]
    ratios = [a / b for a, b in pairs]
    tops, bottoms = ([pair[i] for pair in pairs] for i in (0, 1))
    return {
        "ratio": statistics.median(ratios),
        "fastest": min(tops) / min(bottoms),
        "ratios": ratios,
        "above": tops,
        "below": bottoms,
    }


def _line(row: dict[str, Any]) -> str:
    text = f"{row['aejax']['tokens_per_second']:,.0f} tokens a second"
    if "transformers" not in row:
        return text
    ratios, peer = row["ratios"], row["transformers"]["tokens_per_second"]
    both = f"{ratios['transformers']:.2f} times ({ratios['fastest']:.2f} by the shortest times)"
    return f"{text}, transformers {peer:,.0f}: {both}"


@contextmanager
def _peer(python: str | None, folder: pathlib.Path) -> Iterator[Callable[[Any], float] | None]:
    """Starts transformers in its own process, which waits while aejax runs.

    Yields a function that sends a task to that process and returns the seconds that it took, or
    None if there is no interpreter for it.
    """
    if python is None:
        yield None
        return
    flags = [text for name, n in SHAPES.items() for text in (f"--{name.replace('_', '-')}", str(n))]
    log = folder / "transformers.log"
    with log.open("w") as errors:
        try:
            process = subprocess.Popen(
                [python, str(PEER), *flags, "--stop", str(STOP)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        except OSError as error:
            raise UserError(
                f"{python} cannot be started ({error.strerror}): give --peer-python the path of a "
                "Python interpreter"
            ) from error

        def ask(asked: Any) -> float:
            assert process.stdin is not None
            process.stdin.write(json.dumps(asked) + "\n")
            process.stdin.flush()
            for line in process.stdout or ():
                if line.startswith("{"):
                    return json.loads(line)["seconds"]
            raise UserError(f"the process of transformers ended early: {log} holds its error")

        with process:
            try:
                yield ask
            finally:
                process.kill()
