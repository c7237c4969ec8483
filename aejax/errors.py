"""The exception for a user's bad input, which commands print without a traceback."""


class UserError(ValueError):
    """Bad input. The message says what was wrong, where, and what to do.

    Commands print the message and exit with status 2.
    """
