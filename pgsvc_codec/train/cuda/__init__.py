"""Fitting on a GPU."""
