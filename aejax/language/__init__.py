"""A language model in Flax: run it, read its activations, write into them."""
