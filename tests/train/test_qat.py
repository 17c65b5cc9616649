"""Splats settle on their grid group by group."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import SIZE, assert_equal_splats, objective_of, psnr, scene

from pgsvc_codec.splats import Splats
from pgsvc_codec.train.adam import Adam
from pgsvc_codec.train.descent import Descent
from pgsvc_codec.train.grid import LayerGrid, snap, split
from pgsvc_codec.train.model import SplatModel
from pgsvc_codec.train.qat import RATE, settle_on_grid
from pgsvc_codec.train.schedule import all_levels, half_cosine
from pgsvc_codec.train.start import mean_background, start_splats

ENDS = [40, 80, 120]


def descent_of(model, objective, background, iterations, rate):
    optimizer = Adam(model.parameters(), [rate * peak for peak in (0.6, 0.18, 0.4)], (0.8, 0.9))
    return Descent(model, optimizer, objective, background, all_levels(3, 0), half_cosine(iterations, 5))


@pytest.fixture
def fitted(rng):
    """A float fit of three layers: its objective, background, model and grids."""
    picture = scene(*SIZE)
    objective, background = objective_of(picture), mean_background(picture)
    model = SplatModel(start_splats(objective, background, ENDS, rng), ENDS, *SIZE)
    descent_of(model, objective, background, 80, 1.0).run(80)
    grids = [LayerGrid(layer, SIZE, Splats.empty(3)) for layer in range(3)]
    for grid, layer in zip(grids, split(model.splats(), ENDS), strict=True):
        grid.fit(layer)
    return objective, background, model, grids


def test_settling_beats_rounding_all_at_once(fitted, rng):
    objective, background, model, grids = fitted
    rounded = psnr(objective, split(snap(model.splats(), grids, ENDS), ENDS), background)
    descent = descent_of(model, objective, background, 60, RATE)
    settled = settle_on_grid(model, descent, grids, 60, rng, np.zeros(120, np.bool_))
    assert psnr(objective, split(settled, ENDS), background)[2] > rounded[2] + 0.5
    assert_equal_splats(snap(settled, grids, ENDS), settled)


def test_skipped_splats_stay_as_they_are(fitted, rng):
    objective, background, model, grids = fitted
    skipped = np.arange(120) % 3 == 0
    model.put(snap(model.splats(), grids, ENDS), np.flatnonzero(skipped))
    before = model.splats()
    descent = descent_of(model, objective, background, 20, RATE)
    settle_on_grid(model, descent, grids, 20, rng, skipped)
    assert_equal_splats(model.splats()[skipped], before[skipped])


def test_layers_settle_from_the_base_up_and_nothing_moves_once_all_have(fitted, rng, monkeypatch):
    objective, background, model, grids = fitted
    descent = descent_of(model, objective, background, 160, RATE)
    held = []
    hold, run = model.hold, descent.run
    monkeypatch.setattr(model, "hold", lambda rows: (held.append(rows.geometry.copy()), hold(rows))[1])
    spent = []
    monkeypatch.setattr(descent, "run", lambda count: (spent.append(count), run(count))[1])
    settle_on_grid(model, descent, grids, 160, rng, np.zeros(120, np.bool_))
    assert spent == [10] * 15, "the last of 16 parts leaves none to make up for it"
    for rows in held[:8]:
        layers = np.searchsorted(ENDS, np.flatnonzero(rows), side="right")
        assert all(rows[:end].all() for end in ENDS[: layers.max()]), "lower layers are there before higher ones begin"
