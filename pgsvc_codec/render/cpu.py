"""The CPU rasteriser: tiles in parallel, rows of a splat in explicit SIMD, forward and backward (numba).

Shape of the work.  The plane is cut into tiles by its size alone; each tile paints the splats that reach it in stored
order, so results do not depend on the number of threads.  Along a row the exponent of a splat is a parabola around
the row's own centre, ``q = dx^2 / sx^2 + dy^2 / sy^2`` with sx the conditional and sy the marginal standard
deviation; both terms are positive, so thin splats lose no digits.  The inner loop runs over 16-float vectors written
as LLVM vectors: a plain loop leaves most of a 25-sample row to the scalar remainder and measured ten times slower.

Gradients need only per-splat *moments* (see `reference.StepResult`); they are summed in the row's coordinates
(p, r) = (dx / sx, dy / sy), an orthogonal turn away from u = L^-1 d, and turned once per splat and tile.

Kernels and everything they call live in this one file: numba's disk cache does not see edits elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from llvmlite import ir
from numba import njit, prange
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from pgsvc_codec.render.projection import project
from pgsvc_codec.render.reference import NUM_SHAPE_MOMENTS, StepResult
from pgsvc_codec.splats import Splats

if TYPE_CHECKING:
    from pgsvc_codec.picture import PlaneGrid

f32 = np.float32
i32 = np.int32

LANES = 16  # floats per vector; LLVM splits it where the machine's are shorter
TILE_ROWS = 16
TILE_COLUMNS = 512  # a tile's planes and residuals stay in the second-level cache

# Streams may hold splats that float32 does not; nobody promises how those look (spec, "Conformance").
_TINY, _HUGE = 1e-30, 1e30
_HALF_LOG2_E = f32(0.5 / math.log(2.0))
# 2^f on (-1, 0] as a polynomial of least relative error: 7.5e-8, half a unit in the last place of float32.
_EXP2 = (0.9999999251, 0.6931422526, 0.2401721894, 0.05527972285, 0.009188611834, 0.0009387883196)

# Columns of the per-splat table that the kernels read, float32.
_MEAN_X, _MEAN_Y, _SLOPE, _RATE_X, _RATE_Y, _LIMIT, _INV_SX, _INV_SY, _Q00, _Q01, _Q10, _Q11 = range(12)
_NUM_COLUMNS = 12

_VEC = ir.VectorType(ir.FloatType(), LANES)
_INTS = ir.VectorType(ir.IntType(32), LANES)
_I64 = ir.IntType(64)


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_VEC, [float(value)] * LANES)


def _broadcast(builder, scalar):
    vector = builder.insert_element(ir.Constant(_VEC, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(vector, ir.Constant(_VEC, ir.Undefined), ir.Constant(_INTS, [0] * LANES))


def _fma(builder, a, b, c):
    signature = ir.FunctionType(_VEC, [_VEC] * 3)
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.fma.v{LANES}f32")
    return builder.call(function, [a, b, c])


def _lane_sum(builder, vector):
    signature = ir.FunctionType(ir.FloatType(), [ir.FloatType(), _VEC])
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.vector.reduce.fadd.v{LANES}f32")
    return builder.call(function, [ir.Constant(ir.FloatType(), 0.0), vector], fastmath=("reassoc",))


def _gaussian(builder, dx, rate, row_exponent, limit):
    """2^(rate dx^2 + row_exponent) where that exponent is at least `limit`, else 0."""
    exponent = _fma(builder, builder.fmul(dx, dx), rate, row_exponent)
    whole = builder.fptosi(exponent, _INTS)  # towards zero; lanes out of range are dropped by the select below
    fraction = builder.fsub(exponent, builder.sitofp(whole, _VEC))
    mantissa = _constant(_EXP2[-1])
    for coefficient in _EXP2[-2::-1]:
        mantissa = _fma(builder, mantissa, fraction, _constant(coefficient))
    biased = builder.add(whole, ir.Constant(_INTS, [127] * LANES))
    power = builder.bitcast(builder.shl(biased, ir.Constant(_INTS, [23] * LANES)), _VEC)
    inside = builder.fcmp_ordered(">=", exponent, limit)
    return builder.select(inside, builder.fmul(mantissa, power), _constant(0.0))


class _RowLoop:
    """The loop over one row's vectors, shared by both row kernels: yields dx and the planes' addresses."""

    def __init__(self, context, builder, array_type, array, offset, dx0):
        self.builder = builder
        data = context.make_array(array_type)(context, builder, array).data
        self.base = builder.gep(data, [offset])
        ramp = ir.Constant(_VEC, [float(lane) for lane in range(LANES)])
        self.dx = cgutils.alloca_once_value(builder, builder.fadd(_broadcast(builder, dx0), ramp))

    def __call__(self, blocks, stride, num_planes, body):
        builder = self.builder
        with cgutils.for_range(builder, blocks) as loop:
            dx = builder.load(self.dx)
            start = builder.gep(self.base, [builder.mul(loop.index, ir.Constant(_I64, LANES))])
            addresses = [
                builder.bitcast(builder.gep(start, [builder.mul(stride, ir.Constant(_I64, k))]), _VEC.as_pointer())
                for k in range(num_planes)
            ]
            body(dx, addresses)
            builder.store(builder.fadd(dx, _constant(LANES)), self.dx)


def _load_colors(context, builder, array_type, array, n, count):
    """Row n of a C-contiguous [N, count] array, each value in all lanes."""
    data = context.make_array(array_type)(context, builder, array).data
    row = builder.gep(data, [builder.mul(n, ir.Constant(_I64, count))])
    return [_broadcast(builder, builder.load(builder.gep(row, [ir.Constant(_I64, k)]))) for k in range(count)]


@intrinsic
def _paint_row(typing, planes, offset, stride, blocks, dx0, rate, row_exponent, limit, colors, n, like):
    """Add colors[n, k] * g to plane k along one row: `blocks` vectors from `offset`, plane k `stride` floats on."""
    scalars = (types.int64,) * 3 + (types.float32,) * 4
    signature = types.void(planes, *scalars, colors, types.int64, like)

    def generate(context, builder, signature, arguments):
        planes_, offset_, stride_, blocks_, dx0_, rate_, row_exponent_, limit_, colors_, n_, _ = arguments
        row = _RowLoop(context, builder, signature.args[0], planes_, offset_, dx0_)
        rate_v, exponent_v, limit_v = (_broadcast(builder, value) for value in (rate_, row_exponent_, limit_))
        colors_v = _load_colors(context, builder, signature.args[8], colors_, n_, len(like))

        def body(dx, addresses):
            g = _gaussian(builder, dx, rate_v, exponent_v, limit_v)
            for color, address in zip(colors_v, addresses, strict=True):
                builder.store(_fma(builder, g, color, builder.load(address, align=4)), address, align=4)

        row(blocks_, stride_, len(like), body)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _pull_row(typing, planes, offset, stride, blocks, dx0, rate, row_exponent, limit, colors, n, like, dy, sums):
    """Add one row's moments to `sums`, vectors of C + 5: colour gradients, then w dx, w dy, w dx², w dx dy, w dy²."""
    scalars = (types.int64,) * 3 + (types.float32,) * 4
    signature = types.void(planes, *scalars, colors, types.int64, like, types.float32, sums)

    def generate(context, builder, signature, arguments):
        planes_, offset_, stride_, blocks_, dx0_, rate_, row_exponent_, limit_, colors_, n_, _, dy_, sums_ = arguments
        count = len(like)
        row = _RowLoop(context, builder, signature.args[0], planes_, offset_, dx0_)
        rate_v, exponent_v, limit_v = (_broadcast(builder, value) for value in (rate_, row_exponent_, limit_))
        colors_v = _load_colors(context, builder, signature.args[8], colors_, n_, count)
        pulled = [cgutils.alloca_once_value(builder, _constant(0.0)) for _ in range(count)]
        first = cgutils.alloca_once_value(builder, _constant(0.0))
        second = cgutils.alloca_once_value(builder, _constant(0.0))

        def body(dx, addresses):
            g = _gaussian(builder, dx, rate_v, exponent_v, limit_v)
            w = None
            for color, address, slot in zip(colors_v, addresses, pulled, strict=True):
                term = builder.fmul(g, builder.load(address, align=4))
                builder.store(builder.fadd(builder.load(slot), term), slot)
                w = builder.fmul(color, term) if w is None else _fma(builder, color, term, w)
            wdx = builder.fmul(w, dx)
            builder.store(builder.fadd(builder.load(first), wdx), first)
            builder.store(_fma(builder, wdx, dx, builder.load(second)), second)

        row(blocks_, stride_, count, body)
        data = context.make_array(signature.args[12])(context, builder, sums_).data

        def add(index, value):
            address = builder.gep(data, [ir.Constant(_I64, index * LANES)])
            address = builder.bitcast(address, _VEC.as_pointer())
            builder.store(builder.fadd(builder.load(address, align=4), value), address, align=4)

        zeroth = None
        for k, slot in enumerate(pulled):
            value = builder.load(slot)
            add(k, value)
            zeroth = builder.fmul(colors_v[k], value) if k == 0 else _fma(builder, colors_v[k], value, zeroth)
        dy_v = _broadcast(builder, dy_)
        s1, s2 = builder.load(first), builder.load(second)
        wdy = builder.fmul(zeroth, dy_v)
        for k, value in enumerate((s1, wdy, s2, builder.fmul(s1, dy_v), builder.fmul(wdy, dy_v))):
            add(count + k, value)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _sum_lanes(typing, sums, index):
    """The sum over the lanes of vector `index` of `sums`."""
    signature = types.float32(sums, types.int64)

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.gep(data, [builder.mul(arguments[1], ir.Constant(_I64, LANES))])
        return _lane_sum(builder, builder.load(builder.bitcast(address, _VEC.as_pointer()), align=4))

    return signature, generate


@njit(cache=True)
def _tabulate(means, cholesky, cutoff):
    """The per-splat table [N, _NUM_COLUMNS] float32 from plane coordinates in float64."""
    table = np.empty((len(means), _NUM_COLUMNS), f32)
    for n in range(len(means)):
        l1, l2, l3 = cholesky[n, 0], cholesky[n, 1], cholesky[n, 2]
        sy = math.sqrt(l2 * l2 + l3 * l3)
        sx = abs(l1 * l3) / sy
        table[n, _MEAN_X] = means[n, 0]
        table[n, _MEAN_Y] = means[n, 1]
        table[n, _SLOPE] = min(max(l1 * l2 / (sy * sy), -_HUGE), _HUGE)
        table[n, _RATE_X] = -min(max(_HALF_LOG2_E / (sx * sx), _TINY), _HUGE)
        table[n, _RATE_Y] = -max(_HALF_LOG2_E / (sy * sy), _TINY)
        table[n, _LIMIT] = -_HALF_LOG2_E * cutoff[n]
        table[n, _INV_SX] = 1.0 / sx
        table[n, _INV_SY] = 1.0 / sy
        # u = L^-1 d = Q (p, r) with Q orthogonal
        table[n, _Q00] = sx / l1
        table[n, _Q01] = l2 / sy
        table[n, _Q10] = -l2 * sx / (l1 * l3)
        table[n, _Q11] = l3 / sy
    return table


@njit(cache=True)
def _reach(table, n, width, height):
    """Bounding box of splat n, half open, clipped to the plane: x0, x1, y0, y1; empty where it reaches nothing."""
    limit = table[n, _LIMIT]
    if not limit < f32(0.0):
        return 0, 0, 0, 0
    reach_y = math.sqrt(limit / table[n, _RATE_Y])
    # marginal sx^2 = conditional sx^2 + (slope sy)^2
    slope_reach = table[n, _SLOPE] * reach_y
    reach_x = math.sqrt(limit / table[n, _RATE_X] + slope_reach * slope_reach)
    x, y = table[n, _MEAN_X], table[n, _MEAN_Y]
    if not (x + reach_x >= 0 and x - reach_x <= width - 1 and y + reach_y >= 0 and y - reach_y <= height - 1):
        return 0, 0, 0, 0
    x0 = int(max(math.ceil(x - reach_x), 0.0))
    x1 = int(min(math.floor(x + reach_x), width - 1.0)) + 1
    y0 = int(max(math.ceil(y - reach_y), 0.0))
    y1 = int(min(math.floor(y + reach_y), height - 1.0)) + 1
    return x0, x1, y0, y1


@njit(cache=True)
def _bin(table, width, height):
    """Which splats reach which tile, in stored order: starts [tiles + 1], entries (splat of each), tiles per row."""
    across = (width + TILE_COLUMNS - 1) // TILE_COLUMNS
    down = (height + TILE_ROWS - 1) // TILE_ROWS
    counts = np.zeros(across * down + 1, np.int64)
    boxes = np.empty((len(table), 4), np.int32)
    for n in range(len(table)):
        x0, x1, y0, y1 = _reach(table, n, width, height)
        if x0 >= x1 or y0 >= y1:
            boxes[n] = 0
            continue
        boxes[n, 0] = x0 // TILE_COLUMNS
        boxes[n, 1] = (x1 - 1) // TILE_COLUMNS + 1
        boxes[n, 2] = y0 // TILE_ROWS
        boxes[n, 3] = (y1 - 1) // TILE_ROWS + 1
        for ty in range(boxes[n, 2], boxes[n, 3]):
            for tx in range(boxes[n, 0], boxes[n, 1]):
                counts[ty * across + tx + 1] += 1
    starts = np.cumsum(counts)
    cursor = starts.copy()
    entries = np.empty(starts[-1], np.int32)
    for n in range(len(table)):
        for ty in range(boxes[n, 2], boxes[n, 3]):
            for tx in range(boxes[n, 0], boxes[n, 1]):
                tile = ty * across + tx
                entries[cursor[tile]] = n
                cursor[tile] += 1
    return starts, entries, across


@njit(cache=True)
def _pitch(columns):
    """Floats per row of a tile: room for one vector past the end, an odd number of cache lines (no set conflicts)."""
    lines = (columns + LANES - 1) // LANES + 1
    return (lines | 1) * LANES


@njit(cache=True)
def _row_span(table, n, y, columns, left):
    """Where splat n crosses row y of a tile that starts at column `left`: first column, vectors, dx0, exponent, dy."""
    dy = f32(y) - table[n, _MEAN_Y]
    row_exponent = table[n, _RATE_Y] * dy * dy
    room = table[n, _LIMIT] - row_exponent
    if not room <= f32(0.0):
        return 0, 0, f32(0), f32(0), f32(0)
    half = math.sqrt(room / table[n, _RATE_X])
    centre = table[n, _MEAN_X] - f32(left) + table[n, _SLOPE] * dy
    first = max(math.ceil(centre - half), f32(0.0))
    last = min(math.floor(centre + half), f32(columns - 1))
    if not first <= last:
        return 0, 0, f32(0), f32(0), f32(0)
    start = int(first)
    blocks = (int(last) - start + LANES) // LANES
    return start, blocks, f32(start) - centre, row_exponent, dy


@njit(cache=True)
def _tile_rows(table, n, top, rows):
    """First and one past the last row of the tile that splat n can reach."""
    reach = math.sqrt(table[n, _LIMIT] / table[n, _RATE_Y])
    y = table[n, _MEAN_Y] - f32(top)
    first = int(max(math.ceil(y - reach), f32(0.0)))
    last = int(min(math.floor(y + reach), f32(rows - 1)))
    return first, last + 1


@njit(cache=True)
def _paint_splat(canvas, table, colors, n, like, left, top, columns, rows):
    """Add splat n to a tile's planes [C, rows, pitch]."""
    pitch = canvas.shape[2]
    stride = canvas.shape[1] * pitch
    rate, limit = table[n, _RATE_X], table[n, _LIMIT]
    first, last = _tile_rows(table, n, top, rows)
    for row in range(first, last):
        start, blocks, dx0, exponent, _ = _row_span(table, n, top + row, columns, left)
        if blocks > 0:
            _paint_row(canvas, row * pitch + start, stride, blocks, dx0, rate, exponent, limit, colors, n, like)


@njit(cache=True)
def _pull_splat(pulled, level, table, colors, n, like, left, top, columns, rows, sums):
    """Add splat n's moments against the residuals of its layer, pulled[level], to `sums`."""
    pitch = pulled.shape[3]
    stride = pulled.shape[2] * pitch
    base = level * pulled.shape[1] * stride
    rate, limit = table[n, _RATE_X], table[n, _LIMIT]
    first, last = _tile_rows(table, n, top, rows)
    for row in range(first, last):
        start, blocks, dx0, exponent, dy = _row_span(table, n, top + row, columns, left)
        if blocks > 0:
            offset = base + row * pitch + start
            _pull_row(pulled, offset, stride, blocks, dx0, rate, exponent, limit, colors, n, like, dy, sums)


@njit(cache=True)
def _turn(moments, entry, table, n, planes, sums):
    """Write a splat's moments from row coordinates (dx, dy) into whitened ones u = L^-1 d."""
    moment = moments[entry]
    for k in range(planes):
        moment[k] = _sum_lanes(sums, k)
    ix, iy = table[n, _INV_SX], table[n, _INV_SY]
    p = _sum_lanes(sums, planes) * ix
    r = _sum_lanes(sums, planes + 1) * iy
    pp = _sum_lanes(sums, planes + 2) * (ix * ix)
    pr = _sum_lanes(sums, planes + 3) * (ix * iy)
    rr = _sum_lanes(sums, planes + 4) * (iy * iy)
    q00, q01, q10, q11 = table[n, _Q00], table[n, _Q01], table[n, _Q10], table[n, _Q11]
    moment[planes] = q00 * p + q01 * r
    moment[planes + 1] = q10 * p + q11 * r
    moment[planes + 2] = q00 * q00 * pp + f32(2.0) * q00 * q01 * pr + q01 * q01 * rr
    moment[planes + 3] = q00 * q10 * pp + (q00 * q11 + q01 * q10) * pr + q01 * q11 * rr
    moment[planes + 4] = q10 * q10 * pp + f32(2.0) * q10 * q11 * pr + q11 * q11 * rr


@njit(cache=True)
def _tile_box(tile, across, width, height):
    """Left, top, columns and rows of a tile."""
    left = (tile % across) * TILE_COLUMNS
    top = (tile // across) * TILE_ROWS
    return left, top, min(TILE_COLUMNS, width - left), min(TILE_ROWS, height - top)


@njit(cache=True)
def _new_canvas(planes, rows, columns):
    return np.empty((planes, rows, _pitch(columns)), f32)


@njit(parallel=True, cache=True)
def _render_tiles(table, colors, like, ends, background, starts, entries, across, width, height, max_code, out):
    """Paint every tile; out [pictures, C, height, width] takes values, or code values where max_code is not 0."""
    planes = len(like)
    for tile in prange(len(starts) - 1):
        left, top, columns, rows = _tile_box(tile, across, width, height)
        canvas = _new_canvas(planes, rows, columns)
        for k in range(planes):
            canvas[k] = background[k]
        entry = starts[tile]
        for picture in range(len(ends)):
            while entry < starts[tile + 1] and entries[entry] < ends[picture]:
                _paint_splat(canvas, table, colors, entries[entry], like, left, top, columns, rows)
                entry += 1
            for k in range(planes):
                for row in range(rows):
                    if max_code == 0:
                        for column in range(columns):
                            out[picture, k, top + row, left + column] = canvas[k, row, column]
                    else:
                        for column in range(columns):
                            value = min(max(canvas[k, row, column], f32(0.0)), f32(1.0)) * f32(max_code) + f32(0.5)
                            out[picture, k, top + row, left + column] = i32(value)


@njit(parallel=True, cache=True)
def _fit_tiles(table, colors, like, ends, weights, target, starts, entries, across):
    """Forward and backward of every tile: squared errors [tiles, levels, C] and moments [entries, C + 5]."""
    planes = len(like)
    levels = len(ends)
    height, width = target.shape[1:]
    tiles = len(starts) - 1
    squared = np.zeros((tiles, levels, planes), np.float64)
    moments = np.empty((len(entries), planes + NUM_SHAPE_MOMENTS), f32)
    for tile in prange(tiles):
        left, top, columns, rows = _tile_box(tile, across, width, height)
        canvas = _new_canvas(planes, rows, columns)
        pitch = canvas.shape[2]
        pulled = np.empty((levels, planes, rows, pitch), f32)
        for k in range(planes):
            for row in range(rows):
                for column in range(columns):
                    canvas[k, row, column] = -target[k, top + row, left + column]
                canvas[k, row, columns:] = f32(0.0)
        entry = starts[tile]
        for level in range(levels):
            while entry < starts[tile + 1] and entries[entry] < ends[level]:
                _paint_splat(canvas, table, colors, entries[entry], like, left, top, columns, rows)
                entry += 1
            for k in range(planes):
                weight = weights[level, k]
                total = 0.0
                for row in range(rows):
                    row_total = f32(0.0)
                    for column in range(columns):
                        value = canvas[k, row, column]
                        row_total += value * value
                        pulled[level, k, row, column] = weight * value
                    pulled[level, k, row, columns:] = f32(0.0)
                    total += row_total
                squared[tile, level, k] = total
        for level in range(levels - 2, -1, -1):  # R_l = sum over the levels from l on
            for k in range(planes):
                for row in range(rows):
                    for column in range(columns):
                        pulled[level, k, row, column] += pulled[level + 1, k, row, column]
        sums = np.empty((planes + NUM_SHAPE_MOMENTS) * LANES, f32)
        level = 0
        for entry in range(starts[tile], starts[tile + 1]):
            n = entries[entry]
            while n >= ends[level]:
                level += 1
            sums[:] = f32(0.0)
            _pull_splat(pulled, level, table, colors, n, like, left, top, columns, rows, sums)
            _turn(moments, entry, table, n, planes, sums)
    return squared, moments


@njit(cache=True)
def _gather(moments, entries, count):
    """Sum the tiles' moments per splat, in the order of the tiles."""
    total = np.zeros((count, moments.shape[1]), f32)
    for entry in range(len(entries)):
        n = entries[entry]
        for k in range(moments.shape[1]):
            total[n, k] += moments[entry, k]
    return total


def _prepare(splats: Splats, width: int, height: int, grid: PlaneGrid, channels: slice):
    """What every pass starts from: the table, the colours of these planes, a tuple as wide as they are, the bins."""
    plane = project(splats, width, height, grid)
    table = _tabulate(plane.means, plane.cholesky, plane.cutoff)
    colors = np.ascontiguousarray(splats.colors[:, channels] * plane.gains[:, None], f32)
    return table, colors, (f32(0.0),) * colors.shape[1], *_bin(table, grid.width, grid.height)


def render(
    splats: Splats,
    width: int,
    height: int,
    grid: PlaneGrid,
    channels: slice,
    background: NDArray[np.floating],
    ends: Sequence[int],
    max_code: int = 0,
) -> NDArray[np.floating | np.unsignedinteger]:
    """As `reference.render`, in float32; or, with `max_code`, clipped and rounded to code values.

    Returns:
        [len(ends), C, grid.height, grid.width] float32, uint8 (max_code 255) or uint16 (1023).
    """
    table, colors, like, starts, entries, across = _prepare(splats, width, height, grid, channels)
    dtype = f32 if max_code == 0 else np.uint8 if max_code <= 255 else np.uint16
    out = np.empty((len(ends), len(like), grid.height, grid.width), dtype)
    under = np.asarray(background, f32)
    stops = np.asarray(ends, np.int64)
    _render_tiles(table, colors, like, stops, under, starts, entries, across, grid.width, grid.height, max_code, out)
    return out


def fit_step(
    splats: Splats,
    width: int,
    height: int,
    grid: PlaneGrid,
    channels: slice,
    target: NDArray[np.float32],
    ends: Sequence[int],
    level_weights: Sequence[float],
    channel_weights: Sequence[float],
) -> StepResult:
    """As `reference.fit_step`, in float32: all levels for one render and one backward pass."""
    table, colors, like, starts, entries, across = _prepare(splats, width, height, grid, channels)
    weights = (2.0 * np.outer(level_weights, channel_weights)).astype(f32)
    stops = np.asarray(ends, np.int64)
    squared, moments = _fit_tiles(table, colors, like, stops, weights, target, starts, entries, across)
    return StepResult(squared.sum(axis=0), _gather(moments, entries, len(splats)))
