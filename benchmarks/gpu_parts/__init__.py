"""The parts of `gpu.py`, and what they share."""
