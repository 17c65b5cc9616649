"""Block motion: known shifts come back, and carry splats along."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import scene, some_splats

from pgsvc_codec.splats import Splats
from pgsvc_codec.train.motion import estimate_motion, follow


@pytest.fixture
def texture(rng):
    coarse = rng.random((20, 24))
    return np.kron(coarse, np.ones((8, 8))).astype(np.float32)


@pytest.mark.parametrize("shift", [(0, 0), (5, 0), (-3, 7), (16, -16), (-50, 33)])
def test_a_shift_is_found(texture, shift):
    motion = estimate_motion(texture, np.roll(texture, (shift[1], shift[0]), axis=(0, 1)))
    # blocks that came from within the picture
    border_x, border_y = (abs(side) // 16 + 2 for side in shift)
    inner = motion.vectors[border_y : -border_y or None, border_x : -border_x or None]
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


@pytest.mark.parametrize("shift", [(7, -5), (40, 12)])
def test_splats_go_where_their_surroundings_go(texture, rng, shift):
    height, width = texture.shape
    new = np.roll(texture, (shift[1], shift[0]), axis=(0, 1))
    splats = some_splats(rng, 30)
    inside = Splats(splats.means * np.float32(0.5), splats.cholesky, splats.colors)
    moved = follow(inside, estimate_motion(texture, new))
    pixels = (moved - inside.means) * np.array([width, height]) / 2
    np.testing.assert_allclose(pixels, np.tile(shift, (30, 1)), atol=0.35)  # fractions are guessed from slopes


def test_splats_go_by_fractions_of_a_pixel(rng):
    old, new = (scene(96, 80, (shift, 0.0))[0] for shift in (0.0, 1.5))
    splats = some_splats(rng, 30)
    inside = Splats(splats.means * np.float32(0.5), splats.cholesky, splats.colors)
    pixels = (follow(inside, estimate_motion(old, new)) - inside.means) * np.array([96, 80]) / 2
    assert np.median(pixels[:, 0]) == pytest.approx(1.5, abs=0.2)
    assert np.median(pixels[:, 1]) == pytest.approx(0.0, abs=0.2)


def test_two_things_move_apart(texture, rng):
    """A boundary within a block: splats on either side go their own ways."""
    new = texture.copy()
    new[:, :88] = np.roll(texture, 3, axis=1)[:, :88]
    new[:, 88:] = np.roll(texture, -4, axis=0)[:, 88:]
    x = np.array([76.0, 100.0])
    means = np.stack([2 * (x + 0.5) / texture.shape[1] - 1, np.zeros(2)], axis=1).astype(np.float32)
    splats = Splats(means, np.tile(np.float32([2, 0, 2]), (2, 1)), np.ones((2, 3), np.float32))
    moved = (follow(splats, estimate_motion(texture, new)) - means) * np.array(texture.shape[::-1]) / 2
    np.testing.assert_allclose(moved, [[3, 0], [0, -4]], atol=0.35)


def test_splats_outside_the_picture_stay_finite(texture):
    means = np.array([[-1.0, -1.0], [0.999, 0.999]], np.float32)
    splats = Splats(means, np.tile(np.float32([200, 0, 200]), (2, 1)), np.ones((2, 3), np.float32))
    assert np.isfinite(follow(splats, estimate_motion(texture, texture[::-1].copy()))).all()
