"""Faster implementations of the few expensive operations for which XLA's programs are slow."""
