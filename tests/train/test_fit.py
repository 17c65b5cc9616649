"""Whole fits: the grid they end on, levels, P-frames, and what a change of a splat costs."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from scenes import objective_of, scene, some_splats

from pgsvc_codec.coding.quant import dequantize_intra, quantize_intra
from pgsvc_codec.config import EncodeConfig
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.descent import Descent, Held
from pgsvc_codec.train.fit import change_energies, fit_inter, fit_intra
from pgsvc_codec.train.model import SplatModel
from pgsvc_codec.train.motion import estimate_motion
from pgsvc_codec.train.qat import RATE, LayerGrid, settle_on_grid, snap, split
from pgsvc_codec.train.schedule import all_levels
from pgsvc_codec.train.start import layer_ends, mean_background, start_splats
from pgsvc_codec.video import Chroma, VideoInfo

SIZE = (72, 56)


def plan_of(**options):
    return EncodeConfig(**{"splats": 120, "iterations": 80, **options}).resolve(*SIZE, Fraction(25), still=False)


def psnr(objective, layers, background):
    splats, ends = Splats.concatenate(layers), list(np.cumsum([len(layer) for layer in layers]))
    squared = objective.step(splats, background, ends, [1.0] * len(ends)).squared_error
    return 10 * np.log10(objective.picture[0].size * len(objective.picture) / squared.sum(axis=1))


def test_layer_ends():
    assert layer_ends(9, (1, 1, 1)) == [3, 6, 9]
    assert layer_ends(10, (1, 1, 2)) == [2, 5, 10]
    assert layer_ends(3, (1000, 1, 1)) == [1, 2, 3], "no layer is empty"
    assert layer_ends(7, (2,)) == [7]


def test_a_start_covers_the_picture(rng):
    picture = scene(*SIZE)
    splats = start_splats(picture, mean_background(picture), [100, 300], rng)
    assert len(splats) == 300
    assert np.abs(splats.means).max() <= 1
    for layer in split(splats, [100, 300]):
        quadrants = (layer.means[:, 0] > 0) * 2 + (layer.means[:, 1] > 0)
        assert np.bincount(quadrants, minlength=4).min() > len(layer) / 16


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 9)])
def test_tiny_pictures_fit(size):
    picture = scene(*size)
    plan = EncodeConfig(splats=6, iterations=20).resolve(*size, Fraction(25), still=True)
    fit = fit_intra(objective_of(picture), plan, np.random.default_rng(0))
    assert [len(layer) for layer in fit.whole] == [2, 2, 2]
    assert all(np.isfinite(layer.cholesky).all() for layer in fit.whole)


def test_an_intra_fit_ends_on_its_grid_and_levels_improve():
    objective = objective_of(scene(*SIZE))
    fit = fit_intra(objective, plan_of(), np.random.default_rng(0))
    for layer, tables in zip(fit.whole, fit.tables_intra, strict=True):
        again = dequantize_intra(quantize_intra(layer, tables), tables)
        np.testing.assert_array_equal(again.cholesky, layer.cholesky)
        np.testing.assert_array_equal(again.means, layer.means)
    levels = psnr(objective, fit.whole, fit.background)
    assert levels[0] > 18
    assert (np.diff(levels) > 0.5).all()


def test_settling_beats_rounding_all_at_once():
    objective = objective_of(scene(*SIZE))
    ends, weights = [40, 80, 120], all_levels(3)
    background = mean_background(objective.picture)
    rng = np.random.default_rng(1)
    model = SplatModel(start_splats(objective.picture, background, ends, rng), ends, *SIZE)
    Descent(model, objective, background, weights, 80).run(80)
    grids = [LayerGrid(layer, SIZE, Splats.empty(3)) for layer in range(3)]
    for grid, layer in zip(grids, split(model.splats(), ends), strict=True):
        grid.fit(layer)
    rounded = psnr(objective, split(snap(model.splats(), grids, ends), ends), background)
    nothing = np.zeros(120, np.bool_)
    descent = Descent(model, objective, background, weights, 60, rate=RATE)
    settled = settle_on_grid(model, descent, grids, 60, rng, nothing)
    assert psnr(objective, split(settled, ends), background)[2] > rounded[2] + 0.5


def test_held_rows_do_not_move(rng):
    objective = objective_of(scene(*SIZE))
    background = mean_background(objective.picture)
    model = SplatModel(start_splats(objective.picture, background, [30], rng), [30], *SIZE)
    held = Held(np.arange(30) < 10, np.arange(30) % 2 == 0)
    before = model.splats()
    Descent(model, objective, background, all_levels(1), 10).run(10, held)
    after = model.splats()
    np.testing.assert_array_equal(after.means[:10], before.means[:10])
    np.testing.assert_array_equal(after.cholesky[:10], before.cholesky[:10])
    both = held.geometry & held.amplitudes
    np.testing.assert_array_equal(after.colors[both], before.colors[both])
    assert (after.means[10:] != before.means[10:]).any(axis=1).all()


def test_chroma_planes_of_half_size_take_part():
    info = VideoInfo(*SIZE, chroma=Chroma.YUV420)
    luma = scene(*SIZE)[0]
    chroma = [plane[::2, ::2] for plane in scene(*SIZE)[1:]]
    objective = objective_of((luma, *chroma), info)
    fit = fit_intra(objective, plan_of(), np.random.default_rng(0))
    splats = Splats.concatenate(fit.whole)
    squared = objective.step(splats, fit.background, [40, 80, 120], [0, 0, 1]).squared_error[2]
    for plane, error in zip(objective.picture, squared, strict=True):
        assert error < 0.25 * float(((plane - plane.mean()) ** 2).sum())


def test_a_p_frame_follows_motion_and_keeps_order():
    first, second = scene(*SIZE), scene(*SIZE, shift=(3, 2))
    plan = plan_of(iterations=150)
    start = fit_intra(objective_of(first), plan, np.random.default_rng(0))
    motion = estimate_motion(first[0], second[0])
    objective = objective_of(second)
    before = psnr(objective, start.whole, start.background)
    fit = fit_inter(
        objective, plan, np.random.default_rng(1), start.whole, start.background, motion, start.tables_intra, []
    )
    for layer, old in enumerate(start.whole):
        assert fit.survivors[layer].sum() == len(fit.targets[layer])
        assert len(fit.targets[layer]) + len(fit.whole[layer]) == len(old)
    after = psnr(objective, map_concatenate(fit), fit.background)
    own = psnr(objective_of(first), start.whole, start.background)
    assert after[2] > before[2] + 2
    assert after[2] > own[2] - 1.5


def map_concatenate(fit):
    return [Splats.concatenate(parts) for parts in zip(fit.targets, fit.whole, strict=True)]


def test_changes_too_small_for_their_bits_are_not_made():
    """Three steps on a picture that stays change every splat a little; nearly all go back to their reference."""
    picture = scene(*SIZE)
    plan = plan_of(iterations=150)
    start = fit_intra(objective_of(picture), plan, np.random.default_rng(0))
    plan = plan_of(iterations=10)
    motion = estimate_motion(picture[0], picture[0])
    fit = fit_inter(
        objective_of(picture), plan, np.random.default_rng(1), start.whole, start.background, motion,
        start.tables_intra, [],
    )  # fmt: skip
    changed = [
        (new.colors != old[alive].colors).any(axis=1).mean()
        for new, old, alive in zip(fit.targets, start.whole, fit.survivors, strict=True)
    ]
    assert np.mean(changed) < 0.2


def test_change_energy_is_the_error_of_showing_the_old_splat(rng):
    old = some_splats(rng, 8, signs=False)
    old = Splats(old.means * np.float32(0.5), old.cholesky, old.colors)
    new = Splats(
        old.means + rng.normal(0, 0.002, (8, 2)).astype(np.float32),
        old.cholesky * (1 + rng.normal(0, 0.03, (8, 3))).astype(np.float32),
        old.colors + rng.normal(0, 0.01, (8, 3)).astype(np.float32),
    )
    energies = change_energies(new, old, SIZE)
    black = np.zeros(3, np.float32)
    for n in range(8):
        blank = tuple(np.zeros(SIZE[::-1], np.float32) for _ in range(3))
        shown = objective_of(blank).residuals(old[n : n + 1], black, [1])[0]
        target = tuple(-plane for plane in shown)
        squared = objective_of(target).step(new[n : n + 1], black, [1], [1.0]).squared_error.sum()
        assert squared == pytest.approx(energies[n], rel=0.3)


def test_a_descent_in_parts_is_the_descent(rng):
    """Runs share the optimiser's memory and the schedule: 4 + 6 iterations are 10."""
    objective = objective_of(scene(*SIZE))
    background = mean_background(objective.picture)
    start = start_splats(objective.picture, background, [30], rng)
    whole, parts = SplatModel(start, [30], *SIZE), SplatModel(start, [30], *SIZE)
    Descent(whole, objective, background, all_levels(1), 10).run(10)
    descent = Descent(parts, objective, background, all_levels(1), 10)
    descent.run(4)
    descent.run(6)
    np.testing.assert_array_equal(whole.splats().means, parts.splats().means)
    np.testing.assert_array_equal(whole.splats().colors, parts.splats().colors)
