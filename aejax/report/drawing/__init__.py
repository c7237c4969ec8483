"""Plots and grids of pictures, drawn by matplotlib."""
