"""Pixels in and out of files, pipes and containers.  Knows nothing of the codec."""
