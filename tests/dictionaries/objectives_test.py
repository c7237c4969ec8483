"""The papers' objectives against numpy: weights, what is detached, and how dead latents learn."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aejax as ae
from aejax import losses

B, D, M, K = 16, 6, 32, 3
DEAD = (1, 5, 6, 20)


def batch(seed: int = 0) -> ae.Batch:
    x = jnp.asarray(np.random.default_rng(seed).normal(size=(B, D)), jnp.float32)
    return ae.Batch(x, x)


def start(bottleneck):
    """A model with atoms of norms from 0.3 to 3, a bias, and four latents long silent."""
    made = ae.Autoencoder(ae.nets.Identity(), bottleneck, ae.nets.Dictionary(D))
    variables = made.init(jax.random.key(0), batch())
    random = np.random.default_rng(4)
    decoder = variables["params"]["decoder"]
    sizes = random.uniform(0.3, 3.0, (M, 1)) / 0.1
    decoder["atoms"] = decoder["atoms"] * sizes.astype(np.float32)
    decoder["bias"] = jnp.linspace(-1.0, 1.0, D)
    age = jnp.zeros((M,), jnp.int32).at[jnp.asarray(DEAD)].set(2000)
    variables["memory"]["bottleneck"]["ages"]["age"] = age
    return made, variables


def cost(made, variables, objective, params):
    """The objective's weighted sum."""
    bound = made.bind({**variables, "params": params})
    return jnp.mean(ae.total(objective, bound, bound(batch())).penalty)


def loss(made, variables, objective):
    """The objective's weighted sum, and its gradient by the parameters."""
    own = functools.partial(cost, made, variables, objective)
    return jax.jit(jax.value_and_grad(own))(variables["params"])


def numbers(variables):
    """Data, pre-activations, atoms and bias in float64."""
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
    x = np.asarray(batch().x, np.float64)
    encode, decoder = params["bottleneck"]["encode"], params["decoder"]
    return x, x @ encode["kernel"] + encode["bias"], decoder["atoms"], decoder["bias"]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("detach", [True, False])
def test_a_gated_code_pays_for_error_gate_and_size(detach, weighted):
    """Fails if the gate's error has another weight than 1, or if its atoms are trained by it.

    And if the norms that weight L1 are left out, or get no gradient.
    """
    made, variables = start(ae.Gated(M))
    x, pre, atoms, bias = numbers(variables)
    gate = np.maximum(pre, 0.0)  # the magnitude starts equal to the gate
    left = gate @ atoms + bias - x
    size = np.linalg.norm(atoms, axis=1)
    l1 = 0.3 * (gate * size if weighted else gate).sum(1)
    value, grads = loss(made, variables, ae.objectives.gated(0.3, detach, weighted))
    np.testing.assert_allclose(value, (2 * np.square(left).sum(1) + l1).mean(), rtol=1e-5)
    times = 2.0 if detach else 4.0
    wanted = times * gate.T @ left / B
    if weighted:
        wanted += 0.3 * gate.mean(0)[:, None] * atoms / size[:, None]
    np.testing.assert_allclose(grads["decoder"]["atoms"], wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(grads["decoder"]["bias"], times * left.mean(0), rtol=1e-4)


RECIPES = {
    "matryoshka": (
        lambda r: r.matryoshka(D, M, K),
        ae.objectives.matryoshka((1, 3, 7, 15, M)),
    ),
    "relu": (lambda r: r.relu(D, M, weight=0.3), ae.sparse(l1=0.3)),
    "april": (lambda r: r.april(D, M, weight=0.3), ae.objectives.april(0.3)),
    "annealed": (lambda r: r.annealed(D, M, weight=0.3), ae.objectives.annealed(0.3)),
    "gated": (lambda r: r.gated(D, M, weight=0.3), ae.objectives.gated(0.3)),
    "jumprelu": (lambda r: r.jumprelu(D, M, weight=0.3), ae.objectives.jumprelu(0.3)),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_pays_for_what_its_objective_pays_for(name):
    """Value and gradient. Fails if a recipe leaves out AuxK, or has another weight or detaching."""
    make, objective = RECIPES[name]
    recipe = make(ae.recipes)
    made, variables = start(recipe.model.bottleneck)
    own, wanted = (
        functools.partial(cost, made, variables, o) for o in (recipe.objective, objective)
    )
    both = jax.jit(lambda params: [jax.value_and_grad(each)(params) for each in (own, wanted)])
    found, expected = both(variables["params"])
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), found, expected
    )
    assert float(expected[0]) > 0


def auxk(pre, atoms, left, k, scores):
    """||sum of the k dead latents of largest score - residual||^2, f64[B]; 4 are dead."""
    masked = np.full_like(pre, -np.inf)
    masked[:, DEAD] = scores[:, DEAD]
    kept = np.where(masked >= np.sort(masked)[:, [-k]], pre, 0.0)
    return np.square(kept @ atoms + left).sum(1)


def test_a_nested_dictionary_pays_a_third_for_each_of_three_prefixes_and_revives():
    """Fails if prefixes weigh 1 each, or AuxK has another weight or another residual."""
    made, variables = start(ae.BatchTopK(M, K))
    variables["memory"]["bottleneck"]["threshold"] = jnp.asarray(0.7)
    x, pre, atoms, bias = numbers(variables)
    z = np.where(pre > 0.7, pre, 0.0)
    lefts = [z[:, :m] @ atoms[:m] + bias - x for m in (4, 12, M)]
    errors = np.mean([np.square(left).sum(1) for left in lefts], axis=0)
    aux = auxk(pre, atoms, lefts[-1], D // 2, pre)
    value, _ = loss(made, variables, ae.objectives.matryoshka((4, 12, M)))
    np.testing.assert_allclose(value, (errors + aux / 32).mean(), rtol=1e-5)
    value, _ = loss(made, variables, ae.objectives.matryoshka((4, 12, M), (1, 2, 3), auxk=None))
    weighted = sum(w * np.square(left).sum(1) for w, left in zip((1, 2, 3), lefts, strict=True))
    np.testing.assert_allclose(value, weighted.mean(), rtol=1e-5)


def test_dead_latents_are_selected_by_the_size_of_what_they_add():
    """Fails if `score_by_norm` does not reach AuxK, which would select other latents here."""
    made, variables = start(ae.TopK(M, K, score_by_norm=True))
    sizes = np.ones((M, 1), np.float32)
    sizes[DEAD, 0] = 8.0, 0.2, 0.2, 1.0  # the ranks by pre-activation are others
    decoder = variables["params"]["decoder"]
    decoder["atoms"] = decoder["atoms"] * sizes
    x, pre, atoms, _ = numbers(variables)

    @jax.jit
    def both(variables):
        bound = made.bind(variables)
        forward = bound(batch())
        return forward.prediction, losses.auxk(k=2)(bound, forward)

    prediction, found = both(variables)
    prediction = np.asarray(prediction, np.float64)
    size = np.linalg.norm(atoms, axis=1)
    by_norm = auxk(pre, atoms, prediction - x, 2, pre * size)
    np.testing.assert_allclose(found, by_norm, rtol=1e-4)
    assert np.any(np.abs(by_norm - auxk(pre, atoms, prediction - x, 2, pre)) > 0.1)


def test_the_threshold_is_the_smallest_norm_kept_of_what_a_latent_adds():
    """By norm, in training and after. Fails if score or threshold is a bare pre-activation."""
    made, variables = start(ae.BatchTopK(M, K, score_by_norm=True))
    _, pre, atoms, bias = numbers(variables)
    score = np.maximum(pre, 0.0) * np.linalg.norm(atoms, axis=1)
    kept = np.sort(score.ravel())[-K * B :]
    trained = jax.jit(functools.partial(made.apply, mutable=["memory"]))
    forward, changed = trained(variables, batch(), None, 0)
    threshold = changed["memory"]["bottleneck"]["threshold"]
    np.testing.assert_allclose(threshold, kept[0], rtol=1e-5)
    z = np.where(score >= kept[0], np.maximum(pre, 0.0), 0.0)
    np.testing.assert_allclose(forward.prediction, z @ atoms + bias, rtol=1e-4, atol=1e-4)
    after = jax.jit(made.apply)({**variables, **changed}, batch())
    z = np.where(score > kept[0] * (1 + 1e-6), pre, 0.0)
    np.testing.assert_allclose(after.prediction, z @ atoms + bias, rtol=1e-4, atol=1e-4)
    assert float(after.code.l0.mean()) == K - 1 / B


def test_ghosts_learn_as_if_their_scales_were_constants():
    """The gradient in numpy, by atoms and by encoder.

    Fails if a scale is differentiated, is not half the residual's norm, or if exp is missing.
    """
    made, variables = start(ae.ReLU(M))
    x, pre, atoms, bias = numbers(variables)
    error = x - np.maximum(pre, 0.0) @ atoms - bias
    dead = list(DEAD)
    z = np.exp(pre[:, dead])
    output = z @ atoms[dead]
    scale = 0.5 * np.linalg.norm(error, axis=1) / np.linalg.norm(output, axis=1)
    left = scale[:, None] * output - error
    worth = np.square(error).sum(1) / np.square(left).sum(1)
    back = 2 * (worth * scale)[:, None] * left / B  # the gradient by the ghosts' output
    wanted = {"atoms": z.T @ back, "kernel": x.T @ (z * (back @ atoms[dead].T))}

    value, grads = loss(made, variables, {"ghost": (1.0, losses.ghost())})
    np.testing.assert_allclose(value, np.square(error).sum(1).mean(), rtol=1e-5)
    found = {
        "atoms": grads["decoder"]["atoms"][jnp.asarray(dead)],
        "kernel": grads["bottleneck"]["encode"]["kernel"][:, jnp.asarray(dead)],
    }
    for name, gradient in wanted.items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-3, atol=1e-4, err_msg=name)
