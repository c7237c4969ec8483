"""Tests that every posterior trains under every prior, likelihood and objective, or is refused.

The default suite traces all pairs of posterior and prior, while likelihoods and objectives take
turns, and trains as many combinations as hold each part once. `-m slow` trains the pairs of all
four. REFUSED lists the combinations that are refused, with the reason; a combination that is newly
refused, or is refused no longer, fails.
"""

from __future__ import annotations

import functools
import itertools
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import aejax as ae
from aejax import bounds, losses
from aejax.events import joined
from tests import kinds
from tests.contract_test import BOTTLENECKS, PRIORS, B, L, contexts, fitting, is_drawn
from tests.contract_test import LIKELIHOODS as ROWS

STEPS = 3
# A zero-inflated likelihood is a mixture of one of the others.
LIKELIHOODS = {name: row for name, row in ROWS.items() if not name.startswith("ZeroInflated")}


class Cost(NamedTuple):
    """The arguments of `ae.learner` besides the model."""

    objective: ae.Objective
    options: dict[str, Any] = {}  # noqa: RUF012 (never written)


sampled = ae.elbo(rate=losses.rate())
stick = ae.elbo(rate=losses.rate(stick=True))
explained = ae.reconstruction()
OBJECTIVES = {
    "sampled": Cost(sampled),
    "closed": Cost(ae.elbo()),
    "free-bits": Cost(ae.elbo(rate=losses.free_bits(0.1))),
    "capacity": Cost(ae.merge({"capacity": (10.0, losses.capacity(1.0))}, explained)),
    "iwae": Cost(sampled, {"draws": 4, "bound": bounds.iwae}),
    "miwae": Cost(sampled, {"draws": 4, "bound": bounds.miwae(2)}),
    "ciwae": Cost(sampled, {"draws": 4, "bound": bounds.ciwae(0.5)}),
    "piwae": Cost(sampled, {"draws": 4, "bound": bounds.piwae(2)}),
    "stl": Cost(stick),
    "dreg": Cost(stick, {"draws": 4, "bound": bounds.dreg}),
    "factor": Cost(
        ae.merge(sampled, {"tc": (5.0, losses.density_ratio()), "critic": (1.0, losses.critic())})
    ),
    "mmd": Cost(ae.merge(explained, {"mmd": (10.0, losses.mmd())})),
    "tc": Cost(ae.merge(sampled, {"tc": (5.0, losses.total_correlation(100))})),
    "dip-i": Cost(ae.merge(sampled, {"dip": (5.0, losses.dip_i())})),
    "dip-ii": Cost(ae.merge(sampled, {"dip": (5.0, losses.dip_ii())})),
}
FLOWS = {"Planar", "InverseAutoregressive", "Sylvester"}
VECTORS = {"Gaussian", "FullGaussian"} | FLOWS
# These have the sizes of the hierarchies' priors in the contract.
halves = (L // 2, L // 2)
HIERARCHIES = {
    "Levels": ae.Levels(halves, (ae.nets.MLP((), (L,)), ae.nets.MLP((6,), (L,)))),
    "UpwardLevels": ae.UpwardLevels(halves, (ae.nets.MLP((6,), (L,)),)),
}
POSTERIORS = {name: BOTTLENECKS[name] for name in BOTTLENECKS if name in VECTORS} | HIERARCHIES
# On a sphere no other prior has a density (tests/bottlenecks/sphere_test.py); the experts give the
# code of a Gaussian, as a normalised one and one of maps do, or have tests of their own, as paths
# have (tests/bottlenecks/).
ELSEWHERE = {"VonMisesFisher", "ProductOfExperts", "MixtureOfExperts", "Hamiltonian"}
ELSEWHERE |= {"NormalisedGaussian", "SpatialGaussian"}
OF_LEVELS = {name for name, row in PRIORS.items() if row.shape != (L,)}
CLOSED = {"closed", "free-bits", "capacity"}
# (parts, reason): a combination that has one part of each set is refused with these words. If more
# than one row applies, the first does, in the order in which a pass reaches them.
REFUSED: list[tuple[tuple[set[str], ...], str]] = [
    (({"dreg", "piwae"}, {"Ladder"}), "Ladder shares its layers with the posterior, so this bound"),
    ((VECTORS, OF_LEVELS), "does not suit latents of shape .* use priors"),
    ((set(HIERARCHIES), set(PRIORS) - OF_LEVELS), "does not suit latents of shape .* use priors"),
    ((CLOSED, {"UpwardLevels"}), "UpwardCode .* has no closed form: use losses.rate"),
    ((CLOSED, FLOWS | {"FullGaussian"}), "has no closed form: use losses.rate()"),
    (
        (CLOSED, {"Mixture", "FullMixture", "Vamp", "Flow", "Flow-conditional", "Levels-vamp"}),
        "no closed form: use losses.rate",
    ),
    (({"stl", "dreg"}, FLOWS), "needs the inverse of a flow's"),
    (({"stl", "dreg"}, set(HIERARCHIES)), "a hierarchy cannot stick the landing"),
    (({"UpwardLevels"}, {"Levels-vamp"}), "posterior .* of the top level, which UpwardCode does"),
    (({"Vamp"}, FLOWS), "needs a posterior whose density can be computed at any latent"),
    (
        ({"tc", "dip-i", "dip-ii"}, FLOWS | {"FullGaussian"} | set(HIERARCHIES)),
        r"reads code\.(mean|log_std), which a (Flow|FullGaussian|Levels|Upward)Code does not have",
    ),
]

Combination = tuple[str, str, str, str]  # posterior, prior, likelihood, objective


class Whole(nn.Module):
    """A decoder that takes the z of any code."""

    net: nn.Module

    def __call__(self, z: Any, context: Any = None) -> jax.Array:
        return self.net(joined(z), context)


def reason(combination: Combination) -> str | None:
    """Returns why a combination is refused, or None.

    No likelihood is a reason, and some have the names of posteriors.
    """
    posterior, prior, _, objective = combination
    names = {posterior, prior, objective}
    return next((why for parts, why in REFUSED if all(names & part for part in parts)), None)


@functools.cache
def rotated() -> list[Combination]:
    """Yields all pairs of posterior and prior, while likelihoods and objectives take turns.

    An objective waits for a pair that it can train, and after all pairs takes the first of them. A
    pair that no objective can train gets the one whose turn it is, which costs next to nothing, and
    leaves the turn of the likelihoods where it is.
    """
    explain, waiting, found = itertools.cycle(LIKELIHOODS), list(OBJECTIVES), []
    likelihood = next(explain)
    for posterior, prior in itertools.product(POSTERIORS, PRIORS):
        able = [o for o in waiting if reason((posterior, prior, likelihood, o)) is None]
        objective = (able or waiting)[0]
        if able:
            waiting.remove(objective)
            waiting.append(objective)
        found.append((posterior, prior, likelihood, objective))
        likelihood = next(explain) if able else likelihood
    ran = {c[3] for c in found if reason(c) is None}
    first = next(zip(POSTERIORS, PRIORS, strict=False))
    return found + [(*first, next(explain), o) for o in OBJECTIVES if o not in ran]


def each_part_once(combinations: list[Combination]) -> list[Combination]:
    """Returns those combinations that train and hold a part which no earlier one holds, in
    order.
    """
    seen: set[tuple[int, str]] = set()
    found = []
    for combination in combinations:
        if reason(combination) is None and not set(enumerate(combination)) <= seen:
            found.append(combination)
            seen |= set(enumerate(combination))
    return found


def covered() -> list[Combination]:
    """Returns combinations that hold every pair of parts of different kinds, chosen greedily.

    A pair that trains in any combination is in one that trains; otherwise it is in one that is
    refused for the last of its reasons.
    """
    parts = (POSTERIORS, PRIORS, LIKELIHOODS, OBJECTIVES)
    everything: list[Combination] = list(itertools.product(*parts))
    found: list[Combination] = []
    held: set[tuple[int, int, str, str]] = set()
    for why in (None, *(why for _, why in reversed(REFUSED))):
        some = [c for c in everything if reason(c) == why]
        left = set().union(*map(_pairs, some)) - held
        while left:
            i, j, *pair = min(left)
            able = (c for c in some if [c[i], c[j]] == pair)
            found.append(max(able, key=lambda c: len(left & _pairs(c))))
            left -= _pairs(found[-1])
            held |= _pairs(found[-1])
    return found


def _pairs(combination: Combination) -> set[tuple[int, int, str, str]]:
    indexed = itertools.combinations(enumerate(combination), 2)
    return {(i, j, a, b) for (i, a), (j, b) in indexed}


def trained(combination: Combination, transform: Any = jax.jit) -> Any:
    """Returns the losses of three steps, f32[3], or what a transform makes of that function.

    `init` is traced, which raises what it refuses; the parameters that it would draw are not.
    """
    posterior, prior, likelihood, objective = combination
    row, (explain, target, *_) = PRIORS[prior], LIKELIHOODS[likelihood]
    event, cost = target.shape[1:], OBJECTIVES[objective]
    model = ae.Autoencoder(
        ae.nets.MLP((8,)),
        POSTERIORS[posterior],
        Whole(ae.nets.MLP((8,), explain.shape(event))),
        fitting(row, event),
        explain,
        parts={"critic": ae.nets.MLP((6,), shape=(1,))} if objective == "factor" else {},
    )
    # Data are in [-1, 1]: for classes up to 4 the deviations of two levels would overflow.
    x, target = jnp.asarray(target / np.abs(target).max(), jnp.float32), jnp.asarray(target)
    batch = ae.Batch(x, target, contexts(B, row.context))
    # The test asks only whether the parts fit. Adam would be a quarter of the compiling, and steps
    # are
    # so short that none diverges.
    learner = ae.learner(model, cost.objective, optax.sgd(1e-6), **cost.options)

    def run(state: ae.State) -> jax.Array:
        def one(state: ae.State, _: None) -> tuple[ae.State, jax.Array]:
            state, metrics = learner.step(state, batch)
            return state, metrics["loss"]

        return jax.lax.scan(one, state, None, STEPS)[1]

    return transform(run)(kinds.begun(learner, batch))


def traced(run: Any) -> Any:
    """Traces the function, which raises an error without compiling if parts do not fit."""
    return lambda state: jax.eval_shape(run, state)


def check(combination: Combination, trains: bool = True) -> None:
    why = reason(combination)
    if why is None and trains:
        assert np.all(np.isfinite(trained(combination)))
        return
    if why is None:
        assert trained(combination, traced).shape == (STEPS,)
        return
    with pytest.raises((ae.UserError, TypeError), match=why) as raised:
        trained(combination)
    # The error is a sentence that says what to do, not an error from within.
    assert re.search(r"[:;] (use|pair) ", str(raised.value))


@pytest.mark.parametrize("combination", rotated(), ids="-".join)
def test_each_pair_of_posterior_and_prior_trains_or_is_refused(combination):
    """Fails if a part stops working with another, or if a refusal has another message."""
    check(combination, trains=combination in each_part_once(rotated()))


@pytest.mark.slow
@pytest.mark.parametrize("combination", covered(), ids="-".join)
def test_each_pair_of_all_parts_trains_or_is_refused(combination):
    check(combination)


def test_the_default_suite_trains_each_part():
    """Fails if a part occurs in refused combinations only, or if a row of a contract is left
    out.
    """
    ran = each_part_once(rotated())
    for i, names in enumerate((POSTERIORS, PRIORS, LIKELIHOODS, OBJECTIVES)):
        assert {c[i] for c in ran} == set(names)
    pairs = {c[:2] for c in rotated()}
    assert pairs == set(itertools.product(POSTERIORS, PRIORS))


def test_the_cover_holds_every_pair_and_every_refusal():
    """Fails if REFUSED lists a refusal that no combination meets."""
    cover = covered()
    parts = list(enumerate((POSTERIORS, PRIORS, LIKELIHOODS, OBJECTIVES)))
    pairs = itertools.combinations([(i, name) for i, names in parts for name in names], 2)
    assert set().union(*map(_pairs, cover)) == {(i, j, a, b) for (i, a), (j, b) in pairs if i < j}
    assert len(cover) < 2 * len(OBJECTIVES) * len(LIKELIHOODS)
    assert {reason(c) for c in cover} == {None, *(why for _, why in REFUSED)}


def test_every_random_bottleneck_is_a_posterior_here():
    """Fails if a new row of the contract is random and not in POSTERIORS."""
    x = jax.ShapeDtypeStruct((B, 8), jnp.float32)

    def drawn(module: Any) -> bool:
        found = []

        def traced(key: Any, x: Any) -> None:
            found.append(is_drawn(module.init_with_output(key, x, key)[0]))

        jax.eval_shape(traced, jax.random.key(0), x)
        return found[0]

    random = {name for name, module in BOTTLENECKS.items() if drawn(module)}
    assert random == set(POSTERIORS) | ELSEWHERE
