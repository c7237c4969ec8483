"""The losses of 20 steps of each kind, as files: what a change of numbers must own up to.

`python -m tests.golden_test` writes those of the jax that runs it.
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
# One file for each minor version: random bits and reductions are promised for no longer.
FILE = FOLDER / f"jax-{'.'.join(jax.__version__.split('.')[:2])}.json"


def losses(kind: str) -> list[float]:
    learner = ae.compiled(ae.chunked(kinds.learner(kind, 1e-2), 60))
    state = learner.init(jax.random.key(1), kinds.batch())
    return kinds.train(learner, state, STEPS)[1].tolist()


@pytest.mark.skipif(not FILE.exists(), reason=f"no {FILE.name}: python -m tests.golden_test")
@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_on_file(kind):
    """Fails if a default changes: an initialisation, a key, a weight, the order of a split."""
    expected = json.loads(FILE.read_text())
    assert set(expected) == set(KINDS)
    np.testing.assert_allclose(losses(kind), expected[kind], rtol=1e-4)


def test_files_of_all_versions_agree():
    """To 1 %: a kind that differs more between versions is broken in one of them."""
    files = sorted(FOLDER.glob("jax-*.json"))
    assert len(files) >= 2
    first, *others = (json.loads(file.read_text()) for file in files)
    for other in others:
        assert set(other) == set(first)
        for kind, values in first.items():
            np.testing.assert_allclose(other[kind], values, rtol=0.01, atol=0.01)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps({kind: losses(kind) for kind in KINDS}, indent=1)
    FILE.write_text(text + "\n")
    print(f"wrote {FILE.relative_to(FOLDER.parent.parent)}")


if __name__ == "__main__":
    main()
