"""Records a jax.profiler trace of a few chunks, which can be opened in Perfetto or XProf."""

from __future__ import annotations

import pathlib

import jax

CHUNKS = range(1, 4)  # the chunks to trace, counted from 0; chunk 0 is left out, as it compiles


class Trace:
    """Traces the chunks CHUNKS of a run, or does nothing if no trace is wanted."""

    def __init__(self, folder: pathlib.Path, wanted: bool):
        self._folder, self._wanted = folder, wanted
        self._seen, self._running = 0, False

    def chunk(self) -> None:
        """Counts a finished chunk, and starts or ends the trace accordingly."""
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
