"""The folder of a run: its config, checkpoints, metrics and result, written and read again."""
