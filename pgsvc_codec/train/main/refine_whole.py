"""Splats coded whole, settled one after the other: their costs, lattice points, candidates and exact checks (numba)."""

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


@kernel(inline="always", error_model="numpy")
def _digits(value):
    """Binary digits of a number that is not negative; 0 has none."""
    number = 0
    while value:
        value >>= 1
        number += 1
    return number


@kernel(error_model="numpy")
def _color_bits(costs, k0, k1, k2):
    """Of the symbols of amplitudes (`coding.main.cost`)."""
    bits = _component_bits(costs, 0, 0, 0, k0)
    if len(costs.colors) == 1:
        return bits
    first = abs(k0)
    second = abs(k1) + (first >> 2)
    bits += _component_bits(costs, 1, min(_digits(first), 5), k0, k1)
    return bits + _component_bits(costs, 2, min(_digits(second), 5), k1, k2)


@kernel(inline="always", error_model="numpy")
def _component_bits(costs, channel, context, before, k):
    bits = costs.colors[channel, context, min(abs(k), costs.colors.shape[2] - 1)]
    if k != 0:
        bits += costs.color_signs[channel, 1 if before > 0 else 2 if before < 0 else 0, 1 if k < 0 else 0]
    return bits


@kernel(inline="always", error_model="numpy")
def _lengths_bits(costs, level, first, third):
    """Of log lengths, and of the place within its cell (`coding.main.cost`)."""
    fine = min(level, 2)
    octave1, octave3 = (first >> 8) + 2, (third >> 8) + 2
    mask = (1 << fine) - 1
    bits = costs.lengths_1[level, octave1] + costs.lengths_3[level, octave1, octave3]
    bits += costs.fractions[0, fine, octave1, first >> 8 - fine & mask]
    bits += costs.fractions[1, fine, octave3, third >> 8 - fine & mask]
    return bits + (2 * (level - fine) + 9 - place_shift(first, level) + 9 - place_shift(third, level))


@kernel(inline="always", error_model="numpy")
def _shear_bits(costs, level, shear):
    return costs.shears[level, min(abs(shear) >> 8 - level, costs.shears.shape[1] - 1)]


@kernel(error_model="numpy")
def _shape_bits(costs, level, shape):
    """Of log lengths and shear, and of the place within its cell."""
    return _lengths_bits(costs, level, shape[0], shape[2]) + _shear_bits(costs, level, shape[1])


@kernel(error_model="numpy")
def _cell_bits(costs, old, new):
    """Of being counted in a cell, for a splat that was counted in that of `old`."""
    row, column = new[1] >> 9, new[0] >> 9
    if old[1] >> 9 == row and old[0] >> 9 == column:
        return costs.cells_fewer[row, column]
    return costs.cells_more[row, column]


@kernel(inline="always", error_model="numpy")
def _class_of(energy):
    """The class of a splat from the sum of its squared symbols (`state.classes_of`)."""
    level = 0
    while level < 8 and 2 * energy >= 1 << 2 * (level + 1):
        level += 1
    return level


@kernel(error_model="numpy")
def _best_colors(sums, step, rate, costs, least, most, chosen, prices):
    """For each class within [least, most] the symbols of amplitudes that cost least: error and their own bits.

    `sums` are those of `pull`, `step` is D in unit values.  `chosen` [9, 3] and `prices` [9] take the symbols of each
    class and what they cost; infinite where there are none.
    """
    prices[:] = np.inf
    options = np.zeros((3, 3), np.int64)
    counts = np.ones(3, np.int64)
    squares, pulls = np.zeros(3), np.zeros(3)
    limit = math.floor(MOST_AMPLITUDE / 4096.0 / step)
    for c in range(3):
        squares[c], pulls[c] = sums[SQUARES + c] * step * step, sums[SUMS + c] * step
        if squares[c] <= 0.0:
            continue
        real = min(max(pulls[c] / squares[c], -limit), limit)
        nearest = math.floor(real + 0.5)
        options[c, 0] = nearest
        if nearest != 0:
            options[c, counts[c]] = nearest - (1 if real > 0.0 else -1)
            counts[c] += 1
            if abs(nearest) > 1 and c > 0:
                options[c, counts[c]] = 0
                counts[c] += 1
    gray = len(costs.colors) == 1
    for i0 in range(counts[0]):
        k0 = options[0, i0]
        first = abs(k0)
        digits = min(_digits(first), 5)
        cost0 = k0 * (squares[0] * k0 - 2.0 * pulls[0]) + rate * _component_bits(costs, 0, 0, 0, k0)
        for i1 in range(counts[1]):
            k1 = options[1, i1]
            cost1 = cost0
            if not gray:
                cost1 += k1 * (squares[1] * k1 - 2.0 * pulls[1])
                cost1 += rate * _component_bits(costs, 1, digits, k0, k1)
            last = min(_digits(abs(k1) + (first >> 2)), 5)
            for i2 in range(counts[2]):
                k2 = options[2, i2]
                energy = k0 * k0 + k1 * k1 + k2 * k2
                if energy == 0:
                    continue
                level = _class_of(energy)
                if level < least or level > most:
                    continue
                cost = cost1
                if not gray:
                    cost += k2 * (squares[2] * k2 - 2.0 * pulls[2]) + rate * _component_bits(costs, 2, last, k1, k2)
                if cost < prices[level]:
                    prices[level] = cost
                    chosen[level, 0], chosen[level, 1], chosen[level, 2] = k0, k1, k2


@kernel(error_model="numpy")
def _round_whole(splat, now, target, energy, level, rate, costs, most, position, shape):
    """The lattice point of a class that the model holds best near a target: into `position` and `shape`.

    `now` is the log lengths that the target's twist starts from.
    """
    high = 8 - level
    half = 1 << high >> 1
    trial = np.empty(3, np.int64)
    best = np.inf
    base0 = math.floor((target[2] * 256.0 - half) / (1 << high) + 0.5)
    base2 = math.floor((target[3] * 256.0 - half) / (1 << high) + 0.5)
    for i in range(-1, 2):
        trial[0] = (min(max(base0 + i, -512 >> high), 3071 >> high) << high) + half
        error0 = trial[0] * LOG_UNIT - target[2] * math.log(2.0)
        grown0 = trial[0] * LOG_UNIT - now[0]
        for k in range(-1, 2):
            trial[2] = (min(max(base2 + k, -512 >> high), 3071 >> high) << high) + half
            error2 = trial[2] * LOG_UNIT - target[3] * math.log(2.0)
            grown2 = trial[2] * LOG_UNIT - now[1]
            fixed = energy * 0.5 * (error0 * error0 + error2 * error2)
            fixed += rate * _lengths_bits(costs, level, trial[0], trial[2])
            if fixed >= best:
                continue
            shift0, shift2 = place_shift(trial[0], level), place_shift(trial[2], level)
            x, error_x = _round_place((target[0] + 0.5) * 64.0, shift0, most[0])
            v1 = error_x / splat[2]
            wanted = splat[3] + target[4] + splat[3] * (grown0 - grown2)
            symbol = math.floor(wanted * 256.0 / (1 << high) + 0.5)
            for towards_zero in range(2):
                if towards_zero:
                    if symbol == 0:
                        continue
                    symbol -= 1 if symbol > 0 else -1
                trial[1] = min(max(symbol, -(16383 >> high)), 16383 >> high) << high
                twist = trial[1] / 256.0 - wanted
                slid = (target[1] + 0.5 + trial[1] / 256.0 * splat[4] * v1) * 64.0
                y, error_y = _round_place(slid, shift2, most[1])
                v2 = error_y / splat[4]
                cost = fixed + energy * (0.5 * (v1 * v1 + v2 * v2) + 0.25 * twist * twist)
                cost += rate * _shear_bits(costs, level, trial[1])
                if cost < best:
                    best = cost
                    position[0], position[1] = x, y
                    shape[0], shape[1], shape[2] = trial[0], trial[1], trial[2]
    return best


@kernel(inline="always", error_model="numpy")
def _round_place(value, shift, most):
    """The nearest middle of a cell of a coordinate's lattice, in 1/64 pixels, and its error in pixels."""
    symbol = min(max(math.floor(value / (1 << shift)), 0), most - 1 >> shift)
    middle = (symbol << shift) + (1 << shift >> 1)
    return middle, (middle - value) / 64.0


@kernel(nogil=True, error_model="numpy")
def refine_whole(field, whole, floats, order, bounds, state, painted, step, rate, costs, most, opponent):
    """One pass over splats coded whole, in the given order, each held against the residual that the others leave.

    Args:
        field: float32, planes of sum_k w_k r_k / sum_k w_k behind each other; changed in place.
        whole: int32 [G, 6] of each grid: where its first plane begins, width, height, samples from row to row, first
            channel, number of planes.
        floats: [G, 5] of each grid: x and y of the first sample, samples per pixel across and down, weight.
        order: int64, which splats.
        bounds: [4] of the samples that may be worked on, see `visits.Tile`; all splats are within.
        state: positions, shapes int32 and symbols of amplitudes [N, 3] int32; changed in place.  Splats without any
            amplitude are not there, and do not come back.
        painted: [N, 3] amplitudes that the residual lacks; where they are not the symbols', a splat is not on its
            lattice yet, and cannot stay as it is.  Changed in place.
        step: D in unit values.
        rate: squared error that a bit is worth.
        costs: `coding.main.cost.IntraCosts` of the layer.
        most: int64 [2] of positions, one past the last.
        opponent: whether amplitudes lie on opponent axes.
    """
    positions, shapes, symbols = state
    buffers = row_buffers(whole)
    splat, trial = np.empty(7), np.empty(7)
    sums, others = np.zeros(NUM_SUMS), np.zeros(NUM_SUMS)
    target, now = np.empty(5), np.empty(2)
    amplitudes, wanted = np.zeros(3), np.zeros(3)
    chosen, prices = np.zeros((9, 3), np.int64), np.empty(9)
    chosen_there, prices_there = np.zeros((9, 3), np.int64), np.empty(9)
    position, shape = np.empty(2, np.int64), np.empty(3, np.int64)
    best_position, best_shape, best_symbols = np.empty(2, np.int64), np.empty(3, np.int64), np.empty(3, np.int64)
    tried_positions, tried_shapes = np.empty((2 + len(SHARES), 2), np.int64), np.empty((2 + len(SHARES), 3), np.int64)
    for n in order:
        fresh, norm, energy = False, 0, 0.0
        for c in range(3):
            amplitudes[c] = painted[n, c]
            energy += painted[n, c] * painted[n, c]
            norm += symbols[n, c] * symbols[n, c]
            fresh |= painted[n, c] != symbols[n, c] * step
        if energy == 0.0:
            continue
        describe(splat, positions[n], shapes[n], amplitudes, opponent)
        take(field, whole, floats, splat, amplitudes, buffers, sums)
        old_error, energy = 0.0, 0.0
        for c in range(3):
            sums[SUMS + c] += amplitudes[c] * sums[SQUARES + c]
            energy += amplitudes[c] * amplitudes[c] * sums[SQUARES + c]
            old_error -= 2.0 * amplitudes[c] * sums[SUMS + c]
        old_error += energy
        old_level = _class_of(norm) if not fresh else 0
        fixed = rate * (_shape_bits(costs, old_level, shapes[n]) + _cell_bits(costs, positions[n], positions[n]))
        old = old_error + fixed + rate * _color_bits(costs, symbols[n, 0], symbols[n, 1], symbols[n, 2])

        # gone, as it is, or with other colours
        best = 0.0
        best_symbols[:] = 0
        best_position[:], best_shape[:] = positions[n], shapes[n]
        margin = 0.01 * rate
        if not fresh and old - margin < best:
            best = old - margin
            best_symbols[:] = symbols[n]
        _best_colors(sums, step, rate, costs, 0, 8, chosen, prices)
        if not fresh and prices[old_level] + fixed < best:
            for c in range(3):
                wanted[c] = chosen[old_level, c] * step
            describe(trial, positions[n], shapes[n], wanted, opponent)
            if is_inside(trial, floats, bounds):
                best = prices[old_level] + fixed
                best_symbols[:] = chosen[old_level]

        # other places and shapes, in the one or two classes that seem best
        now[0], now[1] = shapes[n, 0] * LOG_UNIT, shapes[n, 2] * LOG_UNIT
        for level in range(9):
            prices[level] += rate * 5.0 * level
        leading, leader, trials = np.inf, -1, 0
        for turn in range(2 + len(SHARES)):
            if turn < 2:
                level = np.argmin(prices)
                if prices[level] == np.inf or (turn == 1 and prices[level] > leading + 4.0 * rate):
                    continue
                if turn == 0:
                    leading, leader = prices[level], level
                prices[level] = np.inf
                share = 1.0
            else:
                if leader < 0:
                    break
                level = leader
                share = 0.0 if fresh and turn == 2 else SHARES[turn - 2]
            aim(splat, sums, energy, share, target)
            _round_whole(splat, now, target, energy, level, rate, costs, most, position, shape)
            if not fresh and level == old_level and is_one_of(position, shape, positions, shapes, n, n + 1):
                continue
            if is_one_of(position, shape, tried_positions, tried_shapes, 0, trials):
                continue
            tried_positions[trials], tried_shapes[trials] = position, shape
            trials += 1
            for c in range(3):
                wanted[c] = chosen[level, c] * step
            describe(trial, position, shape, wanted, opponent)
            if not is_inside(trial, floats, bounds):
                continue
            pull(field, whole, floats, trial, buffers, others)
            _best_colors(others, step, rate, costs, level, level, chosen_there, prices_there)
            fixed = rate * (_shape_bits(costs, level, shape) + _cell_bits(costs, positions[n], position))
            if prices_there[level] + fixed >= best:
                continue
            for c in range(3):
                wanted[c] = chosen_there[level, c] * step
            describe(trial, position, shape, wanted, opponent)
            if is_inside(trial, floats, bounds):
                best = prices_there[level] + fixed
                best_symbols[:] = chosen_there[level]
                best_position[:], best_shape[:] = position, shape
        for c in range(3):
            symbols[n, c] = best_symbols[c]
            amplitudes[c] = painted[n, c] = best_symbols[c] * step
        if best_symbols[0] == 0 and best_symbols[1] == 0 and best_symbols[2] == 0:
            continue
        positions[n, 0], positions[n, 1] = best_position
        for c in range(3):
            shapes[n, c] = best_shape[c]
        describe(splat, positions[n], shapes[n], amplitudes, opponent)
        paint(field, whole, floats, splat, amplitudes, -1.0, buffers)
