"""Triton kernels of the additive sum: splats to a table and to bins of tiles, tiles painted, errors and moments.

A program paints one tile, whose samples lie in its lanes' registers from the first splat to the last: lane `l` has
column ``l % tile_width``, in every ``lanes / tile_width``-th row.  With the offset (dx, dy) from the mean and the shear
k = l2 / l1 the Gaussian is

    2^(rate_x dx^2 + rate_t t^2),    t = dy - k dx,

whose first term stands still down a column.  A sum can be undone, so the backward pass needs no residuals kept: it
walks the layers from the top down, adds each level's weighted residual as it enters the level's layer, and takes
every splat off the sum again on the way.

All sums are added in an order that the splats alone determine: no atomics.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

# Columns of the table that the kernels read, float32 [N, 16].
MEAN_X = tl.constexpr(0)  # in samples of the canvas
MEAN_Y = tl.constexpr(1)
SCALE_X = tl.constexpr(2)  # v1 per dx
SCALE_Y = tl.constexpr(3)  # v2 per dy
SHEAR = tl.constexpr(4)  # l2 / l3, what v2 loses per v1
LEAST = tl.constexpr(5)  # exponent below which nothing is painted
COLORS = tl.constexpr(6)  # up to three
LEAN = tl.constexpr(9)  # dx of the ellipse's middle per dy
HALF_WIDTH = tl.constexpr(10)  # of a row of the ellipse, over sqrt(q - dy^2 / variance)
PRECISION = tl.constexpr(11)  # 1 / variance of y
SQUARE = tl.constexpr(12)  # q at the rim, with a little slack
TOP = tl.constexpr(13)  # dy of the ellipse's rightmost point
REACH = tl.constexpr(14)  # its greatest dy, with a little slack
SIDE = tl.constexpr(15)  # its greatest dx, likewise
TABLE_COLUMNS = tl.constexpr(16)

NUM_MOMENTS = tl.constexpr(8)  # room for one entry's: three colours and five of shape
STEP_COLUMNS = tl.constexpr(6)  # of Canvases.steps: x0, y0, 1/dx, 1/dy, smoothing x, y
SHAPE_COLUMNS = tl.constexpr(5)  # of Canvases.shapes: width, height, tiles across, first tile, picture

_SCALE = tl.constexpr(math.sqrt(0.5 / math.log(2.0)))
_TWICE_LN_2 = tl.constexpr(2.0 * math.log(2.0))
_CUTOFF_AMPLITUDE = tl.constexpr(4080.0)
# Nobody promises how splats beyond these look, but they must do no harm: squares of lengths stay finite.
_SHORTEST, _LONGEST, _FARTHEST = tl.constexpr(1e-6), tl.constexpr(1e15), tl.constexpr(1e9)
WIDEST = tl.constexpr(float(1 << 20))  # radius of a rectangle
# Slack of the bins, so that rounding loses no sample; whether a sample is painted is decided sample by sample.
_SLACK = tl.constexpr(0.01)  # in samples
_SQUARE_SLACK = tl.constexpr(1.0 + 1e-5)


@triton.jit
def _bounded(length):
    """A length on the diagonal, within bounds, with its sign."""
    size = tl.minimum(tl.maximum(tl.abs(length), _SHORTEST), _LONGEST)
    return tl.where(length < 0, -size, size)


@triton.jit
def _clamped(value, most):
    return tl.minimum(tl.maximum(value, -most), most)


@triton.jit
def _rim(table, n):
    """What of splats the bins are made from."""
    row = table + n * TABLE_COLUMNS
    return (
        tl.load(row + MEAN_X), tl.load(row + MEAN_Y), tl.load(row + LEAN), tl.load(row + HALF_WIDTH),
        tl.load(row + PRECISION), tl.load(row + SQUARE), tl.load(row + TOP), tl.load(row + REACH), tl.load(row + SIDE),
    )  # fmt: skip


@triton.jit
def _row_tiles(
    rim, first_band, band, bands, width, height, tile_width: tl.constexpr, tile_height: tl.constexpr,
    exact: tl.constexpr,
):  # fmt: skip
    """First tile, and number of tiles that the ellipse touches, of splats [B] in bands [M] of tiles: [B, M].

    If not `exact`, those that a rectangle around it touches.
    """
    mean_x, mean_y, lean, half_width, precision, square, top, reach, side = rim
    if exact:
        center = mean_y[:, None]
        first_row = (first_band[:, None] + band) * tile_height
        last_row = tl.minimum(first_row + tile_height, height[:, None]) - 1
        low = tl.maximum(first_row.to(tl.float32) - center - _SLACK, -reach[:, None])
        high = tl.minimum(last_row.to(tl.float32) - center + _SLACK, reach[:, None])
        # the right side of the rim is furthest out at its rightmost point, or as near to that as the band comes
        right_y = tl.minimum(tl.maximum(top[:, None], low), high)
        left_y = tl.minimum(tl.maximum(-top[:, None], low), high)
        right_half = tl.sqrt(tl.maximum(square[:, None] - right_y * right_y * precision[:, None], 0.0))
        left_half = tl.sqrt(tl.maximum(square[:, None] - left_y * left_y * precision[:, None], 0.0))
        right = mean_x[:, None] + (lean[:, None] * right_y + right_half * half_width[:, None]) + _SLACK
        left = mean_x[:, None] + (lean[:, None] * left_y - left_half * half_width[:, None]) - _SLACK
        first = tl.ceil(tl.maximum(_clamped(left, _FARTHEST), 0.0)).to(tl.int32)
        last = tl.floor(tl.minimum(_clamped(right, _FARTHEST), (width[:, None] - 1).to(tl.float32))).to(tl.int32)
        touched = (band < bands[:, None]) & (low <= high) & (first <= last) & (right >= 0.0)
        first_tile = first // tile_width
        last_tile = last // tile_width
    else:
        first_tile, last_tile = _rectangle_side(mean_x, side, width, tile_width)
        first_tile, last_tile = first_tile[:, None] + band * 0, last_tile[:, None] + band * 0
        touched = (band < bands[:, None]) & (first_tile <= last_tile)
    return first_tile, tl.where(touched, last_tile - first_tile + 1, 0)


@triton.jit
def _rectangle_side(mean, reach, size, tile: tl.constexpr):
    """First and last tile that a rectangle around splats touches along one axis; whole samples, like gsplat's."""
    radius = tl.minimum(tl.ceil(reach), WIDEST) / tile
    middle = (mean + 0.5) / tile
    across = ((size + tile - 1) // tile).to(tl.float32)
    first = tl.minimum(tl.maximum(tl.floor(middle - radius), 0.0), across)
    return first.to(tl.int32), tl.minimum(tl.maximum(tl.ceil(middle + radius), 0.0), across).to(tl.int32) - 1


@triton.jit
def _bands(rim, shown, height, tile_height: tl.constexpr, exact: tl.constexpr):
    """First band of tiles that splats reach, and how many."""
    _, mean_y, _, _, _, _, _, reach, _ = rim
    if exact:
        low = tl.ceil(tl.maximum(_clamped(mean_y - reach - _SLACK, _FARTHEST), 0.0))
        high = tl.floor(tl.minimum(_clamped(mean_y + reach + _SLACK, _FARTHEST), (height - 1).to(tl.float32)))
        first = low.to(tl.int32) // tile_height
        last = tl.where(low <= high, high.to(tl.int32) // tile_height, -1)
    else:
        first, last = _rectangle_side(mean_y, reach, height, tile_height)
    return first, tl.where(shown, tl.maximum(last - first + 1, 0), 0)


@triton.jit(do_not_specialize=["rows"])
def project(
    means, cholesky, colors, pictures, layers, steps, shapes, canvas_of_picture, slots, table, counts, rows,
    first_channel: tl.constexpr, channels: tl.constexpr, all_channels: tl.constexpr, smooths: tl.constexpr,
    tile_width: tl.constexpr, tile_height: tl.constexpr, block: tl.constexpr, stretch: tl.constexpr,
    exact: tl.constexpr,
):  # fmt: skip
    """Rows of the table, and how many tiles each splat touches.

    Args:
        means .. layers: a `SplatTable` of `rows` splats; steps .. slots: tables of `Canvases`.
        table: [rows, TABLE_COLUMNS], counts: [rows] int32, both written.
        first_channel, channels: of a splat's all_channels colours, those of the canvases.
        smooths: whether any canvas widens its splats.
        block, stretch: splats of a program; bands of tiles that it looks at together.
        exact: whether tiles of the ellipse count, or those of a rectangle around it.
    """
    n = tl.program_id(0) * block + tl.arange(0, block)
    valid = n < rows
    n = tl.where(valid, n, 0)
    canvas = tl.load(canvas_of_picture + tl.load(pictures + n))
    slot = tl.load(slots + tl.load(layers + n))
    shown = valid & (canvas >= 0) & (slot >= 0)
    canvas = tl.maximum(canvas, 0)
    step = steps + canvas * STEP_COLUMNS
    scale_x, scale_y = tl.load(step + 2), tl.load(step + 3)
    l1, l2, l3 = tl.load(cholesky + 3 * n), tl.load(cholesky + 3 * n + 1), tl.load(cholesky + 3 * n + 2)
    l1, l3 = _bounded(l1), _bounded(l3)
    l2 = _clamped(l2, _LONGEST)
    gain = tl.full([block], 1.0, tl.float32)
    if smooths:  # factors of L L^T + diag(smoothing), and what keeps each splat's integral the same
        smoothing_x, smoothing_y = tl.load(step + 4), tl.load(step + 5)
        wide1 = tl.sqrt(l1 * l1 + smoothing_x)
        wide2 = l2 * (l1 / wide1)
        over = l2 / wide1
        wide3 = tl.sqrt(l3 * l3 + smoothing_y + smoothing_x * (over * over))
        widened = (smoothing_x > 0) | (smoothing_y > 0)  # elsewhere signs stay
        gain = tl.where(widened, tl.abs(l1 / wide1) * tl.abs(l3 / wide3), 1.0)
        l1, l2, l3 = tl.where(widened, wide1, l1), tl.where(widened, wide2, l2), tl.where(widened, wide3, l3)
    l1, l2, l3 = l1 * scale_x, l2 * scale_y, l3 * scale_y
    mean_x = _clamped((tl.load(means + 2 * n) - tl.load(step)) * scale_x, _FARTHEST)
    mean_y = _clamped((tl.load(means + 2 * n + 1) - tl.load(step + 1)) * scale_y, _FARTHEST)
    largest = tl.full([block], 0.0, tl.float32)
    for channel in tl.static_range(all_channels):
        size = tl.abs(tl.load(colors + all_channels * n + channel))
        largest = tl.maximum(largest, size, propagate_nan=tl.PropagateNan.ALL)
    largest = tl.maximum(largest * gain, 1e-30, propagate_nan=tl.PropagateNan.ALL)
    least = -tl.log2(largest * _CUTOFF_AMPLITUDE)
    square = -least * _TWICE_LN_2
    row = table + n * TABLE_COLUMNS
    tl.store(row + MEAN_X, mean_x, mask=valid)
    tl.store(row + MEAN_Y, mean_y, mask=valid)
    tl.store(row + SCALE_X, (1.0 / l1) * _SCALE, mask=valid)
    tl.store(row + SCALE_Y, (1.0 / l3) * _SCALE, mask=valid)
    tl.store(row + SHEAR, l2 / l3, mask=valid)
    tl.store(row + LEAST, least, mask=valid)
    for channel in tl.static_range(channels):
        color = tl.load(colors + all_channels * n + first_channel + channel)
        tl.store(row + COLORS + channel, color * gain, mask=valid)
    variance = l2 * l2 + l3 * l3
    deviation = tl.sqrt(variance)
    square = square * _SQUARE_SLACK
    radius = tl.sqrt(tl.maximum(square, 0.0))
    lean = (l1 / deviation) * (l2 / deviation)
    half_width = tl.abs(l1) * (tl.abs(l3) / deviation)
    precision = 1.0 / variance
    top = radius * tl.where(l1 < 0, -l2, l2)
    reach, side = radius * deviation, radius * tl.abs(l1)
    tl.store(row + LEAN, lean, mask=valid)
    tl.store(row + HALF_WIDTH, half_width, mask=valid)
    tl.store(row + PRECISION, precision, mask=valid)
    tl.store(row + SQUARE, square, mask=valid)
    tl.store(row + TOP, top, mask=valid)
    tl.store(row + REACH, reach, mask=valid)
    tl.store(row + SIDE, side, mask=valid)
    # a colour, a length or a mean that is no number makes a comparison false
    finite = (mean_x - mean_x == 0) & (mean_y - mean_y == 0) & (square - square == 0) & (lean - lean == 0)
    shown = shown & finite & (square > 0)
    rim = (mean_x, mean_y, lean, half_width, precision, square, top, reach, side)
    shape = shapes + canvas * SHAPE_COLUMNS
    width, height = tl.load(shape), tl.load(shape + 1)
    first_band, bands = _bands(rim, shown, height, tile_height, exact)
    count = tl.full([block], 0, tl.int32)
    for begin in range(0, tl.max(bands, 0), stretch):
        band = begin + tl.arange(0, stretch)[None, :]
        _, tiles = _row_tiles(rim, first_band, band, bands, width, height, tile_width, tile_height, exact)
        count += tl.sum(tiles, 1)
    tl.store(counts + n, count, mask=valid)


@triton.jit(do_not_specialize=["rows", "entries", "num_slots", "first_key"])
def emit(
    pictures, layers, shapes, canvas_of_picture, slots, table, counts, ends, keys, owners, rows, entries, num_slots,
    first_key, tile_width: tl.constexpr, tile_height: tl.constexpr, block: tl.constexpr, stretch: tl.constexpr,
    exact: tl.constexpr,
):  # fmt: skip
    """The bin and the splat of every entry, splat after splat, row by row of tiles; as `project` counted them.

    Args:
        ends: [rows] int32 or int64, inclusive sums of counts.
        keys: [entries] of the bins, counted from `first_key`, owners: [entries] int32 of the splats, both written as
            far as entries go.
    """
    n = tl.program_id(0) * block + tl.arange(0, block)
    valid = n < rows
    n = tl.where(valid, n, 0)
    count = tl.load(counts + n)
    shown = valid & (count > 0)
    canvas = tl.maximum(tl.load(canvas_of_picture + tl.load(pictures + n)), 0)
    slot = tl.load(slots + tl.load(layers + n))
    shape = shapes + canvas * SHAPE_COLUMNS
    width, height = tl.load(shape), tl.load(shape + 1)
    across, first_tile = tl.load(shape + 2), tl.load(shape + 3)
    rim = _rim(table, n)
    first_band, bands = _bands(rim, shown, height, tile_height, exact)
    place = tl.load(ends + n) - count
    for begin in range(0, tl.max(bands, 0), stretch):
        band = begin + tl.arange(0, stretch)[None, :]
        first, tiles = _row_tiles(rim, first_band, band, bands, width, height, tile_width, tile_height, exact)
        at = place[:, None] + tl.cumsum(tiles, 1) - tiles
        key = (first_tile[:, None] + (first_band[:, None] + band) * across[:, None] + first) * num_slots
        key += slot[:, None] + first_key
        owner = tl.broadcast_to(n[:, None], key.shape)
        for tile in range(0, tl.max(tl.max(tiles, 1), 0)):
            wanted = (tile < tiles) & (at + tile < entries)
            tl.store(keys + at + tile, (key + tile * num_slots).to(keys.dtype.element_ty), mask=wanted)
            tl.store(owners + at + tile, owner, mask=wanted)
        place += tl.sum(tiles, 1)


@triton.jit(do_not_specialize=["listed"])
def cull(
    shapes, table, owners, canvas_of_entry, cells, touched, listed, most_across, tile_width: tl.constexpr,
    tile_height: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Whether the ellipse touches the tile, for splats and tiles that rectangles have brought together.

    Args:
        owners: [listed] int32 splats, canvas_of_entry: [listed] int32, cells: [listed] int32 row * most_across + column
            of the tile in its canvas.
        touched: [listed] int32, written: 1 or 0.
    """
    entry = tl.program_id(0) * block + tl.arange(0, block)
    valid = entry < listed
    rim = _rim(table, tl.load(owners + entry, mask=valid, other=0))
    shape = shapes + tl.load(canvas_of_entry + entry, mask=valid, other=0) * SHAPE_COLUMNS
    width, height = tl.load(shape), tl.load(shape + 1)
    cell = tl.load(cells + entry, mask=valid, other=0)
    band, column = cell // most_across, cell % most_across
    reached, bands = _bands(rim, valid, height, tile_height, True)
    own = tl.where((band >= reached) & (band < reached + bands), 1, 0)
    first, tiles = _row_tiles(
        rim, band, tl.full([1, 1], 0, tl.int32), own, width, height, tile_width, tile_height, True
    )  # fmt: skip
    first, last = tl.sum(first, 1), tl.sum(first + tiles, 1)
    tl.store(touched + entry, tl.where((column >= first) & (column < last), 1, 0), mask=valid)


@triton.jit(do_not_specialize=["entries"])
def arrange(order, owners, splats_of, places, entries, block: tl.constexpr):
    """The splat of each entry in the order of the bins, and its place in the order of the splats; both int32."""
    entry = tl.program_id(0) * block + tl.arange(0, block)
    valid = entry < entries
    place = tl.load(order + entry, mask=valid, other=0).to(tl.int32)
    tl.store(places + entry, place, mask=valid)
    tl.store(splats_of + entry, tl.load(owners + place, mask=valid, other=0), mask=valid)


@triton.jit
def _gaussian(row, places):
    """Gaussian [rows, lanes] of one splat, zero beyond the rim, and scaled whitened offsets [1, lanes], [rows, lanes].

    Args:
        row: pointer to the splat's row of the table.
        places: x [1, lanes] and y [1, lanes] of a lane's first sample in the canvas, and [rows, 1] rows down from it.
    """
    x, y, down = places
    v1 = (x - tl.load(row + MEAN_X)) * tl.load(row + SCALE_X)
    scale = tl.load(row + SCALE_Y)
    v2 = (y - tl.load(row + MEAN_Y)) * scale - tl.load(row + SHEAR) * v1 + down * scale
    exponent = -v1 * v1 - v2 * v2
    return tl.where(exponent >= tl.load(row + LEAST), tl.exp2(exponent), 0.0), v1, v2


@triton.jit
def _tile(
    canvas_of_tile, shapes, begins, tile_width: tl.constexpr, tile_height: tl.constexpr, lanes: tl.constexpr
):  # fmt: skip
    """Where this program's tile lies: see the names that its result is given."""
    tile = tl.program_id(0)
    canvas = tl.load(canvas_of_tile + tile)
    shape = shapes + canvas * SHAPE_COLUMNS
    width, height, across, first = tl.load(shape), tl.load(shape + 1), tl.load(shape + 2), tl.load(shape + 3)
    own = tile - first
    lane = tl.arange(0, lanes)[None, :]
    down = tl.arange(0, tile_width * tile_height // lanes)[:, None] * (lanes // tile_width)
    x = own % across * tile_width + lane % tile_width
    y = own // across * tile_height + lane // tile_width
    inside = (x < width) & (y + down < height)
    places = (x.to(tl.float32), y.to(tl.float32), down.to(tl.float32))
    return tl.load(shape + 4), tl.load(begins + canvas), (y + down) * width + x, inside, width * height, places


@triton.jit
def _paint_entries(table, splats_of, first, last, places, r0, r1, r2, channels: tl.constexpr):
    """Add the splats of one bin to the planes of a tile."""
    for entry in tl.range(first, last, loop_unroll_factor=2):  # so that two rows are on their way at the same time
        row = table + tl.load(splats_of + entry) * TABLE_COLUMNS
        g, _, _ = _gaussian(row, places)
        r0 += tl.load(row + COLORS) * g
        if channels > 1:
            r1 += tl.load(row + COLORS + 1) * g
        if channels > 2:
            r2 += tl.load(row + COLORS + 2) * g
    return r0, r1, r2


@triton.jit
def _code(value, max_code: tl.constexpr, kind: tl.constexpr):
    """A sample as it is, or clipped and rounded to a code value."""
    if max_code == 0:
        return value
    return (tl.minimum(tl.maximum(value, 0.0), 1.0) * max_code + 0.5).to(tl.int32).to(kind)


@triton.jit(do_not_specialize=["total", "num_slots"])
def paint(
    canvas_of_tile, shapes, begins, table, starts, splats_of, background, out, total, num_slots,
    channels: tl.constexpr, max_code: tl.constexpr, tile_width: tl.constexpr, tile_height: tl.constexpr,
    lanes: tl.constexpr,
):  # fmt: skip
    """Paint one tile, one picture at each slot's end.

    Args:
        starts: [bins + 1] int32 first entry of each bin.
        splats_of: see `arrange`.
        background: [pictures, channels] float32.
        out: [num_slots, total] float32 (max_code 0), uint8 or uint16.
    """
    picture, begin, at, inside, size, places = _tile(canvas_of_tile, shapes, begins, tile_width, tile_height, lanes)
    empty = tl.full([tile_width * tile_height // lanes, lanes], 0.0, tl.float32)
    under = background + picture * channels
    r0, r1, r2 = empty + tl.load(under), empty, empty
    if channels > 1:
        r1 += tl.load(under + 1)
    if channels > 2:
        r2 += tl.load(under + 2)
    bins = starts + tl.program_id(0) * num_slots
    to = out + begin
    kind = out.dtype.element_ty
    for slot in range(num_slots):
        r0, r1, r2 = _paint_entries(
            table, splats_of, tl.load(bins + slot), tl.load(bins + slot + 1), places, r0, r1, r2, channels
        )
        tl.store(to + at, _code(r0, max_code, kind), mask=inside)
        if channels > 1:
            tl.store(to + size + at, _code(r1, max_code, kind), mask=inside)
        if channels > 2:
            tl.store(to + 2 * size + at, _code(r2, max_code, kind), mask=inside)
        to += total


@triton.jit(do_not_specialize=["num_slots"])
def count_samples(
    canvas_of_tile, shapes, begins, table, starts, splats_of, samples, num_slots, tile_width: tl.constexpr,
    tile_height: tl.constexpr, lanes: tl.constexpr,
):  # fmt: skip
    """How many samples of one tile its splats are painted on: samples [tiles] int32."""
    _, _, _, inside, _, places = _tile(canvas_of_tile, shapes, begins, tile_width, tile_height, lanes)
    tile = tl.program_id(0)
    total = tl.full([tile_width * tile_height // lanes, lanes], 0, tl.int32)
    for entry in range(tl.load(starts + tile * num_slots), tl.load(starts + (tile + 1) * num_slots)):
        g = _gaussian(table + tl.load(splats_of + entry) * TABLE_COLUMNS, places)[0]
        total += tl.where(inside & (g > 0), 1, 0)
    tl.store(samples + tile, tl.sum(tl.sum(total, 0), 0))


@triton.jit
def _fold(values, lane, distance: tl.constexpr):
    """Add to each lane's value that of the lane whose number differs in one bit."""
    return values + tl.gather(values, lane ^ distance, 0)


@triton.jit
def _halve(low, high, lane, distance: tl.constexpr):
    """The same for two values at once: lanes without the bit have the sum of the low, the others that of the high."""
    upper = (lane & distance) != 0
    kept = tl.where(upper, high, low)
    return kept + tl.gather(tl.where(upper, low, high), lane ^ distance, 0)


@triton.jit
def _store_sums(to, s0, s1, s2, s3, s4, s5, s6, s7, count: tl.constexpr, lanes: tl.constexpr):
    """Sums over the lanes of `count` of eight values, at `to` and behind it.

    Each exchange between the lanes of a warp halves the number of values that a lane still has to do with, so that
    eight sums cost nine exchanges instead of forty.
    """
    if lanes == 32:
        lane = tl.arange(0, lanes)
        s0 = _halve(s0, s4, lane, 16)
        s1 = _halve(s1, s5, lane, 16)
        s2 = _halve(s2, s6, lane, 16) if count > 6 else _fold(s2, lane, 16)
        s3 = _halve(s3, s7, lane, 16) if count > 7 else _fold(s3, lane, 16)
        s0 = _halve(s0, s2, lane, 8)
        s1 = _halve(s1, s3, lane, 8)
        s0 = _halve(s0, s1, lane, 4)
        s0 = _fold(s0, lane, 2)
        s0 = _fold(s0, lane, 1)
        tl.store(to + lane // 4, s0, mask=lane % 4 == 0)
    else:
        tl.store(to, tl.sum(s0, 0))
        tl.store(to + 1, tl.sum(s1, 0))
        tl.store(to + 2, tl.sum(s2, 0))
        tl.store(to + 3, tl.sum(s3, 0))
        tl.store(to + 4, tl.sum(s4, 0))
        tl.store(to + 5, tl.sum(s5, 0))
        if count > 6:
            tl.store(to + 6, tl.sum(s6, 0))
        if count > 7:
            tl.store(to + 7, tl.sum(s7, 0))


@triton.jit
def _pull_entries(
    table, splats_of, parts_of, parts, first, last, places, r0, r1, r2, a0, a1, a2,
    channels: tl.constexpr, undo: tl.constexpr, lanes: tl.constexpr,
):  # fmt: skip
    """Moments of the splats of one bin; with `undo`, they are taken off the planes."""
    for entry in range(first, last):
        row = table + tl.load(splats_of + entry) * TABLE_COLUMNS
        to = parts + tl.load(parts_of + entry).to(tl.int64) * NUM_MOMENTS
        g, v1, v2 = _gaussian(row, places)
        color = tl.load(row + COLORS)
        sum0 = tl.sum(a0 * g, 0)
        column = color * sum0
        pulled = color * a0
        if undo:
            r0 -= color * g
        if channels > 1:
            color = tl.load(row + COLORS + 1)
            sum1 = tl.sum(a1 * g, 0)
            column += color * sum1
            pulled += color * a1
            if undo:
                r1 -= color * g
        if channels > 2:
            color = tl.load(row + COLORS + 2)
            sum2 = tl.sum(a2 * g, 0)
            column += color * sum2
            pulled += color * a2
            if undo:
                r2 -= color * g
        v1 = tl.sum(v1, 0)
        by_v2 = pulled * g * v2
        m2, m22 = tl.sum(by_v2, 0), tl.sum(by_v2 * v2, 0)
        m1, m12 = column * v1, m2 * v1
        m11 = m1 * v1
        if channels == 1:
            _store_sums(to, sum0, m1, m2, m11, m12, m22, m22, m22, 6, lanes)
        elif channels == 2:
            _store_sums(to, sum0, sum1, m1, m2, m11, m12, m22, m22, 7, lanes)
        else:
            _store_sums(to, sum0, sum1, sum2, m1, m2, m11, m12, m22, 8, lanes)
    return r0, r1, r2


@triton.jit
def _weighed(a, weight, r, inside):
    """What a level's residual adds to what pulls at the splats of its layer and of those below."""
    return a + tl.where(inside, 2.0 * tl.load(weight) * r, 0.0)


@triton.jit
def _store_square(to, r, inside):
    tl.store(to, tl.sum(tl.sum(tl.where(inside, r * r, 0.0), 0), 0))


@triton.jit(do_not_specialize=["num_slots", "num_tiles"])
def fit(
    canvas_of_tile, shapes, begins, table, starts, splats_of, parts_of, target, weights, squares, parts, num_slots,
    num_tiles, channels: tl.constexpr, with_moments: tl.constexpr, tile_width: tl.constexpr,
    tile_height: tl.constexpr, lanes: tl.constexpr,
):  # fmt: skip
    """Forward and backward of one tile.

    Args:
        target: [total] float32 minus the background.
        weights: [pictures, num_slots, channels] float32.
        squares: [num_slots * channels, num_tiles] float32 squared errors, written.
        parts: [entries, NUM_MOMENTS] float32 at `parts_of` an entry, written: sums over the tile of w_c g per colour,
            then of w g v1, w g v2, w g v1 v1, w g v1 v2, w g v2 v2, where w_c is the weighted residual,
            w = sum_c colour_c w_c, and v1, v2 are the scaled whitened offsets.
    """
    picture, begin, at, inside, size, places = _tile(canvas_of_tile, shapes, begins, tile_width, tile_height, lanes)
    empty = tl.full([tile_width * tile_height // lanes, lanes], 0.0, tl.float32)
    source = target + begin
    r0, r1, r2 = -tl.load(source + at, mask=inside, other=0.0), empty, empty
    if channels > 1:
        r1 = -tl.load(source + size + at, mask=inside, other=0.0)
    if channels > 2:
        r2 = -tl.load(source + 2 * size + at, mask=inside, other=0.0)
    tile = tl.program_id(0)
    bins = starts + tile * num_slots
    for slot in range(num_slots):
        r0, r1, r2 = _paint_entries(
            table, splats_of, tl.load(bins + slot), tl.load(bins + slot + 1), places, r0, r1, r2, channels
        )
        square = squares + slot * channels * num_tiles + tile
        _store_square(square, r0, inside)
        if channels > 1:
            _store_square(square + num_tiles, r1, inside)
        if channels > 2:
            _store_square(square + 2 * num_tiles, r2, inside)
    if with_moments:
        a0, a1, a2 = empty, empty, empty
        weight = weights + (picture + 1) * num_slots * channels
        for below in range(num_slots):
            slot = num_slots - 1 - below
            weight -= channels
            a0 = _weighed(a0, weight, r0, inside)
            if channels > 1:
                a1 = _weighed(a1, weight + 1, r1, inside)
            if channels > 2:
                a2 = _weighed(a2, weight + 2, r2, inside)
            first, last = tl.load(bins + slot), tl.load(bins + slot + 1)
            if slot > 0:
                r0, r1, r2 = _pull_entries(
                    table, splats_of, parts_of, parts, first, last, places, r0, r1, r2, a0, a1, a2, channels, True,
                    lanes,
                )  # fmt: skip
            else:
                _pull_entries(
                    table, splats_of, parts_of, parts, first, last, places, r0, r1, r2, a0, a1, a2, channels, False,
                    lanes,
                )  # fmt: skip


@triton.jit(do_not_specialize=["num_canvases", "num_tiles", "num_slots"])
def sum_squares(
    shapes, squares, squared_error, num_canvases, num_tiles, num_slots, channels: tl.constexpr, block: tl.constexpr
):  # fmt: skip
    """Add the tiles' squared errors of one canvas, slot and plane to squared_error [pictures, slots, channels]."""
    canvas, plane = tl.program_id(0), tl.program_id(1)
    shape = shapes + canvas * SHAPE_COLUMNS
    first, picture = tl.load(shape + 3), tl.load(shape + 4)
    last = num_tiles
    if canvas + 1 < num_canvases:
        last = tl.load(shape + SHAPE_COLUMNS + 3)
    total = tl.full([block], 0.0, tl.float64)
    for begin in range(first, last, block):
        tile = begin + tl.arange(0, block)
        total += tl.load(squares + plane * num_tiles + tile, mask=tile < last, other=0.0).to(tl.float64)
    at = squared_error + picture * num_slots * channels + plane
    tl.store(at, tl.load(at) + tl.sum(total, 0))


@triton.jit
def _sum_parts(sums, parts, begin, last, most, stretch: tl.constexpr):
    """Add `stretch` parts at a time of splats [B]: sums [B, NUM_MOMENTS], `most` parts at most from `begin` on."""
    part = tl.arange(0, stretch)[None, :, None]
    column = tl.arange(0, NUM_MOMENTS)[None, None, :]
    for done in range(0, most, stretch):
        place = begin[:, None, None] + done + part
        values = tl.load(parts + place.to(tl.int64) * NUM_MOMENTS + column, mask=place < last[:, None, None], other=0.0)
        sums += tl.sum(values, 1)
    return sums


@triton.jit(do_not_specialize=["rows", "entries"])
def sum_moments(
    counts, ends, parts, moments, rows, entries, first_channel: tl.constexpr, channels: tl.constexpr,
    all_channels: tl.constexpr, block: tl.constexpr, stretch: tl.constexpr, long_stretch: tl.constexpr,
):  # fmt: skip
    """Add each splat's moments over its tiles, in their order, to moments [rows, all_channels + 5]."""
    n = tl.program_id(0) * block + tl.arange(0, block)
    count, end = tl.load(counts + n, mask=n < rows, other=0), tl.load(ends + n, mask=n < rows, other=0)
    begin, last = end - count, tl.minimum(end, entries)
    most = tl.max(last - begin, 0)
    if most > 0:
        sums = tl.full([block, NUM_MOMENTS], 0.0, tl.float32)
        whole = most // long_stretch * long_stretch  # of a large splat, in flight together
        sums = _sum_parts(sums, parts, begin, last, whole, long_stretch)
        sums = _sum_parts(sums, parts, begin + whole, last, most - whole, stretch)
        column = tl.arange(0, NUM_MOMENTS)[None, :]
        kind = column - channels
        sums *= tl.where(kind < 0, 1.0, tl.where(kind < 2, 1.0 / _SCALE, 1.0 / (_SCALE * _SCALE)))
        to = tl.where(kind < 0, first_channel + column, all_channels + kind)
        at = moments + n[:, None] * (all_channels + 5) + to
        wanted = (kind < 5) & (count > 0)[:, None]
        tl.store(at, tl.load(at, mask=wanted, other=0.0) + sums, mask=wanted)
