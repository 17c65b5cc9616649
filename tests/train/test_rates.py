"""Learning rates and memory of the optimiser."""

from __future__ import annotations

import pytest

from pgsvc_codec.train.rates import betas_of
from pgsvc_codec.train.tuning import DEFAULTS, Tuning


def test_shorter_fits_forget_sooner_within_reason():
    decays = [betas_of(DEFAULTS, iterations)[0] for iterations in (0, 1, 60, 300, 1000, 8000)]
    assert decays == sorted(decays)
    assert decays[0] == decays[2] == pytest.approx(0.75, abs=0.01)
    assert decays[-1] < 1


def test_what_is_told_is_taken():
    assert betas_of(Tuning(betas=(0.9, 0.99)), 60) == (0.9, 0.99)
