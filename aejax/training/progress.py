"""The progress bar: it shows steps, steps per second, time left and loss on a terminal."""

from __future__ import annotations

import importlib.util
import sys
import time
from typing import Any


class Progress:
    """A bar on stderr that advances after each call of the step.

    Nothing is drawn if stderr is not a terminal or if rich is not installed.
    """

    def __init__(self, done: int, steps: int, show: bool | None = None):
        self._done, self._steps = done, steps
        wanted = sys.stderr.isatty() if show is None else show and sys.stderr.isatty()
        self._show = wanted and done < steps and importlib.util.find_spec("rich") is not None
        self._bar: Any = None
        self._task: Any = None
        self._since: tuple[float, int] | None = None

    def __enter__(self) -> Progress:
        if self._show:
            from rich import progress
            from rich.console import Console

            self._bar = progress.Progress(
                progress.TextColumn("step"),
                progress.MofNCompleteColumn(),
                progress.BarColumn(),
                progress.TextColumn("{task.fields[rate]}"),
                progress.TimeRemainingColumn(),
                progress.TextColumn("{task.fields[loss]}"),
                console=Console(stderr=True),
                auto_refresh=False,  # The bar is redrawn after each call, not ten times a second.
            )
            self._bar.start()
            self._task = self._bar.add_task(
                "", total=self._steps, completed=self._done, rate="compiling", loss=""
            )
        return self

    def move(self, done: int, loss: float) -> None:
        """Shows that `done` steps have been taken, and the loss of the last one."""
        if self._bar is None:
            return
        rate = ""
        if self._since is None:
            self._since = (time.monotonic(), done)  # The first call, which compiles, is not timed.
        else:
            begun, first = self._since
            rate = f"{(done - first) / max(time.monotonic() - begun, 1e-9):.1f} steps/s"
        self._bar.update(self._task, completed=done, rate=rate, loss=f"loss {loss:.5g}")
        self._bar.refresh()

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()
