"""Splats that move, against what really happens to the loss."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import SIZE, growing_objective, objective_of, scene, some_splats

from pgsvc_codec.splats import Splats
from pgsvc_codec.train.relocate import relocate, removal_costs

BACKGROUND = np.full(3, 0.5, np.float32)
ENDS = [20, 60]
WEIGHTS = [0.5, 1.0]


def test_removal_costs_what_it_says(rng):
    objective = objective_of(scene(60, 48), levels=2)
    splats = some_splats(rng, 12, signs=False)
    splats = Splats(splats.means * np.float32(0.8), splats.cholesky, splats.colors)  # the frame cuts none off
    ends = [5, 12]
    step = objective.step(splats, BACKGROUND, ends, WEIGHTS)
    costs = removal_costs(splats, step, WEIGHTS, ends)
    before = objective.loss(step.squared_error, WEIGHTS)
    for n in range(len(splats)):
        rest = splats[np.arange(len(splats)) != n]
        shorter = [end - (n < end) for end in ends]
        after = objective.loss(objective.step(rest, BACKGROUND, shorter, WEIGHTS).squared_error, WEIGHTS)
        assert (after - before) * 60 * 48 == pytest.approx(costs[n], rel=0.03, abs=0.02)


@pytest.fixture
def faint(rng):
    """A frame's splats, of which hardly any shows anything."""
    splats = some_splats(rng, 60, signs=False)
    return Splats(splats.means, splats.cholesky, splats.colors * np.float32(0.02))


@pytest.mark.parametrize("layer", [0, 1])
def test_moves_lower_the_loss_and_stay_within_their_layer(faint, layer):
    objective = objective_of(scene(60, 48), levels=2)
    step = objective.step(faint, BACKGROUND, ENDS, WEIGHTS)
    moved = relocate(objective, BACKGROUND, faint, step, WEIGHTS, ENDS, layer, most=0.2)
    layer_rows = np.arange(60)[: ENDS[0]] if layer == 0 else np.arange(60)[ENDS[0] :]
    assert 0 < len(moved.rows) == len(moved.splats) <= 0.2 * len(layer_rows)
    assert np.isin(moved.rows, layer_rows).all()
    changed = [column.copy() for column in (faint.means, faint.cholesky, faint.colors)]
    for column, new in zip(changed, (moved.splats.means, moved.splats.cholesky, moved.splats.colors), strict=True):
        column[moved.rows] = new
    after = objective.step(Splats(*changed), BACKGROUND, ENDS, WEIGHTS)
    assert objective.loss(after.squared_error, WEIGHTS) < objective.loss(step.squared_error, WEIGHTS)


def test_nothing_moves_where_a_move_costs_more_than_it_gains(faint):
    objective = objective_of(scene(60, 48), levels=2)
    step = objective.step(faint, BACKGROUND, ENDS, WEIGHTS)
    error = objective.loss(step.squared_error, WEIGHTS) * 60 * 48
    assert len(relocate(objective, BACKGROUND, faint, step, WEIGHTS, ENDS, 1, most=0.5, price=error).rows) == 0


def test_a_layer_without_a_supervised_level_of_its_size_moves_by_a_larger_one(faint):
    objective = growing_objective(scene(*SIZE), [(42, 32), SIZE])
    weights = [0.0, 1.0]
    step = objective.step(faint, BACKGROUND, ENDS, weights)
    moved = relocate(objective, BACKGROUND, faint, step, weights, ENDS, 0, most=0.5)
    assert len(moved.rows)
    assert moved.rows.max() < ENDS[0]
