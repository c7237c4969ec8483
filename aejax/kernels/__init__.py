"""Faster forms of the few expensive operations that XLA compiles badly."""
