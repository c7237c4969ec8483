"""The exception that is raised when a user's input is wrong."""

import re

LONGEST = 200  # characters of one word of a message, such as a path


class UserError(ValueError):
    """The user's input is wrong. The message says what was wrong, where, and what to do.

    Commands print the message without a traceback and exit with status 2.

    A message may hold names from files and command lines. It is therefore one line: control
    characters are escaped, and a word of more than LONGEST characters is cut.
    """

    def __init__(self, message: str):
        super().__init__(_one_line(message))


def _one_line(text: str) -> str:
    escaped = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return re.sub(rf"\S{{{LONGEST + 1},}}", lambda word: word[0][: LONGEST - 3] + "...", escaped)
