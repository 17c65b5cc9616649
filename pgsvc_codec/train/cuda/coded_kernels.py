"""Kernels of `coded`: splats as a decoder would have them, gradients straight through, quantisers that learn.

Numbers of splats lie as in `plain_kernels`.  A part is rows that share quantisers, see `train.lsq.CodedPart`; sums over
its rows have one order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pgsvc_codec.train.cuda.plain_kernels import at_least, gradients_of, move_colors, move_geometry, moved, put_plain

SETTINGS = 7  # of a part: L_min, L_max, gradient scale, commitment, unit of positions, the last of them, a difference?
NUMBERS = 7  # of a part that change: three scales, three offsets, mean of the areas
_SETTINGS, _NUMBERS = tl.constexpr(SETTINGS), tl.constexpr(NUMBERS)
_EVEN = tl.constexpr(1.5 * 2.0**23)  # added and taken away again it rounds to integers, ties to even
_LEAST_NORMAL = tl.constexpr(2.0**-14)  # of fp16 and of 12-bit floats
_FRACTION = tl.constexpr(2.0**-6)  # step of a 12-bit float between 1 and 2
_FLOAT12_MAX = tl.constexpr(127 * 2.0**9)


@triton.jit
def _float12(value):
    """The nearest 12-bit float, see `coding.baseline.quant.float12_codes`."""
    power = (value.to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True)
    even = tl.maximum(power, _LEAST_NORMAL) * (_FRACTION * _EVEN)
    return (value + even) - even


@triton.jit
def _position(value, reference, setting):
    """A mean as a decoder has it."""
    unit = tl.load(setting + 4)
    inside = tl.minimum(tl.maximum(value, -1.0), 1.0) * unit
    whole = tl.minimum(tl.maximum(inside.to(tl.float16).to(tl.float32), -unit), tl.load(setting + 5)) / unit
    difference = tl.minimum(tl.maximum((value - reference) * unit, -_FLOAT12_MAX), _FLOAT12_MAX)
    return tl.where(tl.load(setting + 6) > 0.0, reference + _float12(difference) / unit, whole)


@triton.jit
def _level(value, number, setting):
    """A length or a difference of lengths in steps of its quantiser, and the level that is coded (Eq. 10)."""
    position = (value - tl.load(number + 3)) / tl.load(number)
    return position, (tl.minimum(tl.maximum(position, tl.load(setting)), tl.load(setting + 1)) + _EVEN) - _EVEN


@triton.jit
def _length(value, reference, number, setting):
    """A length as a decoder has it, before it is raised."""
    _, level = _level(value - reference, number, setting)
    return reference + (level * tl.load(number) + tl.load(number + 3))


@triton.jit
def _as_coded(entry):
    """A number of a codebook as a stream carries it."""
    return entry.to(tl.float16).to(tl.float32)


@triton.jit
def _nearest(book, r0, r1, r2, entries: tl.constexpr):
    """[n] the entry of each row's own book that is nearest to what is left."""
    at = book[:, None] + 3 * tl.arange(0, entries)[None, :]
    e0 = r0[:, None] - _as_coded(tl.load(at))
    e1 = r1[:, None] - _as_coded(tl.load(at + 1))
    e2 = r2[:, None] - _as_coded(tl.load(at + 2))
    return tl.argmin(e0 * e0 + e1 * e1 + e2 * e2, axis=1)


@triton.jit
def decode(
    state, means, cholesky, colors, moments, done, reference, parts, settings, numbers, books, chosen, rests, rows,
    half_width, half_height, channels: tl.constexpr, stages: tl.constexpr, entries: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """The splats that a decoder makes of a state, with no moments yet; see `CodedPart.decoded`.

    Args:
        state: as that of `plain_kernels.values`; likewise means, cholesky, colors, moments, done, half_width.
        reference: [8, rows] means, Cholesky vectors and colours that differences are to; zeros for whole splats.
        parts: [rows] that the rows are in; -1: this row is no splat.
        settings: [parts, 7].
        numbers: [parts, 7].
        books: [parts, stages, entries, 3] not rounded; entries that are not there are infinite.
        chosen: [stages, rows] entries, written.
        rests: [stages, 3, rows] what is left for each stage by entries that are not rounded, written.
    """
    n = tl.program_id(0) * block + tl.arange(0, block)
    valid = n < rows
    part = tl.load(parts + n, mask=valid, other=-1)
    is_splat = part >= 0
    part = tl.maximum(part, 0)
    setting, number = settings + _SETTINGS * part, numbers + _NUMBERS * part
    x = _position(tl.load(state + n, mask=valid, other=0.0), tl.load(reference + n, mask=valid, other=0.0), setting)
    state += rows
    reference += rows
    y = _position(tl.load(state + n, mask=valid, other=0.0), tl.load(reference + n, mask=valid, other=0.0), setting)
    state += rows
    reference += rows
    before = tl.load(reference + n, mask=valid, other=0.0)
    l1 = at_least(_length(tl.load(state + n, mask=valid, other=1.0), before, number, setting))
    before = tl.load(reference + rows + n, mask=valid, other=0.0)
    l2 = _length(tl.load(state + rows + n, mask=valid, other=0.0), before, number + 1, setting)
    before = tl.load(reference + 2 * rows + n, mask=valid, other=0.0)
    l3 = at_least(_length(tl.load(state + 2 * rows + n, mask=valid, other=1.0), before, number + 2, setting))
    state += 4 * rows
    reference += 3 * rows
    c0 = tl.load(reference + n, mask=valid, other=0.0)
    c1 = tl.load(reference + rows + n, mask=valid, other=0.0)
    c2 = tl.load(reference + 2 * rows + n, mask=valid, other=0.0)
    r0 = tl.load(state + n, mask=valid, other=0.0) - c0
    r1 = tl.load(state + rows + n, mask=valid, other=0.0) - c1
    r2 = tl.load(state + 2 * rows + n, mask=valid, other=0.0) - c2
    u0, u1, u2 = r0, r1, r2
    for stage in tl.static_range(stages):
        book = books + 3 * entries * (stages * part + stage)
        entry = _nearest(book, r0, r1, r2, entries)
        tl.store(chosen + stage * rows + n, entry, mask=valid)
        rest = rests + 3 * stage * rows + n
        tl.store(rest, u0, mask=valid)
        tl.store(rest + rows, u1, mask=valid)
        tl.store(rest + 2 * rows, u2, mask=valid)
        book += 3 * entry
        e0, e1, e2 = tl.load(book), tl.load(book + 1), tl.load(book + 2)
        u0 -= e0
        u1 -= e1
        u2 -= e2
        e0, e1, e2 = _as_coded(e0), _as_coded(e1), _as_coded(e2)
        r0 -= e0
        r1 -= e1
        r2 -= e2
        c0 += e0
        c1 += e1
        c2 += e2
    c0 = tl.where(is_splat, c0, 0.0)
    c1 = tl.where(is_splat, c1, 0.0)
    c2 = tl.where(is_splat, c2, 0.0)
    put_plain(
        means, cholesky, colors, moments, done, n, valid, x, y, l1, l2, l3, c0, c1, c2, half_width, half_height,
        channels,
    )  # fmt: skip


@triton.jit
def _through(gradient, value, number, setting, pulls, rows, n, valid):
    """The gradient of a length behind its decoded one; those of its scale and offset are kept (LSQ+)."""
    position, level = _level(value, number, setting)
    inside = (position >= tl.load(setting)) & (position <= tl.load(setting + 1))
    pull = gradient * tl.load(setting + 2)
    tl.store(pulls + n, pull * tl.where(inside, level - position, level), mask=valid)
    tl.store(pulls + 3 * rows + n, tl.where(inside, 0.0, pull), mask=valid)
    return tl.where(inside, gradient, 0.0)


@triton.jit
def step(
    state, memory, cholesky, colors, moments, reference, parts, settings, numbers, pulls, schedule, done, rows,
    half_width, half_height, per_pixel, channels: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """As `plain_kernels.step`, but for weights, of what `decode` has decoded; see `CodedPart.pull`.

    Args:
        reference: as that of `decode`; likewise colors, parts, settings and numbers.
        pulls: [7, rows] what each splat adds to the gradients of scales and offsets, and its area; written.
        schedule: [iterations, 2, 4] paces of splats and of quantisers.
    """
    n = tl.program_id(0) * block + tl.arange(0, block)
    valid = n < rows
    paces = schedule + 8 * (tl.load(done) - 1)
    part = tl.maximum(tl.load(parts + n, mask=valid, other=0), 0)
    setting, number = settings + _SETTINGS * part, numbers + _NUMBERS * part
    gx, gy, gl1, gl2, gl3, g0, g1, g2 = gradients_of(
        cholesky, moments, n, valid, half_width, half_height, per_pixel, channels
    )  # fmt: skip
    before = reference + 2 * rows + n
    length = state + 2 * rows + n
    l1 = tl.load(length, mask=valid, other=1.0) - tl.load(before, mask=valid, other=0.0)
    l2 = tl.load(length + rows, mask=valid, other=0.0) - tl.load(before + rows, mask=valid, other=0.0)
    l3 = tl.load(length + 2 * rows, mask=valid, other=1.0) - tl.load(before + 2 * rows, mask=valid, other=0.0)
    gl1 = _through(gl1, l1, number, setting, pulls, rows, n, valid)
    gl2 = _through(gl2, l2, number + 1, setting, pulls + rows, rows, n, valid)
    gl3 = _through(gl3, l3, number + 2, setting, pulls + 2 * rows, rows, n, valid)
    shown_l1 = tl.load(cholesky + 3 * n, mask=valid, other=0.0)
    area = tl.abs(shown_l1 * tl.load(cholesky + 3 * n + 2, mask=valid, other=0.0))
    tl.store(pulls + 6 * rows + n, area, mask=valid)
    move_geometry(state, memory, rows, n, valid, gx, gy, gl1, gl2, gl3, paces)
    c0 = tl.load(state + 6 * rows + n, mask=valid, other=0.0)
    c1 = tl.load(state + 7 * rows + n, mask=valid, other=0.0)
    c2 = tl.load(state + 8 * rows + n, mask=valid, other=0.0)
    commitment = tl.load(setting + 3)
    shown = colors + channels * n
    g0 += commitment * (c0 - tl.load(shown, mask=valid, other=0.0))
    g1 += commitment * (c1 - tl.load(shown + 1, mask=valid & (channels == 3), other=0.0))
    g2 += commitment * (c2 - tl.load(shown + 2, mask=valid & (channels == 3), other=0.0))
    move_colors(state, memory, rows, n, valid, c0, c1, c2, g0, g1, g2, paces)


@triton.jit(do_not_specialize=["num_parts"])
def learn(
    numbers, memory, pulls, spans, settings, schedule, done, rows, num_parts,
    least_scale: tl.constexpr, decay: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """A step of one scale or offset of a part that learns, or of its mean area; programs [parts, 7].

    Args:
        numbers: [parts, 7].
        memory: [4, parts, 7] Adan's.
        pulls: as that of `step`; likewise settings, schedule.
        spans: [parts, 2] first row, and the first behind.
        least_scale: pixels.
        decay: of the mean area.
    """
    part, column = tl.program_id(0), tl.program_id(1)
    total = tl.full([block], 0.0, tl.float32)
    end = tl.load(spans + 2 * part + 1)
    for begin in range(tl.load(spans + 2 * part), end, block):
        n = begin + tl.arange(0, block)
        total += tl.load(pulls + column * rows + n, mask=n < end, other=0.0)
    pull = tl.sum(total, 0)
    learns = tl.load(settings + _SETTINGS * part + 2) > 0.0
    here = _NUMBERS * part + column
    number = tl.load(numbers + here)
    if column < 6:
        paces = schedule + 8 * (tl.load(done) - 1) + 4
        number = moved(number, memory + here, _NUMBERS * num_parts, learns, pull, paces)
        number = tl.where(column < 3, tl.maximum(number, least_scale), number)
    else:
        number = decay * number + (1.0 - decay) * pull
    tl.store(numbers + here, number, mask=learns)


@triton.jit
def follow(
    books, averages, chosen, rests, pulls, numbers, spans, settings, rows, decay: tl.constexpr, unseen: tl.constexpr,
    stages: tl.constexpr, entries: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Move an entry towards the mean of what chose it; programs [entries, parts * stages], see `CodedPart`.

    Args:
        books: as that of `decode`; likewise chosen and rests.
        averages: [parts, stages, entries, 4] mean areas, and means of the areas times colours.
        pulls: as that of `learn`; likewise numbers, spans, settings, decay.
        unseen: share of the part's mean area below which an entry stays.
    """
    entry, book = tl.program_id(0), tl.program_id(1)
    part, stage = book // stages, book % stages
    learns = tl.load(settings + _SETTINGS * part + 2) > 0.0
    areas = tl.full([block], 0.0, tl.float32)
    s0, s1, s2 = areas, areas, areas
    end = tl.where(learns, tl.load(spans + 2 * part + 1), 0)
    for begin in range(tl.load(spans + 2 * part), end, block):
        n = begin + tl.arange(0, block)
        choice = tl.load(chosen + stage * rows + n, mask=n < end, other=-1)
        area = tl.load(pulls + 6 * rows + n, mask=choice == entry, other=0.0)
        rest = rests + 3 * stage * rows + n
        areas += area
        s0 += area * tl.load(rest, mask=choice == entry, other=0.0)
        s1 += area * tl.load(rest + rows, mask=choice == entry, other=0.0)
        s2 += area * tl.load(rest + 2 * rows, mask=choice == entry, other=0.0)
    here = averages + 4 * (entries * book + entry)
    weight = decay * tl.load(here) + (1.0 - decay) * tl.sum(areas, 0)
    s0 = decay * tl.load(here + 1) + (1.0 - decay) * tl.sum(s0, 0)
    s1 = decay * tl.load(here + 2) + (1.0 - decay) * tl.sum(s1, 0)
    s2 = decay * tl.load(here + 3) + (1.0 - decay) * tl.sum(s2, 0)
    tl.store(here, weight, mask=learns)
    tl.store(here + 1, s0, mask=learns)
    tl.store(here + 2, s1, mask=learns)
    tl.store(here + 3, s2, mask=learns)
    seen = learns & (weight > unseen * tl.load(numbers + _NUMBERS * part + 6))
    weight = tl.where(seen, weight, 1.0)
    own = books + 3 * (entries * book + entry)
    tl.store(own, s0 / weight, mask=seen)
    tl.store(own + 1, s1 / weight, mask=seen)
    tl.store(own + 2, s2 / weight, mask=seen)
