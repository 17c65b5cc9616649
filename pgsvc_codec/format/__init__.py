"""Bytes to records and back (bitstream_spec.md, "Container").  Stdlib only; knows nothing of splats."""
