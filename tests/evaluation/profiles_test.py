"""Tests of profiles of latents on a planted dictionary."""

import numpy as np
import pytest

from aejax.errors import UserError
from aejax.evaluation.firings import firings
from aejax.evaluation.profiles import BANDS, TOP, coactive, profiles

N = 4_000


def planted():
    """Latents 0 and 1 are active together; 2 at the first place of a sentence; 3 never."""
    rng = np.random.default_rng(0)
    codes = np.zeros((N, 4))
    on = rng.random(N) < 0.2
    codes[on, 0] = rng.random(on.sum())
    codes[on, 1] = 1.0
    codes[::20, 2] = np.arange(N // 20) + 1.0
    return codes, np.arange(N) % 20


def test_a_profile_shows_where_a_latent_is_active():
    """Fails if only the top is shown, or if neighbouring tokens fill it."""
    codes, place = planted()
    rows = np.array([[1.0, 0, 0], [0.8, 0.6, 0], [0, 1, 0], [-1, 0, 0]])
    found = profiles(firings([codes]), place, rows)
    first, _, third, dead = found
    assert third.frequency == pytest.approx(1 / 20)
    assert third.most == N // 20
    assert third.places.tolist() == [N // 20, *[0] * 11]
    assert third.histogram.sum() == N // 20
    top = [c.token for c in third.contexts if c.band == 1.0]
    assert top == [N - 20 * (i + 1) for i in range(TOP)]
    for band in BANDS:
        values = [c.value for c in first.contexts if c.band == band]
        assert len(values) == 2
        assert all(abs(v - band) < 0.15 for v in values)  # activations are uniform in [0, 1]
    for profile in found[:2]:  # the activations of the second are all equal
        tokens = sorted(c.token for c in profile.contexts)
        assert min(np.diff(tokens)) >= 8
    assert first.near[0] == (1, pytest.approx(0.8))
    assert [j for j, _ in first.near] == [1]
    assert first.together[0] == (1, pytest.approx(1.0))
    assert (dead.frequency, dead.contexts, dead.near) == (0.0, (), ())


def test_coactivity_is_the_correlation():
    codes, _ = planted()
    wanted = np.corrcoef((codes[:, :3] > 0).T)
    found = coactive(firings([codes]))
    for i, pairs in enumerate(found[:3]):
        for j, value in pairs:
            assert value == pytest.approx(wanted[i, j], abs=1e-4)


def test_what_does_not_fit_is_refused():
    codes, place = planted()
    with pytest.raises(UserError, match="3 decoder rows"):
        profiles(firings([codes]), place, np.eye(3))
