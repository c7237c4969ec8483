"""Records a jax.profiler trace of a few training calls, which Perfetto and XProf can show.

A call of the training function runs one or several training steps.
"""

from __future__ import annotations

import pathlib

import jax

# The indices of the calls to trace; call 0 is not traced, because it compiles the program.
CHUNKS = range(1, 4)


class Trace:
    """Records a trace of the training calls with indices in CHUNKS, if `wanted` is True."""

    def __init__(self, folder: pathlib.Path, wanted: bool):
        self._folder, self._wanted = folder, wanted
        self._seen, self._running = 0, False

    def chunk(self) -> None:
        """Counts a finished call, and starts or ends the trace when its index is reached."""
        self._seen += 1
        if self._wanted and self._seen == CHUNKS.start:
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        if self._seen == CHUNKS.stop:
            self.close()

    def close(self) -> None:
        """Writes the trace if one is being recorded."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
