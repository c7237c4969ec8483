"""Commands, one file each: a function `command` whose arguments are the flags.

Most of them work on a finished run.
"""
