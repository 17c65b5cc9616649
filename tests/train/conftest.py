"""Fixtures of the fitting tests."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from pgsvc_codec.render.availability import is_interpreted


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.fixture(scope="module", autouse=True)
def _quick(one_thread: None) -> None:
    """Pictures are tiny here."""


@pytest.fixture(autouse=True)
def _captured(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a GPU would capture is watched where there is none."""
    if "cuda_device" not in request.fixturenames or not is_interpreted():
        yield
        return
    from interpreted import watched_replays

    with watched_replays():
        yield
