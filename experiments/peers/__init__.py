"""Programs of benchmarks, each run by an interpreter that has the library that it measures."""
