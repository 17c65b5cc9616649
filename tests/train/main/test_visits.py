"""The order in which splats are settled."""

from __future__ import annotations

from itertools import combinations

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import objective_of, plan_of, scene

from pgsvc_codec.coding.main.state import STEPS
from pgsvc_codec.train.fit import fit_float
from pgsvc_codec.train.main.refine import refine_inter, refine_intra
from pgsvc_codec.train.main.visits import visits

SIZE = (400, 300)


def some_states(seed: int, count: int):
    rng = np.random.default_rng(seed)
    positions = (rng.uniform(-40, 400, (count, 2)) * 64).astype(np.int32)
    shapes = np.stack(
        [rng.integers(-512, 1800, count), rng.integers(-600, 600, count), rng.integers(-512, 1800, count)], axis=1
    )
    return positions, shapes.astype(np.int32)


@given(seed=st.integers(0, 1000), count=st.integers(0, 200), spacing=st.sampled_from([1.0, 2.0, 3.7]))
@settings(max_examples=40, deadline=None)
def test_every_splat_is_visited_once(seed: int, count: int, spacing: float) -> None:
    order = visits([some_states(seed, count)], spacing)
    rows = [order.large.rows] + [tile.rows for tiles in order.colors for tile in tiles]
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(count))


@given(seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_tiles_of_a_colour_never_touch_and_hold_their_splats(seed: int) -> None:
    positions, shapes = some_states(seed, 150)
    for tiles in visits([(positions, shapes)], 1.0).colors:
        for (left, right, top, bottom), (first, last, upper, lower) in combinations([t.bounds for t in tiles], 2):
            assert right <= first or last <= left or bottom <= upper or lower <= top
        for tile in tiles:
            reach = 4.07 * np.exp2(shapes[tile.rows][:, ::2] / 256)
            reach[:, 1] *= np.sqrt(1 + (shapes[tile.rows, 1] / 256) ** 2)
            centers = positions[tile.rows] / 64 - 0.5
            assert (centers - reach >= tile.bounds[::2]).all()
            assert (centers + reach < tile.bounds[1::2]).all()


def test_splats_that_may_move_far_are_large() -> None:
    positions = np.full((1, 2), 64 * 64, np.int32)
    shapes = np.zeros((1, 3), np.int32)
    assert visits([(positions, shapes)], 1.0).colors
    assert not visits([(positions, shapes), (positions + np.int32(200 * 64), shapes)], 1.0).colors


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS == 1, reason="one core")
def test_the_number_of_threads_does_not_matter() -> None:
    picture = scene(*SIZE)
    objective = objective_of(picture)
    fit = fit_float(objective, plan_of(SIZE, splats=600, iterations=15), np.random.default_rng(3))
    index = 38
    lambdas = [0.1 * (STEPS[index] / 4096) ** 2] * 3
    weights = (0.5, 0.5, 1.0)
    found = []
    for number in (1, 2):
        numba.set_num_threads(number)
        whole = refine_intra(
            objective, fit.background, fit.layers, [index] * 3, lambdas, weights, opponent=True, passes=4
        )
        reborn = [np.zeros(len(layer), np.bool_) for layer in fit.layers]
        moved = objective_of(scene(*SIZE, shift=(1.0, 0.0)))
        nearest = refine_intra(
            objective, fit.background, fit.layers, [index] * 3, [0.0] * 3, weights, opponent=True, passes=0
        ).layers
        layers = [layer[: len(state)] for layer, state in zip(fit.layers, nearest, strict=True)]
        reborn = [mask[: len(state)] for mask, state in zip(reborn, nearest, strict=True)]
        slots = refine_inter(
            moved, fit.background, nearest, layers, reborn, [index] * 3, lambdas, weights, opponent=True, passes=2
        )
        found.append((*whole.layers, *slots.layers))
    numba.set_num_threads(1)
    assert sum(len(layer) for layer in found[0]) > 200
    assert all(one.equals(other) for one, other in zip(*found, strict=True))
