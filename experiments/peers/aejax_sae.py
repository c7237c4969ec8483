"""Trains a sparse autoencoder by aejax, in a process whose speed `bench-sae` measures."""

import importlib.metadata

import jax
import jax.numpy as jnp
import optax
import sae_task

import aejax as ae
from aejax.types import Batch, Source
from aejax.variables import AGE, BIAS, get, put


def main() -> None:
    """Answers requests for training steps until standard input ends."""
    task = sae_task.arguments()
    bottleneck = {
        "topk": lambda: ae.TopK(task.latents, task.k),  # pyright: ignore[reportCallIssue]
        "batchtopk": lambda: ae.BatchTopK(task.latents, task.k),  # pyright: ignore[reportCallIssue]
        "jumprelu": lambda: ae.JumpReLU(task.latents, threshold=0.01),
    }[task.code]()
    model = ae.Autoencoder(ae.nets.Identity(), bottleneck, ae.nets.Dictionary(task.size))
    if task.code == "jumprelu":
        objective = ae.merge(ae.sparse(), {"price": (1.0, ae.losses.l0)})
    else:
        objective = ae.sparse(auxk=1.0)
    clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-4))
    single = ae.learner(model, objective, clipped, initialise=ae.initialise.tied)
    learner = ae.compiled(ae.chunked(single, sae_task.BATCHES))
    x = jnp.asarray(sae_task.activations(task.size, task.batch))
    key = jax.random.key(0)
    state = learner.init(key, Batch(x[0], x[0]))

    def source(count: int) -> Source:
        return Source(Batch(x, x), None, key, jnp.asarray(count, jnp.int32), _as_it_is)

    def run(steps: int, dead: int) -> dict[str, float]:
        nonlocal state
        state = state._replace(**_silenced(state, dead))
        state, metrics = learner.step(state, source(1))
        jax.block_until_ready(state.params)

        def go() -> None:
            nonlocal state, metrics
            for done in range(0, steps, sae_task.BATCHES):
                state, metrics = learner.step(state, source(min(sae_task.BATCHES, steps - done)))
            jax.device_get(metrics)

        seconds = sae_task.timed(go)
        ages = get(state.memory, AGE[1:])
        return {
            "seconds": seconds,
            "dead": int(jnp.sum(ages > 1000)),
            "l0": float(metrics["l0"][0]),
            "loss": float(metrics["loss"][0]),
        }

    sae_task.answer({name: importlib.metadata.version(name) for name in ("jax", "flax")}, run)


def _silenced(state, dead):
    """Returns params and `memory` of a state, changed so that its first `dead` latents are dead."""
    variables = {"params": state.params, "memory": state.memory}
    bias = get(variables, BIAS)
    first = jnp.arange(bias.size) < dead
    living = jnp.where(bias < sae_task.BIAS / 2, 0.0, bias)
    variables = put(variables, BIAS, jnp.where(first, sae_task.BIAS, living))
    return put(variables, AGE, jnp.where(first, sae_task.SILENT, 0).astype(jnp.int32))


def _as_it_is(key, batch):
    return batch


if __name__ == "__main__":
    main()
