"""Benchmarks of the library's speed, compared with other libraries and limits of the machine."""
