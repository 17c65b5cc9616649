"""Slots of P- and B-frames, settled one after the other: steps from what is predicted, and exact checks (numba)."""

from __future__ import annotations

import math

import numpy as np

from pgsvc_codec.jit import kernel
from pgsvc_codec.train.main.refine_sums import (
    LOG_UNIT,
    MOST_AMPLITUDE,
    NUM_SUMS,
    SHARES,
    SQUARES,
    SUMS,
    aim,
    describe,
    is_inside,
    is_one_of,
    paint,
    place_shift,
    pull,
    row_buffers,
    take,
)

REMOVED_MODE = 8  # of a slot; the others are the sum of 1 (position), 2 (shape) and 4 (colour) that change


@kernel(error_model="numpy")
def _class_of_amplitudes(amplitudes, step):
    """The class of a splat (`state.classes_of`); amplitudes and step in 1/4096."""
    energy = np.int64(0)
    for c in range(3):
        energy += np.int64(amplitudes[c]) * np.int64(amplitudes[c])
    level, bound = 0, 4 * step * step
    while level < 8 and 2 * energy >= bound:
        level += 1
        bound *= 4
    return level


@kernel(inline="always", error_model="numpy")
def _delta_bits(deltas, column, delta):
    return deltas[column, min(abs(delta), deltas.shape[1] - 1)]


@kernel(error_model="numpy")
def _fewer_steps(real):
    """The nearest whole number, and the one after it on the way to zero."""
    nearest = math.floor(real + 0.5)
    return nearest, nearest - (1 if nearest > 0 else -1 if nearest < 0 else 0)


@kernel(error_model="numpy")
def _place_delta(splat, predicted, shape, level, target, energy, rate, deltas, moved):
    """Steps from a predicted position towards a target: into `moved`.

    Returns the model's cost of the prediction itself, then that of the steps with their bits.
    """
    shift_x, shift_y = place_shift(shape[0], level), place_shift(shape[2], level)
    slope = splat[3] * splat[4] / splat[2]
    right = (target[0] + 0.5) * 64.0 - predicted[0]
    down = (target[1] + 0.5) * 64.0 - predicted[1]
    v1 = right / (64.0 * splat[2])
    v2 = (down - slope * right) / (64.0 * splat[4])
    still = 0.5 * energy * (v1 * v1 + v2 * v2)
    best = np.inf
    for x in _fewer_steps(right / (1 << shift_x)):
        error = (x << shift_x) - right
        v1 = error / (64.0 * splat[2])
        for y in _fewer_steps((down + slope * error) / (1 << shift_y)):
            v2 = ((y << shift_y) - down - slope * error) / (64.0 * splat[4])
            cost = 0.5 * energy * (v1 * v1 + v2 * v2)
            cost += rate * (_delta_bits(deltas, 0, x) + _delta_bits(deltas, 1, y))
            if cost < best:
                best = cost
                moved[0], moved[1] = x, y
    return still, best


@kernel(error_model="numpy")
def _shape_delta(splat, predicted, level, target, energy, rate, deltas, moved):
    """Steps from a predicted shape towards a target: into `moved`; returns as `_place_delta`."""
    high = 8 - level
    now0, now2 = math.log2(splat[2]), math.log2(splat[4])
    wide = (target[2] * 256.0 - predicted[0], target[3] * 256.0 - predicted[2])
    grown0 = (predicted[0] / 256.0 - now0) * math.log(2.0)
    grown2 = (predicted[2] / 256.0 - now2) * math.log(2.0)
    twist = predicted[1] / 256.0 - (splat[3] + target[4] + splat[3] * (grown0 - grown2))
    error0, error2 = wide[0] * LOG_UNIT, wide[1] * LOG_UNIT
    still = energy * (0.5 * (error0 * error0 + error2 * error2) + 0.25 * twist * twist)
    best = np.inf
    for d0 in _fewer_steps(wide[0] / (1 << high)):
        error0 = ((d0 << high) - wide[0]) * LOG_UNIT
        for d2 in _fewer_steps(wide[1] / (1 << high)):
            error2 = ((d2 << high) - wide[1]) * LOG_UNIT
            more = (d0 - d2) * (1 << high) * LOG_UNIT
            lack = (splat[3] * more - twist) * 256.0
            for d1 in _fewer_steps(lack / (1 << high)):
                rest = ((d1 << high) - lack) / 256.0
                cost = energy * (0.5 * (error0 * error0 + error2 * error2) + 0.25 * rest * rest)
                cost += rate * (_delta_bits(deltas, 2, d0) + _delta_bits(deltas, 3, d1) + _delta_bits(deltas, 4, d2))
                if cost < best:
                    best = cost
                    moved[2], moved[3], moved[4] = d0, d1, d2
    return still, best


@kernel(error_model="numpy")
def _color_deltas(sums, predicted, step, unit, rate, deltas, moved):
    """Steps of amplitudes that cost least for a place and shape: into `moved`; 5 on.

    Returns the error with the predicted amplitudes, then the cost with the steps: error and bits.
    """
    still, best = 0.0, 0.0
    channels = len(deltas) - 5
    for c in range(channels):
        square, pull = sums[SQUARES + c], sums[SUMS + c]
        amplitude = predicted[c] / 4096.0
        error = amplitude * (square * amplitude - 2.0 * pull)
        still += error
        least, chosen = error + rate * _delta_bits(deltas, 5 + c, 0), 0
        if square > 0.0:
            for delta in _fewer_steps((pull / square - amplitude) / unit):
                if delta == 0 or abs(predicted[c] + delta * step) > MOST_AMPLITUDE:
                    continue
                changed = amplitude + delta * unit
                cost = changed * (square * changed - 2.0 * pull) + rate * _delta_bits(deltas, 5 + c, delta)
                if cost < least:
                    least, chosen = cost, delta
        best += least
        moved[5 + c] = chosen
    return still, best


@kernel(error_model="numpy")
def _within(position, shape, limits):
    """Whether a state is one that a decoder does not cut."""
    return (
        position[0] >= limits[0]
        and position[1] >= limits[0]
        and position[0] <= limits[1]
        and position[1] <= limits[1]
        and min(shape[0], shape[2]) >= limits[2]
        and max(shape[0], shape[2]) <= limits[3]
        and abs(shape[1]) <= limits[4]
    )


@kernel(nogil=True, error_model="numpy")
def refine_slots(
    field,
    whole,
    floats,
    order,
    bounds,
    state,
    modes,
    painted,
    predicted,
    step,
    rate,
    flags,
    deltas,
    limits,
    removable,
    opponent,
):
    """One pass over slots that change what is predicted for them, as `refine_whole` goes over splats coded whole.

    Args:
        field: see `refine_whole`; likewise whole, floats, order, bounds and opponent.
        state: positions, shapes and amplitudes [N, 3] int32; changed in place.
        modes: int32 [N] which groups change, see `REMOVED_MODE`; -1 of slots that are not on their lattice yet.
        painted: [N, 3] amplitudes that the residual lacks; changed in place.
        predicted: positions, shapes and amplitudes int32.  Slots without any amplitude are left as they are.
        step: D in 1/4096.
        rate: squared error that a bit is worth.
        flags: float32 [N, 9] bits of every mode.
        deltas: float32 [5 + C, M] bits of steps by magnitude, their sign included: position, shape, amplitudes.
        limits: int64 least and largest position, least and largest log length, largest shear.
        removable: whether slots can be removed.
    """
    positions, shapes, amplitudes = state
    expected_positions, expected_shapes, expected_amplitudes = predicted
    channels = len(deltas) - 5
    unit = step / 4096.0
    buffers = row_buffers(whole)
    splat, trial = np.empty(7), np.empty(7)
    sums, others = np.zeros(NUM_SUMS), np.zeros(NUM_SUMS)
    target, wanted = np.empty(5), np.zeros(3)
    moved, tried = np.zeros(8, np.int64), np.zeros(8, np.int64)
    position, shape = np.empty(2, np.int64), np.empty(3, np.int64)
    best_position, best_shape, best_colors = np.empty(2, np.int64), np.empty(3, np.int64), np.empty(3, np.int64)
    tried_positions, tried_shapes = np.empty((2 + len(SHARES), 2), np.int64), np.empty((2 + len(SHARES), 3), np.int64)
    ranks = np.empty(4)
    for n in order:
        energy = 0.0
        for c in range(3):
            energy += painted[n, c] * painted[n, c]
        dark = energy == 0.0
        if (dark and modes[n] >= 0) or not expected_amplitudes[n].any():
            continue
        level = _class_of_amplitudes(expected_amplitudes[n], step)
        shift_x, shift_y = place_shift(expected_shapes[n, 0], level), place_shift(expected_shapes[n, 2], level)
        high = 8 - level
        old, energy = 0.0, 0.0
        if dark:  # a fit has faded it out: it is gone, or where it was expected
            for c in range(channels):
                wanted[c] = expected_amplitudes[n, c] / 4096.0
            positions[n], shapes[n], modes[n] = expected_positions[n], expected_shapes[n], 0
            describe(splat, positions[n], shapes[n], wanted, opponent)
            pull(field, whole, floats, splat, buffers, sums)
        else:
            describe(splat, positions[n], shapes[n], painted[n], opponent)
            take(field, whole, floats, splat, painted[n], buffers, sums)
        for c in range(3):
            sums[SUMS + c] += painted[n, c] * sums[SQUARES + c]
            energy += painted[n, c] * painted[n, c] * sums[SQUARES + c]
            old -= 2.0 * painted[n, c] * sums[SUMS + c]
        old += energy

        best, best_mode = np.inf, -1
        if removable:
            best, best_mode = rate * flags[n, REMOVED_MODE], REMOVED_MODE
        if modes[n] >= 0:
            # as it is, or with other colours
            bits = 0.0
            for axis in range(2):
                shift = shift_y if axis else shift_x
                moved[axis] = positions[n, axis] - expected_positions[n, axis] >> shift
                bits += _delta_bits(deltas, axis, moved[axis]) if modes[n] & 1 else 0.0
            for k in range(3):
                moved[2 + k] = shapes[n, k] - expected_shapes[n, k] >> high
                bits += _delta_bits(deltas, 2 + k, moved[2 + k]) if modes[n] & 2 else 0.0
            own = bits
            for c in range(channels):
                delta = (amplitudes[n, c] - expected_amplitudes[n, c]) // step
                own += _delta_bits(deltas, 5 + c, delta) if modes[n] & 4 else 0.0
            cost = old + rate * (own + flags[n, modes[n]] - 0.01)
            if cost < best and not dark:
                best, best_mode = cost, modes[n]
                best_position[:], best_shape[:], best_colors[:] = positions[n], shapes[n], amplitudes[n]
            still, colored = _color_deltas(sums, expected_amplitudes[n], step, unit, rate, deltas, moved)
            for change in range(2):
                mode = modes[n] & 3 | 4 * change
                cost = (colored if change else still) + rate * (bits + flags[n, mode])
                for c in range(channels):
                    wanted[c] = (expected_amplitudes[n, c] + (moved[5 + c] * step if change else 0)) / 4096.0
                describe(trial, positions[n], shapes[n], wanted, opponent)
                if cost < best and is_inside(trial, floats, bounds):
                    best, best_mode = cost, mode
                    best_position[:], best_shape[:] = positions[n], shapes[n]
                    for c in range(channels):
                        best_colors[c] = expected_amplitudes[n, c] + (moved[5 + c] * step if change else 0)

        trials = 0
        for turn in range(0 if dark else 1 + len(SHARES)):
            aim(splat, sums, energy, SHARES[turn - 1] if turn else 1.0, target)
            lying, placed = _place_delta(
                splat, expected_positions[n], expected_shapes[n], level, target, energy, rate, deltas, moved
            )
            formed, shaped = _shape_delta(splat, expected_shapes[n], level, target, energy, rate, deltas, moved)
            still, colored = _color_deltas(sums, expected_amplitudes[n], step, unit, rate, deltas, moved)
            for k in range(4):
                lightest = min(still + rate * flags[n, k], colored + rate * flags[n, k + 4])
                ranks[k] = (placed if k & 1 else lying) + (shaped if k & 2 else formed) + lightest
            if moved[0] == 0 and moved[1] == 0:
                ranks[1] = ranks[3] = np.inf
            if moved[2] == 0 and moved[3] == 0 and moved[4] == 0:
                ranks[2] = ranks[3] = np.inf
            for _ in range(2 if turn == 0 else 1):
                mode = np.argmin(ranks)
                if ranks[mode] == np.inf:
                    break
                ranks[mode] = np.inf
                bits = 0.0
                for axis in range(2):
                    shift = shift_y if axis else shift_x
                    position[axis] = expected_positions[n, axis] + (moved[axis] << shift if mode & 1 else 0)
                    bits += _delta_bits(deltas, axis, moved[axis]) if mode & 1 else 0.0
                for k in range(3):
                    shape[k] = expected_shapes[n, k] + (moved[2 + k] << high if mode & 2 else 0)
                    bits += _delta_bits(deltas, 2 + k, moved[2 + k]) if mode & 2 else 0.0
                if mode and not _within(position, shape, limits):
                    continue
                if modes[n] >= 0 and is_one_of(position, shape, positions, shapes, n, n + 1):
                    continue
                if is_one_of(position, shape, tried_positions, tried_shapes, 0, trials):
                    continue
                tried_positions[trials], tried_shapes[trials] = position, shape
                trials += 1
                for c in range(channels):
                    wanted[c] = (expected_amplitudes[n, c] + moved[5 + c] * step) / 4096.0
                describe(trial, position, shape, wanted, opponent)
                if not is_inside(trial, floats, bounds):
                    continue
                pull(field, whole, floats, trial, buffers, others)
                still_there, colored_there = _color_deltas(
                    others, expected_amplitudes[n], step, unit, rate, deltas, tried
                )
                for change in range(2):
                    cost = (colored_there if change else still_there) + rate * (bits + flags[n, mode | 4 * change])
                    for c in range(channels):
                        wanted[c] = (expected_amplitudes[n, c] + (tried[5 + c] * step if change else 0)) / 4096.0
                    describe(trial, position, shape, wanted, opponent)
                    if cost < best and is_inside(trial, floats, bounds):
                        best, best_mode = cost, mode | 4 * change
                        best_position[:], best_shape[:] = position, shape
                        for c in range(channels):
                            best_colors[c] = expected_amplitudes[n, c] + (tried[5 + c] * step if change else 0)
        if best_mode < 0:  # nothing lies within the limits but the prediction
            best_mode = 0
            best_position[:], best_shape[:] = expected_positions[n], expected_shapes[n]
            best_colors[:] = expected_amplitudes[n]
        modes[n] = best_mode
        if best_mode == REMOVED_MODE:
            painted[n, :] = 0.0
            amplitudes[n, :] = 0
            continue
        for c in range(channels):
            amplitudes[n, c] = best_colors[c]
            painted[n, c] = best_colors[c] / 4096.0
        for axis in range(2):
            positions[n, axis] = best_position[axis]
        for k in range(3):
            shapes[n, k] = best_shape[k]
        describe(splat, positions[n], shapes[n], painted[n], opponent)
        paint(field, whole, floats, splat, painted[n], -1.0, buffers)
