"""What a splat and the residual that it is held against have in common: sums over its samples, and where they point.

With phi = g / sqrt(pi l1 l3), a splat's Gaussian scaled so that its squares sum to one where its samples are a pixel
apart, a splat of amplitudes a shows a phi.  Its neighbours left alone, the error over a residual e' that it has been
taken out of is

    sum_c (G_c a_c^2 - 2 S_c a_c) + constant,    S_c = sum w e'_c phi,  G_c = sum w phi^2

exactly, for any a: one pass over the samples weighs all amplitudes that a place and shape can have.  Where place and
shape should go is said by the Gauss-Newton step, in coordinates in which its matrix is known beforehand: offsets
v = L^-1 d of the mean, errors d0, d1, d2 of log l1, t, log l3, and E = sum_c G_c a_c^2, cost

    E (v1^2 + v2^2) / 2 + E (d0^2 / 2 + d2^2 / 2 + (d1 - t d0 + t d2)^2 / 4).
"""

from __future__ import annotations

import math

import numpy as np

from pgsvc_codec.jit import kernel

f32 = np.float32
i32 = np.int32

LANES = 16  # samples that rows are worked on at a time; planes have as many to spare behind each row
MOST_AMPLITUDE = (1 << 24) - 1  # of a state, in 1/4096 (`state.MAX_AMPLITUDE`)
_CUTOFF = 4080.0  # least amplitude that is drawn is one over it (spec, "Rendering")
_HALF_LOG2_E = 0.5 / math.log(2.0)
LOG_UNIT = math.log(2.0) / 256  # natural logarithm of a length's unit
_MOST_SHIFT, _MOST_GROWTH = 1.5, 0.6  # of one step: beyond, the quadratic model means little
# Of the step: further ones that are tried.  Neighbours make room when their turn comes, so a splat may go too far.
SHARES = (0.5, 1.5, 2.5)

# Rows of the grids' tables: whole numbers, then floats.
_OFFSET, _WIDTH, _HEIGHT, _PITCH, _FIRST, _PLANES = range(6)
_X0, _Y0, _ACROSS, _DOWN, _WEIGHT = range(5)

# What `pull` sums: squares of phi and w e phi per channel, then moments of w (sum_c a_c e_c) phi.
SUMS, SQUARES = 0, 3
_M, _M1, _M2, _M11, _M12, _M22 = range(6, 12)
NUM_SUMS = 12

_FAST = {"reassoc", "contract", "nsz"}  # sums in any order
_EXACT = {"contract", "nsz"}  # what rounds by adding and subtracting must keep its order


@kernel(inline="always")
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


@kernel(fastmath=_EXACT, error_model="numpy")
def _gaussian_row(row, first, last, center, inverse, v, shear):
    """The Gaussian at samples first, first + 1 ... of a row; zero behind `last`."""
    for j in range(len(row)):
        u1 = f32((f32(i32(j)) + (first - center)) * inverse)
        u2 = f32(v - shear * u1)
        g = _exp2(f32(f32(-_HALF_LOG2_E) * (u1 * u1 + u2 * u2)))
        row[j] = g if i32(j) <= last else f32(0.0)


@kernel(fastmath=_FAST, error_model="numpy")
def _dot(row, other):
    total = f32(0.0)
    for j in range(len(row)):
        total += row[j] * other[j]
    return total


@kernel(fastmath=_FAST, error_model="numpy")
def _add_row(row, amplitude, gaussian):
    for j in range(len(row)):
        row[j] += amplitude * gaussian[j]


@kernel(fastmath=_FAST, error_model="numpy")
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


@kernel(error_model="numpy")
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


@kernel(error_model="numpy")
def _span(center_x, inverse_1, v, shear, cutoff, width):
    """First and last sample of a row within the splat's ellipse."""
    steep = 1.0 + shear * shear
    half = math.sqrt(max(cutoff - v * v / steep, 0.0) / steep) / inverse_1
    middle = center_x + shear * v / (steep * inverse_1)
    return i32(max(math.ceil(middle - half), 0.0)), i32(min(math.floor(middle + half), width - 1.0))


@kernel(error_model="numpy")
def row_buffers(whole):
    """Room for two rows of any grid."""
    widest = 0
    for g in range(len(whole)):
        widest = max(widest, whole[g, _PITCH])
    return np.zeros((2, widest + LANES), f32)


@kernel(error_model="numpy")
def take(field, whole, floats, splat, amplitudes, buffers, sums):
    """Take a splat out of the residual, and sum what the residual was over it.

    `splat` is x, y, l1, t, l3, largest q, 1 / sqrt(pi l1 l3); `sums` are those of `NUM_SUMS`, `SUMS` of the residual
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
            sums[SUMS + channel] += scale * (s0 if c == 0 else s1 if c == 1 else s2)
            sums[SQUARES + channel] += scale * splat[6] * squares
        # `amplitudes[channel] * splat[6]` are colours: the moments lack the other factor of phi
        scale = floats[g, _WEIGHT]
        sums[_M] += scale * m
        sums[_M1] += scale * m1
        sums[_M2] += scale * m2
        sums[_M11] += scale * m11
        sums[_M12] += scale * m12
        sums[_M22] += scale * m22


@kernel(error_model="numpy")
def pull(field, whole, floats, splat, buffers, sums):
    """What a splat that is not in the residual would take off it: `SUMS` and `SQUARES`."""
    sums[: SQUARES + 3] = 0.0
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
            sums[SUMS + channel] += scale * (s0 if c == 0 else s1 if c == 1 else s2)
            sums[SQUARES + channel] += scale * splat[6] * squares


@kernel(error_model="numpy")
def paint(field, whole, floats, splat, amplitudes, sign, buffers):
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


@kernel(error_model="numpy")
def _peak(amplitudes, scale, opponent):
    """The largest colour of a splat in any plane of the stream."""
    a0, a1, a2 = amplitudes[0], amplitudes[1], amplitudes[2]
    if opponent:
        light, tilt, tint = a0 / math.sqrt(3.0), a1 / math.sqrt(2.0), a2 / math.sqrt(6.0)
        a0, a1, a2 = light + tilt - tint, light + 2.0 * tint, light - tilt - tint
    return max(abs(a0), abs(a1), abs(a2)) * scale


@kernel(error_model="numpy")
def describe(splat, position, shape, amplitudes, opponent):
    """Put a state of 1/64 pixels and 1/256 octaves into the floats that are drawn."""
    splat[0] = position[0] / 64.0 - 0.5
    splat[1] = position[1] / 64.0 - 0.5
    splat[2] = math.exp2(shape[0] / 256.0)
    splat[3] = shape[1] / 256.0
    splat[4] = math.exp2(shape[2] / 256.0)
    splat[6] = 1.0 / math.sqrt(math.pi * splat[2] * splat[4])
    splat[5] = 2.0 * math.log(max(_CUTOFF * _peak(amplitudes, splat[6], opponent), 1.0))


@kernel(error_model="numpy")
def is_inside(splat, floats, bounds):
    """Whether all samples that a splat is worked on at lie within bounds: least x, end of x, least y, end of y."""
    spacing = 0.0
    for g in range(len(floats)):
        spacing = max(spacing, 1.0 / floats[g, _ACROSS])
    across = math.sqrt(splat[5]) * splat[2]
    down = math.sqrt(splat[5] * (1.0 + splat[3] * splat[3])) * splat[4]
    if splat[0] - across < bounds[0] or splat[0] + across + LANES * spacing >= bounds[1]:
        return False
    return splat[1] - down >= bounds[2] and splat[1] + down < bounds[3]


@kernel(error_model="numpy")
def aim(splat, sums, energy, share, target):
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


@kernel(inline="always", error_model="numpy")
def place_shift(length, level):
    """log2 of the step of x or y (`state.position_shifts`)."""
    return min(max((length + 128 >> 8) + 6 - level, 0), 9)


@kernel(error_model="numpy")
def is_one_of(position, shape, positions, shapes, first, last):
    """Whether a state is one of those from `first` up to `last`."""
    for n in range(first, last):
        same = position[0] == positions[n, 0] and position[1] == positions[n, 1] and shape[0] == shapes[n, 0]
        if same and shape[1] == shapes[n, 1] and shape[2] == shapes[n, 2]:
            return True
    return False


@kernel(nogil=True, error_model="numpy")
def show_splats(field, whole, floats, positions, shapes, painted, opponent):
    """Have further splats shown, so that the residual lacks them; arguments as those of `refine_whole`."""
    buffers = row_buffers(whole)
    splat = np.empty(7)
    for n in range(len(positions)):
        describe(splat, positions[n], shapes[n], painted[n], opponent)
        paint(field, whole, floats, splat, painted[n], -1.0, buffers)
