"""Commands on a finished run, one file each: a function `command` whose arguments are the flags."""
