"""Fixtures of the fitting tests."""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Pictures here are tiny: where the machine is busy, threads would wait for each other longer than they work."""
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(threads)
