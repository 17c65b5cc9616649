"""Block motion: known shifts come back, and carry splats along."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import scene

from pgsvc_codec.train.motion import Motion, estimate_motion, move


@pytest.fixture
def texture(rng):
    coarse = rng.random((20, 24))
    return np.kron(coarse, np.ones((8, 8))).astype(np.float32)


@pytest.mark.parametrize("shift", [(0, 0), (5, 0), (-3, 7), (16, -16)])
def test_a_shift_is_found(texture, shift):
    motion = estimate_motion(texture, np.roll(texture, (shift[1], shift[0]), axis=(0, 1)))
    inner = motion.vectors[1:-1, 1:-1]
    assert (inner == np.array(shift)).all()


def test_nothing_moves_on_a_flat_picture():
    flat = np.full((70, 50), 0.5, np.float32)
    motion = estimate_motion(flat, flat)
    assert not motion.vectors.any()
    assert motion.residual == motion.texture == 0


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (33, 31)])
def test_small_pictures(size):
    plane = scene(*size)[0]
    assert estimate_motion(plane, plane).residual == 0


def test_splats_follow_the_field():
    motion = Motion(np.full((3, 4, 2), (6.0, -3.0), np.float32), 0.0, 1.0)
    means = np.array([[0, 0], [-0.9, 0.9]], np.float32)
    moved = move(means, motion, 128, 96)
    np.testing.assert_allclose(moved - means, np.tile([6 * 2 / 128, -3 * 2 / 96], (2, 1)), atol=1e-6)


def test_splats_between_blocks_get_the_vectors_in_between():
    vectors = np.zeros((1, 2, 2), np.float32)
    vectors[0, 1, 0] = 8
    middle = np.array([[0.0, 0.0]], np.float32)  # of a 64 x 32 frame: between the two blocks' centres
    moved = move(middle, Motion(vectors, 0.0, 1.0), 64, 32)
    np.testing.assert_allclose(moved[0, 0] * 32, 4, atol=1e-5)
