"""Fitting for rate and distortion: the `main` profile's way (design, section 8)."""
