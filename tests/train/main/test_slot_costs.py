"""What changes of slots cost: the words of the module taken literally, slot by slot."""

from __future__ import annotations

import numpy as np
import pytest

from pgsvc_codec.coding.main.predict import flagged
from pgsvc_codec.train.main.refine_slots import REMOVED_MODE
from pgsvc_codec.train.main.slot_costs import slot_bits, slot_costs

CELL = 64  # pixels


def some_slots(rng: np.random.Generator, channels: int):
    places = (rng.uniform(-30, 400, (90, 2)) * 64).astype(np.int32)
    groups = np.repeat(rng.random((90, 3)) < 0.3, [2, 3, channels], axis=1)
    symbols = flagged(np.where(groups, rng.integers(-300, 301, groups.shape), 0).astype(np.int32))
    modes = np.where(rng.random(90) < 0.1, REMOVED_MODE, symbols.flags).astype(np.int32)
    return places, symbols, modes


def context_of(places, modes, n: int) -> int:
    """How much the other slots in the cells around one do, those of its own cell twice."""
    cells = np.maximum(places // 64 // CELL, 0)
    near = (np.abs(cells - cells[n]).max(axis=1) <= 1).astype(int) + (cells == cells[n]).all(axis=1)
    near[n] = 0
    return min(int((near[modes > 0].sum() + 0.3) / (near.sum() + 1.0) * 6), 5)


@pytest.mark.parametrize("channels", [1, 3])
def test_flags_cost_what_slots_with_as_busy_neighbours_do(rng, channels):
    places, symbols, modes = some_slots(rng, channels)
    costs = slot_costs(symbols, modes, places)
    contexts = np.array([context_of(places, modes, n) for n in range(len(modes))])
    assert len(set(contexts)) > 2
    pooled = np.bincount(modes, minlength=9) + 0.5
    for context in set(contexts):
        seen = np.bincount(modes[contexts == context], minlength=9) + 6 * pooled / pooled.sum()
        expected = -np.log2(seen / seen.sum())
        for n in np.flatnonzero(contexts == context):
            np.testing.assert_allclose(costs.flags[n], expected, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_deltas_cost_what_those_of_slots_that_change_do(rng, channels):
    places, symbols, modes = some_slots(rng, channels)
    costs = slot_costs(symbols, modes, places)
    assert costs.deltas.shape == (5 + channels, 256)
    total = float(costs.flags[np.arange(len(modes)), modes].sum())
    for column, group in enumerate([0, 0, 1, 1, 1, 2, 2, 2][: 5 + channels]):
        changing = (modes < REMOVED_MODE) & (modes >> group & 1 == 1)
        sizes = np.minimum(np.abs(symbols.deltas[changing, column]), 255)
        seen = np.bincount(sizes, minlength=256) + 4 * np.maximum(0.5 ** np.arange(1, 257), 1e-6)
        np.testing.assert_allclose(costs.deltas[column], -np.log2(seen / seen.sum()) + (np.arange(256) > 0), rtol=1e-5)
        total += float(costs.deltas[column, sizes].sum())
    assert slot_bits(costs, symbols, modes) == pytest.approx(total)


def test_no_slots_have_costs_too():
    costs = slot_costs(flagged(np.zeros((0, 8), np.int32)), np.zeros(0, np.int32), np.zeros((0, 2), np.int32))
    assert costs.flags.shape == (0, 9)
    assert np.isfinite(costs.deltas).all()
