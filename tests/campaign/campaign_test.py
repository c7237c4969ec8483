"""Tests that campaigns of a few cases end well; `python -m tests.campaign` runs longer ones."""

import json

import pytest

from tests import kinds
from tests.campaign import __main__ as campaign
from tests.campaign.__main__ import NAMES
from tests.harm import needs_linux

FEW = {"files": 2}  # the others are behind slow alone; a few kills are in `runs/run_test.py`


@needs_linux
@pytest.mark.parametrize("name", FEW)
def test_a_few_cases_end_well_and_the_next_go_on(tmp_path, name):
    """Fails if a campaign begins anew when it is started again."""
    for count in (1, FEW[name]):
        campaign.main([name, "--count", str(count), "--out", str(tmp_path)])
        kept = json.loads((tmp_path / f"{name}.json").read_text())
        assert kept["done"] == sum(kept["cases"].values()) == count


@needs_linux
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_more_cases_end_well(tmp_path, name):
    """Each runs in a process of its own, because one in which jax computes cannot fork."""
    words = ("-m", "tests.campaign", name, "--count", "20", "--out", str(tmp_path))
    kinds.output(kinds.python(*words), 1_800)
