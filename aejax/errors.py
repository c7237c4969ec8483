"""The one exception for a person's bad input: printed as one sentence, without a traceback."""


class UserError(ValueError):
    """Bad input: says what was wrong, where, and what to do; the commands exit with status 2."""
