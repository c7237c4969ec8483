"""One small model of each kind, their training data, and helpers that several tests share."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import aejax as ae

ROOT = pathlib.Path(__file__).parent.parent
EVENT = (8, 8, 1)
N, B = 256, 32


class Kind(NamedTuple):
    """The arguments of `ae.learner`."""

    model: ae.Autoencoder
    objective: ae.Objective
    options: dict[str, Any] = {}  # noqa: RUF012 (never written)


def variational(likelihood=None, dtype=None, event=EVENT, latents=4, width=32) -> ae.Autoencoder:
    return ae.Autoencoder(
        ae.nets.MLP((width,), dtype=dtype),
        ae.Gaussian(latents),
        ae.nets.MLP((width,), shape=event, dtype=dtype),
        ae.priors.Standard(),
        likelihood or ae.likelihoods.Bernoulli(),
    )


def dictionary(bottleneck) -> ae.Autoencoder:
    return ae.Autoencoder(ae.nets.Identity(), bottleneck, ae.nets.Dictionary(EVENT))


def scaled(bottleneck) -> ae.Autoencoder:
    scale = ae.nets.Scale
    return ae.Autoencoder(scale(), bottleneck, ae.nets.Dictionary(EVENT, scale=scale()))


def plain() -> ae.Autoencoder:
    return ae.Autoencoder(
        ae.nets.MLP((32,)),
        ae.Point(4),
        ae.nets.MLP((32,), shape=EVENT),
        likelihood=ae.likelihoods.Bernoulli(),
    )


def convolutional() -> ae.Autoencoder:
    return ae.Autoencoder(
        ae.nets.Conv((8, 8), 16),
        ae.Gaussian(4),
        ae.nets.Deconv(EVENT, (8, 8)),
        ae.priors.Standard(),
        ae.likelihoods.Bernoulli(),
    )


iwae = {"draws": 5, "bound": ae.bounds.iwae}
# DReG (Tucker et al. 2019): the rate sticks the landing, and the codes' gradient has weight w
# squared.
dreg = {"draws": 5, "bound": ae.Bound(ae.bounds.iwae.reduce, lambda w, _: jnp.square(w))}

KINDS = {
    "vae": Kind(variational(), ae.elbo()),
    "vae-learned": Kind(variational(ae.likelihoods.LearnedGaussian(start=1.0)), ae.elbo()),
    "vae-conv": Kind(convolutional(), ae.elbo()),
    "iwae": Kind(variational(), ae.elbo(rate=ae.losses.rate()), iwae),
    "dreg": Kind(variational(), ae.elbo(rate=ae.losses.rate(stick=True)), dreg),
    "plain": Kind(plain(), ae.reconstruction()),
    "sae-relu": Kind(
        dictionary(ae.ReLU(128)), ae.sparse(l1=0.05, dead_after=5), {"initialise": ae.tied}
    ),
    "sae-topk": Kind(dictionary(ae.TopK(128, 8)), ae.sparse(dead_after=5), {"initialise": ae.tied}),
    "sae-nested": Kind(
        scaled(ae.BatchTopK(128, 8, score_by_norm=True)),
        ae.sparse(revival=1 / 32, dead_after=5, error=ae.losses.prefix_error((16, 128))),
        {"initialise": (ae.standardised(), ae.tied)},
    ),
    "sae-jumprelu": Kind(
        scaled(ae.JumpReLU(128, subtract_bias=True)),
        ae.objectives.jumprelu(0.05),
        {"initialise": (ae.standardised(), ae.tied)},
    ),
}


def learner(kind: str, rate: float = 1e-3, tx=None) -> ae.Learner:
    model, objective, options = KINDS[kind]
    return ae.learner(model, objective, tx or optax.adam(rate), **options)


def pixels(n: int = N, seed: int = 0) -> np.ndarray:
    """Makes f32[n, 8, 8, 1]: four prototypes, each pixel of which is flipped with probability
    0.05.
    """
    generator = np.random.default_rng(seed)
    prototypes = generator.random((4, *EVENT)) < 0.4
    images = prototypes[generator.integers(0, 4, n)] ^ (generator.random((n, *EVENT)) < 0.05)
    return images.astype(np.float32)


def as_batch(key: jax.Array, x: jax.Array) -> ae.Batch:
    del key
    return ae.Batch(x, x)


def rows(steps: int, seed: int = 0, size: int = B) -> np.ndarray:
    """Returns the indices of each batch's examples, i32[steps, B]."""
    return np.random.default_rng([7, seed]).integers(0, N, (steps, size)).astype(np.int32)


def batch(t: int = 0, seed: int = 0, size: int = B) -> ae.Batch:
    x = jnp.asarray(pixels()[rows(t + 1, seed, size)[t]])
    return ae.Batch(x, x)


def source(start: int, room: int, stop: int, seed: int | list[int] = 0, size: int = B) -> ae.Source:
    """Makes resident batches `start` to `start + room`, of which those before `stop` count.

    A list of seeds makes one stream for each.
    """
    seeds = [seed] if isinstance(seed, int) else seed
    chosen = np.stack([rows(start + room, s, size)[start:] for s in seeds])
    keys = jnp.stack([jax.random.key(s) for s in seeds])
    if isinstance(seed, int):
        chosen, keys = chosen[0], keys[0]
    count = jnp.asarray(min(room, stop - start), jnp.int32)
    return ae.Source(jnp.asarray(pixels()), jnp.asarray(chosen), keys, count, as_batch)


def train(learner: ae.Learner, state: ae.State, steps: int, seed: int | list[int] = 0, size=B):
    """Calls a chunked learner until `steps`; returns the state and losses f32[steps] or f32[S,
    T].
    """
    losses = []
    while int(state.step) < steps:
        start = int(state.step)
        chunk = source(start, learner.chunk, steps, seed, size)
        state, metrics = learner.step(state, chunk)
        losses.append(np.asarray(metrics["loss"])[..., : int(chunk.count)])
    return state, np.concatenate(losses, axis=-1)


def optimised(function: Callable) -> Callable:
    """Compiles with the optimisations that the other tests do without, for programs that run long.

    Such a program takes a second more to compile and runs up to seven times as fast.
    """
    options = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
    return jax.jit(function, compiler_options=options)


def raw(tree: Any) -> list[bytes]:
    """Returns the bytes of each leaf, including keys."""

    def plain(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key_data(leaf)
        return leaf

    return [np.asarray(plain(leaf)).tobytes() for leaf in jax.tree.leaves(tree)]


def restored(state: ae.State) -> ae.State:
    """Converts a state to numpy and back, as reading it from a file does."""

    def copy(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = np.array(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(jnp.asarray(data), impl=jax.random.key_impl(leaf))
        return jnp.asarray(np.array(leaf))

    return jax.tree.map(copy, state)


def python(*arguments: str, devices: int | None = None, **options: Any) -> subprocess.Popen:
    """Starts this Python in the project's root, with a number of forced host devices."""
    environment = dict(os.environ)
    if devices is not None:
        flags = os.environ.get("XLA_FLAGS", "")
        environment["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def output(process: subprocess.Popen, seconds: float = 300) -> str:
    """Returns the standard output of a process; raises its last words if it failed."""
    try:
        out, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert process.returncode == 0, errors[-4000:]
    return out
