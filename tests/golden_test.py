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


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_on_file(kind):
    """To 1e-4 those of this version of jax, where it has a file, and to 1 % those of all others.

    Fails if a default changes: an initialisation, a key, a weight, the order of a split.
    """
    found, files = losses(kind), sorted(FOLDER.glob("jax-*.json"))
    assert len(files) >= 2
    for file in files:
        expected = json.loads(file.read_text())
        assert set(expected) == set(KINDS)
        rtol, atol = (1e-4, 0.0) if file == FILE else (0.01, 0.01)
        np.testing.assert_allclose(found, expected[kind], rtol, atol, err_msg=file.name)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps({kind: losses(kind) for kind in KINDS}, indent=1)
    FILE.write_text(text + "\n")
    print(f"wrote {FILE.relative_to(FOLDER.parent.parent)}")


if __name__ == "__main__":
    main()
