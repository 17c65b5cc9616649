"""In which order a GPU settles splats."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pgsvc_codec.train.cuda.tiles import Tiles, cut


def some_states(seed: int, count: int):
    rng = np.random.default_rng(seed)
    positions = (rng.uniform(-40, 400, (count, 2)) * 64).astype(np.int32)
    lengths = rng.integers(-512, 1800, (count, 2))
    return positions, np.stack([lengths[:, 0], rng.integers(-600, 600, count), lengths[:, 1]], axis=1).astype(np.int32)


def rows_of(tiles: Tiles, tile: int):
    return tiles.order[tiles.starts[tile] : tiles.starts[tile + 1]]


@given(seed=st.integers(0, 1000), count=st.integers(0, 200))
@settings(max_examples=40)
def test_every_splat_is_settled_once_on_cuda(seed: int, count: int) -> None:
    tiles = cut([some_states(seed, count)], np.arange(count) % 2 == 0)
    np.testing.assert_array_equal(np.sort(tiles.order), np.arange(count))
    numbers = [tile for first, number, _ in tiles.groups for tile in range(first, first + number)]
    assert numbers == list(range(len(tiles.starts) - 1))
    assert len(tiles.bounds) == len(tiles.starts)
    assert (np.diff(tiles.starts) > 0).all()


@given(seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_tiles_of_a_group_on_cuda_never_touch_and_hold_their_splats(seed: int) -> None:
    positions, shapes = some_states(seed, 150)
    tiles = cut([(positions, shapes)], np.arange(150) % 2 == 0)
    assert len(tiles.groups) > 4
    for first, number, _ in tiles.groups:
        bounds = tiles.bounds[first : first + number]
        for (left, right, top, bottom), (start, end, upper, lower) in combinations(bounds, 2):
            assert right < start or end < left or bottom < upper or lower < top
        for tile in range(first, first + number):
            rows = rows_of(tiles, tile)
            reach = 4.07 * np.exp2(shapes[rows][:, ::2] / 256)
            reach[:, 1] *= np.sqrt(1 + (shapes[rows, 1] / 256) ** 2)
            centers = positions[rows] / 64 - 0.5
            assert (centers - reach >= tiles.bounds[tile, ::2]).all()
            assert (centers + reach < tiles.bounds[tile, 1::2]).all()


def test_splats_on_cuda_lie_in_the_smallest_tile_that_holds_them_whatever_becomes_of_them() -> None:
    positions = np.full((3, 2), 64 * 70, np.int32)
    shapes = np.array([[100, 0, 0], [600, 0, 0], [1800, 0, 1800]], np.int32)
    settled, loose = np.zeros(3, np.bool_), np.array([True, False, False])
    for kind, smallest in ((settled, 16), (loose, 32)):  # what is not settled yet may move farther
        tiles = cut([(positions, shapes)], kind)
        sides = np.diff(tiles.bounds[:, :2], axis=1)[:, 0] / 2
        assert sides.tolist() == [64.0 - 1 / 64, smallest - 1 / 64, np.inf]
        assert tiles.order.tolist() == [1, 0, 2]
    tiles = cut([(positions, shapes), (positions + np.int32(900 * 64), shapes)], settled)
    assert tiles.groups == []
