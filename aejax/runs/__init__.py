"""The folder of a run: writes and reads its config, checkpoints, metrics and result."""
