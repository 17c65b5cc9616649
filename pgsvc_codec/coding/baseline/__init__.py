"""The `baseline` profile's tools, the paper's: scalar quantiser, residual VQ, range-coded columns (spec, 6)."""
