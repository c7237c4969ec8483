"""The one exception for a person's bad input: printed as one sentence, without a traceback."""


class UserError(ValueError):
    """Bad input: says what was wrong, where, and what to do; the commands exit with status 2."""


def check_least(owner: object, least: int, *names: str) -> None:
    """Raises UserError for the first of an object's numbers that is below the least."""
    for name in names:
        value = getattr(owner, name)
        if value < least:
            raise UserError(f"{name} of {type(owner).__name__} is {value}: give {least} or more")
