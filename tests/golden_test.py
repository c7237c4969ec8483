"""Compares the losses of 20 steps of each kind of model with files.

`python -m tests.golden_test` writes the file of the installed version of jax. A change of these
files shows that a change of the code changes results.
"""

from __future__ import annotations

import json
import pathlib

import jax
import numpy as np
import pytest

import aejax as ae
from tests import kinds
from tests.kinds import KINDS

STEPS = 20
FOLDER = pathlib.Path(__file__).parent / "golden"
# There is one file for each minor version, since jax may change random bits and reductions with it.
FILE = FOLDER / f"jax-{'.'.join(jax.__version__.split('.')[:2])}.json"


def losses(kind: str, steps: int = STEPS) -> np.ndarray:
    """The losses f32[steps] of one kind."""
    learner = kinds.compiled(ae.chunked(kinds.learner(kind, 1e-2), 60))
    state = learner.init(jax.random.key(1), kinds.batch())
    state, found = kinds.train(learner, state, steps)
    assert int(state.step) == steps
    return found


@pytest.fixture(scope="module", params=KINDS)
def run(request):
    """Trains a kind for two epochs of 8 batches and 44 more steps; returns it with its losses."""
    return request.param, losses(request.param, 60)


def test_every_kind_learns(run):
    """The loss falls by at least a fifth. Fails if a gradient has the wrong sign."""
    _, found = run
    assert found.dtype == np.float32
    assert np.all(np.isfinite(found))
    first, last = found[:4].mean(), found[-8:].mean()
    # With a learned deviation the density may exceed one, so the loss may be negative.
    assert last < first - 0.2 * abs(first)


def test_losses_are_those_on_file(run):
    """They agree to 1e-4 with this version's file, and to 1 % with the files of other versions.

    Fails if a default changes: an initialisation, a key, a weight, the order of a split.
    """
    (kind, found), files = run, sorted(FOLDER.glob("jax-*.json"))
    assert len(files) >= 2
    for file in files:
        expected = json.loads(file.read_text())
        assert set(expected) == set(KINDS)
        rtol, atol = (1e-4, 0.0) if file == FILE else (0.01, 0.01)
        np.testing.assert_allclose(found[:STEPS], expected[kind], rtol, atol, err_msg=file.name)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps({kind: losses(kind).tolist() for kind in KINDS}, indent=1)
    FILE.write_text(text + "\n")
    print(f"wrote {FILE.relative_to(FOLDER.parent.parent)}")


if __name__ == "__main__":
    main()
