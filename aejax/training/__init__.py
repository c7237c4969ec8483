"""From a model and an objective to a trained state: the learner, its wrappers and the loop."""
