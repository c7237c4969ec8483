"""Programs that benchmarks time; each needs a Python interpreter with the library it measures."""
