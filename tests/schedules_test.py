"""Cyclical annealing against the formula, in plain Python."""

import jax
import numpy as np
import pytest

import aejax as ae
from aejax import schedules


def reference(step, period, peak, ramp, cycles):
    if cycles is not None and step >= cycles * period:
        return peak
    return peak * min((step % period) / (ramp * period), 1.0)


@pytest.mark.parametrize("cycles", [None, 2])
def test_against_the_formula(cycles):
    """Fails if the rise is a share of the whole run, or if the last cycle starts again."""
    schedule = jax.jit(schedules.cyclical(10, 4.0, 0.4, cycles))
    found = [float(schedule(step)) for step in range(45)]
    np.testing.assert_allclose(found, [reference(s, 10, 4.0, 0.4, cycles) for s in range(45)])
    assert found[10] == 0.0


def test_late_steps_still_count():
    """Beyond 2^24 float32 skips integers: fails if the step is made a float first."""
    schedule = schedules.cyclical(7, ramp=1.0)
    late = 7 * 2**25
    np.testing.assert_allclose([schedule(late + i) for i in range(7)], np.arange(7) / 7, rtol=1e-6)


@pytest.mark.parametrize(
    "options", [{"period": 0}, {"period": 5, "ramp": 0.0}, {"period": 5, "cycles": 0}]
)
def test_refusals(options):
    with pytest.raises(ae.UserError, match=list(options)[-1]):
        schedules.cyclical(**options)
