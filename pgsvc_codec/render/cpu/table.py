"""The splats of a plane as kernels of the CPU rasteriser read them: a table, and the tiles that each splat reaches."""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from pgsvc_codec.jit import kernel
from pgsvc_codec.render.cpu.vectors import (
    INTS,
    LANES,
    VEC,
    broadcast,
    call,
    constant,
    data_of,
    exp2,
    fma,
    i64,
    largest,
    least,
    load,
    store,
    transposed,
)

f32 = np.float32
i32 = np.int32

TILE_ROWS = 64
TILE_COLUMNS = 128  # a tile's planes and residuals stay in the second-level cache
PITCH = TILE_COLUMNS + LANES  # floats per row of a tile: a strip may begin in its last column
TILE_FLOATS = (TILE_ROWS + 1) * PITCH  # per plane: rows are visited in pairs

# Streams may hold splats that float32 does not; nobody promises how those look (spec, "Conformance").
_TINY, _HUGE = 1e-30, 1e30
_HALF_LOG2_E = 0.5 / math.log(2.0)
LEAST_EXPONENT = -125.0  # of two; a Gaussian below is none
MOST_ROWS = TILE_ROWS  # of one run of the recurrence, whose relative error grows with their square: 3e-5

# Columns of the per-splat table that the kernels read, float32: the geometry, then the colours of the planes.
(
    MEAN_X,
    MEAN_Y,
    HEIGHT,  # t^2 of the ellipse where dx is 0
    TOP_X,  # dx of its point of greatest y
    REACH_X,  # its half width
    LENGTH,  # rows after which the recurrence begins anew: even, or 1
    ASPECT,  # (l3 / l1)^2
    RATE,  # exponent of two per t^2, negative
    SHEAR,  # k
    RATIO,  # c
    RATIO_4,  # c^4, the ratio of every other row's ratios
    CUTOFF,  # least Gaussian that counts
    CUTOFF_ODD,  # in odd rows: none if the length is 1
    COLORS,
) = range(14)
NUM_COLUMNS = LANES  # one cache line, and a square with the splats of a vector
NUM_SOURCES = 9  # what the table is made from: mean x, y; l1, l2, l3; cut-off; up to three colours


def table_row(context, builder, kind, table, n):
    """Pointer to a splat's row of the table."""
    return builder.gep(data_of(context, builder, kind, table), [builder.mul(n, i64(NUM_COLUMNS))])


@intrinsic
def _tabulate_vector(typing, table, boxes, sources, first, width, height):
    """Fill in rows of the table, and boxes, of the splats that one vector holds; see `tabulate`."""
    signature = types.void(table, boxes, sources, *(types.int64,) * 3)
    reach = math.sqrt(-LEAST_EXPONENT / _HALF_LOG2_E)  # in standard deviations

    def generate(context, builder, signature, arguments):
        table_, boxes_, sources_, first_, width_, height_ = arguments
        stride = cgutils.unpack_tuple(builder, context.make_array(signature.args[2])(context, builder, sources_).shape)
        table_, boxes_, sources_ = (
            data_of(context, builder, kind, array)
            for kind, array in zip(signature.args[:3], arguments[:3], strict=True)
        )
        x, y, l1, l2, l3, cutoff, *colors = (
            load(builder, sources_, builder.add(builder.mul(stride[1], i64(k)), first_)) for k in range(NUM_SOURCES)
        )
        zero, one = constant(0.0), constant(1.0)

        def root(value):
            return call(builder, f"llvm.sqrt.v{LANES}f32", VEC, [value])

        def size(value):
            return call(builder, f"llvm.fabs.v{LANES}f32", VEC, [value])

        def bounded(value, low, high):
            return least(builder, largest(builder, value, constant(low)), constant(high))

        def power(exponent):
            return exp2(builder, bounded(exponent, LEAST_EXPONENT, -LEAST_EXPONENT))

        radius = root(largest(builder, cutoff, zero))
        square = builder.fmul(l3, l3)
        rate = builder.fneg(bounded(builder.fdiv(constant(_HALF_LOG2_E), square), _TINY, _HUGE))
        deviation_y = root(fma(builder, l2, l2, square))
        reach_x = bounded(builder.fmul(radius, size(l1)), 0.0, _HUGE)
        reach_y = bounded(builder.fmul(radius, deviation_y), 0.0, _HUGE)
        top_x = builder.fmul(builder.fmul(radius, l1), builder.fdiv(l2, deviation_y))
        aspect = builder.fdiv(l3, l1)
        # a lane within the ellipse at the end of a run must not begin it below the least exponent
        length = fma(builder, size(l3), builder.fsub(constant(reach), radius), one)
        length = builder.fptosi(bounded(length, 1.0, MOST_ROWS), INTS)
        length = builder.sitofp(builder.and_(length, ir.Constant(INTS, [-2] * LANES)), VEC)
        single = builder.fcmp_ordered("<", length, one)
        cut = power(builder.fmul(cutoff, constant(-_HALF_LOG2_E)))
        columns = {
            MEAN_X: x,
            MEAN_Y: y,
            HEIGHT: least(builder, builder.fmul(cutoff, square), constant(_HUGE)),
            TOP_X: bounded(top_x, -_HUGE, _HUGE),
            REACH_X: reach_x,
            LENGTH: builder.select(single, one, length),
            ASPECT: bounded(builder.fmul(aspect, aspect), _TINY, _HUGE),
            RATE: rate,
            SHEAR: bounded(builder.fdiv(l2, l1), -_HUGE, _HUGE),
            RATIO: power(builder.fmul(rate, constant(2.0))),
            RATIO_4: power(builder.fmul(rate, constant(8.0))),
            CUTOFF: cut,
            CUTOFF_ODD: builder.select(single, constant(math.inf), cut),
            **{COLORS + k: color for k, color in enumerate(colors)},
        }
        for lane, row in enumerate(transposed(builder, [columns[column] for column in range(NUM_COLUMNS)])):
            store(builder, row, table_, builder.mul(builder.add(first_, i64(lane)), i64(NUM_COLUMNS)))

        counts = builder.fcmp_ordered(">", cutoff, zero)
        tiles = []
        for center, reach_, samples, span in ((x, reach_x, width_, TILE_COLUMNS), (y, reach_y, height_, TILE_ROWS)):
            end = broadcast(builder, builder.sitofp(samples, ir.FloatType()))
            low = least(builder, largest(builder, builder.fsub(center, reach_), zero), end)
            high = largest(builder, least(builder, builder.fadd(center, reach_), builder.fsub(end, one)), constant(-1))
            low = builder.fptosi(call(builder, f"llvm.ceil.v{LANES}f32", VEC, [low]), INTS)
            high = builder.fptosi(call(builder, f"llvm.floor.v{LANES}f32", VEC, [high]), INTS)
            counts = builder.and_(counts, builder.icmp_signed("<=", low, high))
            shift = ir.Constant(INTS, [span.bit_length() - 1] * LANES)
            tiles += [builder.ashr(low, shift), builder.add(builder.ashr(high, shift), ir.Constant(INTS, [1] * LANES))]
        for side, tile in enumerate(tiles):
            offset = builder.add(builder.mul(stride[1], i64(side)), first_)
            address = builder.bitcast(builder.gep(boxes_, [offset]), INTS.as_pointer())
            builder.store(builder.select(counts, tile, ir.Constant(INTS, [0] * LANES)), address, align=4)
        return context.get_dummy_value()

    return signature, generate


@kernel(error_model="numpy")
def tabulate(table, boxes, sources, width, height):
    """Fill in a table [N, NUM_COLUMNS], and the tiles that each splat reaches, from what it is in one plane.

    N is a multiple of `LANES`.  Boxes are the first tile and one past the last across, then down, [4, N] int32, and
    empty for splats that do not count; sources are [NUM_SOURCES, N] float32.
    """
    for first in range(0, len(table), LANES):
        _tabulate_vector(table, boxes, sources, first, width, height)


@kernel(error_model="numpy")
def _span(low, high, size):
    """The samples of 0..size - 1 within [low, high], half open; empty where there are none."""
    most = f32(size - 1)
    if not (low <= most and high >= f32(0.0)):  # so not for a NaN
        return i32(0), i32(0)
    low = max(low, f32(0.0))
    first = i32(low)  # truncation: floor and ceil of what is not negative, without a call of libm
    return first + i32(f32(first) < low), i32(min(high, most)) + i32(1)


@kernel(error_model="numpy")
def bin_splats(boxes, width, height):
    """Which splats reach which tile, in stored order: starts [tiles + 1], entries (splat of each)."""
    across = (width + TILE_COLUMNS - 1) // TILE_COLUMNS
    down = (height + TILE_ROWS - 1) // TILE_ROWS
    starts = np.zeros(across * down + 2, np.int64)
    for n in range(boxes.shape[1]):
        for ty in range(boxes[2, n], boxes[3, n]):
            for tx in range(boxes[0, n], boxes[1, n]):
                starts[ty * across + tx + 2] += 1
    for tile in range(across * down):
        starts[tile + 2] += starts[tile + 1]
    entries = np.empty(starts[-1], np.int32)
    for n in range(boxes.shape[1]):
        for ty in range(boxes[2, n], boxes[3, n]):
            for tx in range(boxes[0, n], boxes[1, n]):
                tile = ty * across + tx + 1
                entries[starts[tile]] = n
                starts[tile] += 1
    return starts[:-1], entries


@kernel(error_model="numpy")
def columns_of(table, n, left, columns):
    """First column and one past the last of a tile that splat n can reach."""
    x = table[n, MEAN_X] - f32(left)
    return _span(x - table[n, REACH_X], x + table[n, REACH_X], columns)


@kernel(error_model="numpy")
def tile_box(tile, width, height):
    """Left, top, columns and rows of a tile."""
    across = (width + TILE_COLUMNS - 1) // TILE_COLUMNS
    left = (tile % across) * TILE_COLUMNS
    top = (tile // across) * TILE_ROWS
    return left, top, min(TILE_COLUMNS, width - left), min(TILE_ROWS, height - top)


@kernel()
def aligned(size):
    """Floats from the beginning of a cache line on, of any value."""
    whole = np.empty(size + LANES, f32)
    return whole[-(whole.ctypes.data // 4) % LANES :][:size]
