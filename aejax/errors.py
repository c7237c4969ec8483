"""The exception that is raised when a user's input is wrong."""


class UserError(ValueError):
    """The user's input is wrong. The message says what was wrong, where, and what to do.

    Commands print the message without a traceback and exit with status 2.
    """
