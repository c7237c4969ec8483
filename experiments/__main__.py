"""The command line: it lists experiments, runs one, or runs a tool on a finished run."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import pkgutil
import signal
import sys
import threading
from types import FrameType, ModuleType
from typing import Any

import experiments
from experiments import benchmarks, tools

GROUPS = (
    ("experiments", experiments),
    ("benchmarks", benchmarks),
    ("tools, most of them for a finished run", tools),
)


def main(arguments: list[str]) -> int:
    """Runs one command and returns the exit status."""
    from aejax.errors import UserError  # takes seconds, in which SIGTERM may come

    commands = {name: module for _, package in GROUPS for name, module in _modules(package).items()}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_listing())
        return 0
    name, *rest = arguments
    try:
        if name not in commands:
            raise UserError(
                f"there is no command {name!r}: choose one of {', '.join(sorted(commands))}"
            )
        _run(name, commands[name], rest)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        # Reading and writing have errors of their own; this one comes from a path, such as a name
        # that is too long.
        print(f"error: {UserError(f'{error}; choose another path')}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # not raised in training, where Ctrl-C makes the run save and stop
        return 130
    return 0


def _modules(package: ModuleType) -> dict[str, ModuleType]:
    """Returns the modules of a package by the names of the commands that they define."""
    found = {}
    for entry in pkgutil.iter_modules(package.__path__):
        if not entry.ispkg and not entry.name.startswith("_"):
            module = importlib.import_module(f"{package.__name__}.{entry.name}")
            if any(hasattr(module, word) for word in ("EXPERIMENT", "command", "main")):
                found[entry.name.replace("_", "-")] = module
    return found


def _listing() -> str:
    lines = ["usage: python -m experiments NAME [--help] [flags]"]
    groups = {title: _modules(package) for title, package in GROUPS}
    width = max(len(name) for modules in groups.values() for name in modules)
    for title, modules in groups.items():
        lines += ["", f"{title}:"]
        for name, module in modules.items():
            lines.append(f"  {name:<{width}}  {(module.__doc__ or '').strip().splitlines()[0]}")
    return "\n".join(lines)


def _run(name: str, module: ModuleType, arguments: list[str]) -> None:
    """Parses the flags of the command or experiment that a module defines, and calls it."""
    from experiments.shared.flags import parsed, parsed_experiment
    from experiments.shared.numbers import check_arguments

    how = {"prog": f"python -m experiments {name}", "description": module.__doc__}
    if hasattr(module, "main"):  # its flags depend on its first word
        module.main(arguments, **how)
        return
    if hasattr(module, "command"):

        @functools.wraps(module.command)
        def bound(*given: Any, **named: Any) -> Any:
            return inspect.signature(module.command).bind(*given, **named)

        given = parsed(bound, args=arguments, **how)
        check_arguments(module.command, given.arguments)
        module.command(*given.args, **given.kwargs)
        return
    from experiments.shared.course import drive

    config, place = parsed_experiment(module.EXPERIMENT, arguments, **how)
    drive(module.EXPERIMENT, config, place)


def _stop(number: int, frame: FrameType | None) -> None:
    """Ends the command at SIGTERM with status 143; a run in training has a handler of its own."""
    print("SIGTERM: stopped; start the same command again to go on", file=sys.stderr, flush=True)
    raise SystemExit(128 + number)


def _swallowed(unraisable: Any) -> None:
    """Sends SIGTERM again if Python discarded the SystemExit of `_stop`.

    It discards what is raised within a callback of the garbage collector, of which jax has one.
    """
    if not isinstance(unraisable.exc_value, SystemExit):
        sys.__unraisablehook__(unraisable)
        return
    again = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
    again.daemon = True
    again.start()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.unraisablehook = _swallowed
    sys.exit(main(sys.argv[1:]))
