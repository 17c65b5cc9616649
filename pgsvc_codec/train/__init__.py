"""Fitting splats to pixels (paper, section 3).  The only place, with the encoder, that uses torch."""
