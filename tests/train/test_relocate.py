"""Splats that move, against what really happens to the loss."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import SIZE, growing_objective, objective_of, scene, some_splats

from pgsvc_codec.splats import Splats
from pgsvc_codec.train.relocate import Turns, relocate, removal_costs

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


def test_nothing_moves_where_nothing_can_be_gained(rng):
    splats = some_splats(rng, 60, signs=False)
    blank = objective_of(tuple(np.full((48, 60), 0.5, np.float32) for _ in range(3)), levels=1)
    shown = tuple(0.5 - plane for plane in blank.residuals(splats, BACKGROUND, [60])[0])
    objective = objective_of(shown, levels=1)
    step = objective.step(splats, BACKGROUND, [60], [1.0])
    assert len(relocate(objective, BACKGROUND, splats, step, [1.0], [60], 0, most=0.5).rows) == 0


@pytest.mark.parametrize("layers", [1, 3])
def test_layers_take_turns(layers):
    turns = Turns(4, 20, 3)
    taken = [turns.layer(iteration, layers) for iteration in range(30)]
    assert [iteration for iteration, layer in enumerate(taken) if layer is not None] == [4, 7, 10, 13, 16, 19]
    assert [layer for layer in taken if layer is not None] == [turn % layers for turn in range(6)]


def test_a_layer_without_a_supervised_level_of_its_size_moves_by_a_larger_one(faint):
    objective = growing_objective(scene(*SIZE), [(42, 32), SIZE])
    weights = [0.0, 1.0]
    step = objective.step(faint, BACKGROUND, ENDS, weights)
    moved = relocate(objective, BACKGROUND, faint, step, weights, ENDS, 0, most=0.5)
    assert len(moved.rows)
    assert moved.rows.max() < ENDS[0]
