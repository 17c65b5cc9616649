"""Fine-tuning under quantisation: what is shown, and where gradients lead splats and quantisers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scenes import SIZE, assert_equal_splats, model_and_grids, objective_of, parts_of, psnr, scene, some_splats

from pgsvc_codec.coding.baseline.quant import (
    FLOAT12_FRACTION_BITS,
    FLOAT16_FRACTION_BITS,
    Codebooks,
    QuantTables,
    ScalarQuantizer,
    quantize_intra,
)
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.adam import Adam
from pgsvc_codec.train.adan import Adan
from pgsvc_codec.train.descent import Descent
from pgsvc_codec.train.grid import LayerGrid, snap, split
from pgsvc_codec.train.lsq import CodedPart, QuantizedModel
from pgsvc_codec.train.model import SplatModel
from pgsvc_codec.train.plain import PlainModel
from pgsvc_codec.train.schedule import all_levels, half_cosine, halving
from pgsvc_codec.train.start import mean_background, start_splats

EVERY_HUE = Codebooks.on_grid([np.linspace(-1, 1, 9)[:, None] * np.ones(3), np.zeros((1, 3))])


def tables_of(scale, offset, low, high, colors=EVERY_HUE, bits=FLOAT16_FRACTION_BITS):
    numbers = np.array([scale, offset], np.float32)
    return QuantTables(ScalarQuantizer(numbers[0].copy(), numbers[1].copy(), low, high), colors, bits)


def part_of(tables, count, learn=True, reference=None):
    grid = LayerGrid(1, SIZE, Splats.empty(3) if reference is None else reference)
    if reference is None:
        grid.whole = tables
    else:
        grid.differences = tables
    return CodedPart(grid, slice(0, count), inter=reference is not None, learn=learn)


def tensors_of(splats):
    return tuple(torch.from_numpy(array.copy()) for array in (splats.means, splats.cholesky, splats.colors))


@pytest.mark.parametrize("inter", [False, True])
def test_scale_and_offset_follow_their_slopes(rng, inter):
    """Central differences of a smooth function of the decoded values, through rounding errors that stay (LSQ+)."""
    scale, offset, low, high = [0.1, 0.07, 0.2], [1.5, 0.1, 2.0], -8, 7
    splats = some_splats(rng, 40, signs=False)
    reference = some_splats(rng, 40, signs=False) if inter else None
    part = part_of(tables_of(scale, offset, low, high), 40, reference=reference)
    _, shown, _ = part.decoded(*tensors_of(splats))

    base = reference.cholesky.astype(float) if inter else 0.0
    values = splats.cholesky.astype(float) - base
    position = (values - offset) / scale
    inside = (position >= low) & (position <= high)
    assert 0.1 < inside.mean() < 0.9, "both kinds"
    error = np.rint(position) - position
    pull = rng.normal(size=(40, 3))

    def smooth(scale, offset):
        free = ((values - offset) / scale + error) * scale + offset
        decoded = base + np.where(inside, free, np.clip(np.rint(position), low, high) * scale + offset)
        return (np.sin(decoded) * pull).sum(axis=0)

    step, scale, offset = 1e-5, np.array(scale), np.array(offset)
    by_scale = (smooth(scale + step, offset) - smooth(scale - step, offset)) / (2 * step)
    by_offset = (smooth(scale, offset + step) - smooth(scale, offset - step)) / (2 * step)

    gradient = torch.from_numpy((np.cos(shown.double().numpy()) * pull).astype(np.float32))
    behind = gradient.clone()
    part.pull(behind, torch.zeros(40, 3), np.ones(40))
    gradient_scale = 1 / math.sqrt(len(gradient) * high)
    np.testing.assert_allclose(part.scale.grad.numpy(), gradient_scale * by_scale, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(part.offset.grad.numpy(), gradient_scale * by_offset, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(behind.numpy(), np.where(inside, gradient.numpy(), 0), "straight through, or not")


def test_without_learning_quantisers_get_no_gradient(rng):
    tables = tables_of([0.1] * 3, [1.0] * 3, -32, 31)
    part = part_of(tables, 10, learn=False)
    splats = some_splats(rng, 10)
    part.decoded(*tensors_of(splats))
    part.pull(torch.ones(10, 3), torch.zeros(10, 3), np.ones(10))
    assert part.scale.grad is None
    assert part.tables is tables


def test_a_scale_stays_positive():
    part = part_of(tables_of([0.1] * 3, [0.0] * 3, 0, 63), 1)
    part.scale -= 1
    part.settle()
    assert (part.scale > 0).all()
    part.store()


def test_entries_move_to_the_mean_of_what_chose_them(rng):
    """The first stage by hand, weighted by area; the second codes what the first leaves."""
    stages = [np.array([[-0.5] * 3, [0.5] * 3, [8.0] * 3]), np.array([[-0.25, 0, 0], [0.25, 0, 0]])]
    part = part_of(tables_of([0.1] * 3, [0.0] * 3, -32, 31, Codebooks.on_grid(stages)), 60)
    first, second = (some_splats(rng, 60) for _ in range(2))
    areas = rng.uniform(1, 9, 60)
    sums, weights = np.zeros((2, 3)), np.zeros(2)
    for splats in (first, second):
        hues = splats.colors.astype(float)
        stage = part.tables.colors.stages[0][:2].astype(float)
        chosen = ((hues[:, None] - stage) ** 2).sum(axis=2).argmin(axis=1)
        assert set(chosen) == {0, 1}
        part.decoded(*tensors_of(splats))
        part.pull(torch.zeros(60, 3), torch.zeros(60, 3), areas)
        for entry in (0, 1):
            own = chosen == entry
            sums[entry] = 0.8 * sums[entry] + 0.2 * (areas[own, None] * hues[own]).sum(axis=0)
            weights[entry] = 0.8 * weights[entry] + 0.2 * areas[own].sum()
        np.testing.assert_allclose(part.tables.colors.stages[0][:2], sums / weights[:, None], rtol=2e-3, atol=1e-4)
    np.testing.assert_array_equal(part.tables.colors.stages[0][2], [8.0] * 3, "nothing chose it")
    assert not np.array_equal(part.tables.colors.stages[1], stages[1])


def test_colours_are_held_to_what_they_are_coded_as(rng):
    """The commitment loss: the mean of the squared distances."""
    part = part_of(tables_of([0.1] * 3, [0.0] * 3, -32, 31), 12)
    means, cholesky, colors = tensors_of(some_splats(rng, 12))
    _, _, shown = part.decoded(means, cholesky, colors)
    given = torch.from_numpy(rng.normal(size=(12, 3)).astype(np.float32))
    pulled = given.clone()
    part.pull(torch.zeros(12, 3), pulled, np.ones(12))
    follow = colors.clone().requires_grad_()
    ((follow - shown) ** 2).mean().backward()
    torch.testing.assert_close(pulled - given, follow.grad, atol=1e-6, rtol=1e-4)


def test_the_picture_is_that_of_the_decoder(rng):
    """Values and tables after some learning: what the model shows is what the grid makes of the same splats."""
    model, grids, parts = model_and_grids(rng)
    assert [(part.rows.start, part.rows.stop) for part in parts] == [(0, 50), (50, 90), (90, 120)]
    started = [part.tables for part in parts]
    shown = QuantizedModel(model, parts)
    objective, weights = objective_of(scene(*SIZE), levels=2), all_levels(2, 0)
    background = np.zeros(3, np.float32)
    Descent(shown, Adan(shown.parameters()), objective, background, weights, halving(9)).run(5)
    for part, tables in zip(parts, started, strict=True):
        assert not np.array_equal(part.tables.cholesky.scale, tables.cholesky.scale)
        assert not np.array_equal(part.tables.colors.stages[0], tables.colors.stages[0])
        part.store()
    assert grids[0].whole.position_fraction_bits == FLOAT16_FRACTION_BITS
    assert grids[1].differences.position_fraction_bits == FLOAT12_FRACTION_BITS
    painted, decoded = shown.splats(), snap(model.splats(), grids, model.ends)
    np.testing.assert_array_equal(painted.means, decoded.means)
    np.testing.assert_array_equal(painted.cholesky, decoded.cholesky)
    # the coder looks further than one entry ahead, so a few colours are nearer than those painted
    same = (painted.colors == decoded.colors).all(axis=1)
    assert same.mean() > 0.7
    errors = [np.abs(splats.colors - model.splats().colors)[~same].mean() for splats in (painted, decoded)]
    assert errors[1] <= errors[0]


def test_given_quantisers_stay(rng):
    model, grids, parts = model_and_grids(rng)
    for part in parts:
        part.store()
    given = [grids[0].whole, grids[1].differences, grids[1].whole]
    again = parts_of(model, grids)
    shown = QuantizedModel(model, again)
    assert shown.learned == []
    background = np.zeros(3, np.float32)
    objective = objective_of(scene(*SIZE), levels=2)
    Descent(shown, Adan(shown.parameters()), objective, background, all_levels(2, 0), halving(9)).run(3)
    for part in again:
        part.store()
    stored = [grids[0].whole, grids[1].differences, grids[1].whole]
    assert [id(tables) for tables in stored] == [id(tables) for tables in given]


def test_positions_stay_as_coarse_as_given_quantisers_have_them(rng):
    splats = some_splats(rng, 20)
    tables = tables_of([0.2] * 3, [0.0] * 3, -32, 31, bits=5)
    means, _, _ = part_of(tables, 20, learn=False).decoded(*tensors_of(splats))
    np.testing.assert_array_equal(means.numpy() * 32, np.rint(means.numpy() * 32))
    reference = some_splats(rng, 20)
    means, _, _ = part_of(tables, 20, learn=False, reference=reference).decoded(*tensors_of(splats))
    steps = (means.numpy().astype(float) - reference.means) * 32
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)


def test_tuning_beats_rounding_the_same_fit(rng):
    picture, ends, weights = scene(*SIZE), [40, 80, 120], all_levels(3, 0)
    objective, background = objective_of(picture), mean_background(picture)
    free = SplatModel(start_splats(objective, background, ends, rng), ends, *SIZE)
    adam = Adam(free.parameters(), [0.6, 0.18, 0.4], (0.8, 0.9))
    Descent(free, adam, objective, background, weights, half_cosine(100, 5)).run(100)
    model = PlainModel(free.splats(), ends, *SIZE)
    grids, rounded_on = ([LayerGrid(layer, SIZE, Splats.empty(3)) for layer in range(3)] for _ in range(2))
    layers = split(model.splats(), ends)
    for grid, layer in zip(rounded_on, layers, strict=True):
        grid.fit(layer)
    rounded = psnr(objective, split(snap(model.splats(), rounded_on, ends), ends), background)

    parts = parts_of(model, grids)
    shown = QuantizedModel(model, parts)
    # at the full rate colours jump between the few entries that so few splats have, for hundreds of iterations
    Descent(shown, Adan(shown.parameters()), objective, background, weights, lambda iteration: 0.1).run(80)
    for part in parts:
        part.store()
    tuned = split(snap(model.splats(), grids, ends), ends)
    assert (psnr(objective, tuned, background) > rounded + 0.5).all()
    for layer, grid in zip(tuned, grids, strict=True):
        assert quantize_intra(layer, grid.whole).cholesky.min() >= grid.whole.cholesky.low
        assert_equal_splats(grid.snap(layer), layer)
