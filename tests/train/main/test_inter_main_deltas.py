"""Changes in natural coordinates: exact gradients, sparse groups, slots that come and stay."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import objective_of, scene, some_splats

from pgsvc_codec.coding.main.inter import assembled
from pgsvc_codec.coding.main.predict import flagged, inter_shifts
from pgsvc_codec.coding.main.state import parameters_of, splats_of
from pgsvc_codec.render import reference
from pgsvc_codec.splats import Splats, SplatState
from pgsvc_codec.train.main.deltas import Deltas

SIZE = (48, 40)
STEPS = (400, 300)


def state_from(splats: Splats, size=SIZE, *, opponent: bool = True) -> SplatState:
    parts = parameters_of(splats, *size, opponent=opponent)
    return SplatState(*(np.rint(part).astype(np.int32) for part in parts))


@pytest.fixture
def layers(rng) -> list[SplatState]:
    return [state_from(some_splats(rng, count, signs=False)) for count in (5, 7)]


def deltas_of(layers, opponent=True, spare=(2, 1)) -> Deltas:
    return Deltas(layers, STEPS, spare, SIZE, opponent=opponent)


@pytest.mark.parametrize("opponent", [True, False])
def test_no_change_is_the_prediction(layers, opponent):
    deltas = deltas_of(layers, opponent)
    shown = deltas.splats()
    assert deltas.ends == [7, 15]
    for layer, rows in zip(layers, ([0, 1, 2, 3, 4], [7, 8, 9, 10, 11, 12, 13]), strict=True):
        expected = splats_of(layer, *SIZE, opponent=opponent)
        for name in ("means", "cholesky", "colors"):
            np.testing.assert_allclose(
                getattr(shown[np.array(rows)], name), getattr(expected, name), rtol=1e-5, atol=1e-6
            )
    assert not shown.colors[[5, 6, 14]].any()


@pytest.mark.parametrize("opponent", [True, False])
def test_gradients_are_those_of_the_error(layers, rng, opponent):
    deltas = deltas_of(layers, opponent)
    deltas.changes = rng.normal(0, 0.2, deltas.changes.shape) * ~deltas.is_idle[:, None]
    objective = objective_of(scene(*SIZE), levels=2, rasterizer=reference)
    background, weights = np.full(3, 0.4, np.float32), [0.5, 1.0]

    def error() -> float:
        shown = objective.step(deltas.splats(), background, deltas.ends, weights)
        return float(np.asarray(weights) @ shown.squared_error.sum(axis=1))

    step = objective.step(deltas.splats(), background, deltas.ends, weights)
    gradients = deltas.gradients(step.moments)
    rows = rng.choice(np.flatnonzero(~deltas.is_idle), 6, replace=False)
    for row in rows:
        for column in range(deltas.changes.shape[1]):
            kept = deltas.changes[row, column]
            sides = []
            for offset in (-3e-3, 3e-3):
                deltas.changes[row, column] = kept + offset
                sides.append(error())
            deltas.changes[row, column] = kept
            slope = (sides[1] - sides[0]) / 6e-3
            # splats end where they are faint, so that errors jump a little
            assert abs(gradients[row, column] - slope) < 0.03 * np.abs(gradients).max()


def test_gradients_in_pixels_lead_where_those_of_changes_do(layers, rng):
    deltas = deltas_of(layers)
    gradients = rng.normal(size=deltas.changes.shape)
    moved = 1e-3 * rng.normal(size=(len(deltas), 2))
    before = deltas.places.copy()
    deltas.predict_again([SplatState(layer.positions, layer.shapes, layer.amplitudes) for layer in layers])
    np.testing.assert_array_equal(deltas.places, before)
    deltas.changes[:, :2] = moved
    shift = (deltas.splats().means.astype(float) + 1) * np.array(SIZE) / 2 - before
    np.testing.assert_allclose(
        (deltas.to_pixels(gradients) * shift).sum(1), (gradients[:, :2] * moved).sum(1), atol=1e-4
    )


def test_idle_slots_do_not_move(layers, rng):
    deltas = deltas_of(layers)
    moments = rng.normal(size=(len(deltas), 8)).astype(np.float32)
    gradients = deltas.gradients(moments)
    assert not gradients[[5, 6, 14]].any()
    assert gradients[:5].any()


def test_units_are_those_of_coded_differences(layers):
    deltas = deltas_of(layers)
    for layer, step, rows in zip(layers, STEPS, (slice(0, 5), slice(7, 14)), strict=True):
        _, shifts = inter_shifts(layer, step)
        octaves = np.exp2(shifts) / 256
        np.testing.assert_allclose(deltas.units[rows, 2], octaves * np.log(2))
        np.testing.assert_allclose(deltas.units[rows, 3], octaves)
        np.testing.assert_allclose(deltas.units[rows, 5:], step / 4096)


def test_a_new_splat_takes_a_slot(layers, rng):
    deltas = deltas_of(layers)
    born = some_splats(rng, 2)
    deltas.place(np.array([1, 14]), born)
    shown = deltas.splats()[np.array([1, 14])]
    np.testing.assert_allclose(shown.means, born.means, atol=1e-6)
    np.testing.assert_allclose(np.abs(shown.cholesky[:, 0]), np.abs(born.cholesky[:, 0]), rtol=1e-5)
    np.testing.assert_allclose(shown.colors, born.colors, atol=1e-6)
    assert deltas.is_new.nonzero()[0].tolist() == [1, 14]
    assert deltas.is_idle.nonzero()[0].tolist() == [5, 6]


def test_splats_that_moved_stay_when_predictions_move(layers, rng):
    deltas = deltas_of(layers)
    deltas.changes[2, :2] = 0.5, -0.25
    deltas.place(np.array([8]), some_splats(rng, 1))
    before = deltas.splats().means
    shifted = [SplatState(layer.positions + np.int32(64), layer.shapes, layer.amplitudes) for layer in layers]
    deltas.predict_again(shifted)
    after = deltas.splats().means
    np.testing.assert_allclose(after[[2, 8]], before[[2, 8]], atol=1e-6)
    np.testing.assert_allclose((after - before)[[0, 7]] * np.array(SIZE) / 2, 1.0, atol=1e-5)
    assert not deltas.changes[8].any()


def test_shapes_settle_within_what_states_can_be(layers):
    deltas = deltas_of(layers)
    deltas.changes[0, 2:5] = -50.0, 200.0, 50.0
    deltas.changes[1, 2:5] = 0.125, 0.25, -0.125
    deltas.settle()
    assert deltas.changes[1, 2:5].tolist() == [0.125, 0.25, -0.125]
    shown = deltas.splats()
    state = state_from(shown[np.array([0])])
    assert state.shapes[0, 0] == -512
    assert np.isfinite(shown.cholesky).all()
    state_from(shown[np.array([1])])


def test_changes_of_whole_units_are_codable(layers):
    """Whole numbers of units are what a decoder makes of the same numbers."""
    deltas = deltas_of(layers, spare=(0, 0))
    counts = np.zeros((5, 8), np.int32)
    counts[:, 2:] = [1, -2, 1, 3, 0, -1]
    deltas.changes[:5] = counts * deltas.units[:5]
    expected = assembled(layers[0], flagged(counts).flags, counts, SplatState.empty(3), STEPS[0])
    shown = state_from(deltas.splats()[:5])
    np.testing.assert_allclose(shown.shapes, expected.shapes, atol=1)
    np.testing.assert_allclose(shown.amplitudes, expected.amplitudes, atol=2)
