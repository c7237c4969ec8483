"""Log-probabilities frozen from scvi-tools, and the program that writes them."""
