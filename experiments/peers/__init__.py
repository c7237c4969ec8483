"""Other libraries' programs, each run by an interpreter of its own that has that library."""
