"""What `refine` does to one splat after another: sums over its samples, targets, candidates, exact checks (numba).

With phi = g / sqrt(pi l1 l3), a splat's Gaussian scaled so that its squares sum to one where its samples are a pixel
apart, a splat of amplitudes a shows a phi.  Its neighbours left alone, the error over a residual e' that it has been
taken out of is

    sum_c (G_c a_c^2 - 2 S_c a_c) + constant,    S_c = sum w e'_c phi,  G_c = sum w phi^2

exactly, for any a: one pass over the samples weighs all amplitudes that a place and shape can have.  Where place and
shape should go is said by the Gauss-Newton step, in coordinates in which its matrix is known beforehand: offsets
v = L^-1 d of the mean, errors d0, d1, d2 of log l1, t, log l3, and E = sum_c G_c a_c^2, cost

    E (v1^2 + v2^2) / 2 + E (d0^2 / 2 + d2^2 / 2 + (d1 - t d0 + t d2)^2 / 4).

Kernels and everything they call live in this one file: numba's disk cache does not see edits elsewhere.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

f32 = np.float32
i32 = np.int32

LANES = 16  # samples that rows are worked on at a time; planes have as many to spare behind each row
_MOST_AMPLITUDE = (1 << 24) - 1  # of a state, in 1/4096 (`state.MAX_AMPLITUDE`)
_CUTOFF = 4080.0  # least amplitude that is drawn is one over it (spec, "Rendering")
_HALF_LOG2_E = 0.5 / math.log(2.0)
_LOG_UNIT = math.log(2.0) / 256  # natural logarithm of a length's unit
_MOST_SHIFT, _MOST_GROWTH = 1.5, 0.6  # of one step: beyond, the quadratic model means little
# Of the step: further ones that are tried.  Neighbours make room when their turn comes, so a splat may go too far.
_SHARES = (0.5, 1.5, 2.5)

# Rows of the grids' tables: whole numbers, then floats.
_OFFSET, _WIDTH, _HEIGHT, _PITCH, _FIRST, _PLANES = range(6)
_X0, _Y0, _ACROSS, _DOWN, _WEIGHT = range(5)

# What `_pull` sums: squares of phi and w e phi per channel, then moments of w (sum_c a_c e_c) phi.
_SUMS, _SQUARES = 0, 3
_M, _M1, _M2, _M11, _M12, _M22 = range(6, 12)
NUM_SUMS = 12

_FAST = {"reassoc", "contract", "nsz"}  # sums in any order
_EXACT = {"contract", "nsz"}  # what rounds by adding and subtracting must keep its order


@njit(cache=True, inline="always")
def _exp2(exponent):
    """2^exponent where that is a normal float."""
    shifted = f32(exponent + f32(12582912.0))  # 1.5 * 2^23 leaves the nearest whole number in the low bits
    fraction = f32(exponent - f32(shifted - f32(12582912.0)))
    mantissa = f32(f32(0.00132646499784) * fraction + f32(0.00967151194455))
    mantissa = f32(mantissa * fraction + f32(0.0555073394296))
    mantissa = f32(mantissa * fraction + f32(0.240222421134))
    mantissa = f32(mantissa * fraction + f32(0.6931469776))
    mantissa = f32(mantissa * fraction + f32(1.0))
    power = i32(i32(shifted.view(np.int32)) << i32(23))
    return f32(i32(i32(mantissa.view(np.int32)) + power).view(np.float32))


@njit(cache=True, fastmath=_EXACT, error_model="numpy")
def _gaussian_row(row, first, last, center, inverse, v, shear):
    """The Gaussian at samples first, first + 1 ... of a row; zero behind `last`."""
    for j in range(len(row)):
        u1 = f32((f32(i32(j)) + (first - center)) * inverse)
        u2 = f32(v - shear * u1)
        g = _exp2(f32(f32(-_HALF_LOG2_E) * (u1 * u1 + u2 * u2)))
        row[j] = g if i32(j) <= last else f32(0.0)


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _dot(row, other):
    total = f32(0.0)
    for j in range(len(row)):
        total += row[j] * other[j]
    return total


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _add_row(row, amplitude, gaussian):
    for j in range(len(row)):
        row[j] += amplitude * gaussian[j]


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _moments_row(gaussian, mixed, begin, inverse):
    """sum w, sum w u1, sum w u1^2 over a row, w = g sum_c a_c e_c; `begin` is the first sample's offset."""
    m, m1, m11 = f32(0.0), f32(0.0), f32(0.0)
    for j in range(len(gaussian)):
        u1 = f32((f32(i32(j)) + begin) * inverse)
        w = gaussian[j] * mixed[j]
        m += w
        m1 += w * u1
        m11 += w * u1 * u1
    return m, m1, m11


@njit(cache=True, error_model="numpy")
def _samples(splat, whole, floats, g):
    """Centre, inverse lengths and first and last row of a splat on a grid."""
    center_x = (splat[0] - floats[g, _X0]) * floats[g, _ACROSS]
    center_y = (splat[1] - floats[g, _Y0]) * floats[g, _DOWN]
    inverse_1 = 1.0 / (splat[2] * floats[g, _ACROSS])
    inverse_3 = 1.0 / (splat[4] * floats[g, _DOWN])
    reach = math.sqrt(splat[5] * (1.0 + splat[3] * splat[3])) / inverse_3
    top = max(math.ceil(center_y - reach), 0.0)
    bottom = min(math.floor(center_y + reach), whole[g, _HEIGHT] - 1.0)
    return center_x, center_y, inverse_1, inverse_3, i32(top), i32(bottom)


@njit(cache=True, error_model="numpy")
def _span(center_x, inverse_1, v, shear, cutoff, width):
    """First and last sample of a row within the splat's ellipse."""
    steep = 1.0 + shear * shear
    half = math.sqrt(max(cutoff - v * v / steep, 0.0) / steep) / inverse_1
    middle = center_x + shear * v / (steep * inverse_1)
    return i32(max(math.ceil(middle - half), 0.0)), i32(min(math.floor(middle + half), width - 1.0))


@njit(cache=True, error_model="numpy")
def _take(field, whole, floats, splat, amplitudes, buffers, sums):
    """Take a splat out of the residual, and sum what the residual was over it.

    `splat` is x, y, l1, t, l3, largest q, 1 / sqrt(pi l1 l3); `sums` are those of `NUM_SUMS`, `_SUMS` of the residual
    before the splat is taken out.
    """
    sums[:] = 0.0
    shear = splat[3]
    for g in range(len(whole)):
        center_x, center_y, inverse_1, inverse_3, top, bottom = _samples(splat, whole, floats, g)
        planes, pitch = whole[g, _PLANES], whole[g, _PITCH]
        squares, m, m1, m2, m11, m12, m22 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        s0, s1, s2 = 0.0, 0.0, 0.0
        for y in range(top, bottom + 1):
            v = (y - center_y) * inverse_3
            first, last = _span(center_x, inverse_1, v, shear, splat[5], whole[g, _WIDTH])
            if last < first:
                continue
            count = (last - first + LANES) // LANES * LANES
            gaussian, mixed = buffers[0, :count], buffers[1, :count]
            _gaussian_row(gaussian, f32(first), i32(last - first), f32(center_x), f32(inverse_1), f32(v), f32(shear))
            mixed[:] = f32(0.0)
            for c in range(planes):
                channel = whole[g, _FIRST] + c
                begin = whole[g, _OFFSET] + (c * whole[g, _HEIGHT] + y) * pitch + first
                row = field[begin : begin + count]
                total = _dot(gaussian, row)
                amplitude = f32(amplitudes[channel] * splat[6])
                if amplitude != f32(0.0):
                    _add_row(mixed, amplitude, row)
                    _add_row(row, amplitude, gaussian)
                if c == 0:
                    s0 += total
                elif c == 1:
                    s1 += total
                else:
                    s2 += total
            squares += _dot(gaussian, gaussian)
            r, r1, r11 = _moments_row(gaussian, mixed, f32(first - center_x), f32(inverse_1))
            m += r
            m1 += r1
            m2 += v * r - shear * r1
            m11 += r11
            m12 += v * r1 - shear * r11
            m22 += v * v * r - 2.0 * v * shear * r1 + shear * shear * r11
        scale = floats[g, _WEIGHT] * splat[6]
        for c in range(planes):
            channel = whole[g, _FIRST] + c
            sums[_SUMS + channel] += scale * (s0 if c == 0 else s1 if c == 1 else s2)
            sums[_SQUARES + channel] += scale * splat[6] * squares
        # `amplitudes[channel] * splat[6]` are colours: the moments lack the other factor of phi
        scale = floats[g, _WEIGHT]
        sums[_M] += scale * m
        sums[_M1] += scale * m1
        sums[_M2] += scale * m2
        sums[_M11] += scale * m11
        sums[_M12] += scale * m12
        sums[_M22] += scale * m22


@njit(cache=True, error_model="numpy")
def _pull(field, whole, floats, splat, buffers, sums):
    """What a splat that is not in the residual would take off it: `_SUMS` and `_SQUARES`."""
    sums[: _SQUARES + 3] = 0.0
    shear = splat[3]
    for g in range(len(whole)):
        center_x, center_y, inverse_1, inverse_3, top, bottom = _samples(splat, whole, floats, g)
        planes, pitch = whole[g, _PLANES], whole[g, _PITCH]
        squares, s0, s1, s2 = 0.0, 0.0, 0.0, 0.0
        for y in range(top, bottom + 1):
            v = (y - center_y) * inverse_3
            first, last = _span(center_x, inverse_1, v, shear, splat[5], whole[g, _WIDTH])
            if last < first:
                continue
            count = (last - first + LANES) // LANES * LANES
            gaussian = buffers[0, :count]
            _gaussian_row(gaussian, f32(first), i32(last - first), f32(center_x), f32(inverse_1), f32(v), f32(shear))
            squares += _dot(gaussian, gaussian)
            begin = whole[g, _OFFSET] + y * pitch + first
            s0 += _dot(gaussian, field[begin : begin + count])
            if planes > 1:
                begin += whole[g, _HEIGHT] * pitch
                s1 += _dot(gaussian, field[begin : begin + count])
            if planes > 2:
                begin += whole[g, _HEIGHT] * pitch
                s2 += _dot(gaussian, field[begin : begin + count])
        scale = floats[g, _WEIGHT] * splat[6]
        for c in range(planes):
            channel = whole[g, _FIRST] + c
            sums[_SUMS + channel] += scale * (s0 if c == 0 else s1 if c == 1 else s2)
            sums[_SQUARES + channel] += scale * splat[6] * squares


@njit(cache=True, error_model="numpy")
def _paint(field, whole, floats, splat, amplitudes, sign, buffers):
    """Add `sign` times a splat to the residual."""
    for g in range(len(whole)):
        center_x, center_y, inverse_1, inverse_3, top, bottom = _samples(splat, whole, floats, g)
        for y in range(top, bottom + 1):
            v = (y - center_y) * inverse_3
            first, last = _span(center_x, inverse_1, v, splat[3], splat[5], whole[g, _WIDTH])
            if last < first:
                continue
            count = (last - first + LANES) // LANES * LANES
            gaussian = buffers[0, :count]
            _gaussian_row(gaussian, f32(first), i32(last - first), f32(center_x), f32(inverse_1), f32(v), f32(splat[3]))
            for c in range(whole[g, _PLANES]):
                amplitude = f32(sign * amplitudes[whole[g, _FIRST] + c] * splat[6])
                if amplitude != f32(0.0):
                    begin = whole[g, _OFFSET] + (c * whole[g, _HEIGHT] + y) * whole[g, _PITCH] + first
                    _add_row(field[begin : begin + count], amplitude, gaussian)


@njit(cache=True, error_model="numpy")
def _peak(amplitudes, scale, opponent):
    """The largest colour of a splat in any plane of the stream."""
    a0, a1, a2 = amplitudes[0], amplitudes[1], amplitudes[2]
    if opponent:
        light, tilt, tint = a0 / math.sqrt(3.0), a1 / math.sqrt(2.0), a2 / math.sqrt(6.0)
        a0, a1, a2 = light + tilt - tint, light + 2.0 * tint, light - tilt - tint
    return max(abs(a0), abs(a1), abs(a2)) * scale


@njit(cache=True, error_model="numpy")
def _describe(splat, position, shape, amplitudes, opponent):
    """Put a state of 1/64 pixels and 1/256 octaves into the floats that are drawn."""
    splat[0] = position[0] / 64.0 - 0.5
    splat[1] = position[1] / 64.0 - 0.5
    splat[2] = math.exp2(shape[0] / 256.0)
    splat[3] = shape[1] / 256.0
    splat[4] = math.exp2(shape[2] / 256.0)
    splat[6] = 1.0 / math.sqrt(math.pi * splat[2] * splat[4])
    splat[5] = 2.0 * math.log(max(_CUTOFF * _peak(amplitudes, splat[6], opponent), 1.0))


@njit(cache=True, error_model="numpy")
def _inside(splat, floats, bounds):
    """Whether all samples that a splat is worked on at lie within bounds: least x, end of x, least y, end of y."""
    spacing = 0.0
    for g in range(len(floats)):
        spacing = max(spacing, 1.0 / floats[g, _ACROSS])
    across = math.sqrt(splat[5]) * splat[2]
    down = math.sqrt(splat[5] * (1.0 + splat[3] * splat[3])) * splat[4]
    if splat[0] - across < bounds[0] or splat[0] + across + LANES * spacing >= bounds[1]:
        return False
    return splat[1] - down >= bounds[2] and splat[1] + down < bounds[3]


@njit(cache=True, error_model="numpy")
def _aim(splat, sums, energy, share, target):
    """Where the Gauss-Newton step, or a share of it, takes a splat: x, y in pixels, log2 l1, log2 l3, twist z1.

    The twist is d1 - t d0 + t d2, which is what is left of a change of the shear once lengths have changed.
    """
    half = max(0.5 * energy, 1e-12)
    v1 = share * min(max(sums[_M1] / half, -_MOST_SHIFT), _MOST_SHIFT)
    v2 = share * min(max(sums[_M2] / half, -_MOST_SHIFT), _MOST_SHIFT)
    d0 = share * min(max((sums[_M11] - 0.5 * sums[_M]) / half, -_MOST_GROWTH), _MOST_GROWTH)
    d2 = share * min(max((sums[_M22] - 0.5 * sums[_M]) / half, -_MOST_GROWTH), _MOST_GROWTH)
    target[0] = splat[0] + splat[2] * v1
    target[1] = splat[1] + splat[4] * (splat[3] * v1 + v2)
    target[2] = math.log2(splat[2]) + d0 / math.log(2.0)
    target[3] = math.log2(splat[4]) + d2 / math.log(2.0)
    target[4] = share * min(max(2.0 * sums[_M12] / half, -_MOST_SHIFT), _MOST_SHIFT)


@njit(cache=True, inline="always", error_model="numpy")
def _digits(value):
    """Binary digits of a number that is not negative; 0 has none."""
    number = 0
    while value:
        value >>= 1
        number += 1
    return number


@njit(cache=True, error_model="numpy")
def _color_bits(costs, k0, k1, k2):
    """Of the symbols of amplitudes (`coding.main.cost`)."""
    bits = _component_bits(costs, 0, 0, 0, k0)
    if len(costs.colors) == 1:
        return bits
    first = abs(k0)
    second = abs(k1) + (first >> 2)
    bits += _component_bits(costs, 1, min(_digits(first), 5), k0, k1)
    return bits + _component_bits(costs, 2, min(_digits(second), 5), k1, k2)


@njit(cache=True, inline="always", error_model="numpy")
def _component_bits(costs, channel, context, before, k):
    bits = costs.colors[channel, context, min(abs(k), costs.colors.shape[2] - 1)]
    if k != 0:
        bits += costs.color_signs[channel, 1 if before > 0 else 2 if before < 0 else 0, 1 if k < 0 else 0]
    return bits


@njit(cache=True, inline="always", error_model="numpy")
def _lengths_bits(costs, level, first, third):
    """Of log lengths, and of the place within its cell (`coding.main.cost`)."""
    fine = min(level, 2)
    octave1, octave3 = (first >> 8) + 2, (third >> 8) + 2
    mask = (1 << fine) - 1
    bits = costs.lengths_1[level, octave1] + costs.lengths_3[level, octave1, octave3]
    bits += costs.fractions[0, fine, octave1, first >> 8 - fine & mask]
    bits += costs.fractions[1, fine, octave3, third >> 8 - fine & mask]
    return bits + (2 * (level - fine) + 9 - _place_shift(first, level) + 9 - _place_shift(third, level))


@njit(cache=True, inline="always", error_model="numpy")
def _shear_bits(costs, level, shear):
    return costs.shears[level, min(abs(shear) >> 8 - level, costs.shears.shape[1] - 1)]


@njit(cache=True, error_model="numpy")
def _shape_bits(costs, level, shape):
    """Of log lengths and shear, and of the place within its cell."""
    return _lengths_bits(costs, level, shape[0], shape[2]) + _shear_bits(costs, level, shape[1])


@njit(cache=True, error_model="numpy")
def _cell_bits(costs, old, new):
    """Of being counted in a cell, for a splat that was counted in that of `old`."""
    row, column = new[1] >> 9, new[0] >> 9
    if old[1] >> 9 == row and old[0] >> 9 == column:
        return costs.cells_fewer[row, column]
    return costs.cells_more[row, column]


@njit(cache=True, inline="always", error_model="numpy")
def _place_shift(length, level):
    """log2 of the step of x or y (`state.position_shifts`)."""
    return min(max((length + 128 >> 8) + 6 - level, 0), 9)


@njit(cache=True, inline="always", error_model="numpy")
def _class_of(energy):
    """The class of a splat from the sum of its squared symbols (`state.classes_of`)."""
    level = 0
    while level < 8 and 2 * energy >= 1 << 2 * (level + 1):
        level += 1
    return level


@njit(cache=True, error_model="numpy")
def _best_colors(sums, step, rate, costs, least, most, chosen, prices):
    """For each class within [least, most] the symbols of amplitudes that cost least: error and their own bits.

    `sums` are those of `_pull`, `step` is D in unit values.  `chosen` [9, 3] and `prices` [9] take the symbols of each
    class and what they cost; infinite where there are none.
    """
    prices[:] = np.inf
    options = np.zeros((3, 3), np.int64)
    counts = np.ones(3, np.int64)
    squares, pulls = np.zeros(3), np.zeros(3)
    limit = math.floor(_MOST_AMPLITUDE / 4096.0 / step)
    for c in range(3):
        squares[c], pulls[c] = sums[_SQUARES + c] * step * step, sums[_SUMS + c] * step
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


@njit(cache=True, error_model="numpy")
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
        error0 = trial[0] * _LOG_UNIT - target[2] * math.log(2.0)
        grown0 = trial[0] * _LOG_UNIT - now[0]
        for k in range(-1, 2):
            trial[2] = (min(max(base2 + k, -512 >> high), 3071 >> high) << high) + half
            error2 = trial[2] * _LOG_UNIT - target[3] * math.log(2.0)
            grown2 = trial[2] * _LOG_UNIT - now[1]
            fixed = energy * 0.5 * (error0 * error0 + error2 * error2)
            fixed += rate * _lengths_bits(costs, level, trial[0], trial[2])
            if fixed >= best:
                continue
            shift0, shift2 = _place_shift(trial[0], level), _place_shift(trial[2], level)
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


@njit(cache=True, inline="always", error_model="numpy")
def _round_place(value, shift, most):
    """The nearest middle of a cell of a coordinate's lattice, in 1/64 pixels, and its error in pixels."""
    symbol = min(max(math.floor(value / (1 << shift)), 0), most - 1 >> shift)
    middle = (symbol << shift) + (1 << shift >> 1)
    return middle, (middle - value) / 64.0


@njit(cache=True, error_model="numpy")
def _is_one_of(position, shape, positions, shapes, first, last):
    for n in range(first, last):
        same = position[0] == positions[n, 0] and position[1] == positions[n, 1] and shape[0] == shapes[n, 0]
        if same and shape[1] == shapes[n, 1] and shape[2] == shapes[n, 2]:
            return True
    return False


@njit(cache=True, nogil=True, error_model="numpy")
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
    widest = 0
    for g in range(len(whole)):
        widest = max(widest, whole[g, _PITCH])
    buffers = np.zeros((2, widest + LANES), f32)
    splat, trial = np.empty(7), np.empty(7)
    sums, others = np.zeros(NUM_SUMS), np.zeros(NUM_SUMS)
    target, now = np.empty(5), np.empty(2)
    amplitudes, wanted = np.zeros(3), np.zeros(3)
    chosen, prices = np.zeros((9, 3), np.int64), np.empty(9)
    chosen_there, prices_there = np.zeros((9, 3), np.int64), np.empty(9)
    position, shape = np.empty(2, np.int64), np.empty(3, np.int64)
    best_position, best_shape, best_symbols = np.empty(2, np.int64), np.empty(3, np.int64), np.empty(3, np.int64)
    tried_positions, tried_shapes = np.empty((2 + len(_SHARES), 2), np.int64), np.empty((2 + len(_SHARES), 3), np.int64)
    for n in order:
        fresh, norm, energy = False, 0, 0.0
        for c in range(3):
            amplitudes[c] = painted[n, c]
            energy += painted[n, c] * painted[n, c]
            norm += symbols[n, c] * symbols[n, c]
            fresh |= painted[n, c] != symbols[n, c] * step
        if energy == 0.0:
            continue
        _describe(splat, positions[n], shapes[n], amplitudes, opponent)
        _take(field, whole, floats, splat, amplitudes, buffers, sums)
        old_error, energy = 0.0, 0.0
        for c in range(3):
            sums[_SUMS + c] += amplitudes[c] * sums[_SQUARES + c]
            energy += amplitudes[c] * amplitudes[c] * sums[_SQUARES + c]
            old_error -= 2.0 * amplitudes[c] * sums[_SUMS + c]
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
            _describe(trial, positions[n], shapes[n], wanted, opponent)
            if _inside(trial, floats, bounds):
                best = prices[old_level] + fixed
                best_symbols[:] = chosen[old_level]

        # other places and shapes, in the one or two classes that seem best
        now[0], now[1] = shapes[n, 0] * _LOG_UNIT, shapes[n, 2] * _LOG_UNIT
        for level in range(9):
            prices[level] += rate * 5.0 * level
        leading, leader, trials = np.inf, -1, 0
        for turn in range(2 + len(_SHARES)):
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
                share = 0.0 if fresh and turn == 2 else _SHARES[turn - 2]
            _aim(splat, sums, energy, share, target)
            _round_whole(splat, now, target, energy, level, rate, costs, most, position, shape)
            if not fresh and level == old_level and _is_one_of(position, shape, positions, shapes, n, n + 1):
                continue
            if _is_one_of(position, shape, tried_positions, tried_shapes, 0, trials):
                continue
            tried_positions[trials], tried_shapes[trials] = position, shape
            trials += 1
            for c in range(3):
                wanted[c] = chosen[level, c] * step
            _describe(trial, position, shape, wanted, opponent)
            if not _inside(trial, floats, bounds):
                continue
            _pull(field, whole, floats, trial, buffers, others)
            _best_colors(others, step, rate, costs, level, level, chosen_there, prices_there)
            fixed = rate * (_shape_bits(costs, level, shape) + _cell_bits(costs, positions[n], position))
            if prices_there[level] + fixed >= best:
                continue
            for c in range(3):
                wanted[c] = chosen_there[level, c] * step
            _describe(trial, position, shape, wanted, opponent)
            if _inside(trial, floats, bounds):
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
        _describe(splat, positions[n], shapes[n], amplitudes, opponent)
        _paint(field, whole, floats, splat, amplitudes, -1.0, buffers)


@njit(cache=True, nogil=True, error_model="numpy")
def show_splats(field, whole, floats, positions, shapes, painted, opponent):
    """Have further splats shown, so that the residual lacks them; arguments as those of `refine_whole`."""
    widest = 0
    for g in range(len(whole)):
        widest = max(widest, whole[g, _PITCH])
    buffers = np.zeros((2, widest + LANES), f32)
    splat = np.empty(7)
    for n in range(len(positions)):
        _describe(splat, positions[n], shapes[n], painted[n], opponent)
        _paint(field, whole, floats, splat, painted[n], -1.0, buffers)


@njit(cache=True, error_model="numpy")
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


@njit(cache=True, inline="always", error_model="numpy")
def _delta_bits(deltas, column, delta):
    return deltas[column, min(abs(delta), deltas.shape[1] - 1)]


@njit(cache=True, error_model="numpy")
def _fewer_steps(real):
    """The nearest whole number, and the one after it on the way to zero."""
    nearest = math.floor(real + 0.5)
    return nearest, nearest - (1 if nearest > 0 else -1 if nearest < 0 else 0)


@njit(cache=True, error_model="numpy")
def _place_delta(splat, predicted, shape, level, target, energy, rate, deltas, moved):
    """Steps from a predicted position towards a target: into `moved`.

    Returns the model's cost of the prediction itself, then that of the steps with their bits.
    """
    shift_x, shift_y = _place_shift(shape[0], level), _place_shift(shape[2], level)
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


@njit(cache=True, error_model="numpy")
def _shape_delta(splat, predicted, level, target, energy, rate, deltas, moved):
    """Steps from a predicted shape towards a target: into `moved`; returns as `_place_delta`."""
    high = 8 - level
    now0, now2 = math.log2(splat[2]), math.log2(splat[4])
    wide = (target[2] * 256.0 - predicted[0], target[3] * 256.0 - predicted[2])
    grown0 = (predicted[0] / 256.0 - now0) * math.log(2.0)
    grown2 = (predicted[2] / 256.0 - now2) * math.log(2.0)
    twist = predicted[1] / 256.0 - (splat[3] + target[4] + splat[3] * (grown0 - grown2))
    error0, error2 = wide[0] * _LOG_UNIT, wide[1] * _LOG_UNIT
    still = energy * (0.5 * (error0 * error0 + error2 * error2) + 0.25 * twist * twist)
    best = np.inf
    for d0 in _fewer_steps(wide[0] / (1 << high)):
        error0 = ((d0 << high) - wide[0]) * _LOG_UNIT
        for d2 in _fewer_steps(wide[1] / (1 << high)):
            error2 = ((d2 << high) - wide[1]) * _LOG_UNIT
            more = (d0 - d2) * (1 << high) * _LOG_UNIT
            lack = (splat[3] * more - twist) * 256.0
            for d1 in _fewer_steps(lack / (1 << high)):
                rest = ((d1 << high) - lack) / 256.0
                cost = energy * (0.5 * (error0 * error0 + error2 * error2) + 0.25 * rest * rest)
                cost += rate * (_delta_bits(deltas, 2, d0) + _delta_bits(deltas, 3, d1) + _delta_bits(deltas, 4, d2))
                if cost < best:
                    best = cost
                    moved[2], moved[3], moved[4] = d0, d1, d2
    return still, best


@njit(cache=True, error_model="numpy")
def _color_deltas(sums, predicted, step, unit, rate, deltas, moved):
    """Steps of amplitudes that cost least for a place and shape: into `moved`; 5 on.

    Returns the error with the predicted amplitudes, then the cost with the steps: error and bits.
    """
    still, best = 0.0, 0.0
    channels = len(deltas) - 5
    for c in range(channels):
        square, pull = sums[_SQUARES + c], sums[_SUMS + c]
        amplitude = predicted[c] / 4096.0
        error = amplitude * (square * amplitude - 2.0 * pull)
        still += error
        least, chosen = error + rate * _delta_bits(deltas, 5 + c, 0), 0
        if square > 0.0:
            for delta in _fewer_steps((pull / square - amplitude) / unit):
                if delta == 0 or abs(predicted[c] + delta * step) > _MOST_AMPLITUDE:
                    continue
                changed = amplitude + delta * unit
                cost = changed * (square * changed - 2.0 * pull) + rate * _delta_bits(deltas, 5 + c, delta)
                if cost < least:
                    least, chosen = cost, delta
        best += least
        moved[5 + c] = chosen
    return still, best


@njit(cache=True, error_model="numpy")
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


REMOVED_MODE = 8  # of a slot; the others are the sum of 1 (position), 2 (shape) and 4 (colour) that change


@njit(cache=True, nogil=True, error_model="numpy")
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
    widest = 0
    for g in range(len(whole)):
        widest = max(widest, whole[g, _PITCH])
    buffers = np.zeros((2, widest + LANES), f32)
    splat, trial = np.empty(7), np.empty(7)
    sums, others = np.zeros(NUM_SUMS), np.zeros(NUM_SUMS)
    target, wanted = np.empty(5), np.zeros(3)
    moved, tried = np.zeros(8, np.int64), np.zeros(8, np.int64)
    position, shape = np.empty(2, np.int64), np.empty(3, np.int64)
    best_position, best_shape, best_colors = np.empty(2, np.int64), np.empty(3, np.int64), np.empty(3, np.int64)
    tried_positions, tried_shapes = np.empty((2 + len(_SHARES), 2), np.int64), np.empty((2 + len(_SHARES), 3), np.int64)
    ranks = np.empty(4)
    for n in order:
        energy = 0.0
        for c in range(3):
            energy += painted[n, c] * painted[n, c]
        dark = energy == 0.0
        if (dark and modes[n] >= 0) or not expected_amplitudes[n].any():
            continue
        level = _class_of_amplitudes(expected_amplitudes[n], step)
        shift_x, shift_y = _place_shift(expected_shapes[n, 0], level), _place_shift(expected_shapes[n, 2], level)
        high = 8 - level
        old, energy = 0.0, 0.0
        if dark:  # a fit has faded it out: it is gone, or where it was expected
            for c in range(channels):
                wanted[c] = expected_amplitudes[n, c] / 4096.0
            positions[n], shapes[n], modes[n] = expected_positions[n], expected_shapes[n], 0
            _describe(splat, positions[n], shapes[n], wanted, opponent)
            _pull(field, whole, floats, splat, buffers, sums)
        else:
            _describe(splat, positions[n], shapes[n], painted[n], opponent)
            _take(field, whole, floats, splat, painted[n], buffers, sums)
        for c in range(3):
            sums[_SUMS + c] += painted[n, c] * sums[_SQUARES + c]
            energy += painted[n, c] * painted[n, c] * sums[_SQUARES + c]
            old -= 2.0 * painted[n, c] * sums[_SUMS + c]
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
                _describe(trial, positions[n], shapes[n], wanted, opponent)
                if cost < best and _inside(trial, floats, bounds):
                    best, best_mode = cost, mode
                    best_position[:], best_shape[:] = positions[n], shapes[n]
                    for c in range(channels):
                        best_colors[c] = expected_amplitudes[n, c] + (moved[5 + c] * step if change else 0)

        trials = 0
        for turn in range(0 if dark else 1 + len(_SHARES)):
            _aim(splat, sums, energy, _SHARES[turn - 1] if turn else 1.0, target)
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
                if modes[n] >= 0 and _is_one_of(position, shape, positions, shapes, n, n + 1):
                    continue
                if _is_one_of(position, shape, tried_positions, tried_shapes, 0, trials):
                    continue
                tried_positions[trials], tried_shapes[trials] = position, shape
                trials += 1
                for c in range(channels):
                    wanted[c] = (expected_amplitudes[n, c] + moved[5 + c] * step) / 4096.0
                _describe(trial, position, shape, wanted, opponent)
                if not _inside(trial, floats, bounds):
                    continue
                _pull(field, whole, floats, trial, buffers, others)
                still_there, colored_there = _color_deltas(
                    others, expected_amplitudes[n], step, unit, rate, deltas, tried
                )
                for change in range(2):
                    cost = (colored_there if change else still_there) + rate * (bits + flags[n, mode | 4 * change])
                    for c in range(channels):
                        wanted[c] = (expected_amplitudes[n, c] + (tried[5 + c] * step if change else 0)) / 4096.0
                    _describe(trial, position, shape, wanted, opponent)
                    if cost < best and _inside(trial, floats, bounds):
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
        _describe(splat, positions[n], shapes[n], painted[n], opponent)
        _paint(field, whole, floats, splat, painted[n], -1.0, buffers)
