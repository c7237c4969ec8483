"""Wrong command lines, made from the annotations of all experiments and tools.

Each has one flag with a value outside what its annotation states. The command must end with status
2 and one sentence that names the flag, within SECONDS, and leave nothing. A command runs in a fork
of this process, in which the modules are imported already: imports take most of a command's time.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import pathlib
import random
import select
import signal
import sys
import time
import typing
from collections.abc import Iterator
from typing import Any

from experiments import __main__ as commands

SECONDS = 10.0
# What is wrong for a number of any kind.
NUMBERS = (
    "x",
    "",
    "nan",
    "inf",
    "-inf",
    "1" + "0" * 80,
    str(2**80),
    "9" * 10_000,
    "1e5x",
    "²",
)
# Flags whose values outside the annotation are still right, or that are paths of one's own.
FREE = {"out", "data_dir", "manual_dir", "runtime", "peer_python", "model", "labels", "readme"}


def flags(module: Any) -> dict[str, Any]:
    """Returns name of a flag -> its annotation, for a command's numbers and choices."""
    if hasattr(module, "EXPERIMENT"):
        hints = typing.get_type_hints(module.EXPERIMENT.config)
        names = [field.name for field in dataclasses.fields(module.EXPERIMENT.config)]
    else:
        hints = typing.get_type_hints(module.command)
        given = inspect.signature(module.command).parameters.values()
        names = [each.name for each in given if each.default is not inspect.Parameter.empty]
    return {name: hints[name] for name in names if name not in FREE and _limited(hints[name])}


def _limited(hint: Any) -> bool:
    inner = set(typing.get_args(hint)) or {hint}
    number = bool(inner & {int, float}) and str not in inner
    return typing.get_origin(hint) is typing.Literal or number


def required(module: Any) -> list[str]:
    """Returns words for the arguments that a command must be given."""
    if hasattr(module, "EXPERIMENT"):
        return []
    hints = typing.get_type_hints(module.command)
    given = inspect.signature(module.command).parameters.values()
    needed = [each.name for each in given if each.default is inspect.Parameter.empty]
    return ["1" if hints[name] is int else "x" for name in needed]


def lines() -> list[tuple[str, str, str]]:
    """Returns every (command, flag, wrong value), in one order."""
    found = []
    for _, package in commands.GROUPS:
        for name, module in commands._modules(package).items():
            for flag, hint in flags(module).items():
                values = [*NUMBERS, "-1"] if hasattr(module, "EXPERIMENT") else NUMBERS
                if typing.get_origin(hint) is typing.Literal:
                    values = ["x", "", "9" * 10_000]
                if float in (hint, *typing.get_args(hint)):  # 2**80 is a float like others
                    values = [value for value in values if value != str(2**80)]
                found += [(name, flag, value) for value in values]
    random.Random(0).shuffle(found)
    return found


def units(cases: range, place: pathlib.Path) -> Iterator[str]:
    """Yields the name of the command of each case."""
    made = lines()
    groups = (commands._modules(package) for _, package in commands.GROUPS)
    modules = {name: module for group in groups for name, module in group.items()}
    for case in cases:
        name, flag, value = made[case % len(made)]
        inside = place / str(case)
        inside.mkdir()
        argument = f"--{flag.replace('_', '-')}={value}"
        words = [name, *required(modules[name]), argument]
        status, said, seconds = started(words, inside)
        what = f"case {case}: {name} {argument:.60}: status {status}, said {said!r:.600}"
        assert status == 2, what
        assert said.count("\n") == 1, what
        assert flag.replace("_", "-") in said, what
        assert len(said) < 1_000, what
        assert seconds < SECONDS, what
        assert list(inside.iterdir()) == [], what
        yield name


def started(arguments: list[str], place: pathlib.Path) -> tuple[int, str, float]:
    """Runs a command in a fork; returns its status, what it wrote to both outputs, and seconds."""
    begun = time.monotonic()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        # A test runner may have replaced these by files of its own.
        sys.stdout = sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        os.chdir(place)
        os.environ["TFDS_DATA_DIR"] = str(place / "data")
        try:
            status = commands.main(arguments)
        except SystemExit as exit:
            status = exit.code if isinstance(exit.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
            status = 70
        sys.stderr.flush()
        os._exit(status)
    os.close(writing)
    said, alive = b"", True
    while alive:
        ready, _, _ = select.select([reading], [], [], 60)
        block = os.read(reading, 2**16) if ready else b""
        if not ready:
            os.kill(child, signal.SIGKILL)
        said, alive = said + block, bool(block)
    os.close(reading)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, said.decode(errors="replace"), time.monotonic() - begun
