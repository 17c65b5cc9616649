"""Kernels of `runs`: the splats of a `train.model.SplatModel`, and a step of Adam on their natural coordinates.

Numbers of splats lie column by column, [8, rows]: means in pixels, log l1, t, log l3, three amplitudes, of which the
missing ones are zero.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pgsvc_codec.train.cuda.change_kernels import OCTAVE, PI, axes_of, put_splats

COLUMNS = 8
GEOMETRY, AMPLITUDES = tl.constexpr(1), tl.constexpr(2)  # bits of what is held
DENSITIES = 12  # numbers of a layer: price of a bit, D, centers and scales of shapes, magnitudes, bits of any splat
SCHEDULE = 3  # numbers of an iteration: factor on the rates, bias of the mean squares, share of the prices
SETTINGS = 10  # numbers of a picture, see `step`
_EPSILON = tl.constexpr(1e-12)


@triton.jit
def values(
    state, means, cholesky, colors, moments, done, rows,
    channels: tl.constexpr, opponent: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """The splats of a state, with no moments yet.

    Args:
        state: [8, rows].
        means: [rows, 2], cholesky [rows, 3], colors [rows, channels] of the splats.
        moments: [rows, channels + 5].
        done: [1] iterations that have begun, one more from here on.
    """
    n = tl.program_id(0) * block + tl.arange(0, block)
    valid = n < rows
    l1 = tl.exp(tl.load(state + 2 * rows + n, mask=valid, other=0.0))
    l3 = tl.exp(tl.load(state + 4 * rows + n, mask=valid, other=0.0))
    a0 = tl.load(state + 5 * rows + n, mask=valid, other=0.0)
    a1 = tl.load(state + 6 * rows + n, mask=valid, other=0.0)
    a2 = tl.load(state + 7 * rows + n, mask=valid, other=0.0)
    x = tl.load(state + n, mask=valid, other=0.0)
    y = tl.load(state + rows + n, mask=valid, other=0.0)
    shear = tl.load(state + 3 * rows + n, mask=valid, other=0.0)
    put_splats(
        means, cholesky, colors, moments, done, n, valid, x, y, l1, shear, l3, a0, a1, a2, channels, opponent
    )  # fmt: skip


@triton.jit
def _of_shape(shape, center, scale):
    """Bits of one shape parameter, of a logistic density, beyond those that any takes, and their slope."""
    relative = (shape - center) / scale
    left = tl.exp(-tl.abs(relative))
    bits = (tl.abs(relative) + 2.0 * tl.log(1.0 + left)) / OCTAVE
    return bits, tl.where(relative < 0.0, left - 1.0, 1.0 - left) / ((1.0 + left) * scale * OCTAVE)


@triton.jit
def _of_amplitude(k, magnitude, finer, energy, step):
    """Bits of one amplitude of k steps, likewise; their slope has what it adds to those of other parameters."""
    size = tl.sqrt(k * k + 0.1)
    return size / (magnitude * OCTAVE), (k * finer / energy + k / (size * magnitude)) / (step * OCTAVE)


@triton.jit
def _moved(number, first, second, valid, gradient, pace, bias, first_decay, second_decay):
    """A number after a step of Adam, whose memory of it lies at `first` and `second`."""
    mean = first_decay * tl.load(first, mask=valid, other=0.0) + (1.0 - first_decay) * gradient
    square = second_decay * tl.load(second, mask=valid, other=0.0) + (1.0 - second_decay) * gradient * gradient
    tl.store(first, mean, mask=valid)
    tl.store(second, square, mask=valid)
    return number - pace * mean / (tl.sqrt(square / bias) + _EPSILON)


@triton.jit(do_not_specialize=["num_pictures", "num_layers"])
def step(
    state, first, second, longest, held, pictures, layers, moments, densities, bits, schedule, settings, done,
    rows, num_pictures, num_layers, channels: tl.constexpr, opponent: tl.constexpr, rated: tl.constexpr,
    finer: tl.constexpr, cell: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """One step of Adam by the moments of the splats, and of their bits if they are rated, and back to their limits.

    Args:
        state: as that of `values`; likewise moments.
        first: [8, rows] mean gradients.
        second: [8, rows] mean squares of the gradients.
        longest: [rows] pixels.
        held: [rows] bits of what must not move.
        pictures: [rows].
        layers: [rows].
        densities: [pictures, layers, 12].
        bits: [rows] of the splats as they were, if they are rated.
        schedule: [iterations, pictures, 3].
        settings: [pictures, 10] rates of places, shapes and amplitudes, two decays, the ridge, the shortest log
            length, the thinnest width, the largest x and y.
        done: [1] number of this iteration, from 1.
        finer: parameters that cost a bit more when the amplitude doubles, see `train.main.rate`.
        cell: log2 of the widest step of a position in pixels.
    """
    n = tl.program_id(0) * block + tl.arange(0, block)
    valid = n < rows
    picture = tl.load(pictures + n, mask=valid, other=0)
    now = schedule + 3 * ((tl.load(done) - 1) * num_pictures + picture)
    scale, bias = tl.load(now), tl.load(now + 1)
    settings += 10 * picture
    first_decay, second_decay = tl.load(settings + 3), tl.load(settings + 4)
    hold = tl.load(held + n, mask=valid, other=3)
    x = tl.load(state + n, mask=valid, other=0.0)
    y = tl.load(state + rows + n, mask=valid, other=0.0)
    s0 = tl.load(state + 2 * rows + n, mask=valid, other=0.0)
    s1 = tl.load(state + 3 * rows + n, mask=valid, other=0.0)
    s2 = tl.load(state + 4 * rows + n, mask=valid, other=0.0)
    a0 = tl.load(state + 5 * rows + n, mask=valid, other=0.0)
    a1 = tl.load(state + 6 * rows + n, mask=valid, other=0.0)
    a2 = tl.load(state + 7 * rows + n, mask=valid, other=0.0)

    # gradients, see `SplatModel.set_gradients`
    row = moments + (channels + 5) * n
    p0 = tl.load(row, mask=valid, other=0.0)
    p1 = tl.load(row + 1, mask=valid & (channels == 3), other=0.0)
    p2 = tl.load(row + 2, mask=valid & (channels == 3), other=0.0)
    row += channels
    m11 = tl.load(row + 2, mask=valid, other=0.0)
    m12 = tl.load(row + 3, mask=valid, other=0.0)
    m22 = tl.load(row + 4, mask=valid, other=0.0)
    per_energy = 1.0 / tl.sqrt(tl.exp(s0 + s2) * PI)
    g5, g6, g7 = axes_of(p0, p1, p2, opponent)
    g5 *= per_energy
    g6 *= per_energy
    g7 *= per_energy
    dilution = 0.5 * (g5 * a0 + g6 * a1 + g7 * a2)
    g2 = m11 - s1 * m12 - dilution
    g3 = m12
    g4 = s1 * m12 + m22 - dilution
    ridge = tl.load(settings + 5)
    g5 += ridge * a0
    g6 += ridge * a1
    g7 += ridge * a2
    if rated:
        # see `train.main.rate.rate_of`
        own = densities + 12 * (picture * num_layers + tl.load(layers + n, mask=valid, other=0))
        price = tl.load(own) * tl.load(now + 2)
        unit = tl.load(own + 1)
        k0, k1, k2 = a0 / unit, a1 / unit, a2 / unit
        energy = 1.0 + k0 * k0 + k1 * k1 + k2 * k2
        finer_bits = 0.5 * tl.log2(energy)
        limit = (finer_bits + cell) * OCTAVE
        fine0, fine2 = tl.where(s0 < limit, 1.0, 0.0), tl.where(s2 < limit, 1.0, 0.0)
        steps = fine0 + fine2 + (finer - 2.0)
        bits0, slope0 = _of_shape(s0, tl.load(own + 2), tl.load(own + 5))
        bits1, slope1 = _of_shape(s1, tl.load(own + 3), tl.load(own + 6))
        bits2, slope2 = _of_shape(s2, tl.load(own + 4), tl.load(own + 7))
        total = tl.load(own + 11) + finer_bits * finer - (tl.minimum(s0, limit) + tl.minimum(s2, limit)) / OCTAVE
        total += bits0 + bits1 + bits2
        g2 += price * (slope0 - fine0 / OCTAVE)
        g3 += price * slope1
        g4 += price * (slope2 - fine2 / OCTAVE)
        bits0, slope0 = _of_amplitude(k0, tl.load(own + 8), steps, energy, unit)
        bits1, slope1 = _of_amplitude(k1, tl.load(own + 9), steps, energy, unit)
        bits2, slope2 = _of_amplitude(k2, tl.load(own + 10), steps, energy, unit)
        tl.store(bits + n, total + bits0 + bits1 + bits2, mask=valid)
        g5 += price * slope0
        g6 += price * slope1
        g7 += price * slope2

    first += n
    second += n
    pace = scale * tl.load(settings)
    along = tl.load(row, mask=valid, other=0.0)
    across = tl.load(row + 1, mask=valid, other=0.0)
    along = _moved(0.0, first, second, valid, along, pace, bias, first_decay, second_decay)
    across = _moved(0.0, first + rows, second + rows, valid, across, pace, bias, first_decay, second_decay)
    pace = scale * tl.load(settings + 1)
    t0 = _moved(s0, first + 2 * rows, second + 2 * rows, valid, g2, pace, bias, first_decay, second_decay)
    t1 = _moved(s1, first + 3 * rows, second + 3 * rows, valid, g3, pace, bias, first_decay, second_decay)
    t2 = _moved(s2, first + 4 * rows, second + 4 * rows, valid, g4, pace, bias, first_decay, second_decay)
    pace = scale * tl.load(settings + 2)
    b0 = _moved(a0, first + 5 * rows, second + 5 * rows, valid, g5, pace, bias, first_decay, second_decay)
    b1 = _moved(a1, first + 6 * rows, second + 6 * rows, valid, g6, pace, bias, first_decay, second_decay)
    b2 = _moved(a2, first + 7 * rows, second + 7 * rows, valid, g7, pace, bias, first_decay, second_decay)

    # within reason, see `SplatModel.settle`
    l3 = tl.exp(t2)
    to_x = x + tl.exp(t0) * along
    to_y = y + l3 * (t1 * along + across)
    to_x = tl.minimum(tl.maximum(to_x, -0.5), tl.load(settings + 8))
    to_y = tl.minimum(tl.maximum(to_y, -0.5), tl.load(settings + 9))
    shortest, thinnest = tl.load(settings + 6), tl.load(settings + 7)
    most = tl.load(longest + n, mask=valid, other=1.0)
    highest = tl.log(most)
    t0 = tl.minimum(tl.maximum(t0, shortest), highest)
    t2 = tl.minimum(tl.maximum(t2, shortest), highest)
    slimmest = tl.exp(t0) / thinnest
    steepest = tl.minimum(most / tl.exp(t2), tl.sqrt(tl.maximum(slimmest * slimmest - 1.0, 0.0)))
    t1 = tl.minimum(tl.maximum(t1, -steepest), steepest)
    moves = valid & ((hold & GEOMETRY) == 0)
    tl.store(state + n, to_x, mask=moves)
    tl.store(state + rows + n, to_y, mask=moves)
    tl.store(state + 2 * rows + n, t0, mask=moves)
    tl.store(state + 3 * rows + n, t1, mask=moves)
    tl.store(state + 4 * rows + n, t2, mask=moves)
    moves = valid & ((hold & AMPLITUDES) == 0)
    tl.store(state + 5 * rows + n, b0, mask=moves)
    tl.store(state + 6 * rows + n, b1, mask=moves)
    tl.store(state + 7 * rows + n, b2, mask=moves)
