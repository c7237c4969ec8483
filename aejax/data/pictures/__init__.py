"""Data sets of pictures: prepared through tensorflow-datasets builders, or read from a folder."""
