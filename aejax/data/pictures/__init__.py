"""Data sets of pictures, prepared by builders of tensorflow-datasets or read from a folder."""
