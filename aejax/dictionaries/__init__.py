"""What is done with a trained sparse dictionary: plain weights, folding, recipes, resampling."""
