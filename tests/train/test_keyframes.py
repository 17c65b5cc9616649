"""Where GOPs begin: by motion, and by two small fits."""

from __future__ import annotations

import numpy as np
import pytest

from pgsvc_codec.train.keyframes import is_cut, is_foreign
from pgsvc_codec.train.motion import Motion, estimate_motion


@pytest.fixture
def texture(rng):
    coarse = rng.random((20, 24))
    return np.kron(coarse, np.ones((8, 8))).astype(np.float32)


def test_another_scene_is_a_cut_and_motion_is_not(rng, texture):
    other = np.kron(rng.random((20, 24)), np.ones((8, 8))).astype(np.float32)
    moved = estimate_motion(texture, np.roll(texture, 4, axis=1))
    changed = estimate_motion(texture, other)
    assert not is_cut(moved, 10, 25, 2, 40)
    assert is_cut(changed, 10, 25, 2, 40)
    assert not is_cut(changed, 1, 25, 2, 40), "closer to the last cut than min_keyint"
    assert not is_cut(changed, 10, 25, 2, 0), "switched off"


def test_the_longer_a_gop_is_the_weaker_the_evidence_that_ends_it():
    doubtful = Motion(np.zeros((1, 1, 2), np.float32), residual=0.07, texture=0.1)
    assert not is_cut(doubtful, 2, 25, 2, 40)
    assert is_cut(doubtful, 25, 25, 2, 40)


def test_a_flash_is_foreign_and_noise_on_a_flat_picture_is_not():
    vectors = np.zeros((1, 1, 2), np.float32)
    assert is_foreign(Motion(vectors, residual=0.3, texture=0.2))
    assert not is_foreign(Motion(vectors, residual=0.1, texture=0.2))
    assert not is_foreign(Motion(vectors, residual=0.002, texture=0.001))
