"""Synthetic activations, whose true dictionary and true feature activations are known."""
