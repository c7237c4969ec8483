"""SIGTERM and SIGINT: the first one asks a run to save and stop, a second one stops it at once."""

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
    """Handles SIGTERM and SIGINT: during training it only records the signal, else it exits."""

    def __init__(self):
        self.received: int | None = None  # the number of the signal that has arrived
        self.polled = False  # True while the training loop checks `received` after every call
        self._before: dict[int, Any] = {}

    @property
    def status(self) -> int:
        """The process' exit status, 128 + signal as in shells: SIGTERM 143, SIGINT 130."""
        return 128 + (self.received or 0)

    def install(self) -> None:
        """Installs handlers for both signals in the main thread; Python allows no other thread."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}

    def restore(self) -> None:
        """Restores the handlers that were there before `install`."""
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        if not self.polled:
            raise SystemExit(self.status)
        # os.write is used because the signal may have interrupted a print, which is not reentrant.
        name = signal.Signals(number).name
        os.write(2, f"\n{name}: saving after this call; send it again to stop at once\n".encode())


def command() -> str:
    """Returns the command line that started this process, quoted for a shell."""
    return shlex.join(sys.orig_argv)
