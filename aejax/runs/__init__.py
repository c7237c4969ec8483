"""Writes and reads the folder of a training run: config, checkpoints, metrics and result."""
