"""Checks that reading a file takes little time and memory, which several tests share."""

import contextlib
import pathlib
import sys
import time

import pytest

SECONDS = 5.0  # the most time of a processor that a reader may take to refuse a file
ROOM = 2**28  # the most bytes that it may hold meanwhile

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@contextlib.contextmanager
def little():
    """Fails if the block takes more than SECONDS, or ROOM more bytes than the process held."""
    # The kernel then forgets how much memory the process held at most.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before, begun = resident("VmRSS"), time.process_time()
    yield
    assert time.process_time() - begun < SECONDS
    assert resident("VmHWM") - before < ROOM


def resident(field):
    """Returns a figure of /proc/self/status in bytes: VmRSS, or VmHWM for the most so far."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"/proc/self/status has no {field}")
