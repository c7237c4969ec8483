"""Training: the learner (the functions that train a model), its wrappers, and the training loop."""
