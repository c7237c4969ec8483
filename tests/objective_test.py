"""Tests of objectives: merging, weights, keys of terms, and errors about wrong pairings."""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax.objective import cyclical

B = 3


class Code(NamedTuple):
    z: jax.Array
    surprise: jax.Array


def forward(key=None, step=0, size=B) -> ae.Forward:
    x = jnp.arange(size * 2.0).reshape(size, 2)
    code = Code(x, x)
    return ae.Forward(ae.Batch(x, x), x, code, x, jnp.asarray(step), key)


def constant(value):
    return lambda model, forward: jnp.full((forward.batch.x.shape[0],), float(value))


def noise(model, forward):
    return jax.random.normal(forward.key, (forward.batch.x.shape[0],))


A, BB, C = {"a": (1.0, constant(1))}, {"b": (2.0, constant(2))}, {"c": (None, constant(3))}


def test_merge_is_associative_with_an_identity_and_loses_nothing():
    left, right = ae.merge(ae.merge(A, BB), C), ae.merge(A, ae.merge(BB, C))
    assert left == right == {**A, **BB, **C}
    assert list(left) == ["a", "b", "c"]
    assert ae.merge({}, A) == A == ae.merge(A, {})
    assert ae.merge() == {}


def test_merge_refuses_a_repeated_name_and_touches_neither():
    """Fails if merge is dict.update."""
    other = {"b": (5.0, constant(5))}
    with pytest.raises(ValueError, match="'b'"):
        ae.merge(A, BB, other)
    assert list(A) == ["a"]
    assert list(other) == ["b"]


def test_total_adds_weighted_terms_and_leaves_watched_ones_out():
    """Fails if a penalty is added to the ratio, or if returned values are weighted."""
    ratio = ae.losses.ratio()(constant(10))
    objective = ae.merge({"r": (0.5, ratio), "p": (3.0, constant(2))}, ae.watch(w=constant(100)))
    result = ae.total(objective, None, forward())
    np.testing.assert_allclose(result.ratio, np.full(B, 5.0))
    np.testing.assert_allclose(result.penalty, np.full(B, 6.0))
    assert {name: float(v[0]) for name, v in result.values.items()} == {"r": 10, "p": 2, "w": 100}


@pytest.mark.parametrize(("step", "weight"), [(0, 0.0), (5, 2.0), (10, 4.0), (20, 4.0)])
def test_a_weight_may_be_a_schedule_of_the_step(step, weight):
    objective = {"p": (optax.linear_schedule(0.0, 4.0, 10), constant(1))}
    result = jax.jit(lambda s: ae.total(objective, None, forward()._replace(step=s)))(step)
    np.testing.assert_allclose(result.penalty, np.full(B, weight))


def test_the_key_of_a_term_depends_on_its_name_alone():
    """Fails if keys are split by position, or if all terms share one."""
    key = jax.random.key(3)
    alone = ae.total({"n": (1.0, noise)}, None, forward(key)).values
    among = {"first": (1.0, noise), "n": (1.0, noise), "last": (None, noise)}
    together = ae.total(among, None, forward(key)).values
    assert np.array_equal(alone["n"], together["n"])
    assert len({float(v[0]) for v in together.values()}) == 3
    other = ae.total({"n": (1.0, noise)}, None, forward(jax.random.key(4))).values
    assert not np.array_equal(alone["n"], other["n"])


def test_without_a_key_terms_see_none():
    def term(model, forward):
        assert forward.key is None
        return forward.batch.x[:, 0]

    assert ae.total({"t": (1.0, term)}, None, forward()).values["t"].shape == (B,)


def test_a_term_that_reads_a_field_the_code_lacks_is_named_with_the_fields_there_are():
    objective = {"sparsity": (1.0, ae.losses.l0)}
    said = "'sparsity' reads code.l0, which a Code does not have (its fields: z, surprise)"
    with pytest.raises(ae.UserError, match=re.escape(said)):
        ae.total(objective, None, forward())


def test_an_error_inside_a_term_is_not_blamed_on_the_code():
    """Fails if every AttributeError is re-raised as a wrong pairing."""

    def broken(model, forward):
        return forward.batch.nonsense

    with pytest.raises(AttributeError, match="nonsense"):
        ae.total({"broken": (1.0, broken)}, None, forward())


@pytest.mark.parametrize("shape", [(), (B, 1), (B + 1,)])
def test_a_term_must_return_one_value_an_example(shape):
    """Fails if a scalar is accepted: it would be broadcast without an error."""
    with pytest.raises(ae.UserError, match=re.escape(f"'t' returned shape {shape}")):
        ae.total({"t": (1.0, lambda m, f: jnp.zeros(shape))}, None, forward())


def test_a_watched_term_with_an_infinite_derivative_poisons_nothing():
    """Fails if a watched term has weight 0: 0 times infinity is NaN."""

    def root(model, forward):
        return jnp.sqrt(forward.prediction[:, 0])

    def gradient(objective):
        def cost(x):
            return jnp.sum(ae.total(objective, None, forward()._replace(prediction=x)).penalty)

        return jax.grad(cost)(jnp.zeros((B, 2)))

    linear = {"linear": (1.0, lambda m, f: f.prediction[:, 1])}
    assert np.all(np.isfinite(gradient(ae.merge(linear, ae.watch(root=root)))))
    assert not np.all(np.isfinite(gradient(ae.merge(linear, {"root": (0.0, root)}))))


def test_recipes_hold_what_their_names_say():
    assert list(ae.elbo()) == ["rate", "distortion"]
    assert ae.elbo(beta=4.0)["rate"][0] == 4.0
    assert ae.elbo()["distortion"] == ae.reconstruction()["distortion"]
    marks = [ae.losses.mark(term) for _, term in ae.elbo(rate=ae.losses.rate()).values()]
    assert [m.part for m in marks] == ["ratio", "ratio"]
    weights = {name: weight for name, (weight, _) in ae.sparse(l1=0.1).items()}
    assert weights == {"error": 1.0, "l0": None, "dead": None, "l1": 0.1}
    assert "l1" not in ae.sparse()


@pytest.mark.parametrize("draws", [1, 2, 7])
def test_bounds_against_numpy(draws):
    """Fails if log K is left out, or if draws and examples are swapped."""
    cost = np.random.default_rng(0).normal(size=(draws, B)) * 5
    mean = ae.bounds.mean.reduce(jnp.asarray(cost, jnp.float32))
    iwae = ae.bounds.iwae.reduce(jnp.asarray(cost, jnp.float32))
    np.testing.assert_allclose(mean, cost.mean(0), rtol=1e-5)
    np.testing.assert_allclose(iwae, -np.log(np.exp(-cost).mean(0)), rtol=1e-5)
    assert np.all(np.asarray(iwae) <= np.asarray(mean) + 1e-5)


def test_iwae_does_not_overflow():
    cost = jnp.asarray([[2000.0, -2000.0], [2001.0, -1999.0]])
    expected = np.log(2) - np.log1p(np.exp(-1.0)) + np.array([2000.0, -2000.0])
    np.testing.assert_allclose(ae.bounds.iwae.reduce(cost), expected, rtol=1e-6)


def cyclical_reference(step, period, peak, ramp, cycles):
    if cycles is not None and step >= cycles * period:
        return peak
    return peak * min((step % period) / (ramp * period), 1.0)


@pytest.mark.parametrize("cycles", [None, 2])
def test_cyclical_annealing_against_the_formula(cycles):
    """Fails if the rise is a share of the whole run, or if a new cycle starts after the last."""
    schedule = jax.jit(cyclical(10, 4.0, 0.4, cycles))
    found = [float(schedule(step)) for step in range(45)]
    np.testing.assert_allclose(
        found, [cyclical_reference(s, 10, 4.0, 0.4, cycles) for s in range(45)]
    )
    assert found[10] == 0.0


def test_late_steps_of_cyclical_annealing_still_count():
    """Fails if the step is converted to float32, which skips integers above 2^24."""
    schedule = cyclical(7, ramp=1.0)
    late = 7 * 2**25
    np.testing.assert_allclose([schedule(late + i) for i in range(7)], np.arange(7) / 7, rtol=1e-6)


@pytest.mark.parametrize(
    "options", [{"period": 0}, {"period": 5, "ramp": 0.0}, {"period": 5, "cycles": 0}]
)
def test_cyclical_refusals(options):
    with pytest.raises(ae.UserError, match=list(options)[-1]):
        cyclical(**options)
