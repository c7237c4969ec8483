"""Tools for sparse dictionaries: recipes, objectives, plain weights, folding and resampling."""
