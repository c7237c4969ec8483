"""Writes and reads the folder of a training run: its config, checkpoints, metrics and result."""
