"""Benchmarks: how fast the library is beside other libraries and the floor of the machine."""
