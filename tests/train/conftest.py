"""Fixtures of the fitting tests."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.fixture(scope="module", autouse=True)
def _quick(one_thread: None) -> None:
    """Pictures are tiny here."""
