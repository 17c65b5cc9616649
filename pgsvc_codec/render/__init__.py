"""Splats to pixels: a slow reference that defines the result, and fast backends that are held to it."""
