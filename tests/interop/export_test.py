"""Tests that the compiled step of each kind can be exported on a CPU for CPUs, GPUs and TPUs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aejax as ae
from tests import kinds

PLATFORMS = ("cpu", "cuda", "tpu")


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_the_step_lowers_for_every_platform(kind):
    """Five steps of two members in one program. Fails if a kernel has a form for CPUs only."""
    learner = ae.chunked(ae.seeds(ae.averaged(kinds.learner(kind)), 2), 5)
    state = jax.eval_shape(learner.init, jax.random.key(0), kinds.batch())
    source = kinds.source(0, 5, 5, [0, 1])
    exported = jax.export.export(jax.jit(learner.step), platforms=PLATFORMS)(state, source)
    assert exported.platforms == PLATFORMS
    assert len(exported.in_avals) == len(jax.tree.leaves((state, source)))
    module = exported.mlir_module()
    assert "stablehlo.while" in module
    shapes = {aval.shape for aval in exported.out_avals}
    assert (2, 5) in shapes


def test_what_was_exported_computes_what_the_learner_does():
    """The program passes through bytes, as if it went to another machine."""
    learner = ae.chunked(kinds.learner("vae"), 5)
    state = jax.jit(learner.init)(jax.random.key(0), kinds.batch())
    params = state.params
    model = kinds.KINDS["vae"].model

    def decode(params, z):
        return model.apply({"params": params}, z, method="decode")

    shapes = jax.eval_shape(lambda: (params, jnp.zeros((3, 4))))
    exported = jax.export.export(jax.jit(decode), platforms=PLATFORMS)(*shapes)
    again = jax.export.deserialize(exported.serialize())
    z = jax.random.normal(jax.random.key(1), (3, 4))
    np.testing.assert_allclose(again.call(params, z), decode(params, z), rtol=1e-5, atol=1e-6)
