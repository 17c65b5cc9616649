"""Kernels of `changes`: slots to splats, a step of the changes, a step of the field, what slots are worth.

Numbers of slots lie column by column, [columns, rows]: those of `Deltas.changes`, with three amplitudes whatever the
number of channels, the missing ones zero.  One program has a block of slots, or one node of the field, so that every
sum has one order.
"""

from __future__ import annotations

import triton
import triton.language as tl

COLUMNS = 8
NEW, IDLE = tl.constexpr(1), tl.constexpr(2)  # kinds of slots: with a splat of their own, with none; 0 as predicted
OCTAVE = tl.constexpr(0.6931471805599453)
PI = tl.constexpr(3.141592653589793)
TINY = tl.constexpr(1e-12)
# OPPONENT of `coding.main.state`: rows are the axes of amplitudes
_THIRD, _HALF, _SIXTH = (tl.constexpr(value**-0.5) for value in (3.0, 2.0, 6.0))


@triton.jit
def colors_of(a0, a1, a2, opponent: tl.constexpr):
    """Colours of amplitudes, both times the same."""
    if opponent:
        even, apart, green = a0 * _THIRD, a1 * _HALF, a2 * _SIXTH
        return even + apart - green, even + 2.0 * green, even - apart - green
    return a0, a1, a2


@triton.jit
def axes_of(c0, c1, c2, opponent: tl.constexpr):
    """Slopes of amplitudes from those of colours."""
    if opponent:
        return (c0 + c1 + c2) * _THIRD, (c0 - c2) * _HALF, (2.0 * c1 - c0 - c2) * _SIXTH
    return c0, c1, c2


@triton.jit
def put_rows(
    means, cholesky, colors, moments, done, n, valid, x, y, l1, l2, l3, c0, c1, c2, channels: tl.constexpr
):  # fmt: skip
    """Write splats, with no moments yet, and count one more iteration.

    Args:
        means: [rows, 2], cholesky [rows, 3], colors [rows, channels], moments [rows, channels + 5]: written in rows n.
        done: [1] iterations that have begun.
        x, y: of the means in pixels, as a table has them.
        l1, l2, l3: of the Cholesky factor.
        c0, c1, c2: colours.
    """
    tl.store(means + 2 * n, x, mask=valid)
    tl.store(means + 2 * n + 1, y, mask=valid)
    tl.store(cholesky + 3 * n, l1, mask=valid)
    tl.store(cholesky + 3 * n + 1, l2, mask=valid)
    tl.store(cholesky + 3 * n + 2, l3, mask=valid)
    tl.store(colors + channels * n, c0, mask=valid)
    if channels == 3:
        tl.store(colors + channels * n + 1, c1, mask=valid)
        tl.store(colors + channels * n + 2, c2, mask=valid)
    for column in tl.static_range(channels + 5):
        tl.store(moments + (channels + 5) * n + column, 0.0, mask=valid)
    if tl.program_id(0) == 0:
        tl.store(done, tl.load(done) + 1)


@triton.jit
def put_splats(
    means, cholesky, colors, moments, done, n, valid, x, y, l1, shear, l3, a0, a1, a2,
    channels: tl.constexpr, opponent: tl.constexpr,
):  # fmt: skip
    """As `put_rows`.

    Args:
        shear: l2 over l3.
        a0, a1, a2: amplitudes.
    """
    c0, c1, c2 = colors_of(a0, a1, a2, opponent)
    per_energy = 1.0 / tl.sqrt(l1 * l3 * PI)
    put_rows(
        means, cholesky, colors, moments, done, n, valid, x, y, l1, shear * l3, l3,
        c0 * per_energy, c1 * per_energy, c2 * per_energy, channels,
    )  # fmt: skip


@triton.jit
def values(
    base, changes, kinds, still, field, index, share, means, cholesky, colors, moments, done, rows,
    channels: tl.constexpr, opponent: tl.constexpr, following: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """The slots as splats, with no moments yet; predictions go where the field takes them.

    Args:
        base: [8, rows] places, shapes and amplitudes of the predictions.
        changes: [8, rows] theirs, in natural coordinates.
        kinds: [rows].
        still: [2, rows] places without the field.
        field: [nodes, 2] pixels.
        index: [4, rows] nodes around each place.
        share: [4, rows] what each of them counts there.
        means: [rows, 2], cholesky [rows, 3], colors [rows, channels] of the splats.
        moments: [rows, channels + 5].
        done: [1] iterations that have begun, one more from here on.
    """
    n = tl.program_id(0) * block + tl.arange(0, block)
    valid = n < rows
    x = tl.load(base + n, mask=valid, other=0.0)
    y = tl.load(base + rows + n, mask=valid, other=0.0)
    if following:
        shift_x = tl.full([block], 0.0, tl.float32)
        shift_y = tl.full([block], 0.0, tl.float32)
        for corner in tl.static_range(4):
            node = tl.load(index + corner * rows + n, mask=valid, other=0)
            part = tl.load(share + corner * rows + n, mask=valid, other=0.0)
            shift_x += part * tl.load(field + 2 * node)
            shift_y += part * tl.load(field + 2 * node + 1)
        carried = tl.load(kinds + n, mask=valid, other=NEW) != NEW
        x = tl.where(carried, tl.load(still + n, mask=valid, other=0.0) + shift_x, x)
        y = tl.where(carried, tl.load(still + rows + n, mask=valid, other=0.0) + shift_y, y)
        tl.store(base + n, x, mask=valid)
        tl.store(base + rows + n, y, mask=valid)
    log_l1 = tl.load(base + 2 * rows + n, mask=valid, other=0.0)
    shear = tl.load(base + 3 * rows + n, mask=valid, other=0.0)
    log_l3 = tl.load(base + 4 * rows + n, mask=valid, other=0.0)
    along = tl.load(changes + n, mask=valid, other=0.0)
    x += tl.exp(log_l1) * along
    y += tl.exp(log_l3) * (shear * along + tl.load(changes + rows + n, mask=valid, other=0.0))
    l1 = tl.exp(log_l1 + tl.load(changes + 2 * rows + n, mask=valid, other=0.0))
    shear += tl.load(changes + 3 * rows + n, mask=valid, other=0.0)
    l3 = tl.exp(log_l3 + tl.load(changes + 4 * rows + n, mask=valid, other=0.0))
    a0 = tl.load(base + 5 * rows + n, mask=valid, other=0.0) + tl.load(changes + 5 * rows + n, mask=valid, other=0.0)
    a1 = tl.load(base + 6 * rows + n, mask=valid, other=0.0) + tl.load(changes + 6 * rows + n, mask=valid, other=0.0)
    a2 = tl.load(base + 7 * rows + n, mask=valid, other=0.0) + tl.load(changes + 7 * rows + n, mask=valid, other=0.0)
    put_splats(
        means, cholesky, colors, moments, done, n, valid, x - 0.5, y - 0.5, l1, shear, l3, a0, a1, a2,
        channels, opponent,
    )  # fmt: skip


@triton.jit
def _average(means, valid, value, decay):
    """The mean of the values so far, kept for the next iteration."""
    mean = decay * tl.load(means, mask=valid, other=0.0) + (1.0 - decay) * value
    tl.store(means, mean, mask=valid)
    return mean


@triton.jit
def _left(length, size, unit, price, is_new, change_bits):
    """What is left of a group of numbers, `size` in their units, after a step of this length against its bits."""
    left = 1.0 - length * change_bits * price / (unit * unit) / (size + TINY)
    return tl.where(is_new, 1.0, tl.maximum(left, 0.0))


@triton.jit
def _bounded(base, change, least, most):
    """A change that does not lead beyond what shapes can be."""
    value = base + change
    bounded = tl.minimum(tl.maximum(value, least), most)
    return tl.where(bounded == value, change, bounded - base)


@triton.jit
def step(
    base, changes, first, second, units, pulls, kinds, layers, moments, prices, schedule, settings, done, rows,
    channels: tl.constexpr, opponent: tl.constexpr, change_bits: tl.constexpr, shortest: tl.constexpr,
    steepest: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """One proximal step of the changes by the moments of the splats that they are.

    Args:
        base: as that of `values`; likewise changes, kinds, moments.
        first: [8, rows] mean gradients.
        second: [3, rows] mean squares of the gradients of places, shapes and amplitudes.
        units: [2, rows] steps of places and of amplitudes.
        pulls: [2, rows] gradients of the places of predictions, in pixels.
        prices: [layers] squared error that a bit is worth.
        schedule: [iterations, 3] factor on the rates, bias of the means, factor on the field's rate.
        settings: [5] rates of places, shapes and amplitudes, decay, the longest log length.
        done: [1] number of this iteration, from 1.
        change_bits: for each unit that a group changes by.
        shortest: log length.
        steepest: shear.
    """
    n = tl.program_id(0) * block + tl.arange(0, block)
    valid = n < rows
    kind = tl.load(kinds + n, mask=valid, other=IDLE)
    price = tl.load(prices + tl.load(layers + n, mask=valid, other=0))
    is_new, lives = kind == NEW, kind != IDLE
    schedule += 3 * (tl.load(done) - 1)
    scale, bias = tl.load(schedule), tl.load(schedule + 1)
    decay = tl.load(settings + 3)

    base_l1 = tl.load(base + 2 * rows + n, mask=valid, other=0.0)
    base_shear = tl.load(base + 3 * rows + n, mask=valid, other=0.0)
    base_l3 = tl.load(base + 4 * rows + n, mask=valid, other=0.0)
    d0 = tl.load(changes + n, mask=valid, other=0.0)
    d1 = tl.load(changes + rows + n, mask=valid, other=0.0)
    d2 = tl.load(changes + 2 * rows + n, mask=valid, other=0.0)
    d3 = tl.load(changes + 3 * rows + n, mask=valid, other=0.0)
    d4 = tl.load(changes + 4 * rows + n, mask=valid, other=0.0)
    d5 = tl.load(changes + 5 * rows + n, mask=valid, other=0.0)
    d6 = tl.load(changes + 6 * rows + n, mask=valid, other=0.0)
    d7 = tl.load(changes + 7 * rows + n, mask=valid, other=0.0)
    l1, shear, l3 = tl.exp(base_l1 + d2), base_shear + d3, tl.exp(base_l3 + d4)

    # gradients, see `Deltas.gradients`
    row = moments + (channels + 5) * n
    p0 = tl.load(row, mask=valid, other=0.0)
    p1 = tl.load(row + 1, mask=valid & (channels == 3), other=0.0)
    p2 = tl.load(row + 2, mask=valid & (channels == 3), other=0.0)
    row += channels
    down = tl.load(row + 1, mask=valid, other=0.0) / l3
    right = (tl.load(row, mask=valid, other=0.0) - shear * l3 * down) / l1
    m11 = tl.load(row + 2, mask=valid, other=0.0)
    m12 = tl.load(row + 3, mask=valid, other=0.0)
    m22 = tl.load(row + 4, mask=valid, other=0.0)
    coupled = shear * m12
    per_energy = 1.0 / tl.sqrt(l1 * l3 * PI)
    g5, g6, g7 = axes_of(p0, p1, p2, opponent)
    g5 = tl.where(lives, g5 * per_energy, 0.0)
    g6 = tl.where(lives, g6 * per_energy, 0.0)
    g7 = tl.where(lives, g7 * per_energy, 0.0)
    dilution = 0.5 * (
        g5 * (tl.load(base + 5 * rows + n, mask=valid, other=0.0) + d5)
        + g6 * (tl.load(base + 6 * rows + n, mask=valid, other=0.0) + d6)
        + g7 * (tl.load(base + 7 * rows + n, mask=valid, other=0.0) + d7)
    )
    g2 = tl.where(lives, m11 - coupled - dilution, 0.0)
    g3 = tl.where(lives, m12, 0.0)
    g4 = tl.where(lives, coupled + m22 - dilution, 0.0)
    right = tl.where(lives, right, 0.0)
    down = tl.where(lives, down, 0.0)
    g0 = tl.exp(base_l1) * right + base_shear * tl.exp(base_l3) * down
    g1 = tl.exp(base_l3) * down
    tl.store(pulls + n, tl.where(is_new, 0.0, right), mask=valid)
    tl.store(pulls + rows + n, tl.where(is_new, 0.0, down), mask=valid)

    fine = tl.load(units + n, mask=valid, other=1.0)
    s = _average(second + n, valid, (g0 * g0 + g1 * g1) / 2, decay)
    length = scale * tl.load(settings) / (tl.sqrt(s / bias) + TINY)
    d0 -= length * _average(first + n, valid, g0, decay) / bias
    d1 -= length * _average(first + rows + n, valid, g1, decay) / bias
    left = _left(length, tl.sqrt(d0 * d0 + d1 * d1) / fine, fine, price, is_new, change_bits)
    tl.store(changes + n, left * d0, mask=valid)
    tl.store(changes + rows + n, left * d1, mask=valid)

    s = _average(second + rows + n, valid, (g2 * g2 + g3 * g3 + g4 * g4) / 3, decay)
    length = scale * tl.load(settings + 1) / (tl.sqrt(s / bias) + TINY)
    d2 -= length * _average(first + 2 * rows + n, valid, g2, decay) / bias
    d3 -= length * _average(first + 3 * rows + n, valid, g3, decay) / bias
    d4 -= length * _average(first + 4 * rows + n, valid, g4, decay) / bias
    size = tl.sqrt((d2 * d2 + d4 * d4) / (OCTAVE * OCTAVE) + d3 * d3) / fine
    left = _left(length, size, fine * (2 * OCTAVE + 1) / 3, price, is_new, change_bits)
    longest = tl.load(settings + 4)
    tl.store(changes + 2 * rows + n, _bounded(base_l1, left * d2, shortest, longest), mask=valid)
    tl.store(changes + 3 * rows + n, _bounded(base_shear, left * d3, -steepest, steepest), mask=valid)
    tl.store(changes + 4 * rows + n, _bounded(base_l3, left * d4, shortest, longest), mask=valid)

    coarse = tl.load(units + rows + n, mask=valid, other=1.0)
    s = _average(second + 2 * rows + n, valid, (g5 * g5 + g6 * g6 + g7 * g7) / channels, decay)
    length = scale * tl.load(settings + 2) / (tl.sqrt(s / bias) + TINY)
    d5 -= length * _average(first + 5 * rows + n, valid, g5, decay) / bias
    d6 -= length * _average(first + 6 * rows + n, valid, g6, decay) / bias
    d7 -= length * _average(first + 7 * rows + n, valid, g7, decay) / bias
    left = _left(length, tl.sqrt(d5 * d5 + d6 * d6 + d7 * d7) / coarse, coarse, price, is_new, change_bits)
    tl.store(changes + 5 * rows + n, left * d5, mask=valid)
    tl.store(changes + 6 * rows + n, left * d6, mask=valid)
    tl.store(changes + 7 * rows + n, left * d7, mask=valid)


@triton.jit
def _towards(field, node, other, inside, axis: tl.constexpr, knee: tl.constexpr):
    """Slope of the distance of a node's vector from a neighbour's: tanh of their difference over the knee."""
    difference = tl.load(field + 2 * node + axis) - tl.load(field + 2 * other + axis, mask=inside, other=0.0)
    fading = tl.exp(tl.abs(difference) * (-2.0 / knee))
    slope = tl.where(difference < 0, fading - 1.0, 1.0 - fading) / (1.0 + fading)
    return tl.where(inside, slope, 0.0)


@triton.jit
def field_slopes(
    field, slopes, pulls, share, order, offsets, prices, rows, grid_rows, grid_columns,
    rough_bits: tl.constexpr, knee: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Gradient of a node's vector: what the places that hang on it pull, in the order of the slots, and roughness.

    Args:
        field: as that of `values`; likewise share.
        slopes: [nodes, 2].
        pulls: [2, rows], see `step`.
        order: entries of `share`, those of one node together.
        offsets: [nodes + 1] where they begin.
        prices: of the base layer first.
        rough_bits: for each pixel between neighbouring vectors.
        knee: pixels.
    """
    node = tl.program_id(0)
    pulled_x = tl.full([block], 0.0, tl.float32)
    pulled_y = tl.full([block], 0.0, tl.float32)
    end = tl.load(offsets + node + 1)
    for begin in range(tl.load(offsets + node), end, block):
        at = begin + tl.arange(0, block)
        entry = tl.load(order + at, mask=at < end, other=0)
        part = tl.load(share + entry, mask=at < end, other=0.0)
        n = entry % rows
        pulled_x += part * tl.load(pulls + n)
        pulled_y += part * tl.load(pulls + rows + n)
    row, column = node // grid_columns, node % grid_columns
    price = tl.load(prices) * rough_bits
    for axis in tl.static_range(2):
        slope = _towards(field, node, node - 1, column > 0, axis, knee)
        slope += _towards(field, node, node + 1, column + 1 < grid_columns, axis, knee)
        slope += _towards(field, node, node - grid_columns, row > 0, axis, knee)
        slope += _towards(field, node, node + grid_columns, row + 1 < grid_rows, axis, knee)
        pulled = tl.sum(pulled_y, 0) if axis else tl.sum(pulled_x, 0)
        tl.store(slopes + 2 * node + axis, pulled + price * slope)


@triton.jit
def field_step(
    field, slopes, first, second, schedule, settings, done, count, rate: tl.constexpr, block: tl.constexpr
):  # fmt: skip
    """One step of a field by its slopes; none before the first iteration.

    Args:
        field: [count], as slopes, first and second, the means of the slopes and of their squares.
        schedule: as that of `step`; likewise settings.
        done: [1] iterations so far.
        rate: pixels.
    """
    n = tl.program_id(0) * block + tl.arange(0, block)
    iterations = tl.load(done)
    valid = n < tl.where(iterations > 0, count, 0)
    schedule += 3 * tl.maximum(iterations - 1, 0)
    bias, scale = tl.load(schedule + 1), tl.load(schedule + 2)
    decay = tl.load(settings + 3)
    slope = tl.load(slopes + n, mask=valid, other=0.0)
    mean = decay * tl.load(first + n, mask=valid, other=0.0) + (1.0 - decay) * slope
    square = decay * tl.load(second + n, mask=valid, other=0.0) + (1.0 - decay) * slope * slope
    tl.store(first + n, mean, mask=valid)
    tl.store(second + n, square, mask=valid)
    moved = tl.load(field + n, mask=valid, other=0.0) - scale * rate * (mean / bias) / (tl.sqrt(square / bias) + TINY)
    tl.store(field + n, moved, mask=valid)


@triton.jit
def _bits(change, unit):
    """About what a change takes."""
    size = tl.abs(change / unit)
    return tl.where(size > 0.5, 1.0 + 2.0 * tl.log2(1.0 + size), 0.0)


@triton.jit(do_not_specialize=["start", "count"])
def losses(
    changes, units, kinds, layers, cholesky, colors, moments, weights, out, price, start, count, rows,
    channels: tl.constexpr, whole_bits: tl.constexpr, slot_bits: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """What J rises by without what each of some slots holds, see `rebirth.find_rebirths`.

    Args:
        changes: as that of `values`; likewise kinds, cholesky, colors, moments.
        units: as that of `step`; likewise layers.
        weights: [layers] of all levels that a layer is in.
        out: [count].
        price: squared error that a bit is worth.
        start: the first of the slots.
    """
    at = tl.program_id(0) * block + tl.arange(0, block)
    inside = at < count
    n = tl.where(inside, start + at, rows)
    valid = n < rows
    area = tl.load(cholesky + 3 * n, mask=valid, other=1.0) * tl.load(cholesky + 3 * n + 2, mask=valid, other=1.0) * PI
    weight = tl.load(weights + tl.load(layers + n, mask=valid, other=0))
    worth = tl.full([block], 0.0, tl.float32)
    for channel in tl.static_range(channels):
        color = tl.load(colors + channels * n + channel, mask=valid, other=0.0)
        moment = tl.load(moments + (channels + 5) * n + channel, mask=valid, other=0.0)
        worth += color * (weight * area * color - moment)
    fine = tl.load(units + n, mask=valid, other=1.0)
    coarse = tl.load(units + rows + n, mask=valid, other=1.0)
    bits = _bits(tl.load(changes + n, mask=valid, other=0.0), fine) + _bits(
        tl.load(changes + rows + n, mask=valid, other=0.0), fine
    )
    bits += _bits(tl.load(changes + 2 * rows + n, mask=valid, other=0.0), fine * OCTAVE) + _bits(
        tl.load(changes + 3 * rows + n, mask=valid, other=0.0), fine
    )
    bits += _bits(tl.load(changes + 4 * rows + n, mask=valid, other=0.0), fine * OCTAVE)
    for channel in tl.static_range(channels):
        bits += _bits(tl.load(changes + (5 + channel) * rows + n, mask=valid, other=0.0), coarse)
    kind = tl.load(kinds + n, mask=valid, other=IDLE)
    loss = worth - price * tl.where(kind == NEW, whole_bits, bits)
    tl.store(out + at, tl.where(kind == IDLE, price * slot_bits, loss), mask=inside)
