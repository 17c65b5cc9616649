"""The paper's fit: how many splats are left and which, when it ends, and what a P-frame keeps of its reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import SIZE, assert_equal_splats, objective_of, psnr, scene, some_splats

from pgsvc_codec.coding.baseline.quant import (
    FLOAT12_FRACTION_BITS,
    FLOAT16_FRACTION_BITS,
    dequantize_inter,
    dequantize_intra,
    quantize_inter,
    quantize_intra,
)
from pgsvc_codec.splats import Splats
from pgsvc_codec.train import paper
from pgsvc_codec.train.grid import split
from pgsvc_codec.train.motion import estimate_motion
from pgsvc_codec.train.plain import PlainModel
from pgsvc_codec.train.schedule import cyclic, full_level
from pgsvc_codec.train.stack import Reference, Stack

TINY = (24, 16)
BLACK = np.zeros(3, np.float32)
MOTIONLESS = estimate_motion(np.zeros(TINY[::-1], np.float32), np.zeros(TINY[::-1], np.float32))


def stack_of(picture, sizes, iterations, observe=None, first=0, ranked=False):
    objective = objective_of(picture, levels=len(sizes))
    weights = cyclic(len(sizes), 0)
    return Stack(objective, first, sizes, weights, iterations, np.random.default_rng(3), ranked, observe)


def blank(size=TINY):
    return tuple(np.zeros(size[::-1], np.float32) for _ in range(3))


@pytest.fixture
def recorded(monkeypatch):
    """Every model that a fit makes, and what was dropped from it: (weights before, rows kept, ends before)."""

    class Recorded(PlainModel):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.prunings = []
            models.append(self)

        def keep(self, rows):
            self.prunings.append((self.weights[:, 0].numpy().copy(), rows.copy(), list(self.ends)))
            super().keep(rows)

    models: list[Recorded] = []
    monkeypatch.setattr(paper, "PlainModel", Recorded)
    return models


@settings(max_examples=25)
@given(st.integers(1, 60), st.lists(st.integers(1, 9), min_size=1, max_size=3), st.booleans(), st.integers(0, 1))
def test_every_layer_ends_with_its_number_of_splats(iterations, sizes, ranked, first):
    stack = stack_of(scene(*TINY), sizes, iterations, ranked=ranked, first=first)
    assert [len(layer) for layer in paper.intra_float(stack, BLACK).layers] == sizes
    fit = paper.intra(stack, BLACK)
    assert [len(layer) for layer in fit.whole] == sizes
    reference = Reference(fit.whole, MOTIONLESS, fit.tables_intra, [])
    assert [len(layer) for layer in paper.inter(stack, BLACK, reference).layers] == sizes


def test_the_weakest_go_layer_by_layer(recorded):
    sizes = [10, 20]
    paper.intra_float(stack_of(scene(*TINY), sizes, 40), BLACK)
    (model,) = recorded
    assert len(model.prunings[0][0]) == 12 + 28, "0.2 of a base layer and 0.4 of an enhancement layer are surplus"
    assert model.ends == [10, 30]
    assert len(model.prunings) > 3, "little by little"
    varied = 0
    for weights, rows, ends in model.prunings:
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            kept = np.isin(np.arange(start, end), rows)
            strengths = np.abs(weights[start:end])
            assert strengths[kept].min() >= strengths[~kept].max(initial=0)
            varied += np.ptp(strengths) > 0
    assert varied > 3, "weights are learned"


def test_pruning_ends_half_way(recorded):
    """Where there are fewer iterations than K_GSP, those left in the second half find their places again."""
    seen = []
    stack = stack_of(scene(*TINY), [100], 40, observe=lambda step: seen.append(len(recorded[0])))
    paper.intra_float(stack, BLACK)
    assert seen == [*range(120, 100, -1), *[100] * 20]


def test_a_fit_that_stands_still_ends_after_its_prunings_and_its_patience():
    """Splats without colour on black have no gradient: nothing ever changes."""
    seen = []
    stack = stack_of(blank(), [1], 2600, seen.append)._replace(level_weights=full_level(1, 0))
    grey = some_splats(np.random.default_rng(1), 1)
    dark = Splats(grey.means, grey.cholesky, np.zeros((1, 3), np.float32))
    fit = paper.inter(stack, BLACK, Reference([dark], MOTIONLESS, [None], []))
    free = 1000 + 100
    assert len(seen) == free + 520, "K_GSP, then 100 iterations in a row, then a fifth of the limit under quantisation"
    assert all(step.loss == 0 for step in seen[:free])
    assert len(fit.layers[0]) == 1


def test_a_flat_picture_converges_before_its_limit():
    seen = []
    paper.intra_float(stack_of(blank(), [5], 20_000, seen.append), BLACK)
    assert 4100 <= len(seen) < 6000
    assert seen[-1].loss == pytest.approx(seen[-100].loss, abs=1e-5)


def test_a_fit_that_gets_better_goes_on():
    seen = []
    paper.intra_float(stack_of(scene(*TINY), [8, 8, 8], 300, seen.append), BLACK)
    assert len(seen) == 300
    assert np.mean([step.loss for step in seen[-10:]]) < 0.7 * np.mean([step.loss for step in seen[:10]])
    assert all(step.gradient_norm > 0 for step in seen)


def test_rates_are_halved_and_under_quantisation_fall_to_nothing(monkeypatch):
    scales = []

    class Recorded(paper.Adan):
        def step(self, scale):
            scales.append(scale)
            super().step(scale)

    monkeypatch.setattr(paper, "Adan", Recorded)
    monkeypatch.setattr(paper, "_HALVING", 10)
    paper.intra(stack_of(scene(*TINY), [4, 4], 30), BLACK)
    assert scales[:24] == [1.0] * 10 + [0.5] * 10 + [0.25] * 4
    assert scales[24] == pytest.approx(0.25 * 0.3), "a fifth of the iterations"
    assert scales[24:] == sorted(scales[24:], reverse=True)
    assert scales[-1] < 0.02


def test_a_probe_starts_where_it_is_told_and_shows_the_full_level():
    objective = objective_of(scene(*TINY))
    first, loss = paper.probe(objective, 12, 60, np.random.default_rng(0))
    assert len(first) == 12, "nothing is pruned"
    step = objective_of(scene(*TINY), levels=1).step(first, BLACK, [12], [1.0])
    assert loss == pytest.approx(objective.loss(np.tile(step.squared_error, (3, 1)), [0, 0, 1.0]))
    second, better = paper.probe(objective, 12, 60, np.random.default_rng(0), start=first)
    assert better < loss
    again, same = paper.probe(objective, 12, 0, np.random.default_rng(0), start=first)
    assert_equal_splats(again, first)
    assert same == loss
    assert (second.means != first.means).any()


def test_layers_of_one_fit_are_cut_by_weight(recorded):
    stack = stack_of(scene(*TINY), [5, 6, 7], 60, ranked=True)
    layers = paper.intra_float(stack, BLACK).layers
    single = recorded[0]
    strengths = np.sort(np.abs(single.weights[:, 0].numpy()))[::-1]
    assert strengths[0] > strengths[-1]
    ranks = np.argsort(-np.abs(single.weights[:, 0].numpy()), kind="stable")
    for layer, expected in zip(layers, split(single.splats()[ranks], [5, 11, 18]), strict=True):
        assert_equal_splats(layer, expected)


@pytest.fixture(scope="module")
def still():
    """An I-frame, 48 splats in three layers."""
    return paper.intra(stack_of(scene(*SIZE), [16] * 3, 200), BLACK)


def test_an_intra_fit_is_on_its_grid_with_whole_fp16_positions(still):
    for layer, tables in zip(still.whole, still.tables_intra, strict=True):
        assert tables.position_fraction_bits == FLOAT16_FRACTION_BITS
        assert_equal_splats(dequantize_intra(quantize_intra(layer, tables), tables), layer)
    np.testing.assert_array_equal(still.background, BLACK)


def p_frame(still, tables_intra, tables_inter, iterations=60):
    stack = stack_of(scene(*SIZE, shift=(1, 0)), [16] * 3, iterations)
    return paper.inter(stack, BLACK, Reference(still.whole, MOTIONLESS, tables_intra, tables_inter))


def test_a_p_frame_keeps_counts_and_order_and_is_on_its_grids(still):
    fit = p_frame(still, still.tables_intra, [])
    for layer, old in enumerate(still.whole):
        targets, whole, alive = fit.targets[layer], fit.whole[layer], fit.survivors[layer]
        assert len(alive) == len(old)
        assert alive.sum() == len(targets)
        assert len(targets) + len(whole) == len(old)
        assert len(whole) <= round((0.2 if layer == 0 else 0.4) * len(old))
        tables, reference = fit.tables_inter[layer], old[alive]
        assert tables.position_fraction_bits == FLOAT12_FRACTION_BITS
        assert_equal_splats(dequantize_inter(quantize_inter(targets, reference, tables), reference, tables), targets)
        given = fit.tables_intra[layer]
        assert_equal_splats(dequantize_intra(quantize_intra(whole, given), given), whole)
        assert np.abs(targets.means - reference.means).max() < 0.2, "survivors stand beside their own references"


def test_a_p_frame_uses_the_quantisers_of_its_gop(still):
    first = p_frame(still, still.tables_intra, [], 20)
    second = p_frame(still, still.tables_intra, first.tables_inter, 20)
    for fit, inter in ((first, first.tables_inter), (second, first.tables_inter)):
        assert list(map(id, fit.tables_intra)) == list(map(id, still.tables_intra))
        assert list(map(id, fit.tables_inter)) == list(map(id, inter))


def test_a_p_frame_is_better_than_its_reference(still):
    objective = objective_of(scene(*SIZE, shift=(1, 0)))
    before = psnr(objective, still.whole, BLACK)
    after = psnr(objective, p_frame(still, still.tables_intra, [], 200).layers, BLACK)
    assert after[2] > before[2] + 0.5
