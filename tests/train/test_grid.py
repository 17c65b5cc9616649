"""Tables fitted to splats, and what splats become on them."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import SIZE, assert_equal_splats, some_splats

from pgsvc_codec.coding.baseline.quant import (
    cholesky_levels,
    dequantize_inter,
    dequantize_intra,
    quantize_inter,
    quantize_intra,
)
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.grid import LayerGrid, snap, split


def nudged(rng, splats):
    """The same splats, a little changed."""
    return Splats(
        splats.means + rng.normal(0, 0.01, splats.means.shape).astype(np.float32),
        splats.cholesky + rng.normal(0, 0.1, splats.cholesky.shape).astype(np.float32),
        splats.colors + rng.normal(0, 0.02, splats.colors.shape).astype(np.float32),
    )


@pytest.mark.parametrize("layer", [0, 1])
def test_whole_splats_lie_near_their_grid(rng, layer):
    splats = some_splats(rng, 150, signs=False)
    grid = LayerGrid(layer, SIZE, Splats.empty(3))
    grid.fit(splats)
    assert grid.differences is None, "nothing to differ from"
    shown = grid.snap(splats)
    assert (grid.whole.cholesky.low, grid.whole.cholesky.high) == cholesky_levels(layer, inter=False)
    assert_equal_splats(shown, dequantize_intra(quantize_intra(splats, grid.whole), grid.whole))
    assert_equal_splats(grid.snap(shown), shown)
    step = grid.whole.cholesky.scale
    assert (np.abs(shown.cholesky - splats.cholesky) <= 0.5 * step * 1.01).mean() > 0.9, "few are clipped"
    assert np.abs(shown.means - splats.means).max() <= 2.0 ** -(grid.whole.position_fraction_bits + 1)
    assert np.abs(shown.colors - splats.colors).mean() < 0.25 * splats.colors.std()


def test_survivors_are_coded_against_their_reference_and_new_splats_whole(rng):
    reference = some_splats(rng, 60)
    moved, new = nudged(rng, reference), some_splats(rng, 30)
    grid = LayerGrid(1, SIZE, reference)
    layer = Splats.concatenate([moved, new])
    grid.fit(layer)
    shown = grid.snap(layer)
    tables = grid.differences
    assert_equal_splats(shown[:60], dequantize_inter(quantize_inter(moved, reference, tables), reference, tables))
    assert_equal_splats(shown[60:], dequantize_intra(quantize_intra(new, grid.whole), grid.whole))
    assert np.abs(shown.cholesky[:60] - moved.cholesky).mean() < np.abs(reference.cholesky - moved.cholesky).mean() / 4


def test_what_has_not_changed_is_exactly_its_reference(rng):
    """Half of the splats stay: their difference is zero on the grid too, whatever the others do."""
    reference = some_splats(rng, 80)
    some = np.arange(80) % 2 == 0
    moved = nudged(rng, reference)
    layer = Splats.concatenate([reference[some], moved[~some]])
    grid = LayerGrid(0, SIZE, Splats.concatenate([reference[some], reference[~some]]))
    grid.fit(layer)
    assert_equal_splats(grid.snap(layer)[:40], reference[some])


def test_tables_that_are_there_stay_until_a_refit_is_asked_for(rng):
    first, second = some_splats(rng, 80), some_splats(rng, 80)
    grid = LayerGrid(0, SIZE, first[:40])
    grid.fit(first)
    whole, differences = grid.whole, grid.differences
    grid.fit(second)
    assert grid.whole is whole
    assert grid.differences is differences
    grid.refit_colors(second)
    assert grid.whole.cholesky is whole.cholesky
    assert not np.array_equal(grid.whole.colors.stages[0], whole.colors.stages[0])
    grid.refit_differences(second)
    assert not grid.differences.matches(differences)


def test_layers_snap_each_on_its_own_grid(rng):
    splats, ends = some_splats(rng, 90), [30, 90]
    grids = [LayerGrid(layer, SIZE, Splats.empty(3)) for layer in range(2)]
    layers = split(splats, ends)
    assert [len(layer) for layer in layers] == [30, 60]
    for grid, layer in zip(grids, layers, strict=True):
        grid.fit(layer)
    both = Splats.concatenate([grid.snap(layer) for grid, layer in zip(grids, layers, strict=True)])
    assert_equal_splats(snap(splats, grids, ends), both)


@pytest.mark.parametrize("rows", [[], [0], [29, 30], [3, 20, 40, 59, 60, 89]])
def test_some_rows_become_what_they_become_among_all(rng, rows):
    """Rows of both layers, survivors and new ones."""
    splats, ends = some_splats(rng, 90), [30, 90]
    references = [nudged(rng, splats[:20]), nudged(rng, splats[30:60])]
    grids = [LayerGrid(layer, SIZE, reference) for layer, reference in enumerate(references)]
    for grid, layer in zip(grids, split(splats, ends), strict=True):
        grid.fit(layer)
    chosen = np.array(rows, np.intp)
    assert_equal_splats(snap(splats, grids, ends, chosen), snap(splats, grids, ends)[chosen])
