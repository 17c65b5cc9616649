"""Slots of P- and B-frames to integers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scenes import objective_of, plan_of, scene

from pgsvc_codec.coding.main.predict import changes
from pgsvc_codec.coding.main.state import STEPS, parameters_of, splats_of, symbols_of
from pgsvc_codec.splats import Splats, SplatState
from pgsvc_codec.train.fit import fit_float
from pgsvc_codec.train.main.refine import RefinedInter, refine_inter, refine_intra
from pgsvc_codec.train.main.rounding import round_whole
from pgsvc_codec.train.objective import Objective

SIZE = (72, 56)
WEIGHTS = (0.5, 0.5, 1.0)
INDEX = 45  # D about 0.19
RATE = 0.2 * (STEPS[INDEX] / 4096) ** 2


class Moving(NamedTuple):
    """A frame whose picture has moved by a pixel since the one it is predicted from."""

    objective: Objective
    background: NDArray[np.float32]
    predicted: list[SplatState]
    layers: list[Splats]  # where a fit would put them
    reborn: list[NDArray[np.bool_]]


@pytest.fixture(scope="module")
def moving() -> Moving:
    before, after = (objective_of(scene(*SIZE, shift=shift)) for shift in ((0.0, 0.0), (1.0, 0.5)))
    fit = fit_float(before, plan_of(splats=90, iterations=60), np.random.default_rng(3))
    states = refine_intra(
        before, fit.background, fit.layers, [INDEX] * 3, [0.05 * RATE] * 3, WEIGHTS, opponent=True, passes=2
    ).layers
    rng = np.random.default_rng(7)
    layers, reborn = [], []
    for state in states:
        splats = splats_of(state, *SIZE, opponent=True)
        moved = Splats(splats.means + np.float32([2 / 72, 1 / 56]), splats.cholesky, splats.colors)
        some = rng.choice(len(splats), 4, replace=False)
        added = moved[some]
        shifted = Splats(-added.means, added.cholesky, added.colors * np.float32(0.5))
        layers.append(Splats.concatenate([moved, shifted]))
        reborn.append(np.arange(len(layers[-1])) >= len(state))
        reborn[-1][:2] = True
    return Moving(after, fit.background, states, layers, reborn)


def refine(moving: Moving, passes: int = 3, rate: float = RATE) -> RefinedInter:
    return refine_inter(*moving, [INDEX] * 3, [rate] * 3, WEIGHTS, opponent=True, passes=passes)


def refine_between(moving: Moving, rate: float = RATE) -> RefinedInter:
    kept = [layer[: len(state)] for layer, state in zip(moving.layers, moving.predicted, strict=True)]
    still = moving._replace(layers=kept)
    return refine_inter(*still[:4], None, [INDEX] * 3, [rate] * 3, WEIGHTS, opponent=True)


def painted_error(moving: Moving, states: list[SplatState]) -> NDArray[np.float64]:
    layers = [splats_of(state, *SIZE, opponent=True) for state in states]
    ends = np.cumsum([len(state) for state in states]).tolist()
    shown = moving.objective.step(Splats.concatenate(layers), moving.background, ends, [1.0] * 3, with_moments=False)
    return shown.squared_error.sum(axis=1)


def test_reported_errors_are_those_of_the_pictures(moving: Moving) -> None:
    for refined in (refine(moving), refine_between(moving)):
        np.testing.assert_allclose(refined.squared_error, painted_error(moving, refined.layers), rtol=1e-4)
        expected = np.dot(WEIGHTS, refined.squared_error) + RATE * sum(refined.bits)
        assert refined.cost == pytest.approx(expected, rel=1e-9)


def test_cost_falls_from_pass_to_pass(moving: Moving) -> None:
    costs = [refine(moving, passes).cost for passes in range(1, 5)]
    assert costs == sorted(costs, reverse=True)


def test_a_frame_is_better_than_its_prediction(moving: Moving) -> None:
    still = float(np.dot(WEIGHTS, painted_error(moving, moving.predicted)))
    assert refine(moving).cost < 0.8 * still


def test_slots_lie_on_the_lattices_of_their_predictions(moving: Moving) -> None:
    refined = refine(moving)
    for state, reborn, predicted, given in zip(
        refined.layers, refined.reborn, moving.predicted, moving.reborn, strict=True
    ):
        number = len(predicted)
        assert number <= len(state) <= len(given)
        assert not (reborn[:number] & ~given[:number]).any()
        assert reborn[number:].all()
        symbols_of(state[reborn], STEPS[INDEX])
        kept = np.flatnonzero(~reborn[:number] & state.amplitudes[:number].any(axis=1))
        changes(predicted[kept], state[kept], STEPS[INDEX])


def test_a_slot_whose_new_splat_is_not_worth_it_dies_where_it_was(moving: Moving) -> None:
    refined = refine(moving, rate=100.0 * RATE)
    for state, reborn, predicted in zip(refined.layers, refined.reborn, moving.predicted, strict=True):
        assert not reborn[:2].any()
        np.testing.assert_array_equal(state.amplitudes[:2], 0)
        np.testing.assert_array_equal(state.positions[:2], predicted.positions[:2])


def test_bits_that_cost_a_lot_leave_the_prediction(moving: Moving) -> None:
    refined = refine_between(moving, rate=1e6)
    for state, predicted in zip(refined.layers, moving.predicted, strict=True):
        assert state.equals(predicted)


def test_slots_between_anchors_are_never_removed(moving: Moving) -> None:
    refined = refine_between(moving)
    for state, predicted, reborn in zip(refined.layers, moving.predicted, refined.reborn, strict=True):
        assert len(state) == len(predicted)
        assert not reborn.any()


def test_dead_slots_stay_dead(moving: Moving) -> None:
    dead = [
        SplatState(state.positions, state.shapes, state.amplitudes * (np.arange(len(state)) > 4)[:, None])
        for state in moving.predicted
    ]
    dead = [SplatState(s.positions, s.shapes, s.amplitudes.astype(np.int32)) for s in dead]
    none = [np.zeros(len(state), np.bool_) for state in dead]
    layers = [layer[: len(state)] for layer, state in zip(moving.layers, dead, strict=True)]
    refined = refine(moving._replace(predicted=dead, layers=layers, reborn=none))
    for state in refined.layers:
        np.testing.assert_array_equal(state.amplitudes[:5], 0)
    np.testing.assert_allclose(refined.squared_error, painted_error(moving, refined.layers), rtol=1e-4)


def test_new_splats_begin_near_the_fit(moving: Moving) -> None:
    refined = refine(moving, passes=1, rate=0.0)
    layer = moving.layers[0]
    number = len(moving.predicted[0])
    found = refined.layers[0][number:]
    wanted = round_whole(layer[number:], STEPS[INDEX], SIZE, opponent=True)
    assert len(found) == len(wanted) == 4
    distance = (found.positions - parameters_of(layer[number:], *SIZE, opponent=True)[0]) / 64
    assert np.abs(distance).max() < 12


@pytest.mark.parametrize("between", [False, True])
def test_slots_that_a_fit_has_faded_out_are_gone_or_as_predicted(moving: Moving, between: bool) -> None:
    faded = []
    for layer, state in zip(moving.layers, moving.predicted, strict=True):
        colors = layer.colors.copy()
        colors[3 : len(state) : 2] = 0.0
        cholesky = layer.cholesky.copy()
        cholesky[3 : len(state) : 2] *= np.float32(1.3)  # on no lattice
        faded.append(Splats(layer.means, cholesky, colors))
    moving = moving._replace(layers=faded)
    refined = refine_between(moving) if between else refine(moving)
    np.testing.assert_allclose(refined.squared_error, painted_error(moving, refined.layers), rtol=1e-4)
    for state, reborn, predicted in zip(refined.layers, refined.reborn, moving.predicted, strict=True):
        kept = np.flatnonzero(~reborn[: len(predicted)] & state.amplitudes[: len(predicted)].any(axis=1))
        changes(predicted[kept], state[kept], STEPS[INDEX])


def test_many_slots_at_the_finest_step_lie_on_their_lattices(moving: Moving) -> None:
    refined = refine_inter(*moving, [0] * 3, [1e-7] * 3, WEIGHTS, opponent=True, passes=2)
    for state, reborn, predicted in zip(refined.layers, refined.reborn, moving.predicted, strict=True):
        kept = np.flatnonzero(~reborn[: len(predicted)] & state.amplitudes[: len(predicted)].any(axis=1))
        changes(predicted[kept], state[kept], STEPS[0])
