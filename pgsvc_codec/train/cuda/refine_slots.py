"""Slots of P- and B-frames, settled on a GPU one after the other: the decisions of `train.main.refine_slots`.

As in `refine_whole`, what else a slot could be is weighed by a program's threads at the same time.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pgsvc_codec.coding.main import state
from pgsvc_codec.train.cuda.refine_sums import (
    AMPLITUDE,
    BEST,
    COLUMNS,
    ENERGY,
    EXPECTED,
    FIXED,
    KIND,
    LOG_UNIT,
    MODE,
    MOST_AMPLITUDE,
    MOST_TRIALS,
    NUM_SUMS,
    PAINTED,
    POSITION,
    PULLS,
    SCRATCH,
    SHAPE,
    TRIAL_SUMS,
    TRIALS,
    TRIED_POSITION,
    TRIED_SHAPE,
    VALID,
    aim,
    describe,
    gather,
    gather_trials,
    is_inside,
    is_painted,
    is_there,
    least,
    one_of,
    paint,
    place_shift,
    pull_trial,
    take,
    write_trials,
)
from pgsvc_codec.train.main.refine_slots import REMOVED_MODE

COLOR_DELTAS = tl.constexpr(5)  # where those of amplitudes begin
_DELTAS = tl.constexpr(256)  # magnitudes in a table
_REMOVED = tl.constexpr(REMOVED_MODE)
_MODES = tl.constexpr(REMOVED_MODE + 1)
_LEAST_POSITION, _MOST_POSITION = tl.constexpr(state.MIN_POSITION), tl.constexpr(state.MAX_POSITION)
_LEAST_LENGTH, _MOST_LENGTH = tl.constexpr(state.MIN_LOG_LENGTH), tl.constexpr(state.MAX_LOG_LENGTH)
_MOST_SHEAR = tl.constexpr(state.MAX_SHEAR)


@triton.jit
def _delta_bits(deltas, column: tl.constexpr, delta):
    return tl.load(deltas + column * _DELTAS + tl.minimum(tl.abs(delta), _DELTAS - 1))


@triton.jit
def _fewer_steps(real, fewer):
    """The nearest whole number, or the one after it on the way to zero."""
    nearest = tl.floor(real + 0.5).to(tl.int32)
    step = tl.where(nearest > 0, 1, tl.where(nearest < 0, -1, 0))
    return nearest - step * fewer


@triton.jit
def _expected(row):
    """A slot as predicted: position, shape, amplitudes."""
    of = row + EXPECTED
    x, y, s0, s1 = tl.load(of), tl.load(of + 1), tl.load(of + 2), tl.load(of + 3)
    return x, y, s0, s1, tl.load(of + 4), tl.load(of + 5), tl.load(of + 6), tl.load(of + 7)


@triton.jit
def _class_of(e0, e1, e2, step):
    """The class of a splat from its amplitudes (`state.classes_of`)."""
    e0, e1, e2 = e0.to(tl.int64), e1.to(tl.int64), e2.to(tl.int64)
    twice = 2 * (e0 * e0 + e1 * e1 + e2 * e2)
    unit = step.to(tl.int64) * step
    level = tl.zeros_like(twice).to(tl.int32)
    for digit in tl.static_range(1, 9):
        level += (twice >= (unit << (2 * digit))).to(tl.int32)
    return level


@triton.jit
def _place_delta(t0, t1, x, y, shift_x, shift_y, l1, l3, slope, energy, rate, deltas):
    """Of each row: the model's cost of the prediction itself, of the best steps, and these."""
    option = tl.arange(0, 4)[None, :]
    right = (t0 + 0.5) * 64 - x
    down = (t1 + 0.5) * 64 - y
    v1 = right / (64 * l1)
    v2 = (down - slope * right) / (64 * l3)
    still = 0.5 * energy * (v1 * v1 + v2 * v2)
    right, down = right[:, None], down[:, None]
    d0 = _fewer_steps(right / (1 << shift_x).to(tl.float32), option // 2)
    error = (d0 << shift_x) - right
    d1 = _fewer_steps((down + slope * error) / (1 << shift_y).to(tl.float32), option % 2)
    v1 = error / (64 * l1)
    v2 = ((d1 << shift_y) - down - slope * error) / (64 * l3)
    cost = 0.5 * energy * (v1 * v1 + v2 * v2) + rate * (_delta_bits(deltas, 0, d0) + _delta_bits(deltas, 1, d1))
    best, at = least(cost, 1)
    return still, best, one_of(d0, at, 1), one_of(d1, at, 1)


@triton.jit
def _shape_delta(t2, t3, twist, e0, e1, e2, s0, s2, shear, high, energy, rate, deltas):
    """Of each row: the model's cost of the prediction itself, of the best steps, and these."""
    option = tl.arange(0, 8)[None, :]
    width = (1 << high).to(tl.float32)
    wide_0, wide_2 = t2 * 256 - e0, t3 * 256 - e2
    grown = ((e0 - s0) - (e2 - s2)) * LOG_UNIT
    twist = e1 / 256.0 - (shear + twist + shear * grown)
    error_0, error_2 = wide_0 * LOG_UNIT, wide_2 * LOG_UNIT
    still = energy * (0.5 * (error_0 * error_0 + error_2 * error_2) + 0.25 * twist * twist)
    wide_0, wide_2, twist = wide_0[:, None], wide_2[:, None], twist[:, None]
    d0 = _fewer_steps(wide_0 / width, option // 4)
    d2 = _fewer_steps(wide_2 / width, option // 2 % 2)
    error_0 = ((d0 << high) - wide_0) * LOG_UNIT
    error_2 = ((d2 << high) - wide_2) * LOG_UNIT
    lack = (shear * ((d0 - d2) * width * LOG_UNIT) - twist) * 256
    d1 = _fewer_steps(lack / width, option % 2)
    rest = ((d1 << high) - lack) / 256
    cost = energy * (0.5 * (error_0 * error_0 + error_2 * error_2) + 0.25 * rest * rest)
    cost += rate * (_delta_bits(deltas, 2, d0) + _delta_bits(deltas, 3, d1) + _delta_bits(deltas, 4, d2))
    best, at = least(cost, 1)
    return still, best, one_of(d0, at, 1), one_of(d1, at, 1), one_of(d2, at, 1)


@triton.jit
def _color_delta(energy, pull, expected, step, rate, deltas, channel: tl.constexpr):
    """Of one channel: the error with the predicted amplitude, the least cost of all steps, and that step."""
    unit = step.to(tl.float64) / 4096
    amplitude = expected.to(tl.float64) / 4096
    still = amplitude * (energy * amplitude - 2 * pull)
    chosen = tl.zeros_like(energy).to(tl.int32)
    cost = still + rate * _delta_bits(deltas, COLOR_DELTAS + channel, chosen)
    wanted = tl.where(energy > 0, pull / tl.where(energy > 0, energy, 1.0) - amplitude, 0.0) / unit
    most = (step * 0 + 2 * MOST_AMPLITUDE) // step  # steps between any two amplitudes
    wanted = tl.minimum(tl.maximum(wanted, -most), most)
    for fewer in tl.static_range(2):
        delta = _fewer_steps(wanted, fewer)
        there = (delta != 0) & (tl.abs(expected + delta * step) <= MOST_AMPLITUDE)
        changed = amplitude + delta * unit
        other = changed * (energy * changed - 2 * pull) + rate * _delta_bits(deltas, COLOR_DELTAS + channel, delta)
        better = there & (other < cost)
        cost, chosen = tl.where(better, other, cost), tl.where(better, delta, chosen)
    return still, cost, chosen


@triton.jit
def _color_deltas(g0, g1, g2, p0, p1, p2, e0, e1, e2, step, rate, deltas):
    """`_color_delta` of all channels together."""
    still, cost, d0 = _color_delta(g0, p0, e0, step, rate, deltas, 0)
    still_1, cost_1, d1 = _color_delta(g1, p1, e1, step, rate, deltas, 1)
    still_2, cost_2, d2 = _color_delta(g2, p2, e2, step, rate, deltas, 2)
    return still + still_1 + still_2, cost + cost_1 + cost_2, d0, d1, d2


@triton.jit
def _write_best(scratch, cost, a0, a1, a2, mode):
    """Amplitudes in 1/4096."""
    tl.store(scratch + BEST, cost)
    tl.store(scratch + BEST + 1, a0.to(tl.float64))
    tl.store(scratch + BEST + 2, a1.to(tl.float64))
    tl.store(scratch + BEST + 3, a2.to(tl.float64))
    tl.store(scratch + BEST + 4, mode.to(tl.float64))


@triton.jit
def _is_inside(px, py, s0, s1, s2, a0, a1, a2, bounds, opponent):
    """Whether a state lies within bounds; amplitudes in 1/4096."""
    a0, a1, a2 = a0.to(tl.float64) / 4096, a1.to(tl.float64) / 4096, a2.to(tl.float64) / 4096
    x, y, l1, shear, l3, cutoff, _ = describe(px, py, s0, s1, s2, a0, a1, a2, opponent)
    return is_inside(x, y, l1, shear, l3, cutoff, bounds)


@triton.jit
def _revive(row):
    """Put a slot that a fit has faded out where it was expected: there it is, or it is gone."""
    if is_painted(row) == 0:
        for column in tl.static_range(5):
            tl.store(row + POSITION + column, tl.load(row + EXPECTED + column))
    tl.debug_barrier()


@triton.jit
def propose_slot(
    row, scratch, numbers, flags, deltas, bounds, step,
    opponent, removable,
):  # fmt: skip
    """With a slot taken out: what it may be where it is, the best of which is written down, and where else to try."""
    _revive(row)
    px, py = tl.load(row + POSITION), tl.load(row + POSITION + 1)
    s0, s1, s2 = tl.load(row + SHAPE), tl.load(row + SHAPE + 1), tl.load(row + SHAPE + 2)
    ex, ey, es0, es1, es2, e0, e1, e2 = _expected(row)
    i0, i1, i2 = tl.load(row + PAINTED), tl.load(row + PAINTED + 1), tl.load(row + PAINTED + 2)
    rate = tl.load(numbers)
    a0, a1, a2 = i0.to(tl.float64) / 4096, i1.to(tl.float64) / 4096, i2.to(tl.float64) / 4096
    dark = (i0 == 0) & (i1 == 0) & (i2 == 0)
    mode = tl.load(row + MODE)
    loose = (mode < 0) & (dark == 0)
    mode = tl.maximum(mode, 0)
    level = _class_of(e0, e1, e2, step)
    shift_x, shift_y, high = place_shift(es0, level), place_shift(es2, level), 8 - level
    g0, g1, g2 = tl.load(scratch + ENERGY), tl.load(scratch + ENERGY + 1), tl.load(scratch + ENERGY + 2)
    p0 = tl.load(scratch + PULLS) + a0 * g0
    p1 = tl.load(scratch + PULLS + 1) + a1 * g1
    p2 = tl.load(scratch + PULLS + 2) + a2 * g2
    energy = a0 * a0 * g0 + a1 * a1 * g1 + a2 * a2 * g2
    still, colored, d0, d1, d2 = _color_deltas(g0, g1, g2, p0, p1, p2, e0, e1, e2, step, rate, deltas)

    # removed, as it is, or with other colours
    best = tl.where(removable != 0, rate * tl.load(flags + _REMOVED), float("inf"))
    kind = tl.where(removable != 0, mode * 0 + _REMOVED, -1)
    b0, b1, b2 = tl.load(row + AMPLITUDE), tl.load(row + AMPLITUDE + 1), tl.load(row + AMPLITUDE + 2)
    if loose == 0:
        steps = _delta_bits(deltas, 0, px - ex >> shift_x) + _delta_bits(deltas, 1, py - ey >> shift_y)
        bits = tl.where((mode & 1) != 0, steps, 0.0)
        forms = _delta_bits(deltas, 2, s0 - es0 >> high) + _delta_bits(deltas, 3, s1 - es1 >> high)
        bits += tl.where((mode & 2) != 0, forms + _delta_bits(deltas, 4, s2 - es2 >> high), 0.0)
        own = _delta_bits(deltas, COLOR_DELTAS, (b0 - e0) // step)
        own += _delta_bits(deltas, COLOR_DELTAS + 1, (b1 - e1) // step)
        own += _delta_bits(deltas, COLOR_DELTAS + 2, (b2 - e2) // step)
        own = bits + tl.where((mode & 4) != 0, own, 0.0)
        cost = energy - 2 * (a0 * p0 + a1 * p1 + a2 * p2) + rate * (own + tl.load(flags + mode) - 0.01)
        stays = (cost < best) & (dark == 0)
        best, kind = tl.where(stays, cost, best), tl.where(stays, mode, kind)
        for change in tl.static_range(2):
            n0, n1, n2 = e0 + change * d0 * step, e1 + change * d1 * step, e2 + change * d2 * step
            other = (mode & 3) + 4 * change
            cost = (colored if change else still) + rate * (bits + tl.load(flags + other))
            better = (cost < best) & _is_inside(px, py, s0, s1, s2, n0, n1, n2, bounds, opponent)
            best, kind = tl.where(better, cost, best), tl.where(better, other, kind)
            b0, b1, b2 = tl.where(better, n0, b0), tl.where(better, n1, b1), tl.where(better, n2, b2)
    _write_best(scratch, best, b0, b1, b2, kind)

    # other places and shapes: the two best modes at the step's end, the best at shares of it
    x, y, l1, shear, l3, _, _ = describe(px, py, s0, s1, s2, a0, a1, a2, opponent)
    turn = tl.arange(0, 8)
    share = tl.where(turn < 2, 1.0, turn - 1.5)
    t0, t1, t2, t3, twist = aim(scratch, energy, share, s0, s2, x, y, l1, shear, l3)
    narrow, price = energy.to(tl.float32), rate.to(tl.float32)
    slope = shear * l3 / l1
    lying, placed, move_x, move_y = _place_delta(t0, t1, ex, ey, shift_x, shift_y, l1, l3, slope, narrow, price, deltas)
    formed, shaped, grow_0, grow_1, grow_2 = _shape_delta(
        t2, t3, twist, es0, es1, es2, s0, s2, shear, high, narrow, price, deltas
    )
    rank = tl.full([8], float("inf"), tl.float64)
    further = rank
    chosen, second = turn * 0 - 1, turn * 0 - 1
    moves, grows = (move_x != 0) | (move_y != 0), (grow_0 != 0) | (grow_1 != 0) | (grow_2 != 0)
    for k in tl.static_range(4):
        lightest = tl.minimum(still + rate * tl.load(flags + k), colored + rate * tl.load(flags + k + 4))
        cost = (placed if k & 1 else lying) + (shaped if k & 2 else formed) + lightest
        if k & 1:
            cost = tl.where(moves, cost, float("inf"))
        if k & 2:
            cost = tl.where(grows, cost, float("inf"))
        first = cost < rank
        after = (first == 0) & (cost < further)
        second = tl.where(first, chosen, tl.where(after, k, second))
        further = tl.where(first, rank, tl.where(after, cost, further))
        chosen, rank = tl.where(first, k, chosen), tl.where(first, cost, rank)
    chosen = tl.where(turn == 1, second, chosen)
    there = (turn < tl.where(dark, 0, MOST_TRIALS)) & (chosen >= 0)
    chosen = tl.maximum(chosen, 0)
    moves, grows = (chosen & 1) != 0, (chosen & 2) != 0
    tx = ex + tl.where(moves, move_x << shift_x, 0)
    ty = ey + tl.where(moves, move_y << shift_y, 0)
    r0 = es0 + tl.where(grows, grow_0 << high, 0)
    r1 = es1 + tl.where(grows, grow_1 << high, 0)
    r2 = es2 + tl.where(grows, grow_2 << high, 0)
    bits = tl.where(moves, _delta_bits(deltas, 0, move_x) + _delta_bits(deltas, 1, move_y), 0.0)
    forms = _delta_bits(deltas, 2, grow_0) + _delta_bits(deltas, 3, grow_1) + _delta_bits(deltas, 4, grow_2)
    bits += tl.where(grows, forms, 0.0)
    within = (tl.minimum(tx, ty) >= _LEAST_POSITION) & (tl.maximum(tx, ty) <= _MOST_POSITION)
    within &= (tl.minimum(r0, r2) >= _LEAST_LENGTH) & (tl.maximum(r0, r2) <= _MOST_LENGTH)
    within &= tl.abs(r1) <= _MOST_SHEAR
    there &= within | (chosen == 0)
    here = (tx == px) & (ty == py) & (r0 == s0) & (r1 == s1) & (r2 == s2)
    there &= (here.to(tl.int32) * tl.where(loose, 0, 1)) == 0
    same = (tx[:, None] == tx[None, :]) & (ty[:, None] == ty[None, :]) & (r0[:, None] == r0[None, :])
    same &= (r1[:, None] == r1[None, :]) & (r2[:, None] == r2[None, :])
    again = same & (turn[None, :] < turn[:, None]) & (there.to(tl.int32)[None, :] != 0)
    there &= tl.max(again.to(tl.int32), 1) == 0
    w0, w1, w2 = e0 + d0 * step, e1 + d1 * step, e2 + d2 * step
    w0, w1, w2 = w0.to(tl.float64) / 4096, w1.to(tl.float64) / 4096, w2.to(tl.float64) / 4096
    vx, vy, v1, vshear, v3, cutoff, scale = describe(tx, ty, r0, r1, r2, w0, w1, w2, opponent)
    there &= is_inside(vx, vy, v1, vshear, v3, cutoff, bounds)
    write_trials(scratch, turn, vx, vy, v1, vshear, v3, cutoff, scale, there, tx, ty, r0, r1, r2, chosen, bits)


@triton.jit
def choose_slot(
    row, scratch, numbers, flags, deltas, bounds, step, opponent
):  # fmt: skip
    """With what has been tried weighed: make a slot what it should be."""
    rate = tl.load(numbers)
    ex, ey, es0, es1, es2, e0, e1, e2 = _expected(row)
    turn = tl.arange(0, 8)
    trials = scratch + TRIALS + turn
    there = tl.load(trials + VALID * 8) != 0
    sums = scratch + TRIAL_SUMS + turn * 8
    p0 = tl.load(sums + PULLS, mask=there, other=0.0)
    p1 = tl.load(sums + PULLS + 1, mask=there, other=0.0)
    p2 = tl.load(sums + PULLS + 2, mask=there, other=0.0)
    g0 = tl.load(sums + ENERGY, mask=there, other=0.0)
    g1 = tl.load(sums + ENERGY + 1, mask=there, other=0.0)
    g2 = tl.load(sums + ENERGY + 2, mask=there, other=0.0)
    still, colored, d0, d1, d2 = _color_deltas(g0, g1, g2, p0, p1, p2, e0, e1, e2, step, rate, deltas)
    mode = tl.load(trials + KIND * 8).to(tl.int32)
    bits = tl.load(trials + FIXED * 8)
    px = tl.load(trials + TRIED_POSITION * 8).to(tl.int32)
    py = tl.load(trials + (TRIED_POSITION + 1) * 8).to(tl.int32)
    s0 = tl.load(trials + TRIED_SHAPE * 8).to(tl.int32)
    s1 = tl.load(trials + (TRIED_SHAPE + 1) * 8).to(tl.int32)
    s2 = tl.load(trials + (TRIED_SHAPE + 2) * 8).to(tl.int32)
    n0, n1, n2 = e0 + d0 * step, e1 + d1 * step, e2 + d2 * step
    plain = still + rate * (bits + tl.load(flags + mode))
    fancy = colored + rate * (bits + tl.load(flags + mode + 4))
    alike = turn * 0
    inside = there & _is_inside(px, py, s0, s1, s2, e0 + alike, e1 + alike, e2 + alike, bounds, opponent)
    plain = tl.where(inside, plain, float("inf"))
    inside = there & _is_inside(px, py, s0, s1, s2, n0, n1, n2, bounds, opponent)
    changes = inside & (fancy < plain)
    cost, at = least(tl.where(changes, fancy, plain), 0)
    kind = one_of(mode + tl.where(changes, 4, 0), at, 0)
    n0, n1, n2 = tl.where(changes, n0, e0), tl.where(changes, n1, e1), tl.where(changes, n2, e2)
    moves = cost < tl.load(scratch + BEST)
    kind = tl.where(moves, kind, tl.load(scratch + BEST + 4).to(tl.int32))
    lost = kind < 0  # nothing lies within the limits but the prediction
    gone = kind == _REMOVED
    b0 = tl.where(moves, one_of(n0, at, 0), tl.load(scratch + BEST + 1).to(tl.int32))
    b1 = tl.where(moves, one_of(n1, at, 0), tl.load(scratch + BEST + 2).to(tl.int32))
    b2 = tl.where(moves, one_of(n2, at, 0), tl.load(scratch + BEST + 3).to(tl.int32))
    b0 = tl.where(gone, 0, tl.where(lost, e0, b0))
    b1 = tl.where(gone, 0, tl.where(lost, e1, b1))
    b2 = tl.where(gone, 0, tl.where(lost, e2, b2))
    tl.store(row + MODE, tl.maximum(kind, 0))
    tl.store(row + AMPLITUDE, b0)
    tl.store(row + AMPLITUDE + 1, b1)
    tl.store(row + AMPLITUDE + 2, b2)
    tl.store(row + PAINTED, b0)
    tl.store(row + PAINTED + 1, b1)
    tl.store(row + PAINTED + 2, b2)
    if moves | lost:
        tl.store(row + POSITION, tl.where(lost, ex, one_of(px, at, 0)))
        tl.store(row + POSITION + 1, tl.where(lost, ey, one_of(py, at, 0)))
        tl.store(row + SHAPE, tl.where(lost, es0, one_of(s0, at, 0)))
        tl.store(row + SHAPE + 1, tl.where(lost, es1, one_of(s1, at, 0)))
        tl.store(row + SHAPE + 2, tl.where(lost, es2, one_of(s2, at, 0)))


@triton.jit(do_not_specialize=["first_tile", "num_grids", "step", "opponent", "removable"])
def settle(
    field, whole, floats, num_grids, table, order, starts, bounds, first_tile, scratch, numbers, flags, deltas, step,
    opponent, removable, rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """Settle the slots of tiles, a program for each."""
    tile = first_tile + tl.program_id(0)
    scratch += tl.program_id(0) * SCRATCH
    bounds += 4 * tile
    for at in range(tl.load(starts + tile), tl.load(starts + tile + 1)):
        n = tl.load(order + at)
        row = table + n * COLUMNS
        own = flags + n * _MODES
        if is_there(row):
            take(field, whole, floats, num_grids, row, scratch, 0, 1, opponent, rows, columns)
            tl.debug_barrier()
            propose_slot(row, scratch, numbers, own, deltas, bounds, step, opponent, removable)
            tl.debug_barrier()
            for trial in range(MOST_TRIALS):
                sums = scratch + TRIAL_SUMS + 8 * trial
                pull_trial(field, whole, floats, num_grids, scratch, trial, sums, 0, 1, rows, columns)
            tl.debug_barrier()
            choose_slot(row, scratch, numbers, own, deltas, bounds, step, opponent)
            tl.debug_barrier()
            paint(field, whole, floats, num_grids, row, 0, 1, opponent, rows, columns)
            tl.debug_barrier()


@triton.jit(do_not_specialize=["first", "step", "opponent", "removable"])
def propose_large(
    table, order, first, partial, scratch, bounds, numbers, flags, deltas, step,
    opponent, removable, parts: tl.constexpr,
):  # fmt: skip
    """`propose_slot` for one that many programs have taken out."""
    n = tl.load(order + first)
    row = table + n * COLUMNS
    if is_there(row):
        gather(partial, scratch, NUM_SUMS, parts)
        tl.debug_barrier()
        propose_slot(row, scratch, numbers, flags + n * _MODES, deltas, bounds, step, opponent, removable)
    else:
        tl.store(scratch + TRIALS + VALID * 8 + tl.arange(0, 8), tl.zeros([8], tl.float64))


@triton.jit(do_not_specialize=["first", "step", "opponent"])
def choose_large(
    table, order, first, partial, scratch, bounds, numbers, flags, deltas, step,
    opponent, parts: tl.constexpr,
):  # fmt: skip
    """`choose_slot` for one that many programs have weighed."""
    n = tl.load(order + first)
    row = table + n * COLUMNS
    if is_there(row):
        gather_trials(partial, scratch, parts)
        tl.debug_barrier()
        choose_slot(row, scratch, numbers, flags + n * _MODES, deltas, bounds, step, opponent)
