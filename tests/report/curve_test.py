"""Tests of learning curves: reading of metrics.jsonl, binning, grouping by metric."""

import json

import numpy as np
import pytest

from aejax import report
from aejax.report import curve


def test_history_reads_fields_that_only_some_lines_have(tmp_path):
    """Fails if missing fields become zeros or shift the steps of the others."""
    lines = [{"step": i, "time": 1.0, "loss": [1.0 * i, 2.0 * i]} for i in range(6)]
    lines[2]["validation_loss"] = [7.0, 8.0]
    lines[5]["validation_loss"] = [5.0, 6.0]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    for path in (tmp_path, tmp_path / "metrics.jsonl"):
        found = report.history(path)
        assert set(found) == {"loss", "validation_loss"}
        steps, values = found["validation_loss"]
        np.testing.assert_array_equal(steps, [2, 5])
        np.testing.assert_array_equal(values, [[7, 8], [5, 6]])
        assert found["loss"][1].shape == (6, 2)


@pytest.mark.parametrize("log_steps", [True, False])
def test_binned_curves_keep_means_and_the_spread_over_seeds(log_steps):
    """Fails if the spread is taken over steps instead of seeds."""
    steps = np.arange(5_000)
    values = np.stack([np.full(5_000, 1.0), steps * 0 + 3.0], axis=1)
    values[::2] += 0.5
    values[1::2] -= 0.5
    line = curve.binned((steps, values), log_steps, bins=50)
    assert len(line.steps) <= 50
    assert (np.diff(line.steps) > 0).all()
    np.testing.assert_allclose(line.mean[-1], 2.0, atol=0.05)
    np.testing.assert_allclose([line.low[-1], line.high[-1]], [1, 3], atol=0.05)


def test_parts_of_one_figure_are_drawn_together():
    """Fails if validation_loss gets its own plot, or if the loss does not come first."""
    one = (np.arange(3), np.ones(3))
    found = curve.grouped({"grad_norm": one, "l0": one, "validation_loss": one, "loss": one})
    assert list(found) == ["loss", "l0", "grad_norm"]
    assert set(found["loss"]) == {"training batches", "validation"}
