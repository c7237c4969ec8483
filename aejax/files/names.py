"""Checks of names that become parts of a path, so that no name leads out of its folder."""

from __future__ import annotations

import re

from aejax.errors import UserError

LONGEST = 100  # characters of a name


def check_name(name: str, what: str) -> str:
    """Returns a name that becomes the name of a file or folder, or a part of it.

    Args:
      name: the name.
      what: what is named, for the error message, such as "--name".

    Raises:
      UserError: if the name is empty, has more than LONGEST characters, begins with a dot or a
        hyphen, or has characters other than letters and digits of ASCII, dots, hyphens and
        underscores.
    """
    if not re.fullmatch(rf"[A-Za-z0-9_][A-Za-z0-9._-]{{0,{LONGEST - 1}}}", name):
        raise UserError(
            f"{what} is {name!r:.60}, which cannot be a name: use letters, digits, '-', '_' and "
            f"'.', at most {LONGEST}, beginning with a letter, a digit or '_'"
        )
    return name
