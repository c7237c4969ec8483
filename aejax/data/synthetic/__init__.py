"""Synthetic activations whose true features (dictionary and activity) are known."""
