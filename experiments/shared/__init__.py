"""Code that several experiments share: training, reports, run folders, models and data."""
