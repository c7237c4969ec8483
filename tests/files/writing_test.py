"""Tests that what killed processes left behind is removed, and nothing else."""

import os
import subprocess
import sys

from aejax.files import remove_leftovers, write_bytes
from aejax.runs.run import Run


def dead():
    """Returns the number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
        process.wait()
    return process.pid


def test_a_file_is_replaced_and_its_leftovers_removed(tmp_path):
    """Fails if leftovers stay, or if those of a living process or of other files go."""
    old = tmp_path / f".a.json.{dead()}.tmp"
    alive, other = tmp_path / f".a.json.{os.getppid()}.tmp", tmp_path / f".b.json.{dead()}.tmp"
    for path in (old, alive, other):
        path.touch()
    write_bytes(tmp_path / "a.json", b"{}")
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "a.json", alive, other])
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "a.json", alive])


def test_a_run_removes_leftovers_of_its_files_when_it_starts(tmp_path):
    """Fails if one of config.json stays, which is not written again if it has not changed."""
    for _ in range(2):
        (tmp_path / f".config.json.{dead()}.tmp").touch()
        with Run(tmp_path, {"steps": 1}):
            assert not list(tmp_path.glob(".*"))
