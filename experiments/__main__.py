"""The command line: it lists experiments, runs one, or runs a tool on a finished run."""

from __future__ import annotations

import importlib
import pkgutil
import signal
import sys
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

    prog = f"python -m experiments {name}"
    settings = (tyro.conf.OmitArgPrefixes, tyro.conf.PositionalRequiredArgs)
    if hasattr(module, "command"):
        tyro.cli(
            module.command, prog=prog, args=arguments, config=settings, description=module.__doc__
        )
        return
    from experiments.shared.course import drive
    from experiments.shared.place import Place

    experiment = module.EXPERIMENT
    start, arguments = _preset(experiment, arguments)

    def command(config: Any = start, place: Place = Place()) -> None:  # noqa: B008 (immutable)
        drive(experiment, config, place)

    command.__annotations__ = {"config": experiment.config, "place": Place, "return": None}
    tyro.cli(command, prog=prog, args=arguments, config=settings, description=module.__doc__)


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


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main(sys.argv[1:]))
