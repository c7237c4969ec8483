"""Training: the learner, the wrappers around it, and the loop that runs it."""
