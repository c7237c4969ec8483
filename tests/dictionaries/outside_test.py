"""A sparse code that is defined in this file alone goes wherever the library's own codes go.

The soft threshold sign(p) relu(|p| - t) of p = x W + b, with one learned t > 0 a latent: the code of
ISTA (Daubechies et al. 2004) and of analysis dictionaries. No file of aejax knows it.
"""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import aejax as ae
from aejax import data, interop, losses, report
from aejax.bottlenecks.sparse.base import Sparse, projection
from aejax.evaluation import sparsity
from aejax.interop.saelens import save_saelens
from aejax.report.sparse import sparse_sections
from tests.runs.run_test import same

D, M = 16, 24


class SoftThreshold(Sparse):
    """sign(p) relu(|p| - t), p = x W + b, t = exp(log_t); trained with an L1 penalty.

    Attributes:
      latents: m.
      start: t at the start.
    """

    latents: int
    start: float = 0.1

    vectors = ("b_enc", "threshold")

    @nn.compact
    def activate(self, inputs, step, decoder):
        del step, decoder
        constant = nn.initializers.constant(np.log(self.start))
        t = jnp.exp(self.param("log_t", constant, (self.latents,)))
        z = soft(self.project(inputs), t)
        return ae.bottlenecks.SparseCode(z, jnp.sum(z != 0, axis=-1).astype(jnp.float32))

    def plain(self, params, memory, norms):
        bias, threshold = params["encode"]["bias"], jnp.exp(params["log_t"])
        return {"activation": type(self), "b_enc": bias, "threshold": threshold}

    @classmethod
    def from_plain(cls, plain):
        module = cls(plain.latents, subtract_bias=plain.apply_b_dec_to_input)
        return module, {**projection(plain), "log_t": jnp.log(plain.needed("threshold"))}

    @classmethod
    def apply_plain(cls, plain, pre):
        return soft(pre + plain.needed("b_enc")[None], plain.needed("threshold"))

    def penalty(self, code):
        return code.magnitude()


def soft(pre, threshold):
    return jnp.sign(pre) * nn.relu(jnp.abs(pre) - threshold[None])


@dataclasses.dataclass(frozen=True)
class Config:
    latents: int = M


def images(examples: int = 400) -> tuple[data.Split, data.Split, data.Split]:
    """Sums of few of twelve directions, of either sign, as images of 4 x 4."""
    random = np.random.default_rng(0)
    active = random.normal(size=(examples, 12)) * (random.random((examples, 12)) < 0.2)
    x = active @ random.normal(size=(12, D)) + 0.02 * random.normal(size=(examples, D)) + 2.0
    return data.arrays(x.reshape(-1, 4, 4, 1).astype(np.float32), np.arange(examples) % 3)


def soft_model(start=0.1, **how) -> ae.Autoencoder:
    scale = ae.nets.Scale
    dictionary = ae.nets.Dictionary((4, 4, 1), scale=scale())
    return ae.Autoencoder(scale(), SoftThreshold(M, start=start, **how), dictionary)


def learner(model, objective=None) -> ae.Learner:
    objective = ae.sparse(l1=0.05, revival=1 / 32, dead_after=5) if objective is None else objective
    start = (ae.standardised(), ae.tied)
    return ae.learner(model, objective, optax.adam(1e-2), initialise=start)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of 40 steps at once, the state after them, and the data."""
    train, *_ = splits = images()
    batches = ae.data.Batches(train, 32)
    compiled = ae.compiled(ae.chunked(learner(soft_model(how_subtracts := False)), 20))
    del how_subtracts
    folder = tmp_path_factory.mktemp("soft") / "run"
    return folder, *trained(folder, compiled, batches, 40), splits


def trained(folder, compiled, batches, steps):
    state = metrics = None
    with ae.Run(folder, Config(), model=soft_model()) as opened:
        state = opened.restore(compiled.init(jax.random.key(0), batches[0]))
        for state, metrics in ae.loop(compiled, state, batches, steps, progress=False):
            opened.log(state, metrics)
            opened.save(state)
    return compiled.variables(state), metrics
