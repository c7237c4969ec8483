"""Tests a user's own bottleneck, prior and likelihood, defined in this file, in all of aejax.

Each is trained, interrupted and resumed, evaluated, reported and loaded. Pyright checks this file
by its standard rules, as a user's code.
"""
# pyright: standard, reportAttributeAccessIssue=false

from __future__ import annotations

import ast
import functools
import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import aejax as ae
from aejax import evaluation, report
from aejax.bottlenecks import Sparse
from aejax.contracts import NOTHING, Bottleneck, Given, Likelihood, Prior, VectorBottleneck
from aejax.likelihoods.text_likelihood import TextLikelihood
from tests.imports_test import FILES, imported

pytestmark = pytest.mark.usefixtures("coarse")
L, EVENT = 3, (12,)
KEY = jax.random.key(3)


class LaplaceCode(NamedTuple):
    """A sample from q(z | x) = Laplace(location, scale), with independent latents."""

    z: jax.Array
    location: jax.Array
    log_scale: jax.Array

    @property
    def latent(self) -> jax.Array:
        return self.z

    def log_q(self, stick: bool = False) -> jax.Array:
        own = jax.lax.stop_gradient(self) if stick else self
        return laplace_log_prob(self.z, own.location, own.log_scale)

    def log_prob(self, values: jax.Array) -> jax.Array:
        return laplace_log_prob(values[:, None], self.location[None], self.log_scale[None])

    def redraw(self, key: jax.Array) -> jax.Array:
        noise = jax.random.laplace(key, self.location.shape)
        return self.location + jnp.exp(self.log_scale) * noise


def laplace_log_prob(z: jax.Array, location: jax.Array, log_scale: jax.Array) -> jax.Array:
    apart = jnp.abs(z - location) * jnp.exp(-log_scale)
    return -jnp.sum(apart + log_scale + math.log(2.0), axis=-1)


class Laplace(VectorBottleneck):
    """A bottleneck whose posterior has heavier tails than a Gaussian."""

    @nn.compact
    def __call__(
        self, features: jax.Array, key: jax.Array | None, given: Given = NOTHING
    ) -> LaplaceCode:
        location, log_scale = jnp.split(nn.Dense(2 * self.latents)(features), 2, axis=-1)
        code = LaplaceCode(location, location, log_scale)
        return code if key is None else code._replace(z=code.redraw(key))


class Peaked(Prior):
    """Laplace(0, 1) in every dimension; its KL has a closed form under a `Laplace`."""

    def log_prob(self, z: jax.Array, context: Any = None, posterior: Any = None) -> jax.Array:
        return laplace_log_prob(z, jnp.zeros_like(z), jnp.zeros_like(z))

    def sample(
        self,
        key: jax.Array,
        n: int,
        shape: Sequence[int],
        context: Any = None,
        posterior: Any = None,
    ) -> jax.Array:
        return jax.random.laplace(key, (n, *shape))

    def kl(self, code: Any, context: Any = None, posterior: Any = None) -> jax.Array | None:
        if not isinstance(code, LaplaceCode):
            return None
        far, scale = jnp.abs(code.location), jnp.exp(code.log_scale)
        return far + scale * jnp.exp(-far / scale) - 1.0 - code.log_scale


class Poisson(Likelihood):
    """Counts; the prediction is the logarithm of the rate."""

    support = (0.0, math.inf)

    def log_prob(
        self, prediction: jax.Array, target: jax.Array, mask: jax.Array | None = None
    ) -> jax.Array:
        each = target * prediction - jnp.exp(prediction) - jax.scipy.special.gammaln(target + 1.0)
        return jnp.sum(each if mask is None else each * mask, axis=-1)

    def mean(self, prediction: jax.Array) -> jax.Array:
        return jnp.exp(prediction)

    def sample(self, key: jax.Array, prediction: jax.Array) -> jax.Array:
        return jax.random.poisson(key, jnp.exp(prediction)).astype(jnp.float32)


def build(
    bottleneck: Any = ae.Gaussian(L),
    prior: Any = ae.priors.Standard(),
    likelihood: Any = ae.likelihoods.Gaussian(),
) -> ae.Autoencoder:
    return ae.Autoencoder(
        ae.nets.MLP((8,)), bottleneck, ae.nets.MLP((8,), shape=EVENT), prior, likelihood
    )


# A model, and the rate of its objective: sampled if there is no closed form.
MODELS = {
    "bottleneck": (build(bottleneck=Laplace(L)), ae.losses.rate(stick=True)),
    "prior": (build(Laplace(L), Peaked()), ae.losses.kl),
    "likelihood": (build(likelihood=Poisson()), ae.losses.kl),
}


def counts() -> np.ndarray:
    return np.random.default_rng(0).poisson(2.0, (60, *EVENT)).astype(np.float32)


@pytest.fixture(scope="module")
def splits():
    return ae.data.arrays(counts())


@pytest.mark.parametrize("kind", MODELS)
def test_a_part_of_ones_own_goes_all_the_way(kind, splits, tmp_path):
    """Fails if a room decides by a part's class."""
    model, rate = MODELS[kind]
    train, _, test = splits
    learner = ae.compiled(ae.chunked(ae.learner(model, ae.elbo(rate=rate), optax.adam(1e-2)), 4))
    batches = ae.data.Batches(train, size=16, seed=0)

    def trained(folder: pathlib.Path, steps: int) -> ae.State:
        with ae.Run(folder, {"latents": L}, model=model) as run:
            state = run.restore(learner.init(jax.random.key(0), batches[0]))
            *_, (state, metrics) = ae.loop(learner, state, batches, steps=steps, progress=False)
            run.log(state, metrics)
            run.save(state)
        return state

    whole = trained(tmp_path / "whole", 8)
    trained(tmp_path / "run", 4)
    assert same(trained(tmp_path / "run", 8).params, whole.params)

    with pytest.raises(ae.UserError, match=r"outside_parts_test.* cannot be rebuilt"):
        ae.load(tmp_path / "run")
    variables = ae.load(tmp_path / "run", model=model).variables
    assert same(variables["params"], whole.params)

    evaluated = functools.partial(evaluation.elbo, model, variables, test, KEY, draws=50)
    bound, nll = evaluated(), evaluation.nll(model, variables, test, KEY, draws=50)
    assert np.mean(nll.nll) < -np.mean(bound.elbo)
    figures = evaluation.means(bound) | {"nll": np.mean(nll.nll)}
    used = evaluation.usage(model.bind(variables), next(test.batches(len(test))), KEY)
    # I(x; z) is the share of the rate that the aggregate posterior of the batch leaves.
    assert 0 < float(used["mutual_information"]) < min(np.mean(bound.rate), math.log(len(test)))

    sections = report.variational_sections(model, variables, splits, KEY)
    results = {name: float(value) for name, value in figures.items()}
    page = report.write(tmp_path / "run", "outside", sections, results=results).read_text()
    assert f"{results['nll']:.2f}"[:3] in page
    assert len(page) > 10_000


def same(left: Any, right: Any) -> bool:
    leaves = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array_equal(a, b) for a, b in leaves)


def test_a_closed_form_of_ones_own_is_the_mean_of_the_sampled_rate():
    """A VampPrior takes the posterior too. Fails if the closed form is not used."""
    # Parameters are small, so that the scales of the posteriors are near 1.
    _, _, test = ae.data.arrays(0.2 * counts())
    assert test is not None
    model = build(Laplace(L), Peaked())
    batch = next(test.batches(8))
    variables = model.init(KEY, batch)
    closed = evaluation.elbo(model, variables, test, KEY, draws=1).rate
    unknown = build(Laplace(L), Unknown())
    sampled = evaluation.elbo(unknown, variables, test, KEY, draws=4000, group=100).rate
    np.testing.assert_allclose(closed, sampled, atol=0.1)
    assert not np.array_equal(closed, sampled)
    vamp = build(Laplace(L), ae.priors.Vamp(EVENT, 5, bounds=None))
    learner = ae.learner(vamp, ae.elbo(rate=ae.losses.rate()), optax.sgd(0.0))
    variables = learner.variables(learner.init(KEY, batch))
    drawn = vamp.apply(variables, KEY, 4, method="sample")
    assert np.all(np.isfinite(np.asarray(drawn)))


class Unknown(Peaked):
    """The same prior without its closed form."""

    def kl(self, code: Any, context: Any = None, posterior: Any = None) -> None:
        return None


class Loose(nn.Module):
    """Has the methods of a prior, but derives from no contract."""

    def log_prob(self, z, context=None, posterior=None):
        return jnp.zeros(z.shape[0])


@pytest.mark.parametrize("kind", ["bottleneck", "prior", "likelihood"])
def test_a_part_without_a_contract_is_told_which_one(kind):
    """Fails if the error names only the first attribute that is missing."""
    name = kind.capitalize()
    with pytest.raises(ae.UserError, match=rf"derive Loose from aejax\.contracts\.{name}"):
        build(**{kind: Loose()})


@pytest.mark.parametrize("contract", [Bottleneck, Prior, Likelihood])
def test_a_part_says_at_once_what_it_lacks(contract):
    with pytest.raises(TypeError, match="abstract method"):
        type("Half", (contract,), {})()


def parts() -> set[type]:
    """Returns aejax's bottlenecks, priors and likelihoods, without bases and sparse codes."""
    bases = (Bottleneck, VectorBottleneck, Prior, Likelihood, TextLikelihood)
    derived = {cls for base in bases for cls in base.__subclasses__()}
    return {cls for cls in derived if cls.__module__.startswith("aejax")} - {
        *bases,
        Sparse,
        TextLikelihood,
    }


def test_no_other_room_knows_a_part_by_its_class():
    """A new part is therefore one file and a line of `__init__`.

    Fails for isinstance(x, Bernoulli).
    """
    assert len(parts()) > 20
    known = []
    for path in FILES:
        if path.name == "__init__.py":
            continue
        own = path.parts[path.parts.index("aejax") + 1]
        wanted = set()
        for cls in parts():
            room = cls.__module__.split(".")[1]
            if room != own:
                wanted |= {f"aejax.{room}.{cls.__name__}", f"{cls.__module__}.{cls.__name__}"}
        known += [(path.name, name) for name in imported(path) if name in wanted]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                qualified = f"aejax.{node.value.id}.{node.attr}"
                known += [(path.name, qualified)] if qualified in wanted else []
    assert known == []
