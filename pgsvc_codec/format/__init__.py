"""Bytes to records and back (bitstream_spec.md, sections 3 to 5).  Stdlib only; knows nothing of splats."""
