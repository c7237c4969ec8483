"""A jax.profiler trace of a few chunks, to be opened in Perfetto or XProf."""

from __future__ import annotations

import pathlib

import jax

CHUNKS = range(1, 4)  # counted from 0; the first one compiles


class Trace:
    """Traces CHUNKS of a run, or does nothing at all if not wanted."""

    def __init__(self, folder: pathlib.Path, wanted: bool):
        self._folder, self._wanted = folder, wanted
        self._seen, self._running = 0, False

    def chunk(self) -> None:
        """Says that another chunk has ended."""
        self._seen += 1
        if self._wanted and self._seen == CHUNKS.start:
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        if self._seen == CHUNKS.stop:
            self.close()

    def close(self) -> None:
        """Writes the trace if one is running."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
