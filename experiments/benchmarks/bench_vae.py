"""Speed of training a VAE, compared with a hand-written loop, pythae and the matrix-product rate.

    python -m experiments bench-vae
    python -m experiments bench-vae --peer-python PATH   # an interpreter that has pythae 0.1.2

The model is an MLP 784-512-16, trained by Adam with batches of 100 on 60,000 binary images of the
size of MNIST's. All programs are timed alternately, and each figure is the median over rounds.
Expected on 2 otherwise idle CPU cores: the library (`learner`) is as fast as the hand-written loop
(1.00) and 2.6 times as fast as pythae. It takes 1 minute, and 2 with pythae.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import aejax as ae
from aejax.errors import UserError
from aejax.files import write_json
from aejax.runs.environment import environment
from experiments.shared.place import prepared, say

PIXELS, WIDTH, LATENTS = 784, 512, 16
BATCH, CHUNK, EXAMPLES = 100, 100, 60_000
RATE = 1e-3
# A multiply-add counts as two operations. The backward pass takes twice the operations of the
# forward pass, except that the first layer needs no gradient of its input.
PRODUCTS = [(PIXELS, WIDTH), (WIDTH, 2 * LATENTS), (LATENTS, WIDTH), (WIDTH, PIXELS)]
FLOPS = 6 * sum(a * b for a, b in PRODUCTS) - 2 * PIXELS * WIDTH
Program = Callable[[], float]  # runs one round and returns images per second


def command(
    out: str = "runs/bench-vae",
    rounds: int = 5,
    chunks: int = 6,
    peer_python: str | None = None,
) -> None:
    """Times the training of a VAE by aejax, a hand-written loop and pythae; writes result.json.

    Args:
      out: folder for result.json.
      rounds: how many times each program is timed.
      chunks: number of calls, of 100 steps each, in one timing.
      peer_python: path of a Python interpreter with pythae.
    """
    folder = prepared(out, rounds=rounds, chunks=chunks)
    train = ae.data.splits(pictures(), validation=None)[0]
    with peer(peer_python) as pythae:
        programs = {"learner": learner(train, chunks), "bare": bare(train, chunks)} | pythae
        figures = take_turns(programs, rounds)
    peak = matmul_rate()
    figures["floor"] = {"images_per_second": peak / FLOPS, "flops_per_second": peak}
    for name in programs:
        figures[name] |= shares(figures[name]["images_per_second"], peak)
    result = {**figures, "ratios": ratios(figures), "environment": environment()}
    write_json(folder / "result.json", result)
    for name, row in figures.items():
        share = f"  {row['share_of_matmul']:.2f} of matmul" if "share_of_matmul" in row else ""
        rate = f"{row['images_per_second']:>10,.0f} images/s {row['flops_per_second']:.3g} FLOP/s"
        say(f"  {name:<8} {rate}{share}")
    for name, ratio in result["ratios"].items():
        say(f"  learner / {name}: {ratio:.2f}")


def pictures() -> np.ndarray:
    """Returns random binary images, f32[EXAMPLES, PIXELS]."""
    return (np.random.default_rng(0).random((EXAMPLES, PIXELS)) < 0.13).astype(np.float32)


def learner(train: ae.data.Split, chunks: int, encoder: Any = None, decoder: Any = None) -> Program:
    """Returns a function that trains by aejax, as a user does, and returns images per second.

    Each call of it trains for `chunks` times 100 more steps. The nets are MLPs by default.
    """
    model = ae.Autoencoder(
        encoder or ae.nets.MLP((WIDTH,)),
        ae.Gaussian(LATENTS),
        decoder or ae.nets.MLP((WIDTH,), shape=(PIXELS,)),
        ae.priors.Standard(),
        ae.likelihoods.Bernoulli(),
    )
    single = ae.learner(model, ae.elbo(), optax.adam(RATE))
    compiled = ae.compiled(ae.chunked(single, CHUNK))
    batches = ae.data.Batches(train, BATCH)
    state = compiled.init(jax.random.key(0), batches[0])

    def one() -> float:
        nonlocal state
        start = time.perf_counter()
        goal = int(state.step) + chunks * CHUNK
        for new, _ in ae.loop(compiled, state, batches, goal, progress=False):
            state = new
        return chunks * CHUNK * BATCH / (time.perf_counter() - start)

    return one


def bare(train: ae.data.Split, chunks: int, normed: bool = False) -> Program:
    """Returns a function like that of `learner` that trains by a hand-written scan over steps.

    If normed is True, a BatchNorm with running averages is applied before each of the two relus.
    """
    tx = optax.adam(RATE)
    initial = jax.nn.initializers.lecun_normal()
    keys = jax.random.split(jax.random.key(0), len(PRODUCTS))
    layers = [
        (initial(key, shape), jnp.zeros(shape[1]))
        for key, shape in zip(keys, PRODUCTS, strict=True)
    ]
    norms = [(jnp.ones(WIDTH), jnp.zeros(WIDTH)) for _ in range(2 * normed)]
    averages = [(jnp.zeros(WIDTH), jnp.ones(WIDTH)) for _ in norms]

    def hidden(x: Any, layer: Any, norms: Any) -> Any:
        """Returns relu of a dense layer, f32[B, WIDTH], and the batch statistics of its norm."""
        x = x @ layer[0] + layer[1]
        if not norms:
            return jax.nn.relu(x), []
        ((scale, bias),) = norms
        mean = jnp.mean(x, axis=0)
        variance = jnp.maximum(jnp.mean(jnp.square(x), axis=0) - jnp.square(mean), 0.0)
        normal = (x - mean) * (jax.lax.rsqrt(variance + 1e-5) * scale) + bias
        return jax.nn.relu(normal), [(mean, variance)]

    def loss(params: Any, x: Any, key: Any) -> Any:
        (first, (w2, b2), third, (w4, b4)), norms = params
        features, below = hidden(x, first, norms[:1])
        mean, log_std = jnp.split(features @ w2 + b2, 2, axis=-1)
        z = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
        features, above = hidden(z, third, norms[1:])
        logits = features @ w4 + b4
        distortion = jnp.mean(jnp.sum(jax.nn.softplus(logits) - x * logits, axis=-1))
        kl = 0.5 * (jnp.square(mean) + jnp.exp(2 * log_std) - 1) - log_std
        rate = jnp.mean(jnp.sum(kl, axis=-1))
        return rate + distortion, ((rate, distortion), below + above)

    def step(carry: Any, rows: Any) -> Any:
        params, averages, opt, t, images = carry
        key = jax.random.fold_in(jax.random.key(1), t)
        gradient = jax.value_and_grad(loss, has_aux=True)
        (value, (terms, statistics)), grads = gradient(params, images[rows], key)
        averages = jax.tree.map(lambda a, new: 0.99 * a + 0.01 * new, averages, statistics)
        updates, opt = tx.update(grads, opt, params)
        params = optax.apply_updates(params, updates)
        metrics = (value, *terms, optax.global_norm(grads))
        return (params, averages, opt, t + 1, images), metrics

    def scan(params: Any, averages: Any, opt: Any, t: Any, images: Any, rows: Any) -> Any:
        carry, metrics = jax.lax.scan(step, (params, averages, opt, t, images), rows)
        return *carry[:-1], metrics

    compiled = jax.jit(scan, donate_argnums=(0, 1, 2))
    images = jnp.asarray(train.arrays["x"])
    params = (layers, norms)
    state = (params, averages, tx.init(params), jnp.zeros((), jnp.int32))
    order = np.random.default_rng(0)

    def one() -> float:
        nonlocal state
        start = time.perf_counter()
        rows = order.permutation(EXAMPLES)[: chunks * CHUNK * BATCH % EXAMPLES or EXAMPLES]
        rows = np.resize(rows, (chunks, CHUNK, BATCH)).astype(np.int32)
        for chunk in rows:
            *new, metrics = compiled(*state, images, chunk)
            state = tuple(new)
            jax.device_get(metrics)
        return chunks * CHUNK * BATCH / (time.perf_counter() - start)

    return one


@contextlib.contextmanager
def peer(python: str | None) -> Iterator[dict[str, Program]]:
    """Starts pythae's trainer in its own process, if there is an interpreter for it.

    It yields {"pythae": a function that trains an epoch and returns images per second}, or {}.
    """
    if python is None:
        yield {}
        return
    script = pathlib.Path(__file__).parents[1] / "peers" / "pythae_vae.py"
    arguments = [python, str(script), "--examples", str(EXAMPLES), "--batch", str(BATCH)]
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # its progress bars
            text=True,
        )
    except OSError as error:
        raise UserError(
            f"--peer-python {python} cannot be started ({error.strerror}): give the path of a "
            "Python interpreter with pythae"
        ) from error

    def answer() -> dict[str, Any]:
        # Other lines are messages that the library prints.
        for line in process.stdout or ():
            if line.startswith("{"):
                return json.loads(line)
        raise UserError(
            f"--peer-python {python} ended without a result: check that it has pythae and torch"
        )

    def one() -> float:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then answer() raises the error
            process.stdin.write("go\n")
            process.stdin.flush()
        return answer()["images_per_second"]

    with process:
        try:
            answer()
            yield {"pythae": one}
        finally:
            process.kill()


def take_turns(programs: dict[str, Program], rounds: int) -> dict[str, dict[str, Any]]:
    """Times programs alternately, after a warm-up; returns the median and all rates of each."""
    for program in programs.values():
        program()
    measured: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            measured[name].append(program())
    return {
        name: {"images_per_second": statistics.median(values), "rounds": values}
        for name, values in measured.items()
    }


def matmul_rate() -> float:
    """Returns this machine's best rate of matrix products over several shapes, in FLOP/s."""
    best = 0.0
    for rows, inner, columns in [(BATCH, PIXELS, WIDTH), (1024, 1024, 1024), (2048, 2048, 2048)]:
        a, b = jnp.ones((rows, inner)), jnp.ones((inner, columns))
        product = jax.jit(jnp.matmul)
        product(a, b).block_until_ready()
        repeats = max(1, round(4e9 / (2 * rows * inner * columns)))
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(repeats):
                last = product(a, b)
            last.block_until_ready()
            seconds = time.perf_counter() - start
            best = max(best, repeats * 2 * rows * inner * columns / seconds)
    return best


def shares(images_per_second: float, peak: float) -> dict[str, float]:
    """Returns the model's operations per second, and their share of the matrix-product rate."""
    rate = images_per_second * FLOPS
    return {"flops_per_second": rate, "share_of_matmul": rate / peak}


def ratios(figures: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Returns aejax's speed divided by that of each other program, the median over rounds."""
    own = figures["learner"]
    result = {}
    if "floor" in figures:
        result["floor"] = own["images_per_second"] / figures["floor"]["images_per_second"]
    for name, row in figures.items():
        if "rounds" in row and name != "learner":
            pairs = zip(own["rounds"], row["rounds"], strict=True)
            result[name] = statistics.median(a / b for a, b in pairs)
    return result
