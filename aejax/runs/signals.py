"""SIGTERM and SIGINT: the first one makes a run save and stop, a second one stops it at once."""

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
    """Handles SIGTERM and SIGINT: during training it records the signal, otherwise it exits."""

    def __init__(self):
        self.received: int | None = None  # the number of the signal that has arrived
        self.polled = False  # True while the training loop checks `received` after every call
        self._before: dict[int, Any] = {}
        self._hook: Any = None  # the `sys.unraisablehook` that `install` replaced

    @property
    def status(self) -> int:
        """Returns the exit status 128 + signal, as shells do: 143 for SIGTERM, 130 for SIGINT."""
        return 128 + (self.received or 0)

    def install(self) -> None:
        """Installs handlers of SIGTERM and SIGINT, if it is called in the main thread.

        Python allows it in no other thread.
        """
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
            self._hook, sys.unraisablehook = sys.unraisablehook, self._swallowed

    def restore(self) -> None:
        """Restores the signal handlers and the `sys.unraisablehook` that `install` replaced."""
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if self._before:
            sys.unraisablehook = self._hook
        self._before = {}

    def _swallowed(self, unraisable: Any) -> None:
        """Sends the signal again if Python discarded the SystemExit of `_handle`.

        Python discards what is raised within a callback of the garbage collector, for example, and
        jax has such a callback. Without a second signal the process would go on.
        """
        if not isinstance(unraisable.exc_value, SystemExit) or self.received is None:
            self._hook(unraisable)
            return
        number, self.received = self.received, None
        again = threading.Timer(0.05, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        if not self.polled:
            raise SystemExit(self.status)
        # The signal may have interrupted a print, which cannot be called again before it returns,
        # so os.write is used.
        name = signal.Signals(number).name
        os.write(2, f"\n{name}: saving after this call; send it again to stop at once\n".encode())


def command() -> str:
    """Returns the command line that started this process, quoted for a shell."""
    return shlex.join(sys.orig_argv)
