"""Benchmarks: the library's speed, compared with other libraries and with the machine's limits."""
