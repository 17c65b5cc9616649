"""Where a fit begins: a background, and splats that cover the picture."""

from __future__ import annotations

import numpy as np
from scenes import SIZE, growing_objective, objective_of, scene

from pgsvc_codec.train.grid import split
from pgsvc_codec.train.start import mean_background, start_splats


def test_a_background_is_the_mean_in_code_values():
    background = mean_background((np.full((3, 4), 0.25, np.float32), np.array([[0, 1]], np.float32)))
    np.testing.assert_array_equal(background, np.array([64 / 255, 128 / 255], np.float32))


def test_a_start_covers_the_picture(rng):
    picture = scene(*SIZE)
    splats = start_splats(objective_of(picture), mean_background(picture), [100, 300], rng)
    assert len(splats) == 300
    assert np.abs(splats.means).max() <= 1
    for layer in split(splats, [100, 300]):
        quadrants = (layer.means[:, 0] > 0) * 2 + (layer.means[:, 1] > 0)
        assert np.bincount(quadrants, minlength=4).min() > len(layer) / 16


def test_lengths_are_full_size_pixels_whatever_the_level(rng):
    """A level of half the size shows the same splats: they start twice as many of its samples long."""
    picture = np.random.default_rng(0).random((56, 72)).astype(np.float32)
    small = growing_objective((picture,) * 3, [(36, 28)])
    lengths = [
        np.median(start_splats(objective, np.zeros(3, np.float32), [40], rng).cholesky[:, 0])
        for objective in (objective_of((picture,) * 3, levels=1), small)
    ]
    assert 0.8 < lengths[1] / lengths[0] < 1.25


def test_splats_asleep_are_the_last_of_each_layer_and_show_nothing(rng):
    picture = scene(*SIZE)
    splats = start_splats(objective_of(picture), np.zeros(3, np.float32), [10, 31], rng, awake=0.5)
    asleep = (splats.colors == 0).all(axis=1)
    assert np.flatnonzero(asleep).tolist() == [*range(5, 10), *range(21, 31)]
