"""Tests that campaigns of a few cases end well; `python -m tests.campaign` runs longer ones."""

import json

import pytest

from tests.campaign import __main__ as campaign
from tests.campaign.__main__ import NAMES
from tests.harm import needs_linux

FEW = {"files": 2, "commands": 0, "kills": 0}  # 0: behind slow alone


@needs_linux
@pytest.mark.parametrize("name", [name for name in NAMES if FEW[name]])
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
    campaign.main([name, "--count", "20", "--out", str(tmp_path)])
