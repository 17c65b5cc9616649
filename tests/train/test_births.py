"""Where new splats are proposed, against residuals of which the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from pgsvc_codec.train.births import find_births

SIZE = (96, 80)


def bump(x, y, deviation, size=SIZE):
    rows, columns = np.mgrid[: size[1], : size[0]]
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * deviation**2)).astype(np.float32)


def pixels(splats, size=SIZE):
    return (splats.means + 1) * np.array(size) / 2 - 0.5


@pytest.mark.parametrize("deviation", [1.0, 2.2, 4.5])
def test_a_birth_lies_on_the_error_is_as_large_and_gains_what_it_says(deviation):
    shape = bump(36.7, 52.2, deviation)
    residual = (0.3 * shape, -0.2 * shape, 0.1 * shape)
    births = find_births(residual, 1.0, SIZE, 4, 5)
    assert np.abs(pixels(births.splats)[0] - [36.7, 52.2]).max() <= 2
    assert births.splats.cholesky[0] == pytest.approx([0.7 * deviation, 0, 0.7 * deviation], rel=0.3)
    total = sum(float((plane**2).sum()) for plane in residual)
    assert births.gains[0] == pytest.approx(total, rel=0.25)
    shares = births.splats.colors[0] / [0.3, -0.2, 0.1]
    assert shares.min() > 0.4, "towards the error in every plane"
    assert shares.max() < 1, "but not beyond it: neighbours are born too"


def test_births_keep_clear_of_each_other_and_come_best_first():
    spots = [(20, 20, 1.0), (70, 20, 0.8), (20, 60, 0.6), (70, 60, 0.4)]
    residual = (sum(height * bump(x, y, 3.0) for x, y, height in spots).astype(np.float32),)
    births = find_births(residual, 1.0, SIZE, 50, 4)
    assert (np.diff(births.gains) <= 0).all()
    for place, (x, y, _) in zip(pixels(births.splats), spots, strict=True):
        assert np.abs(place - [x, y]).max() <= 3, "one on each spot, none beside another"


def test_a_birth_on_a_smaller_level_is_the_same_splat():
    """Squared errors of a level weigh as its samples would at full size, so gains are in full-size samples."""
    shape = bump(36.5, 40.5, 4.0)
    halved = shape.reshape(40, 2, 48, 2).mean(axis=(1, 3))
    full, small = (find_births((0.3 * plane,) * 3, 1.0, SIZE, 50, 1) for plane in (shape, halved))
    np.testing.assert_allclose(small.splats.means[0], full.splats.means[0], atol=3 * 2 / 96)
    np.testing.assert_allclose(small.splats.cholesky[0], full.splats.cholesky[0], rtol=0.5)
    assert small.gains[0] == pytest.approx(full.gains[0], rel=0.3)


def test_chroma_of_half_size_gets_its_colour_at_the_same_place():
    """The luma plane says where; colours come from each plane in its own samples."""
    luma = 0.5 * bump(40.5, 30.5, 3.0)
    chroma = 0.2 * bump(20, 15, 1.5, (48, 40))
    births = find_births((luma, chroma, -chroma), 1.0, SIZE, 50, 1)
    red, blue, green = births.splats.colors[0] / [0.5, 0.2, -0.2]
    assert blue == green
    assert blue == pytest.approx(red, rel=0.25)


def test_weights_of_levels_divide_what_they_multiplied():
    shape = 0.3 * bump(30, 30, 3.0)
    once, twice = (find_births((weight * shape,), weight, SIZE, 50, 1) for weight in (1.0, 2.0))
    np.testing.assert_allclose(once.splats.colors, twice.splats.colors, rtol=1e-5)
    assert twice.gains[0] == pytest.approx(2 * once.gains[0], rel=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (2, 5)])
def test_tiny_and_empty_residuals_are_no_trouble(size):
    births = find_births((np.ones(size[::-1], np.float32),), 1.0, size, 50, 3)
    assert len(births.gains) == len(births.splats) <= 3
    assert len(find_births((np.zeros((40, 40), np.float32),), 1.0, (40, 40), 50, 3).gains) == 0
