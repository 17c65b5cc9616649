"""What slots of P- and B-frames do, in the terms of the coder, and what it makes of them (spec §7.7, §7.8, numba)."""

from __future__ import annotations

from typing import Any

import numpy as np

from pgsvc_codec.coding.main.coded_splats import (
    class_of,
    place_shift,
    sign_of,
)
from pgsvc_codec.coding.main.contexts import (
    ACTIVITIES,
    BEHIND,
    BESIDE,
    DELTA_DIGITS,
    DELTA_MIX,
    DELTA_SIGN_MIX,
    DELTA_SIGNS,
    DELTAS_BEHIND,
    DELTAS_BESIDE,
    DELTAS_CLASS,
    DIGIT_MODELS,
    FLAG_MIX,
    FLAGS_BEFORE,
    FLAGS_CLASS,
    FLAGS_NEAR,
    LENGTHS,
    MOST_DELTAS,
    REMOVAL_MIX,
    REMOVALS,
    REVIVALS,
    SLOT_CLASSES,
)
from pgsvc_codec.coding.main.range_coder import (
    code_bit,
    code_mixed,
    code_mixed_magnitude,
    compiled,
    digits_of,
)
from pgsvc_codec.coding.main.state import (
    MAX_AMPLITUDE,
    MAX_LOG_LENGTH,
    MAX_POSITION,
    MAX_SHEAR,
    MIN_LOG_LENGTH,
    MIN_POSITION,
)

POSITION, SHAPE, COLOR, REMOVED, REVIVED = 1, 2, 4, 8, 16  # what a slot does, as bits of one number
_SLOTS_PER_SQUARE = 2  # of the squares in which slots know each other


@compiled
def _activity(active: Any, group: Any, row: Any, column: Any) -> Any:
    """How much slots around a square do; squares begin at 1."""
    near = 2 * active[group, row, column] + active[group, row, column - 1] + active[group, row - 1, column]
    near += active[group, row - 1, column - 1] + active[group, row - 1, column + 1]
    context = np.int64(0)
    for bound in (32, 96, 224, 448, 800):
        context += near >= bound
    return context


@compiled
def _beside(latest: Any, group: Any, row: Any, column: Any) -> Any:
    """The slot nearby that was the last to change; -1 where there is none."""
    other = latest[group, row, column]
    if other < 0:
        other = latest[group, row, column - 1]
    if other < 0:
        other = latest[group, row - 1, column]
    if other < 0:
        other = latest[group, row - 1, column + 1]
    return other


@compiled
def code_slots(
    coder: Any,
    between: Any,
    size: Any,
    step: Any,
    amplitudes: Any,
    places: Any,
    before: Any,
    anchors: Any,
    flags: Any,
    deltas: Any,
) -> None:
    """What slots do: their flags, and the deltas of those that change.

    Args:
        coder: of the payload.
        between: 1 in B-frames, where slots are neither removed nor revived; 0 in P-frames.
        size: width and height of the frame.
        step: D.
        amplitudes: int32 [N, C] predicted; a slot without any is dead.
        places: int32 [N, 2] predicted positions.
        before: int32 [N] flags of the slots in the payload of this kind before.
        anchors: int32 [N] flags of the slots in the last P payload.
        flags: int32 [N].
        deltas: int32 [N, 5 + C] of position, shape and amplitude, in steps; 0 where the flag of their group is.
    """
    kind = np.int64(between)
    channels = deltas.shape[1] - 5
    width, height = np.int64(size[0]) << 6, np.int64(size[1]) << 6
    square = np.int64(9)
    while square < 14 and (width >> square) * (height >> square) * _SLOTS_PER_SQUARE > len(flags):
        square += 1
    columns, rows = (width >> square) + 1, (height >> square) + 1
    # With a margin of one square; how much slots do is in 1/256, and those coded last count most.
    active = np.full((4, rows + 2, columns + 2), 32, np.int64)
    latest = np.full((3, rows + 2, columns + 2), -1, np.int64)
    for n in range(len(flags)):
        energy = np.int64(0)
        for channel in range(channels):
            energy += np.int64(amplitudes[n, channel]) * np.int64(amplitudes[n, channel])
        if not energy:
            revived = np.int64(0)
            if not between:
                revived = code_bit(coder, REVIVALS, np.int64((flags[n] & REVIVED) > 0))
            flags[n] = REVIVED * revived
            continue
        row: Any = min(max(np.int64(places[n, 1]) >> square, 0), rows - 1)
        column: Any = min(max(np.int64(places[n, 0]) >> square, 0), columns - 1)
        row += 1
        column += 1
        level: Any = min(class_of(energy, np.int64(step) * np.int64(step)), SLOT_CLASSES - 1)
        done: Any = np.int64(0)
        for group in range(3):
            base = (kind * 3 + group) * 4 + done
            anchor: Any = np.int64(anchors[n]) >> group & kind
            bit = code_mixed(
                coder,
                FLAG_MIX + kind * 3 + group,
                FLAGS_BEFORE + base * 8 + (np.int64(before[n]) & 7),
                FLAGS_NEAR + base * ACTIVITIES + _activity(active, group, row, column),
                FLAGS_CLASS + (base * 2 + anchor) * SLOT_CLASSES + level,
                np.int64(flags[n]) >> group & 1,
            )
            done |= bit << group
            active[group, row, column] += ((256 if bit else 0) - active[group, row, column]) >> 1
        start = np.int64(0)
        for group in range(3):
            number = channels if group == 2 else 2 + group
            some = np.int64(0)
            behind: Any = np.int64(0)
            last = np.int64(0)
            other = _beside(latest, group, row, column)
            for place in range(start, start + number):
                if not done >> group & 1:
                    deltas[n, place] = 0
                    continue
                theirs = np.int64(deltas[other, place]) if other >= 0 else np.int64(0)
                beside: Any = min(digits_of(abs(theirs)), BESIDE - 2) if other >= 0 else np.int64(BESIDE - 1)
                delta = np.int64(deltas[n, place])
                history = (kind * MOST_DELTAS + place) * BEHIND + min(digits_of(behind), BEHIND - 1)
                value = code_mixed_magnitude(
                    coder,
                    DELTA_MIX + group * LENGTHS,
                    DELTAS_CLASS + ((place * 2 + some) * SLOT_CLASSES + level) * LENGTHS,
                    DELTAS_BEHIND + history * LENGTHS,
                    DELTAS_BESIDE + (place * BESIDE + beside) * LENGTHS,
                    DELTA_DIGITS + (kind * 3 + group) * DIGIT_MODELS,
                    np.int64(0),
                    abs(delta),
                )
                behind += value
                if value:
                    some = np.int64(1)
                    negative = code_mixed(
                        coder,
                        DELTA_SIGN_MIX + group,
                        DELTA_SIGNS + place,
                        DELTA_SIGNS + (1 + sign_of(theirs) + 1) * MOST_DELTAS + place,
                        DELTA_SIGNS + (4 + last + 1) * MOST_DELTAS + place,
                        np.int64(delta < 0),
                    )
                    value *= 1 - 2 * negative
                last = sign_of(value)
                deltas[n, place] = value
            if done >> group & 1:
                latest[group, row, column] = n
            start += number
        if not done and not between:
            gone = code_mixed(
                coder,
                np.int64(REMOVAL_MIX),
                REMOVALS + level,
                REMOVALS + SLOT_CLASSES + (np.int64(before[n]) & 7),
                REMOVALS + SLOT_CLASSES + 8 + _activity(active, 3, row, column),
                np.int64((flags[n] & REMOVED) > 0),
            )
            active[3, row, column] += ((256 if gone else 0) - active[3, row, column]) >> 1
            if gone:
                done = np.int64(REMOVED)
                if code_bit(coder, REVIVALS + 1, np.int64((flags[n] & REVIVED) > 0)):
                    done |= REVIVED
        flags[n] = done


@compiled
def _shape_limits(part: Any) -> Any:
    return (-MAX_SHEAR, MAX_SHEAR) if part == 1 else (MIN_LOG_LENGTH, MAX_LOG_LENGTH)


@compiled
def change_slots(positions: Any, shapes: Any, amplitudes: Any, flags: Any, deltas: Any, step: Any) -> None:
    """Make slots of their prediction: what `code_slots` said of those that are removed or change.

    Args:
        positions: int32 [N, 2], shapes: int32 [N, 3], amplitudes: int32 [N, C], predicted; changed in place.
        flags: int32 [N].
        deltas: int32 [N, 5 + C] of position, shape and amplitude, in steps.
        step: D.
    """
    channels = amplitudes.shape[1]
    for n in range(len(flags)):
        if flags[n] & REMOVED:
            amplitudes[n] = 0
        if not flags[n] & (POSITION | SHAPE | COLOR):
            continue
        energy = np.int64(0)
        for channel in range(channels):
            energy += np.int64(amplitudes[n, channel]) * np.int64(amplitudes[n, channel])
        level = class_of(energy, np.int64(step) * np.int64(step))
        for axis in range(2):
            shift = place_shift(shapes[n, 2 * axis], level)
            place = np.int64(positions[n, axis]) + (np.int64(deltas[n, axis]) << shift)
            positions[n, axis] = min(max(place, MIN_POSITION), MAX_POSITION)
        for part in range(3):
            least, most = _shape_limits(part)
            form = np.int64(shapes[n, part]) + (np.int64(deltas[n, 2 + part]) << (8 - level))
            shapes[n, part] = min(max(form, least), most)
        for channel in range(channels):
            amplitude = np.int64(amplitudes[n, channel]) + np.int64(deltas[n, 5 + channel]) * np.int64(step)
            amplitudes[n, channel] = min(max(amplitude, -MAX_AMPLITUDE), MAX_AMPLITUDE)


@compiled
def find_changes(predicted: Any, state: Any, still: Any, step: Any, deltas: Any, flags: Any) -> Any:
    """What `change_slots` makes slots of their prediction with, in least magnitudes.

    Args:
        predicted: positions int32 [N, 2], shapes int32 [N, 3] and amplitudes int32 [N, C].
        state: likewise, what comes of them.
        still: bool [N] slots that are taken to be as predicted, whatever they are.
        step: D.
        deltas: int32 [N, 5 + C], filled.
        flags: int32 [N], filled.

    Returns:
        How many slots that do not lie a whole number of steps from their prediction.
    """
    channels = predicted[2].shape[1]
    faults = np.int64(0)
    for n in range(len(still)):
        deltas[n] = 0
        flags[n] = 0
        if still[n]:
            continue
        energy = np.int64(0)
        for channel in range(channels):
            energy += np.int64(predicted[2][n, channel]) * np.int64(predicted[2][n, channel])
        level = class_of(energy, np.int64(step) * np.int64(step))
        met = True
        for axis in range(2):
            shift = place_shift(predicted[1][n, 2 * axis], level)
            before, after = np.int64(predicted[0][n, axis]), np.int64(state[0][n, axis])
            delta = _steps_to(after - before, np.int64(1) << shift)
            deltas[n, axis] = delta
            flags[n] |= POSITION if delta else 0
            met &= after == min(max(before + (delta << shift), MIN_POSITION), MAX_POSITION)
        for part in range(3):
            least, most = _shape_limits(part)
            before, after = np.int64(predicted[1][n, part]), np.int64(state[1][n, part])
            delta = _steps_to(after - before, np.int64(1) << (8 - level))
            deltas[n, 2 + part] = delta
            flags[n] |= SHAPE if delta else 0
            met &= after == min(max(before + (delta << (8 - level)), least), most)
        for channel in range(channels):
            before, after = np.int64(predicted[2][n, channel]), np.int64(state[2][n, channel])
            delta = _steps_to(after - before, np.int64(step))
            deltas[n, 5 + channel] = delta
            flags[n] |= COLOR if delta else 0
            met &= after == min(max(before + delta * np.int64(step), -MAX_AMPLITUDE), MAX_AMPLITUDE)
        faults += not met
    return faults


@compiled
def _steps_to(difference: Any, size: Any) -> Any:
    """Steps of a size, rounded away from 0: a limit may have cut the last one short."""
    steps = (abs(difference) + size - 1) // size
    return steps if difference >= 0 else -steps
