"""The tools of the `main` profile: integer splat state, steps that follow energy, adaptive binary models (spec §7)."""
