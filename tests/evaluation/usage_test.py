"""Tests of `usage` against loops, and of what the report says of a collapsed run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax as ae
from aejax import evaluation, report
from aejax.report import collapse
from aejax.runs import metrics
from tests.evaluation.cases import linear_gaussian

KEY = jax.random.key(2)


def found(case):
    batch = next(case.data.batches(len(case.data)))
    return evaluation.usage(case.model.bind(case.variables), batch, KEY), batch


def test_against_loops():
    """Fails if q(z) is a sum and no mean, a variance is over latents, or the KL is summed."""
    case = linear_gaussian(0.5, 1.3, examples=9, latents=2, size=3)
    used, batch = found(case)
    bound = case.model.bind(case.variables)
    code = bound.code(batch, bound.features(batch), KEY)
    z, mean, log_std = (np.float64(a) for a in (code.z, code.mean, code.log_std))
    density = np.exp(-0.5 * ((z[:, None] - mean) / np.exp(log_std)) ** 2 - log_std).prod(-1)
    expected = np.log(np.diag(density) / density.mean(1)).mean()
    assert float(used["mutual_information"]) == pytest.approx(expected, rel=1e-4)
    assert float(used["active_units"]) == np.sum(mean.var(0) > 0.01)
    kl = 0.5 * (mean**2 + np.exp(2 * log_std) - 1) - log_std
    np.testing.assert_allclose(used["kl_per_dimension"], kl.mean(0), rtol=1e-4)


def test_a_full_covariance_against_numpy():
    """There is no closed KL. Fails if a draw's density uses only its own posterior."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(20, 2)), jnp.float32)
    model = ae.Autoencoder(
        ae.nets.Identity(), ae.FullGaussian(2), ae.nets.MLP((), shape=(2,)), ae.priors.Standard()
    )
    batch = ae.Batch(x, x)
    bound = model.bind(model.init(KEY, batch))
    used = evaluation.usage(bound, batch, KEY)
    assert set(used) == {"active_units", "mutual_information"}
    code = bound.code(batch, bound.features(batch), KEY)
    z, location, root = (np.float64(a) for a in (code.z, code.location, code.cholesky))
    apart = np.linalg.solve(root[None], (z[:, None] - location[None])[..., None])[..., 0]
    density = np.exp(-0.5 * np.square(apart).sum(-1)) / np.abs(np.linalg.det(root))[None]
    expected = np.log(np.diag(density) / density.mean(1)).mean()
    assert float(used["mutual_information"]) == pytest.approx(expected, rel=1e-4)


def hierarchy(bottleneck):
    """Returns the code of 12 examples with levels of 1 and 2 latents, and the result of `usage`."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(12, 3)), jnp.float32)
    decoder = ae.nets.Joined((None, None), ae.nets.MLP((), shape=(3,)))
    if isinstance(bottleneck, ae.UpwardLevels):
        decoder = ae.nets.MLP((), shape=(3,))
    model = ae.Autoencoder(
        ae.nets.Identity(), bottleneck, decoder, ae.priors.Levels((ae.nets.MLP((), (4,)),))
    )
    batch = ae.Batch(x, x)
    # Only a term makes the prior's parameters.
    learner = ae.learner(model, {"rate": (1.0, ae.losses.rate())}, optax.sgd(0.1))
    bound = model.bind(learner.variables(learner.init(KEY, batch)))
    return bound.code(batch, bound.features(batch), KEY), evaluation.usage(bound, batch, KEY)


def densities(level):
    """Computes q(z_i | x_j) of a level's draws, f64[B, B]."""
    z, mean, std = (np.float64(a) for a in (level.z, level.mean, np.exp(level.log_std)))
    return (np.exp(-0.5 * ((z[:, None] - mean) / std) ** 2) / std).prod(-1)


def test_levels_drawn_from_the_bottom_up_tell_what_the_lowest_tells():
    """I(x; z_1, z_2) equals loops over all pairs.

    Fails if the top level, drawn from the lowest, is read.
    """
    code, used = hierarchy(ae.UpwardLevels((1, 2), (ae.nets.MLP((), (2,)),)))
    upper, lower = code.steps
    # q(z_1 | z_2) does not depend on the x of the pair.
    own = np.diag(densities(upper))[:, None]
    joint = densities(lower) * own
    expected = np.log(np.diag(joint) / joint.mean(1)).mean()
    assert float(used["mutual_information"]) == pytest.approx(expected, rel=1e-4)


def test_of_levels_drawn_from_the_top_down_the_top_is_told():
    """Fails if the lowest level is read, whose posterior given another x needs another pass."""
    code, used = hierarchy(
        ae.Levels(
            (1, 2), (ae.nets.MLP((), (2,)), ae.nets.Joined((None, None), ae.nets.MLP((), (4,))))
        )
    )
    each = densities(code.levels[0])
    expected = np.log(np.diag(each) / each.mean(1)).mean()
    assert float(used["mutual_information_of_top"]) == pytest.approx(expected, rel=1e-4)
    assert "mutual_information" not in used


def test_posteriors_that_do_not_look_have_collapsed():
    """Codes are exactly the prior's. Fails without log N."""
    case = linear_gaussian(0.5, 1.0, examples=20, latents=2, size=3)
    silent = jax.tree.map(jnp.zeros_like, case.variables)
    bound = case.model.bind(silent)
    batch = next(case.data.batches(20))
    used = evaluation.usage(bound, batch, KEY)
    assert float(used["mutual_information"]) == pytest.approx(0.0, abs=1e-5)
    assert float(used["active_units"]) == 0
    np.testing.assert_allclose(used["kl_per_dimension"], np.zeros(2), atol=1e-6)
    assert evaluation.collapsed(used).tolist() == [True]
    assert evaluation.collapsed(found(case)[0]).tolist() == [False]


def test_collapse_is_told_by_information_and_else_by_units():
    told = {"mutual_information": np.array([0.01, 3.0]), "active_units": np.array([2.0, 0.0])}
    assert evaluation.collapsed(told).tolist() == [True, False]
    assert evaluation.collapsed({"active_units": told["active_units"]}).tolist() == [False, True]
    assert evaluation.collapsed({}).size == 0


def test_models_without_a_random_code_have_nothing_to_say():
    model = ae.Autoencoder(ae.nets.Identity(), ae.Point(2), ae.nets.MLP((), shape=(2,)))
    batch = ae.Batch(jnp.ones((3, 2)), jnp.ones((3, 2)))
    assert evaluation.usage(model.bind(model.init(KEY, batch)), batch, KEY) == {}


def test_vectors_in_the_metrics(tmp_path):
    """f[S, L] comes back unchanged. Fails if seeds and latents are swapped."""
    file = metrics.MetricsFile(tmp_path / metrics.NAME)
    file.resume(0)
    for step in range(2):
        vector = np.arange(6.0).reshape(2, 3) + step
        file.append(step, {"loss": np.ones((2, 1))}, figures={"validation_kl": vector})
    file.close()
    columns = metrics.read(tmp_path)
    np.testing.assert_array_equal(columns["validation_kl"][1], np.arange(6.0).reshape(2, 3) + 1)
    assert set(report.history(tmp_path)) == {"loss"}


def columns(information):
    steps = len(information)
    return {
        "step": np.arange(steps),
        "validation_mutual_information": np.array(information),
        "validation_active_units": np.full((steps, 2), 3.0),
        "validation_kl_per_dimension": np.ones((steps, 2, 4)),
    }


def test_a_collapsed_run_says_so():
    """The sentence reads the last values.

    Fails if the first are read, or if a good run is called collapsed.
    """
    runs = {"vae": columns([[3.0, 3.0], [2.0, 0.01], [np.nan, np.nan]]), "plain": {}}
    assert "vae has collapsed (1 of 2 seeds: 1)" in report.verdict(runs)
    section = report.collapse_section(runs)
    assert section.title == "Posterior collapse"
    assert section.text.startswith("vae has collapsed")
    assert [row[-1] for row in section.table.rows] == ["", "collapsed"]
    healthy = {"vae": columns([[0.0, 0.0], [2.0, 1.0]])}
    assert report.verdict(healthy) == ""
    assert report.collapse_section(healthy).title == "What the codes carry"
    assert report.collapse_section({"plain": {}}) is None
    top = columns([[0.0, 2.0]])
    top["validation_mutual_information_of_top"] = top.pop("validation_mutual_information")
    said = "The top level of hvae has collapsed (1 of 2 seeds: 0): it carries no information"
    assert report.verdict({"hvae": top}).startswith(said)
    assert collapse.last({}) == {}
