"""Tests of the experiments with sparse codes: their scores, comparisons and plots."""

from __future__ import annotations

import numpy as np
import optax
import pytest

import aejax as ae
from aejax.report.drawing.style import LIGHT, line_look
from aejax.report.frontier import Points, frontier_section, limits, points
from aejax.report.page import draw
from experiments import synth_sae, toy_superposition
from experiments.shared import synth
from experiments.shared.codes import Shape, at_each, codes, swept
from experiments.shared.experiment import Finished
from experiments.shared.training import Job, Numbers, Trained, train
from experiments.tools.peers import CODES, compared


def row(l0, value, std=0.3):
    cell = {"std": std, "values": [0.0] * 9}
    return {
        "l0": {"mean": l0, "std": 0.0, "values": [l0] * 9},
        "explained_variance": {"mean": value, **cell},
        "mcc": {"mean": value / 2, **cell},
    }


def judged(l0, value, dead=0.1, seeds=np.arange(4.0)):
    """The figures of four seeds, of which each is 1 above the one before."""

    def cell(mean):
        values = mean + seeds - seeds.mean()
        return {"mean": mean, "std": float(np.std(values, ddof=1)), "values": values.tolist()}

    figures = {name: cell(value) for name in ("explained_variance", "mcc", "f1")}
    return {"l0": {"mean": l0, "std": 0.0, "values": [l0] * 4}, **figures, "dead": cell(dead)}


def test_points_rise_and_bars_are_standard_errors():
    """Fails if rows keep the order of the settings, or the deviation is not divided by sqrt(9)."""
    found = points([row(4.0, 0.5), row(2.0, 0.3), row(8.0, 0.9)], "explained_variance")
    np.testing.assert_allclose(found.l0, [2, 4, 8])
    np.testing.assert_allclose(found.value, [0.3, 0.5, 0.9])
    np.testing.assert_allclose(found.error, 0.1)


def test_the_frontier_keeps_peers_apart_and_draws():
    """Fails if a peer's result becomes a point on the line of the library's own code."""
    result = {
        "topk at 3": row(3.0, 0.5),
        "topk at 4": row(4.0, 0.6),
        "l1 at 3": row(3.1, 0.2),
        "topk at 3, SAELens": row(3.0, 0.4),
        "steps_per_second": {"mean": 1.0, "std": 0.0, "values": [1.0]},
    }
    steps = np.arange(4)
    dead = {"dead": (steps, np.ones((4, 2)) * [0.1, 0.3])}
    histories = {"topk": dead, "l1": dead, "plain": {}}
    (frontier,), curves = synth.findings(Finished(result, histories)), synth.curves(histories)
    own = frontier.figures[0].draw.keywords["panels"]["mcc"]
    peers = frontier.figures[0].draw.keywords["peers"]["mcc"]
    assert {name: each.l0.tolist() for name, each in own.items()} == {"topk": [3, 4], "l1": [3.1]}
    assert {name: each.value.tolist() for name, each in peers.items()} == {"topk": [0.2]}
    assert [picture.name for picture in curves.figures] == ["codes-dead"]
    assert list(curves.figures[0].draw.keywords["series"]) == ["topk", "l1"]
    for section in (frontier, curves):
        assert len(draw(section.figures[0]).light) > 5_000


def test_codes_are_told_apart_and_one_outlier_squeezes_no_axis():
    """Fails if two of a page's codes share a colour, or a far value stretches the axis."""
    looks = [line_look(place, LIGHT) for place in range(14)]
    assert len({colour for colour, _ in looks}) == 14
    assert len({line_look(place, LIGHT) for place in range(182)}) == 182
    ones = np.ones(1)
    values = {"topk": 0.85, "gated": 0.86, "jumprelu": 0.88, "april": 0.2, "batchtopk": 0.87}
    series = {code: Points(3 * ones, value * ones, 0 * ones) for code, value in values.items()}
    assert limits(series) == (0.85, 0.88)
    rows = {code: [row(3.0, value)] for code, value in values.items()}
    caption = frontier_section(rows, {}, ("explained_variance",), "").figures[0].caption
    assert "April with 3 latents (explained variance 0.20)" in caption


def test_a_difference_is_measured_by_its_own_standard_error(capsys):
    """The seeds of both libraries are paired, and fewer dead latents are better.

    Gated loses 0.3 at each seed, a loss whatever the spread over seeds; the seeds of April run the
    other way, so that its 0.3 is less than two standard errors of 1.29. Fails if differences are
    not paired by seed, if one standard error counts, or if dead latents count as a win.
    """
    result = {}
    for code in CODES:
        result[f"{code} at 3"] = judged(3.0, 0.5, dead=0.4 if code == "jumprelu" else 0.1)
        result[f"{code} at 3, SAELens"] = judged(3.0, 0.5 + 0.3 * (code == "gated"))
    result["april at 3, SAELens"] = judged(3.0, 0.8, seeds=np.arange(4.0)[::-1])
    found = compared(result, 3)
    assert found["gated less SAELens"]["explained_variance"]["mean"] == pytest.approx(-0.3)
    errors = [found[f"{code} less SAELens"]["mcc"]["std"] for code in ("gated", "april")]
    np.testing.assert_allclose(errors, [0.0, np.std(2 * np.arange(4), ddof=1) / 2], atol=1e-12)
    text = capsys.readouterr().out
    assert text.count("a loss") == 4
    assert text.count("a win") == 0
    assert text.count("a tie") == 4 * len(CODES) - 4
    result["gated at 3"]["l0"]["mean"] = 3.2
    found = compared(result, 3)
    assert capsys.readouterr().out.count("not at equal L0 (7% off)") == 4


def test_settings_come_in_order_with_all_their_seeds():
    """Fails if members are ordered by seed first, or all are scored with the first model."""
    part = swept(lambda k: Job(k, {}, optax.sgd(0.1)), (3, 5))
    trained = Trained(part, None, {"a": np.arange(4.0)}, 4, 1.0)
    rows = at_each(trained, lambda model, variables: {"k": model, "a": variables["a"]})
    np.testing.assert_array_equal([row["k"] for row in rows], [[3, 3], [5, 5]])
    np.testing.assert_array_equal([row["a"] for row in rows], [[0, 1], [2, 3]])


def test_every_code_is_made_for_one_number_of_active_latents():
    """Fails if a code ignores the number that it is given, or a sweep's first job is another."""
    for name, make in codes(Shape((6,), 32, 8, 80, 1e-3)).items():
        code = make(5).model.bottleneck
        wanted = getattr(code, "active", None) or getattr(code, "l0", None) or code.k
        assert wanted == 5, name
    parts = synth_sae.build(synth_sae.Config(), (64,))
    assert set(parts) == set(codes(Shape((6,), 32, 8, 80, 1e-3)))
    for part in parts.values():
        assert part.sweep(part.settings[0]).model == part.model


def test_an_empty_window_stops_a_run_before_its_first_step(tmp_path):
    """Fails if thresholds are not checked when a run starts."""
    splits = ae.data.arrays(np.random.default_rng(0).normal(size=(64, 6)), validation=8, test=8)
    scale = ae.nets.Scale
    dictionary = ae.nets.Dictionary(6, scale=scale())
    model = ae.Autoencoder(scale(), ae.JumpReLU(16, bandwidth=1e-9), dictionary)
    part = Job(model, ae.sparse(), optax.adam(1e-3), initialise=(ae.standardised(), ae.tied))
    config = Numbers(steps=1, batch=8, chunk=1)
    empty = pytest.raises(ae.UserError, match="so no threshold would ever move")
    with ae.Run(tmp_path / "run", config) as run, empty:
        train(run, part, config, splits)
    assert not list(tmp_path.glob("run/checkpoints/*"))


def test_impossible_numbers_are_refused():
    for experiment, changed in ((synth_sae, {"l0": (0, 3)}), (toy_superposition, {"l1": ()})):
        with pytest.raises(ae.UserError, match="--l"):
            experiment.build(experiment.Config(**changed), (64,))
