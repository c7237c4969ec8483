"""Code that several experiments share: training, reports, folders, models and data."""
