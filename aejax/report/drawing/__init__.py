"""Plots and grids of images, drawn with matplotlib."""
