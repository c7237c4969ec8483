"""A cross-layer transcoder: its blocks, and what it finds that one transcoder a layer cannot."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax.dictionaries import cross_layer
from aejax.evaluation.features import matched

LAYERS, D, OUT, N = 2, 32, 24, 16  # sizes of a layer; features that each layer reads


def test_blocks_that_do_not_read_or_write_stay_zero():
    """Fails if a latent writes at an earlier layer, if the optimiser moves a block of zeros, or if
    all blocks are kept at zero."""
    x = jax.random.normal(jax.random.key(0), (64, 3, 4))
    batch = ae.Batch(x, jnp.tile(x[..., :2], 1) + 1.0)
    model = ae.Autoencoder(ae.nets.Identity(), ae.ReLU(12), ae.nets.Dictionary((3, 2)))
    tx = optax.chain(optax.adamw(0.1), cross_layer.kept(3))
    learner = ae.learner(model, ae.sparse(), tx, initialise=cross_layer.started(3))
    state = jax.jit(learner.init)(jax.random.key(1), batch)
    for _ in range(3):
        state, _ = jax.jit(learner.step)(state, batch)
    plain = ae.fold(model, learner.variables(state))
    kernel = np.asarray(plain.W_enc).reshape(3, 4, 3, 4).any(axis=(1, 3))
    np.testing.assert_array_equal(kernel, np.eye(3, dtype=bool))
    atoms = np.asarray(plain.W_dec).reshape(3, 4, 3, 2).any(axis=(1, 3))
    np.testing.assert_array_equal(atoms, np.triu(np.ones((3, 3), bool)))
    with pytest.raises(ae.UserError, match="12 latents cannot be divided evenly over 5 layers"):
        cross_layer.writes(5, 12, 10)


def planted(tokens=10_000, seed=0):
    """Inputs and outputs [tokens, 2, ...] of features that are read at one layer.

    Features of layer 0 write at both layers, at layer 0 alone, or at layer 1 alone, in turn; those
    of layer 1 write at layer 1. Returns the truth too: directions f[layers, N, LAYERS, OUT].
    """
    random = np.random.default_rng(seed)

    def unit(*shape):
        rows = random.normal(size=shape)
        return rows / np.linalg.norm(rows, axis=-1, keepdims=True)

    seen, truth = unit(LAYERS, N, D), unit(LAYERS, N, LAYERS, OUT)
    truth[0, 1::3, 1] = truth[0, 2::3, 0] = truth[1, :, 0] = 0.0
    on = random.random((tokens, LAYERS, N)) < 0.08
    f = on * (1.0 + 0.3 * random.normal(size=on.shape))
    x = np.einsum("tln,lnd->tld", f, seen)
    y = np.einsum("tln,lnko->tko", f, truth)
    return x.astype(np.float32), y.astype(np.float32), truth


def trained(x, y, layers, steps=2_000):
    """A BatchTopK transcoder of the layers, and its held-out figures."""
    latents = layers * 24
    k = layers * N * 0.08
    shape, scale = (layers, OUT), ae.nets.Scale
    decoder = ae.nets.Dictionary(shape, scale=scale())
    model = ae.Autoencoder(scale(), ae.BatchTopK(latents, k=k, score_by_norm=True), decoder)
    rate = optax.linear_schedule(3e-3, 0.0, steps)
    tx = optax.chain(optax.adam(rate), cross_layer.kept(layers))
    start = (ae.standardised(), cross_layer.started(layers))
    objective = ae.sparse(auxk=1 / 32, dead_after=200)
    learner = ae.learner(model, objective, tx, initialise=start)
    train, held = slice(0, -2_000), slice(-2_000, None)
    init, step = jax.jit(learner.init), jax.jit(learner.step)
    rows = np.random.default_rng(1).permutation(len(x) - 2_000)
    state = init(jax.random.key(0), ae.Batch(x[train][:2_000], y[train][:2_000]))
    for t in range(steps):
        some = np.take(rows, np.arange(t * 256, (t + 1) * 256), mode="wrap")
        state, _ = step(state, ae.Batch(x[some], y[some]))
    variables = learner.variables(state)
    figures = ae.evaluation.sparsity(model, variables, ae.Batch(x[held], y[held]))
    return ae.fold(model, variables), figures


@pytest.mark.slow
def test_planted_features_are_found_with_the_layers_they_write_at():
    """Mean matched cosine of decoder blocks .9 or more; silent blocks below .1 of the norm.

    Beside it one transcoder a layer, which cannot explain what layer 0 writes at layer 1. Run with
    `pytest -m slow -s -n 0 tests/dictionaries/cross_layer_test.py` to see the figures.
    """
    x, y, truth = planted()
    plain, figures = trained(x, y, LAYERS)
    atoms = np.asarray(plain.W_dec).reshape(LAYERS, -1, LAYERS, OUT)
    cosines, silent = [], []
    for layer in range(LAYERS):
        pairs = matched(atoms[layer].reshape(len(atoms[layer]), -1), truth[layer].reshape(N, -1))
        for latent, feature in zip(pairs.latents, pairs.features, strict=True):
            found, wanted = atoms[layer, latent], truth[layer, feature]
            norms = np.linalg.norm(found, axis=-1)
            for k in range(layer, LAYERS):
                if wanted[k].any():
                    cosines.append(found[k] @ wanted[k] / norms[k])
                else:
                    silent.append(norms[k] / np.linalg.norm(norms))
    alone = [trained(x[:, [i]], y[:, [i]], 1)[1] for i in range(LAYERS)]
    print(f"\ncosine {np.mean(cosines):.3f} (least {np.min(cosines):.3f})", end=" ")
    print(f"silent blocks {np.mean(silent):.3f} of the norm (most {np.max(silent):.3f})")
    print(f"FVU of the layers {figures.fvu_layers}, L0 {figures.l0:.2f}", end=" ")
    print(f"one transcoder a layer: FVU {[round(f.fvu, 4) for f in alone]}", end=" ")
    print(f"L0 {[round(f.l0, 2) for f in alone]}")
    assert np.mean(cosines) >= 0.9
    assert np.mean(silent) < 0.1
    assert figures.fvu_layers[1] < 0.5 * alone[1].fvu
