"""Splats to pixels: a slow reference that defines the result, and fast backends that are held to it."""

import os

# OpenMP reads this when it is loaded, so it must stand before numba's or torch's copy is.  Waiting threads that spin
# take the cores from whoever else is working: two encodes on two cores ran six times slower than with sleeping ones.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
