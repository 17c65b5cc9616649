"""Float fits of P-frames: nothing changes for nothing, motion is the field's business, new things are born."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scenes import SIZE, assert_equal_splats, objective_of, plan_of, rgb_info, scene, some_splats

from pgsvc_codec.coding.main.predict import Slots, predict_inter
from pgsvc_codec.coding.main.state import STEPS, parameters_of, splats_of
from pgsvc_codec.picture import plane_grids, resample
from pgsvc_codec.splats import Splats, SplatState
from pgsvc_codec.train.fit import fit_float
from pgsvc_codec.train.main.deltas import Deltas
from pgsvc_codec.train.main.inter import fit_inter
from pgsvc_codec.train.main.problem import InterProblem
from pgsvc_codec.train.main.rebirth import find_rebirths
from pgsvc_codec.video import Chroma, Matrix

STEP_INDEX = 34
STEP = STEPS[STEP_INDEX]  # 0.074
SPACING = 16
WEIGHTS = [0.5, 0.5, 1.0]


@pytest.fixture(scope="module")
def reference():
    picture = scene(*SIZE)
    fit = fit_float(objective_of(picture, rgb_info(*SIZE)), plan_of(iterations=150), np.random.default_rng(3))
    layers = []
    for splats in fit.layers:
        state = SplatState(*(np.rint(part).astype(np.int32) for part in parameters_of(splats, *SIZE, opponent=True)))
        layers.append(Slots(state, np.zeros(len(state), np.int32)))
    return picture[0], fit.background, layers


def problem_of(picture, background, price=40.0) -> InterProblem:
    objective = objective_of(picture, rgb_info(*SIZE))
    return InterProblem(objective, background, [STEP_INDEX] * 3, WEIGHTS, opponent=True, price=price)


def error_of(problem: InterProblem, layers) -> float:
    ends = np.cumsum([len(layer) for layer in layers]).tolist()
    shown = problem.objective.step(Splats.concatenate(layers), problem.background, ends, WEIGHTS)
    return problem.objective.loss(shown.squared_error, WEIGHTS) * SIZE[0] * SIZE[1]


def drawn(layers) -> list[Splats]:
    return [splats_of(slots.state, *SIZE, opponent=True) for slots in layers]


def moved_share(fit) -> float:
    """Share of the reference's slots that leave their prediction."""
    changed = []
    for slots, splats, reborn in zip(fit.predictions, fit.splats, fit.reborn, strict=True):
        expected, count = splats_of(slots.state, *SIZE, opponent=True), len(slots.state)
        same = np.isclose(splats.means[:count], expected.means, atol=1e-5).all(axis=1)
        same &= np.isclose(splats.cholesky[:count], expected.cholesky, rtol=1e-4, atol=1e-4).all(axis=1)
        same &= np.isclose(splats.colors[:count], expected.colors, atol=1e-5).all(axis=1)
        changed.append(~same | reborn[:count])
    return float(np.concatenate(changed).mean())


def test_what_stays_costs_nothing(reference):
    luma, background, layers = reference
    picture = scene(*SIZE)
    fit = fit_inter(problem_of(picture, background), layers, luma, SPACING, 40)
    assert moved_share(fit) < 0.1
    assert np.abs(fit.field.vectors).max() <= 1


def test_a_pan_is_the_fields_business(reference):
    luma, background, layers = reference
    problem = problem_of(scene(*SIZE, shift=(3.0, -2.0)), background)
    fit = fit_inter(problem, layers, luma, SPACING, 60)
    inner = fit.field.vectors[1:-1, 1:-1]
    assert np.median(inner, axis=(0, 1)) == pytest.approx([6, -4], abs=1)
    assert moved_share(fit) < 0.5
    still, carried = (error_of(problem, drawn(predictions)) for predictions in (layers, fit.predictions))
    assert carried < 0.5 * still
    assert error_of(problem, fit.splats) < 1.02 * carried


def test_slots_keep_their_places(reference):
    luma, background, layers = reference
    fit = fit_inter(problem_of(scene(*SIZE, shift=(2.0, 1.0)), background), layers, luma, SPACING, 30)
    for slots, predicted, splats, reborn in zip(layers, fit.predictions, fit.splats, fit.reborn, strict=True):
        assert predicted.state.equals(predict_inter(slots, fit.field).state)
        assert len(splats) == len(reborn) >= len(slots.state)
        assert reborn[len(slots.state) :].all()
        assert splats.colors[len(slots.state) :].any(axis=1).all()


def test_what_appears_is_born_where_it_is(reference):
    luma, background, layers = reference
    picture = [plane.copy() for plane in scene(*SIZE)]
    for plane in picture:
        plane[8:18, 10:24] = 1.0 - plane[8:18, 10:24]
    problem = problem_of(tuple(picture), background, price=6.0)
    fit = fit_inter(problem, layers, luma, SPACING, 60)
    born = np.concatenate([splats.means[reborn] for splats, reborn in zip(fit.splats, fit.reborn, strict=True)])
    x, y = ((born + 1) * np.array(SIZE) / 2).T
    inside = (x > 5) & (x < 29) & (y > 3) & (y < 23)
    assert len(born) >= 4
    assert inside.mean() > 0.8


def test_births_cost_their_bits(reference):
    _, background, layers = reference
    picture = tuple(np.ascontiguousarray(plane[::-1]) for plane in scene(*SIZE))
    problem = problem_of(picture, background, price=1.0)
    deltas = Deltas([slots.state for slots in layers], problem.steps, [5, 5, 5], SIZE, opponent=True)
    splats = deltas.splats()
    step = problem.objective.step(splats, background, deltas.ends, WEIGHTS)
    counts = [
        len(find_rebirths(deltas, problem._replace(price=price / problem.lambdas[1]), splats, step, 1).rows)
        for price in (0.0, 0.05, 1e3)
    ]
    assert counts[0] >= counts[1] > counts[2] == 0


def test_the_same_call_gives_the_same_fit(reference):
    luma, background, layers = reference
    problem = problem_of(scene(*SIZE, shift=(1.0, 1.0)), background, price=6.0)
    one, two = (fit_inter(problem, layers, luma, SPACING, 12) for _ in range(2))
    assert (one.field.vectors == two.field.vectors).all()
    for first, second in zip(one.splats, two.splats, strict=True):
        assert_equal_splats(first, second)


@pytest.mark.parametrize("iterations", [1, 2, 7])
def test_short_fits_work(reference, iterations):
    luma, background, layers = reference
    problem = problem_of(scene(*SIZE, shift=(1.0, 0.0)), background)
    fit = fit_inter(problem, layers, luma, SPACING, iterations)
    assert error_of(problem, fit.splats) <= 1.05 * error_of(problem, drawn(layers))


def test_a_field_goes_on_from_the_one_before(reference):
    luma, background, layers = reference
    problem = problem_of(scene(*SIZE, shift=(3.0, -2.0)), background)
    before = fit_inter(problem, layers, luma, SPACING, 60).field
    again = fit_inter(problem, layers, luma, SPACING, 2, before).field
    assert np.abs(again.vectors - before.vectors).mean() < 2


def test_layers_without_splats_stay_so_or_grow(reference):
    luma, background, layers = reference
    nothing = Slots(SplatState.empty(3), np.zeros(0, np.int32))
    fit = fit_inter(problem_of(scene(*SIZE), background), [layers[0], nothing, layers[2]], luma, SPACING, 8)
    assert len(fit.splats[1]) == fit.reborn[1].sum()


def test_a_frame_that_was_empty_fills(reference):
    luma, background, _ = reference
    nothing = Slots(SplatState.empty(3), np.zeros(0, np.int32))
    problem = problem_of(scene(*SIZE), background, price=1.0)
    fit = fit_inter(problem, [nothing] * 3, np.zeros_like(luma), SPACING, 40)
    assert all(reborn.all() for reborn in fit.reborn)
    assert error_of(problem, fit.splats) < 0.4 * error_of(problem, [Splats.empty(3)] * 3)


@pytest.mark.parametrize("chroma", [Chroma.YUV420, Chroma.GRAY])
def test_frames_of_other_kinds(rng, chroma):
    info = replace(rgb_info(*SIZE), chroma=chroma, matrix=Matrix.BT709)
    grids = plane_grids(info)
    old, new = (
        resample(scene(*SIZE, shift=shift)[: len(grids)], [grids[0]] * len(grids), grids) for shift in ((0, 0), (2, 1))
    )
    channels = len(grids)
    splats = some_splats(rng, 40)
    state = SplatState(
        *(
            np.rint(part).astype(np.int32)
            for part in parameters_of(
                Splats(splats.means, splats.cholesky, splats.colors[:, :channels].copy()), *SIZE, opponent=False
            )
        )
    )
    background = np.full(channels, 0.5, np.float32)
    problem = InterProblem(objective_of(new, info, levels=1), background, [STEP_INDEX], [1.0], opponent=False)
    fit = fit_inter(problem, [Slots(state, np.zeros(40, np.int32))], old[0], SPACING, 15)
    ends = [len(fit.splats[0])]
    start = problem.objective.step(splats_of(state, *SIZE, opponent=False), background, [40], [1.0])
    end = problem.objective.step(fit.splats[0], background, ends, [1.0])
    assert end.squared_error.sum() < 0.8 * start.squared_error.sum()


def test_nothing_stays_nothing(reference):
    nothing = Slots(SplatState.empty(3), np.zeros(0, np.int32))
    flat = tuple(np.full(SIZE[::-1], 0.5, np.float32) for _ in range(3))
    fit = fit_inter(problem_of(flat, np.full(3, 0.5, np.float32)), [nothing] * 3, flat[0], SPACING, 12)
    assert [len(splats) for splats in fit.splats] == [0, 0, 0]
    assert not fit.field.vectors.any()
