"""The flags of a command line, read by tyro; an error is one sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from typing import Any

from aejax.errors import UserError
from experiments.shared.place import Place

LONGEST = 600  # characters of the message about a command line
WORD = 100  # characters of a word of the command line in this message


def parsed_experiment(experiment: Any, arguments: list[str], *more: Any, **how: Any) -> Any:
    """Returns an experiment's settings, its `Place` and further records, from its flags.

    Args:
      experiment: the experiment.
      arguments: the words of the command line after its name; `--preset NAME` selects the settings
        that the other flags override.
      *more: further records, whose fields are flags too.
      **how: the arguments `prog` and `description` of `tyro.cli`.

    Raises:
      UserError: if a flag is unknown or missing, or its value is not of its type.
    """
    start, arguments = preset(experiment, arguments)
    fields = [
        (type(record).__name__.lower(), type(record), dataclasses.field(default=record))
        for record in (start, Place(), *more)
    ]
    made = parsed(dataclasses.make_dataclass("Flags", fields, frozen=True), args=arguments, **how)
    return tuple(getattr(made, field.name) for field in dataclasses.fields(made))


def parsed(function: Any, **how: Any) -> Any:
    """Calls a function with the flags of a command line, as tyro does; its errors are one sentence.

    Raises:
      UserError: if a flag is unknown or missing, or its value is not of its type.
      SystemExit: after --help.
    """
    import tyro

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            settings = (tyro.conf.OmitArgPrefixes, tyro.conf.PositionalRequiredArgs)
            return tyro.cli(function, config=settings, **how)
    except SystemExit as exit:
        if not exit.code:
            raise
        short = [word if len(word) <= WORD else f"{word[:WORD]}..." for word in how["args"]]
        if short != how["args"]:  # a long word would leave no room for the flag's name
            parsed(function, **{**how, "args": short})
        # The message stands in a box, perhaps coloured, whose lines end where the terminal does.
        plain = re.sub(r"\x1b\[[0-9;]*m", "", said.getvalue())
        lines = [re.sub("[^ -~]+", " ", line).strip() for line in plain.splitlines()]
        words = " ".join(" ".join(lines).split())
        for title in ("Parsing error ", "Value error ", "Unrecognized options "):
            words = words.removeprefix(title)
        words = re.sub(" Argument helptext: .*?(?= For full helptext)", "", words)
        words, _, advice = words.partition(" For full helptext, ")
        raise UserError(f"{words[:LONGEST]}; {advice or '--help lists all flags'}") from None


def preset(experiment: Any, arguments: list[str]) -> tuple[Any, list[str]]:
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
        known = ", ".join(experiment.presets) or "none"
        raise UserError(
            f"{experiment.name} has no preset {name!r} for --preset: choose one of its presets "
            f"({known})"
        )
    return experiment.presets[name], [*arguments[: given[0]], *rest]
