"""Splats to symbols to segment bytes, and back (bitstream_spec.md, "Coding").  NumPy and constriction."""
