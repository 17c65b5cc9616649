"""Splats coded whole, settled on a GPU one after the other: the decisions of `train.main.refine_whole`.

What else a splat could be is weighed by a program's threads at the same time: a row of lanes for each step that is
tried, a lane for each lattice point or set of amplitudes.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pgsvc_codec.train.cuda.refine_sums import (
    AMPLITUDE,
    BEST,
    COLUMNS,
    ENERGY,
    FIXED,
    KIND,
    LN2,
    LOG_UNIT,
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
    is_there,
    least,
    one_of,
    paint,
    place_shift,
    pull_trial,
    take,
    write_trials,
)

# Where tables begin among the costs (`coding.main.cost.IntraCosts`), for three channels; those that are not there cost
# nothing.
COLORS = tl.constexpr(0)
SIGNS = tl.constexpr(3 * 6 * 1024)
LENGTHS_1 = tl.constexpr(SIGNS.value + 3 * 3 * 2)
LENGTHS_3 = tl.constexpr(LENGTHS_1.value + 9 * 14)
FRACTIONS = tl.constexpr(LENGTHS_3.value + 9 * 14 * 14)
SHEARS = tl.constexpr(FRACTIONS.value + 2 * 3 * 14 * 4)
CELLS = tl.constexpr(SHEARS.value + 9 * 2048)  # pairs: one more, one fewer

_LEVELS = tl.constexpr(9)
_CLASS_BITS = tl.constexpr(5.0)  # that a class more costs, about


@triton.jit
def _class_of(k0, k1, k2):
    """The class of a splat from its symbols (`state.classes_of`)."""
    k0, k1, k2 = tl.minimum(tl.abs(k0), 256), tl.minimum(tl.abs(k1), 256), tl.minimum(tl.abs(k2), 256)
    twice = 2 * (k0 * k0 + k1 * k1 + k2 * k2)
    level = tl.zeros_like(twice)
    for digit in tl.static_range(1, _LEVELS):
        level += (twice >= (1 << (2 * digit))).to(tl.int32)
    return level


@triton.jit
def _context(value):
    """Binary digits of a number that is not negative, at most 5."""
    digits = tl.zeros_like(value)
    for digit in tl.static_range(5):
        digits += (value >= (1 << digit)).to(tl.int32)
    return digits


@triton.jit
def _component_bits(costs, channel: tl.constexpr, context, before, k):
    bits = tl.load(costs + COLORS + (channel * 6 + context) * 1024 + tl.minimum(tl.abs(k), 1023))
    sign = tl.where(before > 0, 2, tl.where(before < 0, 4, 0)) + (k < 0).to(tl.int32)
    return bits + tl.where(k != 0, tl.load(costs + SIGNS + channel * 6 + sign), 0.0)


@triton.jit
def _color_bits(costs, k0, k1, k2):
    zero = tl.zeros_like(k0)
    bits = _component_bits(costs, 0, zero, zero, k0)
    bits += _component_bits(costs, 1, _context(tl.abs(k0)), k0, k1)
    return bits + _component_bits(costs, 2, _context(tl.abs(k1) + (tl.abs(k0) >> 2)), k1, k2)


@triton.jit
def _lengths_bits(costs, level, first, third):
    fine = tl.minimum(level, 2)
    octave_1, octave_3 = (first >> 8) + 2, (third >> 8) + 2
    mask = (1 << fine) - 1
    bits = tl.load(costs + LENGTHS_1 + level * 14 + octave_1)
    bits += tl.load(costs + LENGTHS_3 + (level * 14 + octave_1) * 14 + octave_3)
    bits += tl.load(costs + FRACTIONS + (fine * 14 + octave_1) * 4 + ((first >> (8 - fine)) & mask))
    bits += tl.load(costs + FRACTIONS + ((3 + fine) * 14 + octave_3) * 4 + ((third >> (8 - fine)) & mask))
    return bits + (2 * (level - fine) + 18 - place_shift(first, level) - place_shift(third, level)).to(tl.float32)


@triton.jit
def _shear_bits(costs, level, shear):
    return tl.load(costs + SHEARS + level * 2048 + tl.minimum(tl.abs(shear) >> (8 - level), 2047))


@triton.jit
def _cell_bits(costs, across, old_x, old_y, x, y):
    cell = (y >> 9) * across + (x >> 9)
    moved = ((old_y >> 9) * across + (old_x >> 9)) != cell
    return tl.load(costs + CELLS + 2 * cell + tl.where(moved, 0, 1))


@triton.jit
def _symbol(energy, pull, option, limit, with_zero: tl.constexpr):
    """One of the symbols that an amplitude may take: the nearest, the next one on the way to zero, zero."""
    real = tl.where(energy > 0, pull / tl.where(energy > 0, energy, 1.0), 0.0)
    real = tl.minimum(tl.maximum(real, -limit), limit)
    nearest = tl.floor(real + 0.5).to(tl.int32)
    further = nearest - tl.where(real > 0, 1, -1)
    there = (option == 0) | ((option == 1) & (nearest != 0))
    if with_zero:
        there |= (option == 2) & (tl.abs(nearest) > 1)
    return tl.where(option == 0, nearest, tl.where(option == 1, further, 0)), there


@triton.jit
def _best_colors(p0, p1, p2, g0, g1, g2, lane, step, rate, costs):
    """Symbols of amplitudes by lane, their class, and what they cost: error and their own bits."""
    limit = ((step * 0 + MOST_AMPLITUDE) // step).to(tl.float64)
    unit = step.to(tl.float64) / 4096
    g0, g1, g2 = g0 * unit * unit, g1 * unit * unit, g2 * unit * unit
    p0, p1, p2 = p0 * unit, p1 * unit, p2 * unit
    k0, there_0 = _symbol(g0, p0, lane // 9, limit, False)
    k1, there_1 = _symbol(g1, p1, lane // 3 % 3, limit, True)
    k2, there_2 = _symbol(g2, p2, lane % 3, limit, True)
    cost = k0 * (g0 * k0 - 2 * p0) + k1 * (g1 * k1 - 2 * p1) + k2 * (g2 * k2 - 2 * p2)
    cost += rate * _color_bits(costs, k0, k1, k2)
    there = there_0 & there_1 & there_2 & (lane < 27) & ((k0 != 0) | (k1 != 0) | (k2 != 0))
    return k0, k1, k2, _class_of(k0, k1, k2), tl.where(there, cost, float("inf"))


@triton.jit
def _round_place(value, shift, most):
    """The nearest middle of a cell of a coordinate's lattice, in 1/64 pixels, and its error in pixels."""
    symbol = tl.floor(value / (1 << shift).to(tl.float32)).to(tl.int32)
    symbol = tl.minimum(tl.maximum(symbol, 0), (most - 1) >> shift)
    middle = (symbol << shift) + ((1 << shift) >> 1)
    return middle, (middle.to(tl.float32) - value) / 64


@triton.jit
def _round_length(log2_length, step, level):
    """A log length of its class's lattice, `step` cells from the nearest to a logarithm."""
    high = 8 - level
    half = (1 << high) >> 1
    width = (1 << high).to(tl.float32)
    cell = tl.floor((log2_length * 256 - half) / width + 0.5).to(tl.int32) + step
    cell = tl.minimum(tl.maximum(cell, -512 >> high), 3071 >> high)
    return (cell << high) + half


@triton.jit
def _round_whole(
    lane, t0, t1, t2, t3, twist, energy, level, s0, s2, l1, shear, l3, rate, costs, most_x, most_y
):  # fmt: skip
    """Of each row, the lattice point of a class that the model holds best near a target: position and shape."""
    high = 8 - level
    width = (1 << high).to(tl.float32)
    first = _round_length(t2, lane // 6 - 1, level)
    third = _round_length(t3, lane // 2 % 3 - 1, level)
    error_0 = first * LOG_UNIT - t2 * LN2
    error_2 = third * LOG_UNIT - t3 * LN2
    cost = energy * 0.5 * (error_0 * error_0 + error_2 * error_2) + rate * _lengths_bits(costs, level, first, third)
    x, error_x = _round_place((t0 + 0.5) * 64, place_shift(first, level), most_x)
    v1 = error_x / l1
    wanted = shear + twist + shear * ((first - s0) * LOG_UNIT - (third - s2) * LOG_UNIT)
    symbol = tl.floor(wanted * 256 / width + 0.5).to(tl.int32)
    towards_zero = lane % 2
    there = (lane < 18) & ((towards_zero == 0) | (symbol != 0))
    symbol -= tl.where(towards_zero == 0, 0, tl.where(symbol > 0, 1, -1))
    steepest = 16383 >> high
    second = tl.minimum(tl.maximum(symbol, -steepest), steepest) << high
    missed = second / 256.0 - wanted
    y, error_y = _round_place((t1 + 0.5 + second / 256.0 * l3 * v1) * 64, place_shift(third, level), most_y)
    v2 = error_y / l3
    cost += energy * (0.5 * (v1 * v1 + v2 * v2) + 0.25 * missed * missed)
    cost += rate * _shear_bits(costs, level, second)
    at = least(tl.where(there, cost, float("inf")), 1)[1]
    return one_of(x, at, 1), one_of(y, at, 1), one_of(first, at, 1), one_of(second, at, 1), one_of(third, at, 1)


@triton.jit
def _chosen(lane, at, k0, k1, k2):
    """Of the lane `at`."""
    return one_of(k0, at, 0), one_of(k1, at, 0), one_of(k2, at, 0)


@triton.jit
def propose_whole(
    row, scratch, numbers, costs, across, most_x, most_y, bounds, step, opponent
):  # fmt: skip
    """With a splat taken out: what it may be where it is, the best of which is written down, and where else to try."""
    px, py = tl.load(row + POSITION), tl.load(row + POSITION + 1)
    s0, s1, s2 = tl.load(row + SHAPE), tl.load(row + SHAPE + 1), tl.load(row + SHAPE + 2)
    k0, k1, k2 = tl.load(row + AMPLITUDE), tl.load(row + AMPLITUDE + 1), tl.load(row + AMPLITUDE + 2)
    i0, i1, i2 = tl.load(row + PAINTED), tl.load(row + PAINTED + 1), tl.load(row + PAINTED + 2)
    fresh = (i0 != k0 * step) | (i1 != k1 * step) | (i2 != k2 * step)
    rate = tl.load(numbers)
    unit = step.to(tl.float64) / 4096
    a0, a1, a2 = i0.to(tl.float64) / 4096, i1.to(tl.float64) / 4096, i2.to(tl.float64) / 4096
    g0, g1, g2 = tl.load(scratch + ENERGY), tl.load(scratch + ENERGY + 1), tl.load(scratch + ENERGY + 2)
    p0 = tl.load(scratch + PULLS) + a0 * g0
    p1 = tl.load(scratch + PULLS + 1) + a1 * g1
    p2 = tl.load(scratch + PULLS + 2) + a2 * g2
    energy = a0 * a0 * g0 + a1 * a1 * g1 + a2 * a2 * g2
    x, y, l1, shear, l3, _, _ = describe(px, py, s0, s1, s2, a0, a1, a2, opponent)

    # gone, as it is, or with other colours
    old_level = tl.where(fresh, 0, _class_of(k0, k1, k2))
    fixed = _lengths_bits(costs, old_level, s0, s2) + _shear_bits(costs, old_level, s1)
    fixed = rate * (fixed + _cell_bits(costs, across, px, py, px, py))
    as_it_is = energy - 2 * (a0 * p0 + a1 * p1 + a2 * p2) + fixed
    as_it_is += rate * (_color_bits(costs, k0, k1, k2) - 0.01)
    lane = tl.arange(0, 32)
    c0, c1, c2, level, price = _best_colors(p0, p1, p2, g0, g1, g2, lane, step, rate, costs)
    stays = (as_it_is < 0) & (fresh == 0)
    best = tl.where(stays, as_it_is, 0.0)
    b0, b1, b2 = tl.where(stays, k0, 0), tl.where(stays, k1, 0), tl.where(stays, k2, 0)
    other, at = least(tl.where(level == old_level, price, float("inf")), 0)
    q0, q1, q2 = _chosen(lane, at, c0, c1, c2)
    ox, oy, o1, oshear, o3, cutoff, _ = describe(px, py, s0, s1, s2, q0 * unit, q1 * unit, q2 * unit, opponent)
    better = (other + fixed < best) & (fresh == 0)
    better &= is_inside(ox, oy, o1, oshear, o3, cutoff, bounds)
    tl.store(scratch + BEST, tl.where(better, other + fixed, best))
    tl.store(scratch + BEST + 1, tl.where(better, q0, b0).to(tl.float64))
    tl.store(scratch + BEST + 2, tl.where(better, q1, b1).to(tl.float64))
    tl.store(scratch + BEST + 3, tl.where(better, q2, b2).to(tl.float64))

    # other places and shapes, in the one or two classes that seem best
    price += rate * _CLASS_BITS * level
    leading, leader = least(price, 0)
    level_1 = one_of(level, leader, 0)
    f0, f1, f2 = _chosen(lane, leader, c0, c1, c2)
    following, follower = least(tl.where(level != level_1, price, float("inf")), 0)
    level_2 = one_of(level, follower, 0)
    n0, n1, n2 = _chosen(lane, follower, c0, c1, c2)
    turn = tl.arange(0, 8)
    second = turn == 1
    close = (following < float("inf")) & (following <= leading + 4 * rate)
    there = (turn < tl.where(leading < float("inf"), MOST_TRIALS, 0)) & (turn != tl.where(close, -1, 1))
    share = tl.where(turn < 2, 1.0, turn - 1.5)
    share = tl.where(turn == tl.where(fresh, 2, -1), 0.0, share)
    kind = tl.where(second, level_2, level_1)
    w0, w1, w2 = tl.where(second, n0, f0), tl.where(second, n1, f1), tl.where(second, n2, f2)
    t0, t1, t2, t3, twist = aim(scratch, energy, share, s0, s2, x, y, l1, shear, l3)
    tx, ty, r0, r1, r2 = _round_whole(
        lane[None, :], t0[:, None], t1[:, None], t2[:, None], t3[:, None], twist[:, None],
        energy.to(tl.float32), kind[:, None], s0, s2, l1, shear, l3, rate.to(tl.float32), costs, most_x, most_y,
    )  # fmt: skip
    here = (tx == px) & (ty == py) & (r0 == s0) & (r1 == s1) & (r2 == s2)
    there &= (here == 0) | (kind != tl.where(fresh, -1, old_level))
    same = (tx[:, None] == tx[None, :]) & (ty[:, None] == ty[None, :]) & (r0[:, None] == r0[None, :])
    same &= (r1[:, None] == r1[None, :]) & (r2[:, None] == r2[None, :])
    again = same & (turn[None, :] < turn[:, None]) & (there.to(tl.int32)[None, :] != 0)
    there &= tl.max(again.to(tl.int32), 1) == 0
    vx, vy, v1, vshear, v3, cutoff, scale = describe(tx, ty, r0, r1, r2, w0 * unit, w1 * unit, w2 * unit, opponent)
    there &= is_inside(vx, vy, v1, vshear, v3, cutoff, bounds)
    fixed = _lengths_bits(costs, kind, r0, r2) + _shear_bits(costs, kind, r1)
    fixed += _cell_bits(costs, across, px, py, tx, ty)
    write_trials(scratch, turn, vx, vy, v1, vshear, v3, cutoff, scale, there, tx, ty, r0, r1, r2, kind, rate * fixed)


@triton.jit
def choose_whole(
    row, scratch, numbers, costs, bounds, step, opponent
):  # fmt: skip
    """With what has been tried weighed: make a splat what it should be."""
    rate = tl.load(numbers)
    unit = step.to(tl.float64) / 4096
    turn, lane = tl.arange(0, 8), tl.arange(0, 32)
    trials = scratch + TRIALS + turn
    there = tl.load(trials + VALID * 8) != 0
    sums = scratch + TRIAL_SUMS + turn * 8
    p0 = tl.load(sums + PULLS, mask=there, other=0.0)
    p1 = tl.load(sums + PULLS + 1, mask=there, other=0.0)
    p2 = tl.load(sums + PULLS + 2, mask=there, other=0.0)
    g0 = tl.load(sums + ENERGY, mask=there, other=0.0)
    g1 = tl.load(sums + ENERGY + 1, mask=there, other=0.0)
    g2 = tl.load(sums + ENERGY + 2, mask=there, other=0.0)
    kind = tl.load(trials + KIND * 8).to(tl.int32)
    c0, c1, c2, level, price = _best_colors(
        p0[:, None], p1[:, None], p2[:, None], g0[:, None], g1[:, None], g2[:, None],
        lane[None, :], step, rate, costs,
    )  # fmt: skip
    price, at = least(tl.where(level == kind[:, None], price, float("inf")), 1)
    k0, k1, k2 = one_of(c0, at, 1), one_of(c1, at, 1), one_of(c2, at, 1)
    px = tl.load(trials + TRIED_POSITION * 8).to(tl.int32)
    py = tl.load(trials + (TRIED_POSITION + 1) * 8).to(tl.int32)
    s0 = tl.load(trials + TRIED_SHAPE * 8).to(tl.int32)
    s1 = tl.load(trials + (TRIED_SHAPE + 1) * 8).to(tl.int32)
    s2 = tl.load(trials + (TRIED_SHAPE + 2) * 8).to(tl.int32)
    x, y, l1, shear, l3, cutoff, _ = describe(px, py, s0, s1, s2, k0 * unit, k1 * unit, k2 * unit, opponent)
    there &= is_inside(x, y, l1, shear, l3, cutoff, bounds)
    cost, at = least(tl.where(there, price + tl.load(trials + FIXED * 8), float("inf")), 0)
    moves = cost < tl.load(scratch + BEST)
    k0 = tl.where(moves, one_of(k0, at, 0), tl.load(scratch + BEST + 1).to(tl.int32))
    k1 = tl.where(moves, one_of(k1, at, 0), tl.load(scratch + BEST + 2).to(tl.int32))
    k2 = tl.where(moves, one_of(k2, at, 0), tl.load(scratch + BEST + 3).to(tl.int32))
    tl.store(row + AMPLITUDE, k0)
    tl.store(row + AMPLITUDE + 1, k1)
    tl.store(row + AMPLITUDE + 2, k2)
    tl.store(row + PAINTED, k0 * step)
    tl.store(row + PAINTED + 1, k1 * step)
    tl.store(row + PAINTED + 2, k2 * step)
    if moves:
        tl.store(row + POSITION, one_of(px, at, 0))
        tl.store(row + POSITION + 1, one_of(py, at, 0))
        tl.store(row + SHAPE, one_of(s0, at, 0))
        tl.store(row + SHAPE + 1, one_of(s1, at, 0))
        tl.store(row + SHAPE + 2, one_of(s2, at, 0))


@triton.jit(do_not_specialize=["first_tile", "num_grids", "across", "most_x", "most_y", "step", "opponent"])
def settle(
    field, whole, floats, num_grids, table, order, starts, bounds, first_tile, scratch,
    numbers, costs, across, most_x, most_y, step, opponent,
    rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """Settle the splats of tiles, a program for each."""
    tile = first_tile + tl.program_id(0)
    scratch += tl.program_id(0) * SCRATCH
    bounds += 4 * tile
    for at in range(tl.load(starts + tile), tl.load(starts + tile + 1)):
        row = table + tl.load(order + at) * COLUMNS
        if is_there(row):
            take(field, whole, floats, num_grids, row, scratch, 0, 1, opponent, rows, columns)
            tl.debug_barrier()
            propose_whole(row, scratch, numbers, costs, across, most_x, most_y, bounds, step, opponent)
            tl.debug_barrier()
            for trial in range(MOST_TRIALS):
                sums = scratch + TRIAL_SUMS + 8 * trial
                pull_trial(field, whole, floats, num_grids, scratch, trial, sums, 0, 1, rows, columns)
            tl.debug_barrier()
            choose_whole(row, scratch, numbers, costs, bounds, step, opponent)
            tl.debug_barrier()
            paint(field, whole, floats, num_grids, row, 0, 1, opponent, rows, columns)
            tl.debug_barrier()


@triton.jit(do_not_specialize=["first", "across", "most_x", "most_y", "step", "opponent"])
def propose_large(
    table, order, first, partial, scratch, bounds, numbers, costs, across, most_x, most_y, step,
    opponent, parts: tl.constexpr,
):  # fmt: skip
    """`propose_whole` for a splat that many programs have taken out."""
    row = table + tl.load(order + first) * COLUMNS
    if is_there(row):
        gather(partial, scratch, NUM_SUMS, parts)
        tl.debug_barrier()
        propose_whole(row, scratch, numbers, costs, across, most_x, most_y, bounds, step, opponent)
    else:
        tl.store(scratch + TRIALS + VALID * 8 + tl.arange(0, 8), tl.zeros([8], tl.float64))


@triton.jit(do_not_specialize=["first", "step", "opponent"])
def choose_large(
    table, order, first, partial, scratch, bounds, numbers, costs, step,
    opponent, parts: tl.constexpr,
):  # fmt: skip
    """`choose_whole` for a splat that many programs have weighed."""
    row = table + tl.load(order + first) * COLUMNS
    if is_there(row):
        gather_trials(partial, scratch, parts)
        tl.debug_barrier()
        choose_whole(row, scratch, numbers, costs, bounds, step, opponent)
