"""A tile's splats cut into strips, one vector wide, and those into runs, which are what is painted and pulled."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from pgsvc_codec.jit import kernel
from pgsvc_codec.render.cpu.table import (
    ASPECT,
    HEIGHT,
    LEAST_EXPONENT,
    LENGTH,
    MEAN_X,
    MEAN_Y,
    PITCH,
    RATE,
    REACH_X,
    SHEAR,
    TILE_COLUMNS,
    TILE_ROWS,
    TOP_X,
    columns_of,
    table_row,
)
from pgsvc_codec.render.cpu.vectors import (
    I32,
    I64,
    INTS,
    LANES,
    MASK,
    RAMP,
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
)

f32 = np.float32
i32 = np.int32

# A run is a strip's rows from one beginning of the recurrence to the next.  Its record: the splat's row of the table,
# what is the run's own (three int32, two float32) in place of the first columns, which only planning needs; then the
# vectors g and r of its first row.
RUN_OFFSET, RUN_PAIRS, RUN_ENTRY, RUN_DX, RUN_DY = range(5)
RUN_G, RUN_R, RUN_SIZE = LANES, 2 * LANES, 3 * LANES
_STRIPS = TILE_COLUMNS // LANES  # of one splat in a tile, at most
_ROOM = _STRIPS * (TILE_ROWS + 1)  # for the runs of one splat in a tile, whatever it looks like
MOST_RUNS = 2048  # that are planned at once
_AHEAD = 8  # entries from one that is planned to one whose row is asked for: rows of a tile lie far apart


def record_of(builder, runs, index):
    """Pointer to the record of a run."""
    return builder.gep(runs, [builder.mul(index, i64(RUN_SIZE))])


def _begin_run(builder, record, dx, dy, shear, aspect, rate):
    """Write the Gaussian of a run's first row, and what takes it to the next: 2^(rate (2 t + 1))."""
    t = builder.fsub(dy, builder.fmul(shear, dx))
    exponent = builder.fmul(rate, fma(builder, t, t, builder.fmul(builder.fmul(dx, dx), aspect)))
    counts = builder.fcmp_ordered(">=", exponent, constant(LEAST_EXPONENT))
    growth = fma(builder, builder.fadd(t, t), rate, rate)
    # only lanes that never count exceed these bounds, but must not come out as if they did; nor must a NaN
    for comparison, bound in (("<", -LEAST_EXPONENT), (">", LEAST_EXPONENT)):
        within = builder.fcmp_ordered(comparison, growth, constant(bound))
        growth = builder.select(within, growth, constant(bound))
    store(builder, builder.select(counts, exp2(builder, exponent), constant(0.0)), record, i64(RUN_G))
    store(builder, exp2(builder, growth), record, i64(RUN_R))


def _strip_rows(builder, scalar, first_x, top, rows):
    """First rows, then one past the last of a splat's strips in a tile: [2 * _STRIPS] int32; none where equal or less.

    Args:
        scalar: gives a column of the splat.
        first_x: column of the first strip in the plane, top: row of the tile in it, both float32.
        rows: of the tile, float32.
    """
    # of the strips' columns within the splat's reach, those where it reaches highest or lowest
    strips = [float(LANES * (lane % _STRIPS)) for lane in range(2 * _STRIPS)]
    signs = ir.Constant(VEC, [-1.0] * _STRIPS + [1.0] * _STRIPS)
    left = builder.fsub(
        builder.fadd(broadcast(builder, first_x), ir.Constant(VEC, strips)), broadcast(builder, scalar(MEAN_X))
    )
    reach = broadcast(builder, scalar(REACH_X))
    low = largest(builder, left, builder.fneg(reach))
    high = least(builder, builder.fadd(left, constant(LANES - 1)), reach)
    at = builder.fmul(signs, broadcast(builder, scalar(TOP_X)))
    at = least(builder, largest(builder, at, low), high)
    aspect, height, shear = (broadcast(builder, scalar(column)) for column in (ASPECT, HEIGHT, SHEAR))
    square = builder.fsub(height, builder.fmul(builder.fmul(at, at), aspect))
    half = call(builder, f"llvm.sqrt.v{LANES}f32", VEC, [largest(builder, square, constant(0.0))])
    edge = fma(builder, shear, at, broadcast(builder, builder.fsub(scalar(MEAN_Y), top)))
    edge = fma(builder, signs, half, edge)
    limit = broadcast(builder, rows)
    edge = least(builder, largest(builder, edge, constant(-1.0)), limit)  # so that a NaN has no rows
    whole = call(builder, f"llvm.floor.v{LANES}f32", VEC, [edge])
    # ceil of the first, floor + 1 of the last
    sides = ir.Constant(MASK, [False] * _STRIPS + [True] * _STRIPS)
    further = builder.or_(builder.fcmp_ordered("<", whole, edge), sides)
    whole = builder.fadd(whole, builder.select(further, constant(1.0), constant(0.0)))
    return builder.fptosi(least(builder, largest(builder, whole, constant(0.0)), limit), INTS)


@intrinsic
def _bound_strips(typing, strips, count, table, n, entry, begin, left, top, rows):
    """Write the strips of splat n from a column of a tile on behind those there are; as many as a tile can hold.

    A strip is two int32: its entry; its first row, one past its last, and its column, 8, 8 and 16 bits.
    """
    signature = types.void(strips, types.int64, table, *(types.int64,) * 6)
    lanes = ir.VectorType(I32, _STRIPS)

    def each(values):
        return ir.Constant(lanes, list(values))

    def all_lanes(builder, whole):
        vector = builder.insert_element(ir.Constant(lanes, ir.Undefined), builder.trunc(whole, I32), i64(0))
        return builder.shuffle_vector(vector, vector, each([0] * _STRIPS))

    def generate(context, builder, signature, arguments):
        strips_, count_, table_, n_, entry_, begin_, left_, top_, rows_ = arguments
        row = table_row(context, builder, signature.args[2], table_, n_)
        first_x, top, rows = (
            builder.sitofp(whole, ir.FloatType()) for whole in (builder.add(left_, begin_), top_, rows_)
        )
        bounds = _strip_rows(builder, lambda column: builder.load(builder.gep(row, [i64(column)])), first_x, top, rows)
        first, last = (
            builder.shuffle_vector(bounds, bounds, each(range(side, side + _STRIPS))) for side in (0, _STRIPS)
        )
        column = builder.add(all_lanes(builder, begin_), each(range(0, TILE_COLUMNS, LANES)))
        packed = builder.or_(first, builder.shl(last, each([8] * _STRIPS)))
        packed = builder.or_(packed, builder.shl(column, each([16] * _STRIPS)))
        place = builder.gep(data_of(context, builder, signature.args[0], strips_), [count_])
        for offset, value in ((0, all_lanes(builder, entry_)), (MOST_RUNS, packed)):
            address = builder.bitcast(builder.gep(place, [i64(offset)]), lanes.as_pointer())
            builder.store(value, address, align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def prefetch(typing, table, n):
    """Ask for splat n's row of the table before it is needed."""
    signature = types.void(table, types.int64)

    def generate(context, builder, signature, arguments):
        row = table_row(context, builder, signature.args[0], *arguments)
        hints = [ir.Constant(I32, hint) for hint in (0, 3, 1)]  # to read, into all caches, data
        call(builder, "llvm.prefetch.p0", ir.VoidType(), [builder.bitcast(row, ir.IntType(8).as_pointer()), *hints])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _cut_strips(typing, runs, strips, count, table, entries, planes, left, top):
    """Cut `count` strips into runs; return how many."""
    signature = types.int64(runs, strips, types.int64, table, entries, *(types.int64,) * 3)

    def generate(context, builder, signature, arguments):
        runs_, strips_, count_, table_, entries_, planes_, left_, top_ = arguments
        runs_, strips_, entries_ = (data_of(context, builder, signature.args[k], arguments[k]) for k in (0, 1, 4))

        def real(whole):
            return builder.sitofp(whole, ir.FloatType())

        def whole(pointer, *offsets):
            for offset in offsets:
                pointer = builder.gep(pointer, [offset])
            return builder.zext(builder.load(pointer), I64)

        planned = cgutils.alloca_once_value(builder, i64(0))
        with cgutils.for_range(builder, count_) as loop:
            entry = whole(strips_, loop.index)
            packed = whole(strips_, loop.index, i64(MOST_RUNS))
            y0 = builder.and_(packed, i64(255))
            y1 = builder.and_(builder.lshr(packed, i64(8)), i64(255))
            column = builder.lshr(packed, i64(16))
            row = table_row(context, builder, signature.args[3], table_, whole(entries_, entry))
            scalars = (builder.load(builder.gep(row, [i64(k)])) for k in (MEAN_X, MEAN_Y, LENGTH))
            mean_x, mean_y, length = scalars
            length = builder.fptosi(length, I64)
            shape = [broadcast(builder, builder.load(builder.gep(row, [i64(k)]))) for k in (SHEAR, ASPECT, RATE)]
            dx = builder.fsub(real(builder.add(left_, column)), mean_x)
            with cgutils.for_range_slice(builder, y0, y1, length) as (y, _):
                index = builder.load(planned)
                builder.store(builder.add(index, i64(1)), planned)
                record = record_of(builder, runs_, index)
                store(builder, load(builder, row, i64(0)), record, i64(0))
                rest = builder.sub(y1, y)
                rest = builder.select(builder.icmp_signed("<", rest, length), rest, length)
                for item, value in (
                    (RUN_OFFSET, builder.add(builder.mul(builder.mul(y, planes_), i64(PITCH)), column)),
                    (RUN_PAIRS, builder.lshr(builder.add(rest, i64(1)), i64(1))),
                    (RUN_ENTRY, entry),
                ):
                    address = builder.bitcast(builder.gep(record, [i64(item)]), I32.as_pointer())
                    builder.store(builder.trunc(value, I32), address)
                dy = builder.fsub(real(builder.add(top_, y)), mean_y)
                for item, value in ((RUN_DX, dx), (RUN_DY, dy)):
                    builder.store(value, builder.gep(record, [i64(item)]))
                dx_v = builder.fadd(broadcast(builder, dx), RAMP)
                _begin_run(builder, record, dx_v, broadcast(builder, dy), *shape)
        return builder.load(planned)

    return signature, generate


@kernel(error_model="numpy")
def plan(runs, strips, table, planes, entries, entry, end, left, top, columns, rows):
    """Cut entries, from one on and while they are before splat `end`, into as many runs as there is room for.

    First all strips, then all runs: what is cut into a number of parts that cannot be foreseen lies ready by then, and
    a wrong guess costs little.  Returns the number of runs, 0 once there are no more, and the entry that follows.
    """
    planned = 0
    while planned == 0 and entry < len(entries) and entries[entry] < end:  # splats may miss a tile within their box
        count, most = 0, 0
        while entry < len(entries) and entries[entry] < end and most <= MOST_RUNS - _ROOM:
            n = entries[entry]
            prefetch(table, entries[min(entry + _AHEAD, len(entries) - 1)])
            begin, stop = columns_of(table, n, left, columns)
            aligned = begin // LANES * LANES
            if (stop - aligned - 1) // LANES == (stop - begin - 1) // LANES:  # then it costs no further strip
                begin = aligned
            _bound_strips(strips, count, table, n, entry, begin, left, top, rows)
            own = (stop - begin + LANES - 1) // LANES
            most += own * (1 + i32(f32(TILE_ROWS) / table[n, LENGTH]))
            count += own
            entry += 1
        planned = _cut_strips(runs, strips, count, table, entries, planes, left, top)
    return planned, entry
