"""SIGTERM and SIGINT: a first one asks a run to save and stop, a second one stops it at once."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Remembers a signal while steps are taken; at any other time it ends the process by itself."""

    def __init__(self):
        self.received: int | None = None
        self.patient = False  # somebody will look at `received` soon
        self._before: dict[int, Any] = {}

    @property
    def status(self) -> int:
        """The exit status that shells know: 143 for SIGTERM, 130 for SIGINT."""
        return 128 + (self.received or 0)

    def install(self) -> None:
        """Takes both signals; outside the main thread, where Python allows no handlers, neither."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}

    def restore(self) -> None:
        """Gives the signals back to who had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        if not self.patient:
            raise SystemExit(self.status)
        # Not print: the signal may have come in the middle of one.
        name = signal.Signals(number).name
        os.write(2, f"\n{name}: saving after this chunk; again to stop at once\n".encode())


def command() -> str:
    """The command that started this process, to be pasted into a shell."""
    return shlex.join(sys.orig_argv)
