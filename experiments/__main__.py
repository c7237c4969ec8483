"""The command line: it lists experiments, runs one, or runs a tool on a finished run."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import io
import os
import pkgutil
import re
import signal
import sys
import threading
from types import FrameType, ModuleType
from typing import Any

import experiments
from experiments import benchmarks, tools

LONGEST = 600  # characters of the message about a command line
WORD = 100  # characters of a word of the command line in this message

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
            if hasattr(module, "EXPERIMENT") or hasattr(module, "command"):
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
    import tyro

    from experiments.shared.numbers import check_arguments

    prog = f"python -m experiments {name}"
    settings = (tyro.conf.OmitArgPrefixes, tyro.conf.PositionalRequiredArgs)
    how = {"prog": prog, "config": settings, "description": module.__doc__}
    if hasattr(module, "command"):

        @functools.wraps(module.command)
        def bound(*given: Any, **named: Any) -> Any:
            return inspect.signature(module.command).bind(*given, **named)

        given = _parsed(bound, args=arguments, **how)
        check_arguments(module.command, given.arguments)
        module.command(*given.args, **given.kwargs)
        return
    from experiments.shared.course import drive
    from experiments.shared.place import Place

    experiment = module.EXPERIMENT
    start, arguments = _preset(experiment, arguments)

    def both(config: Any = start, place: Place = Place()) -> Any:  # noqa: B008 (immutable)
        return config, place

    both.__annotations__ = {"config": experiment.config, "place": Place, "return": Any}
    drive(experiment, *_parsed(both, args=arguments, **how))


def _parsed(function: Any, **how: Any) -> Any:
    """Calls a function with the flags of a command line, as tyro does; its errors are one sentence.

    Raises:
      UserError: if a flag is unknown or missing, or its value is not of its type.
      SystemExit: after --help.
    """
    import tyro

    from aejax.errors import UserError

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(function, **how)
    except SystemExit as exit:
        if not exit.code:
            raise
        short = [word if len(word) <= WORD else f"{word[:WORD]}..." for word in how["args"]]
        if short != how["args"]:  # a long word would leave no room for the flag's name
            _parsed(function, **{**how, "args": short})
        # The message stands in a box, perhaps coloured, whose lines end where the terminal does.
        plain = re.sub(r"\x1b\[[0-9;]*m", "", said.getvalue())
        lines = [re.sub("[^ -~]+", " ", line).strip() for line in plain.splitlines()]
        words = " ".join(" ".join(lines).split())
        for title in ("Parsing error ", "Value error ", "Unrecognized options "):
            words = words.removeprefix(title)
        words = re.sub(" Argument helptext: .*?(?= For full helptext)", "", words)
        words, _, advice = words.partition(" For full helptext, ")
        raise UserError(f"{words[:LONGEST]}; {advice or '--help lists all flags'}") from None


def _preset(experiment: Any, arguments: list[str]) -> tuple[Any, list[str]]:
    """Returns the config that the flag `--preset NAME` selects, and the arguments without the flag.

    Without the flag, the config is the default one. The remaining flags override its fields.
    """
    given = [i for i, word in enumerate(arguments) if word.partition("=")[0] == "--preset"]
    if not given:
        return experiment.config(), arguments
    word, *rest = arguments[given[0] :]
    _, equals, name = word.partition("=")
    if not equals:
        name, rest = (rest[0], rest[1:]) if rest else ("", rest)
    if name not in experiment.presets:
        from aejax.errors import UserError

        known = ", ".join(experiment.presets) or "none"
        raise UserError(
            f"{experiment.name} has no preset {name!r} for --preset: choose one of its presets "
            f"({known})"
        )
    return experiment.presets[name], [*arguments[: given[0]], *rest]


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
