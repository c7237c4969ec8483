"""Tools for sparse dictionaries: plain weights, folding, objectives (recipes) and resampling."""
