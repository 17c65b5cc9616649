"""What a splat and the residual that it is held against have in common: sums over its samples, and its own description.

The arithmetic is that of `train.main.refine_sums`, samples in float32, sums in float64.  A sweep goes over the
samples within a splat's ellipse in blocks of rows, every row of which begins where the ellipse does.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

# Columns of the int32 table of splats: state, what the residual lacks in 1/4096; slots also have what they are
# predicted to be.
POSITION = tl.constexpr(0)
SHAPE = tl.constexpr(2)
AMPLITUDE = tl.constexpr(5)
PAINTED = tl.constexpr(8)
MODE = tl.constexpr(11)
EXPECTED = tl.constexpr(12)  # position, shape, amplitudes
COLUMNS = tl.constexpr(20)

# A program's float64 scratch: sums over the samples of a splat that was taken out (`PULLS` of the residual and `ENERGY`
# of the splat's own Gaussian for each channel, moments), the best of what was weighed, then what else may be tried:
# sixteen fields of eight columns, and eight rows of sums.
PULLS = tl.constexpr(0)
ENERGY = tl.constexpr(4)
MOMENTS = tl.constexpr(8)
BEST = tl.constexpr(16)  # cost, amplitudes, mode, position, shape
TRIALS = tl.constexpr(32)
VALID, TRIED_POSITION, TRIED_SHAPE, KIND, FIXED = (tl.constexpr(7 + i) for i in (0, 1, 3, 6, 7))
TRIAL_SUMS = tl.constexpr(160)
SCRATCH = tl.constexpr(224)
MOST_TRIALS = tl.constexpr(5)
NUM_SUMS = tl.constexpr(16)

# Columns of the grids' tables: whole numbers, then floats (those of `train.main.refine_sums`).
_OFFSET, _WIDTH, _HEIGHT, _PITCH, _FIRST, _PLANES, _WHOLES = (tl.constexpr(i) for i in range(7))
_X0, _Y0, _ACROSS, _DOWN, _WEIGHT, _FLOATS = (tl.constexpr(i) for i in range(6))

_HALF_LOG2_E = tl.constexpr(0.5 / math.log(2.0))
LN2 = tl.constexpr(math.log(2.0))
LOG_UNIT = tl.constexpr(math.log(2.0) / 256)  # natural logarithm of a length's unit
_CUTOFF = tl.constexpr(4080.0)  # least amplitude that is drawn is one over it (spec, "Rendering")
_PI = tl.constexpr(math.pi)
_ROOT_2, _ROOT_3, _ROOT_6 = (tl.constexpr(math.sqrt(n)) for n in (2, 3, 6))
MOST_AMPLITUDE = tl.constexpr((1 << 24) - 1)  # of a state, in 1/4096 (`state.MAX_AMPLITUDE`)
_MOST_SHIFT, _MOST_GROWTH = tl.constexpr(1.5), tl.constexpr(0.6)  # of one step: beyond, the model means little


@triton.jit
def describe(x, y, s0, s1, s2, a0, a1, a2, opponent):
    """Of a state in its units, with amplitudes in unit values: x, y, l1, shear, l3, largest q, 1 / sqrt(pi l1 l3)."""
    l1 = tl.exp2(s0.to(tl.float32) / 256)
    l3 = tl.exp2(s2.to(tl.float32) / 256)
    scale = 1 / tl.sqrt(l1 * l3 * _PI)
    light, tilt, tint = a0 * (1 / _ROOT_3), a1 * (1 / _ROOT_2), a2 * (1 / _ROOT_6)
    mixed = tl.maximum(tl.abs(light + tilt - tint), tl.abs(light - tilt - tint))
    mixed = tl.maximum(mixed, tl.abs(light + 2 * tint))
    plain = tl.maximum(tl.maximum(tl.abs(a0), tl.abs(a1)), tl.abs(a2))
    peak = tl.where(opponent != 0, mixed, plain).to(tl.float32) * scale
    cutoff = 2 * tl.log(tl.maximum(peak * _CUTOFF, 1.0))
    return x.to(tl.float32) / 64 - 0.5, y.to(tl.float32) / 64 - 0.5, l1, s1.to(tl.float32) / 256, l3, cutoff, scale


@triton.jit
def is_inside(x, y, l1, shear, l3, cutoff, bounds):
    """Whether an ellipse lies within bounds: least x, end of x, least y, end of y."""
    across = tl.sqrt(cutoff) * l1
    down = tl.sqrt(cutoff * (1 + shear * shear)) * l3
    left, right, top, bottom = tl.load(bounds), tl.load(bounds + 1), tl.load(bounds + 2), tl.load(bounds + 3)
    return (x - across >= left) & (x + across < right) & (y - down >= top) & (y + down < bottom)


@triton.jit
def sweep(
    field, whole, floats, num_grids, x, y, l1, shear, l3, cutoff, scale, a0, a1, a2, sums, part, parts,
    sign: tl.constexpr, summed: tl.constexpr, moments: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """Go over the samples of a splat, or over every `parts`-th block of rows from `part` on.

    With a `sign`, that many times the splat is added to the residual.  With `summed` what the residual was before goes
    to `sums`: per channel sum w e phi and sum w phi^2; with `moments` those of w (sum_c a_c e_c) phi too: 1, u1, u2,
    u1 u1, u1 u2, u2 u2.
    """
    channels = tl.arange(0, 4)
    pulls = tl.zeros([4], tl.float64)
    energy = tl.zeros([4], tl.float64)
    n = tl.full([], 0.0, tl.float64)
    n1, n2, n11, n12, n22 = n, n, n, n, n
    steep = 1 + shear * shear
    for grid in range(num_grids):
        integers, reals = whole + grid * _WHOLES, floats + grid * _FLOATS
        width, height, pitch = tl.load(integers + _WIDTH), tl.load(integers + _HEIGHT), tl.load(integers + _PITCH)
        first_channel, planes = tl.load(integers + _FIRST), tl.load(integers + _PLANES)
        across, down, weight = tl.load(reals + _ACROSS), tl.load(reals + _DOWN), tl.load(reals + _WEIGHT)
        center_x = (x - tl.load(reals + _X0)) * across
        center_y = (y - tl.load(reals + _Y0)) * down
        inverse_1, inverse_3 = 1 / (l1 * across), 1 / (l3 * down)
        reach = tl.sqrt(cutoff * steep) / inverse_3
        top = tl.maximum(tl.ceil(center_y - reach), 0.0).to(tl.int32)
        bottom = tl.minimum(tl.floor(center_y + reach), height - 1.0).to(tl.int32)
        widest = tl.minimum(2 * tl.sqrt(cutoff / steep) / inverse_1 + 1, width.to(tl.float32)).to(tl.int32)
        planes_begin = field + tl.load(integers + _OFFSET)
        amplitude_0 = tl.where(first_channel == 0, a0, tl.where(first_channel == 1, a1, a2)).to(tl.float32) * scale
        amplitude_1 = tl.where(first_channel == 0, a1, a2).to(tl.float32) * scale
        amplitude_2 = a2.to(tl.float32) * scale
        s0 = tl.zeros([rows, columns], tl.float32)
        s1, s2, squares = s0, s0, s0
        m, m1, m2, m11, m12, m22 = s0, s0, s0, s0, s0, s0
        for row in range(top + part * rows, bottom + 1, parts * rows):
            line = row + tl.arange(0, rows)
            v = (line - center_y) * inverse_3
            half = tl.sqrt(tl.maximum(cutoff - v * v / steep, 0.0) / steep) / inverse_1
            middle = center_x + shear * v / (steep * inverse_1)
            first = tl.maximum(tl.ceil(middle - half), 0.0).to(tl.int32)
            last = tl.minimum(tl.floor(middle + half), width - 1.0).to(tl.int32)
            last = tl.where(line <= bottom, last, -1)
            for begin in range(0, widest, columns):
                column = first[:, None] + (begin + tl.arange(0, columns))[None, :]
                seen = column <= last[:, None]
                u1 = (column - center_x) * inverse_1
                u2 = v[:, None] - shear * u1
                g = tl.where(seen, tl.exp2((u1 * u1 + u2 * u2) * -_HALF_LOG2_E), 0.0)
                samples = planes_begin + line[:, None] * pitch + column
                e = tl.load(samples, mask=seen, other=0.0)
                if sign != 0:
                    tl.store(samples, e + sign * amplitude_0 * g, mask=seen)
                mixed = amplitude_0 * e
                if summed:
                    s0 += g * e
                    squares += g * g
                if planes > 1:
                    e = tl.load(samples + height * pitch, mask=seen, other=0.0)
                    if sign != 0:
                        tl.store(samples + height * pitch, e + sign * amplitude_1 * g, mask=seen)
                    mixed += amplitude_1 * e
                    if summed:
                        s1 += g * e
                if planes > 2:
                    e = tl.load(samples + 2 * height * pitch, mask=seen, other=0.0)
                    if sign != 0:
                        tl.store(samples + 2 * height * pitch, e + sign * amplitude_2 * g, mask=seen)
                    mixed += amplitude_2 * e
                    if summed:
                        s2 += g * e
                if moments:
                    w = g * mixed
                    m += w
                    m1 += w * u1
                    m2 += w * u2
                    m11 += w * u1 * u1
                    m12 += w * u1 * u2
                    m22 += w * u2 * u2
        if summed:
            pull_0, pull_1, pull_2 = _total(s0), _total(s1), _total(s2)
            factor = (weight * scale).to(tl.float64)
            pulls += tl.where(channels == first_channel, factor * pull_0, 0.0)
            pulls += tl.where((channels == first_channel + 1) & (planes > 1), factor * pull_1, 0.0)
            pulls += tl.where((channels == first_channel + 2) & (planes > 2), factor * pull_2, 0.0)
            own = (channels >= first_channel) & (channels < first_channel + planes)
            energy += tl.where(own, factor * scale * _total(squares), 0.0)
        if moments:
            n += weight * _total(m)
            n1 += weight * _total(m1)
            n2 += weight * _total(m2)
            n11 += weight * _total(m11)
            n12 += weight * _total(m12)
            n22 += weight * _total(m22)
    if summed:
        tl.store(sums + PULLS + channels, pulls)
        tl.store(sums + ENERGY + channels, energy)
    if moments:
        tl.store(sums + MOMENTS, n)
        tl.store(sums + MOMENTS + 1, n1)
        tl.store(sums + MOMENTS + 2, n2)
        tl.store(sums + MOMENTS + 3, n11)
        tl.store(sums + MOMENTS + 4, n12)
        tl.store(sums + MOMENTS + 5, n22)


@triton.jit
def _total(block):
    return tl.sum(tl.sum(block, 1).to(tl.float64), 0)


@triton.jit
def aim(scratch, energy, share, s0, s2, x, y, l1, shear, l3):
    """Where a share of the Gauss-Newton step takes a splat: x, y in pixels, log2 l1, log2 l3, and the twist."""
    m, m1, m2 = tl.load(scratch + MOMENTS), tl.load(scratch + MOMENTS + 1), tl.load(scratch + MOMENTS + 2)
    m11, m12, m22 = tl.load(scratch + MOMENTS + 3), tl.load(scratch + MOMENTS + 4), tl.load(scratch + MOMENTS + 5)
    half = tl.maximum(0.5 * energy, 1e-12)
    v1 = share * _limited(m1 / half, _MOST_SHIFT)
    v2 = share * _limited(m2 / half, _MOST_SHIFT)
    d0 = share * _limited((m11 - 0.5 * m) / half, _MOST_GROWTH)
    d2 = share * _limited((m22 - 0.5 * m) / half, _MOST_GROWTH)
    twist = share * _limited(2 * m12 / half, _MOST_SHIFT)
    return x + l1 * v1, y + l3 * (shear * v1 + v2), s0 / 256.0 + d0 / LN2, s2 / 256.0 + d2 / LN2, twist


@triton.jit
def _limited(value, most):
    return tl.minimum(tl.maximum(value, -most), most).to(tl.float32)


@triton.jit
def place_shift(length, level):
    """log2 of the step of x or y (`state.position_shifts`)."""
    return tl.minimum(tl.maximum((length + 128 >> 8) + 6 - level, 0), 9)


@triton.jit
def least(costs, axis: tl.constexpr):
    """The least of costs along an axis and its index, the first where they are equal."""
    return tl.min(costs, axis, return_indices=True)


@triton.jit
def one_of(values, index, axis: tl.constexpr):
    """The values at an index of the last of two axes, or of the only one."""
    if axis == 1:
        chosen = tl.arange(0, values.shape[1])[None, :] == index[:, None]
    else:
        chosen = tl.arange(0, values.shape[0]) == index
    return tl.sum(tl.where(chosen, values, 0), axis)


@triton.jit
def is_painted(row):
    """Whether the residual lacks a splat."""
    return (tl.load(row + PAINTED) != 0) | (tl.load(row + PAINTED + 1) != 0) | (tl.load(row + PAINTED + 2) != 0)


@triton.jit
def is_there(row):
    """Whether there is a splat to settle: one that is shown, or a slot that a fit has faded out."""
    return is_painted(row) | (tl.load(row + MODE) < 0)


@triton.jit
def _painted(row, opponent):
    """What is drawn of a splat, and its amplitudes; of a slot that is not shown, what would be."""
    a0 = tl.load(row + PAINTED).to(tl.float64) / 4096
    a1 = tl.load(row + PAINTED + 1).to(tl.float64) / 4096
    a2 = tl.load(row + PAINTED + 2).to(tl.float64) / 4096
    shown = is_painted(row)
    of = row + tl.where(shown, 0, EXPECTED)
    px, py = tl.load(of + POSITION), tl.load(of + POSITION + 1)
    s0, s1, s2 = tl.load(of + SHAPE), tl.load(of + SHAPE + 1), tl.load(of + SHAPE + 2)
    of = row + tl.where(shown, PAINTED, EXPECTED + AMPLITUDE)
    d0, d1, d2 = tl.load(of), tl.load(of + 1), tl.load(of + 2)
    d0, d1, d2 = d0.to(tl.float64) / 4096, d1.to(tl.float64) / 4096, d2.to(tl.float64) / 4096
    x, y, l1, shear, l3, cutoff, scale = describe(px, py, s0, s1, s2, d0, d1, d2, opponent)
    return x, y, l1, shear, l3, cutoff, scale, a0, a1, a2


@triton.jit
def take(
    field, whole, floats, num_grids, row, sums, part, parts,
    opponent, rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """Take a splat out of the residual, and sum what the residual was over it."""
    x, y, l1, shear, l3, cutoff, scale, a0, a1, a2 = _painted(row, opponent)
    sweep(
        field, whole, floats, num_grids, x, y, l1, shear, l3, cutoff, scale, a0, a1, a2, sums, part, parts,
        1, True, True, rows, columns,
    )  # fmt: skip


@triton.jit
def paint(
    field, whole, floats, num_grids, row, part, parts,
    opponent, rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """Have a splat shown, so that the residual lacks it."""
    if is_painted(row):
        x, y, l1, shear, l3, cutoff, scale, a0, a1, a2 = _painted(row, opponent)
        sweep(
            field, whole, floats, num_grids, x, y, l1, shear, l3, cutoff, scale, a0, a1, a2, row, part, parts,
            -1, False, False, rows, columns,
        )  # fmt: skip


@triton.jit
def pull_trial(
    field, whole, floats, num_grids, scratch, trial, sums, part, parts, rows: tl.constexpr, columns: tl.constexpr
):  # fmt: skip
    """What a splat that is tried would take off the residual, if it is worth trying."""
    of = scratch + TRIALS + trial
    if tl.load(of + VALID * 8) != 0:
        x, y, l1 = tl.load(of).to(tl.float32), tl.load(of + 8).to(tl.float32), tl.load(of + 16).to(tl.float32)
        shear, l3 = tl.load(of + 24).to(tl.float32), tl.load(of + 32).to(tl.float32)
        cutoff, scale = tl.load(of + 40).to(tl.float32), tl.load(of + 48).to(tl.float32)
        none = tl.full([], 0.0, tl.float64)
        sweep(
            field, whole, floats, num_grids, x, y, l1, shear, l3, cutoff, scale, none, none, none, sums, part, parts,
            0, True, False, rows, columns,
        )  # fmt: skip


@triton.jit
def write_trials(scratch, turn, x, y, l1, shear, l3, cutoff, scale, there, px, py, s0, s1, s2, kind, fixed):
    """Write down what else may be tried, a lane for each."""
    trials = scratch + TRIALS + turn
    tl.store(trials, x.to(tl.float64))
    tl.store(trials + 8, y.to(tl.float64))
    tl.store(trials + 16, l1.to(tl.float64))
    tl.store(trials + 24, shear.to(tl.float64))
    tl.store(trials + 32, l3.to(tl.float64))
    tl.store(trials + 40, cutoff.to(tl.float64))
    tl.store(trials + 48, scale.to(tl.float64))
    tl.store(trials + VALID * 8, there.to(tl.float64))
    tl.store(trials + TRIED_POSITION * 8, px.to(tl.float64))
    tl.store(trials + (TRIED_POSITION + 1) * 8, py.to(tl.float64))
    tl.store(trials + TRIED_SHAPE * 8, s0.to(tl.float64))
    tl.store(trials + (TRIED_SHAPE + 1) * 8, s1.to(tl.float64))
    tl.store(trials + (TRIED_SHAPE + 2) * 8, s2.to(tl.float64))
    tl.store(trials + KIND * 8, kind.to(tl.float64))
    tl.store(trials + FIXED * 8, fixed.to(tl.float64))


@triton.jit
def gather(partial, sums, count: tl.constexpr, parts: tl.constexpr):
    """Add up what `parts` programs have summed, always in the same order."""
    lane, part = tl.arange(0, count), tl.arange(0, parts)
    tl.store(sums + lane, tl.sum(tl.load(partial + part[:, None] * count + lane[None, :]), 0))


@triton.jit
def gather_trials(partial, scratch, parts: tl.constexpr):
    """`gather` of all that is tried."""
    for trial in range(MOST_TRIALS):
        if tl.load(scratch + TRIALS + VALID * 8 + trial) != 0:
            gather(partial + trial * parts * 8, scratch + TRIAL_SUMS + 8 * trial, 8, parts)


@triton.jit(do_not_specialize=["first", "num_grids", "opponent"])
def take_large(
    field, whole, floats, num_grids, table, order, first, partial,
    opponent, rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """`take` by many programs, each of which sums a part."""
    part = tl.program_id(0)
    row = table + tl.load(order + first) * COLUMNS
    if is_there(row):
        sums = partial + part * NUM_SUMS
        take(field, whole, floats, num_grids, row, sums, part, tl.num_programs(0), opponent, rows, columns)


@triton.jit(do_not_specialize=["num_grids"])
def pull_large(field, whole, floats, num_grids, scratch, partial, rows: tl.constexpr, columns: tl.constexpr):
    """`pull_trial` of all that are tried by many programs, each of which sums a part."""
    part, parts, trial = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    sums = partial + (trial * parts + part) * 8
    pull_trial(field, whole, floats, num_grids, scratch, trial, sums, part, parts, rows, columns)


@triton.jit(do_not_specialize=["first", "num_grids", "opponent"])
def paint_large(
    field, whole, floats, num_grids, table, order, first,
    opponent, rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """`paint` by many programs."""
    row = table + tl.load(order + first) * COLUMNS
    paint(field, whole, floats, num_grids, row, tl.program_id(0), tl.num_programs(0), opponent, rows, columns)


@triton.jit(do_not_specialize=["first_tile", "num_grids", "opponent"])
def paint_tiles(
    field, whole, floats, num_grids, table, order, starts, first_tile,
    opponent, rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """`paint` the splats of tiles, one after the other."""
    tile = first_tile + tl.program_id(0)
    for at in range(tl.load(starts + tile), tl.load(starts + tile + 1)):
        row = table + tl.load(order + at) * COLUMNS
        paint(field, whole, floats, num_grids, row, 0, 1, opponent, rows, columns)
        tl.debug_barrier()
