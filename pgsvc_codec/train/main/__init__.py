"""Fitting for rate and distortion together: what the `main` profile is encoded by."""
