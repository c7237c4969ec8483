"""Tools, one file each: a function `command` whose arguments are the flags of the command.

Most of them work on the folder of a finished run.
"""
