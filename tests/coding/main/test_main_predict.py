"""Predictions of slots: exact integers, the words of the module taken literally."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgsvc_codec.coding.main.inter import assembled
from pgsvc_codec.coding.main.predict import (
    SPACINGS,
    MotionField,
    Slots,
    carried,
    changes,
    field_shape,
    flagged,
    inter_shifts,
    predict_between,
    predict_inter,
)
from pgsvc_codec.coding.main.state import MAX_AMPLITUDE, MAX_POSITION, MAX_SHEAR, MIN_POSITION, STEPS
from pgsvc_codec.splats import SplatState


def any_state(seed: int, number: int, channels: int = 3) -> SplatState:
    rng = np.random.default_rng(seed)
    return SplatState(
        rng.integers(-2000, 64 * 300, (number, 2), np.int32),
        rng.integers([-512, -900, -512], [2000, 900, 2000], (number, 3), np.int32),
        rng.integers(-9000, 9000, (number, channels), np.int32),
    )


def looked_up(position: tuple[int, int], field: MotionField) -> tuple[int, int]:
    """One position, the slow way: exact fractions of vectors."""
    unit = field.spacing * 64
    rows, columns, _ = field.vectors.shape
    x, y = (min(max(p - unit // 2, 0), (n - 1) * unit) for p, n in zip(position, (columns, rows), strict=True))
    c, r = x // unit, y // unit
    c1, r1 = min(c + 1, columns - 1), min(r + 1, rows - 1)
    fx, fy = x - c * unit, y - r * unit
    moved = []
    for axis in range(2):
        v = field.vectors[:, :, axis].astype(object)
        total = (v[r, c] * (unit - fx) + v[r, c1] * fx) * (unit - fy) + (v[r1, c] * (unit - fx) + v[r1, c1] * fx) * fy
        moved.append((64 * total + unit * unit) // (2 * unit * unit))  # half pixels -> 1/64, rounded half up
    return position[0] + moved[0], position[1] + moved[1]


@given(seed=st.integers(0, 99), spacing=st.sampled_from(SPACINGS), rows=st.integers(1, 4), columns=st.integers(1, 4))
@settings(deadline=None)
def test_fields_carry_positions_bilinearly(seed: int, spacing: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    field = MotionField(spacing, rng.integers(-1023, 1024, (rows, columns, 2)).astype(np.int16))
    positions = rng.integers(-4000, 20000, (30, 2), np.int32)
    expected = np.clip([looked_up((int(x), int(y)), field) for x, y in positions], MIN_POSITION, MAX_POSITION)
    assert np.array_equal(carried(positions, field), expected)


def test_a_uniform_field_moves_everything_alike() -> None:
    state = any_state(0, 20)
    vectors = np.tile(np.array([3, -1], np.int16), (*field_shape(300, 200, 32), 1))
    slots = predict_inter(Slots(state, np.arange(20, dtype=np.int32)), MotionField(32, vectors))
    assert np.array_equal(slots.state.positions - state.positions, np.tile([96, -32], (20, 1)))
    assert np.array_equal(slots.births, np.arange(20))
    assert slots.state.shapes is state.shapes


@pytest.mark.parametrize(
    ("spacing", "vectors", "words"),
    [
        (24, np.zeros((1, 1, 2), np.int16), "spacing of 24"),
        (32, np.zeros((1, 1, 2), np.int32), "int32"),
        (32, np.zeros((1, 2), np.int16), r"\(1, 2\)"),
        (32, np.full((1, 1, 2), -1024, np.int16), "1024 half pixels"),
    ],
)
def test_fields_that_do_not_fit_are_refused(spacing: int, vectors: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MotionField(spacing, vectors)


def test_between_takes_means_and_the_nearer_of_what_was_reborn() -> None:
    past, future = any_state(1, 5), any_state(2, 7)
    births = np.array([0, 0, 4, 0, 0], np.int32)
    later = np.array([0, 8, 4, 8, 0, 8, 8], np.int32)
    for late in (False, True):
        slots = predict_between(Slots(past, births), Slots(future, later), late=late)
        for name in ("positions", "shapes", "amplitudes"):
            got, a, b = (getattr(one, name) for one in (slots.state, past, future))
            assert np.array_equal(got[[0, 2, 4]], (a[[0, 2, 4]] + b[[0, 2, 4]]) >> 1)
            assert np.array_equal(got[[1, 3]], (b if late else a)[[1, 3]])
        assert np.array_equal(slots.state.amplitudes[5:], future.amplitudes[5:] >> 1)
        assert np.array_equal(slots.state.positions[5:], future.positions[5:])
        assert np.array_equal(slots.births, later if late else [*births, 8, 8])


@given(seed=st.integers(0, 99), step=st.sampled_from(STEPS), size=st.sampled_from([1, 3, 300]))
@settings(deadline=None)
def test_changes_are_what_a_decoder_undoes(seed: int, step: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    predicted = any_state(seed, 40)
    deltas = rng.integers(-size, size + 1, (40, 8), np.int32) * np.repeat(
        rng.integers(0, 2, (40, 3)), [2, 3, 3], axis=1
    )
    made = flagged(deltas.astype(np.int32))
    state = assembled(predicted, made.flags, made.deltas, SplatState.empty(3), step)
    found = changes(predicted, state, step)
    assert assembled(predicted, found.flags, found.deltas, SplatState.empty(3), step).equals(state)
    assert np.array_equal(found.flags, flagged(found.deltas).flags)
    groups = [found.deltas[:, :2], found.deltas[:, 2:5], found.deltas[:, 5:]]
    assert found.flags.tolist() == [sum(group[n].any() << bit for bit, group in enumerate(groups)) for n in range(40)]
    inside = np.abs(state.shapes[:, 1]) < MAX_SHEAR
    assert np.array_equal(found.deltas[inside, 3], deltas[inside, 3])
    assert (np.abs(state.amplitudes) <= MAX_AMPLITUDE).all()


def test_slots_that_are_still_change_nothing_whatever_they_are() -> None:
    predicted, state = any_state(0, 10), any_state(1, 10)
    assert not changes(predicted, state, STEPS[50], np.ones(10, np.bool_)).deltas.any()


def test_a_state_off_the_lattice_has_no_changes() -> None:
    predicted = any_state(0, 10)
    shifts, _ = inter_shifts(predicted, STEPS[50])
    assert (shifts > 0).any()
    state = SplatState(predicted.positions + np.int32(1), predicted.shapes, predicted.amplitudes)
    with pytest.raises(ValueError, match="whole number of steps"):
        changes(predicted, state, STEPS[50])
