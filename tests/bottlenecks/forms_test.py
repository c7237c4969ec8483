"""The two forms of codes that select: one trained step of each must be the same."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export

import aejax as ae
from aejax.nets import Dictionary, Identity

B, D, M, K = 12, 10, 48, 4
# AuxK selects at most 5 latents: of many dead ones, or all of few.
MANY, FEW = jnp.arange(M) % 3 == 0, jnp.arange(M) % 16 == 0

CODES = {
    "TopK, swept and normed": lambda form: ae.TopK(M, K, True, jnp.float32(2.0), form=form),
    "AbsTopK": lambda form: ae.AbsTopK(M, K, form=form),
    "BatchTopK, normed": lambda form: ae.BatchTopK(M, 3.5, score_by_norm=True, form=form),
    "JumpReLU, rectified": lambda form: ae.JumpReLU(M, rectified=True, form=form),
}


def inputs():
    return jnp.asarray(np.random.default_rng(0).normal(size=(B, D)), jnp.float32)


def trained(code, objective, dead):
    """A function of nothing: the change of parameters by plain descent, memory and metrics."""
    model = ae.Autoencoder(Identity(), code, Dictionary((D,)))
    learner = ae.learner(model, objective, optax.sgd(1.0))
    batch = ae.Batch(inputs(), inputs())

    def one():
        state = learner.init(jax.random.key(0), batch)
        ages = {"age": jnp.where(dead, 2000, 0)}
        memory = {"bottleneck": {**state.memory["bottleneck"], "ages": ages}}
        after, metrics = learner.step(state._replace(memory=memory), batch)
        return jax.tree.map(jnp.subtract, after.params, state.params), after.memory, metrics

    return one


SLOW = ("AbsTopK", "JumpReLU, rectified")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in CODES]
)
def test_both_forms_train_the_same(name):
    """Gradients, thresholds, L0 and AuxK agree to 1e-6 of the largest number of each array.

    Fails if the dense form keeps k + 1 latents, if AuxK reads live latents or the rectified
    pre-activations, or if norms scale the values.
    """
    objective, dead = ae.sparse(auxk=1.0), FEW if name.startswith("BatchTopK") else MANY

    def both():
        return [trained(CODES[name](form), objective, dead)() for form in ("rows", "dense")]

    rows, dense = jax.jit(both)()
    assert float(rows[2]["auxk"]) > 0
    for ours, theirs in zip(jax.tree.leaves(dense), jax.tree.leaves(rows), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6 * np.max(np.abs(theirs)))


def test_a_nan_stays_visible_in_the_dense_form():
    """Fails if the mask is score >= threshold, which is False for a NaN."""
    pre = jnp.ones((2, D)).at[0, 0].set(jnp.nan)
    code = ae.TopK(M, K, form="dense")
    variables = code.init(jax.random.key(0), jnp.ones((2, D)), None)
    z = code.apply(variables, pre, None).z
    assert np.isnan(z[0]).any()
    assert not np.isnan(z[1]).any()


def test_an_export_for_tpus_states_its_form():
    """Fails if the field is ignored: the rows form has a scatter, the dense form has none."""
    code = ae.TopK(M, K)
    variables = code.init(jax.random.key(0), inputs(), None)

    def text(form):
        def encode(x):
            return code.clone(form=form).apply(variables, x, None).dense()

        return export.export(jax.jit(encode), platforms=["tpu"])(inputs()).mlir_module()

    assert "stablehlo.scatter" in text("rows")
    assert "stablehlo.scatter" not in text("dense")
