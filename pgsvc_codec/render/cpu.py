"""The CPU rasteriser: tiles in parallel, splats in column strips of explicit SIMD, forward and backward (numba).

Shape of the work.  The plane is cut into tiles by its size alone; each tile paints the splats that reach it in stored
order, so results depend neither on the number of threads nor on who takes which tile.  Within a tile a splat is a row
of *strips*, one vector wide, and the kernels walk down a strip's rows between the ellipse's highest and lowest point
in it.  With the offset (dx, dy) from the mean and the shear k = l2 / l1, the exponent is a sum of two positive terms,

    q = dx^2 / l1^2 + t^2 / l3^2,    t = dy - k dx,

so thin splats lose no digits; and down a column, where dx stands still, it is a parabola in t.  The Gaussian then
follows a recurrence, ``g *= r; r *= c`` with one c for the whole splat: two multiplications take the place of an
exponential.  Even and odd rows have one each, so that neither waits for the other; a strip of an odd number of rows
visits one more.  It begins anew often enough that no sample inside the ellipse comes out of an underflow (`_tabulate`).

Gradients need only per-splat *moments* (see `reference.StepResult`); those of dx and t are those of the whitened
offsets, u1 = dx / l1 and u2 = t / l3, but for the scale.

Vectors are LLVM's own: what numba makes of plain loops leaves most of such short rows to scalar remainders.
Kernels and everything they call live in this one file: numba's disk cache does not see edits elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from llvmlite import ir
from numba import get_num_threads, njit
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

LANES = 16  # floats per vector, columns per strip; LLVM splits it where the machine's are shorter
TILE_ROWS = 64
TILE_COLUMNS = 128  # a tile's planes and residuals stay in the second-level cache
_PITCH = TILE_COLUMNS + LANES  # floats per row of a tile: a strip may begin in its last column
_TILE_FLOATS = (TILE_ROWS + 1) * _PITCH  # per plane: rows are visited in pairs

# Streams may hold splats that float32 does not; nobody promises how those look (spec, "Conformance").
_TINY, _HUGE = 1e-30, 1e30
_HALF_LOG2_E = 0.5 / math.log(2.0)
# 2^f on [-1/2, 1/2] as a polynomial of least relative error among those that are 1 at 0, so that a splat larger than
# any plane is flat: 9e-8, under a unit in the last place of float32.
_EXP2 = (1.0, 0.6931469776, 0.240222421134, 0.0555073394296, 0.00967151194455, 0.00132646499784)
_LEAST_EXPONENT = -125.0  # of two; a Gaussian below is none
_MOST_ROWS = TILE_ROWS  # of one run of the recurrence, whose relative error grows with their square: 3e-5

# Columns of the per-splat table that the kernels read, float32: the geometry, then the colours of the planes.
(
    _MEAN_X,
    _MEAN_Y,
    _HEIGHT,  # t^2 of the ellipse where dx is 0
    _TOP_X,  # dx of its point of greatest y
    _REACH_X,  # its half width
    _LENGTH,  # rows after which the recurrence begins anew: even, or 1
    _ASPECT,  # (l3 / l1)^2
    _RATE,  # exponent of two per t^2, negative
    _SHEAR,  # k
    _RATIO,  # c
    _RATIO_4,  # c^4, the ratio of every other row's ratios
    _CUTOFF,  # least Gaussian that counts
    _CUTOFF_ODD,  # in odd rows: none if the length is 1
    _COLORS,
) = range(14)
_NUM_COLUMNS = LANES  # one cache line, and a square with the splats of a vector
_NUM_SOURCES = 9  # what the table is made from: mean x, y; l1, l2, l3; cut-off; up to three colours

# A run is a strip's rows from one beginning of the recurrence to the next.  Its record: the splat's row of the table,
# what is the run's own (three int32, two float32) in place of the first columns, which only planning needs; then the
# vectors g and r of its first row.
_RUN_OFFSET, _RUN_PAIRS, _RUN_ENTRY, _RUN_DX, _RUN_DY = range(5)
_RUN_G, _RUN_R, _RUN_SIZE = LANES, 2 * LANES, 3 * LANES
_STRIPS = TILE_COLUMNS // LANES  # of one splat in a tile, at most
_ROOM = _STRIPS * (TILE_ROWS + 1)  # for the runs of one splat in a tile, whatever it looks like
_MOST_RUNS = 2048  # that are planned at once
_AHEAD = 8  # entries from one that is planned to one whose row is asked for: rows of a tile lie far apart
_MOST_PLANES = 3
_NUM_MOMENTS = _MOST_PLANES + NUM_SHAPE_MOMENTS  # room for one entry's: 8, half a vector

_VEC = ir.VectorType(ir.FloatType(), LANES)
_INTS = ir.VectorType(ir.IntType(32), LANES)
_MASK = ir.VectorType(ir.IntType(1), LANES)
_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_RAMP = ir.Constant(_VEC, [float(lane) for lane in range(LANES)])


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_VEC, [float(value)] * LANES)


def _index(value: int) -> ir.Constant:
    return ir.Constant(_I64, value)


def _broadcast(builder, scalar):
    kind = ir.VectorType(scalar.type, LANES)
    vector = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(vector, ir.Constant(kind, ir.Undefined), ir.Constant(_INTS, [0] * LANES))


def _call(builder, name, result, arguments):
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(result, [argument.type for argument in arguments]), name
    )
    return builder.call(function, arguments)


def _fma(builder, a, b, c):
    return _call(builder, f"llvm.fma.v{LANES}f32", _VEC, [a, b, c])


def _lane_sum(builder, vector):
    signature = ir.FunctionType(ir.FloatType(), [ir.FloatType(), _VEC])
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.vector.reduce.fadd.v{LANES}f32")
    return builder.call(function, [ir.Constant(ir.FloatType(), 0.0), vector], fastmath=("reassoc",))


def _at(builder, pointer, offset):
    """The vector at a pointer to floats plus an offset in floats."""
    return builder.bitcast(builder.gep(pointer, [offset]), _VEC.as_pointer())


def _load(builder, pointer, offset):
    return builder.load(_at(builder, pointer, offset), align=4)


def _store(builder, value, pointer, offset):
    builder.store(value, _at(builder, pointer, offset), align=4)


def _data(context, builder, kind, array):
    """Pointer to the first element of an array."""
    return context.make_array(kind)(context, builder, array).data


def _exp2(builder, exponent):
    """2^exponent; anything where that is not a normal float."""
    shifter = _constant(1.5 * 2**23)  # leaves the nearest whole number in the low bits
    shifted = builder.fadd(exponent, shifter)
    fraction = builder.fsub(exponent, builder.fsub(shifted, shifter))
    mantissa = _constant(_EXP2[-1])
    for coefficient in _EXP2[-2::-1]:
        mantissa = _fma(builder, mantissa, fraction, _constant(coefficient))
    power = builder.shl(builder.bitcast(shifted, _INTS), ir.Constant(_INTS, [23] * LANES))
    return builder.bitcast(builder.add(builder.bitcast(mantissa, _INTS), power), _VEC)


def _largest(builder, value, bound):
    """The larger; the bound where the value is a NaN."""
    return builder.select(builder.fcmp_ordered(">", value, bound), value, bound)


def _least(builder, value, bound):
    """The smaller; the bound where the value is a NaN."""
    return builder.select(builder.fcmp_ordered("<", value, bound), value, bound)


def _record(builder, runs, index):
    return builder.gep(runs, [builder.mul(index, _index(_RUN_SIZE))])


def _begin_run(builder, record, dx, dy, shear, aspect, rate):
    """Write the Gaussian of a run's first row, and what takes it to the next: 2^(rate (2 t + 1))."""
    t = builder.fsub(dy, builder.fmul(shear, dx))
    exponent = builder.fmul(rate, _fma(builder, t, t, builder.fmul(builder.fmul(dx, dx), aspect)))
    counts = builder.fcmp_ordered(">=", exponent, _constant(_LEAST_EXPONENT))
    growth = _fma(builder, builder.fadd(t, t), rate, rate)
    # only lanes that never count exceed these bounds, but must not come out as if they did; nor must a NaN
    for comparison, bound in (("<", -_LEAST_EXPONENT), (">", _LEAST_EXPONENT)):
        within = builder.fcmp_ordered(comparison, growth, _constant(bound))
        growth = builder.select(within, growth, _constant(bound))
    _store(builder, builder.select(counts, _exp2(builder, exponent), _constant(0.0)), record, _index(_RUN_G))
    _store(builder, _exp2(builder, growth), record, _index(_RUN_R))


def _strip_rows(builder, scalar, first_x, top, rows):
    """First rows, then one past the last of a splat's strips in a tile: [2 * _STRIPS] int32; none where equal or less.

    Args:
        scalar: gives a column of the splat.
        first_x: column of the first strip in the plane, top: row of the tile in it, both float32.
        rows: of the tile, float32.
    """
    # of the strips' columns within the splat's reach, those where it reaches highest or lowest
    strips = [float(LANES * (lane % _STRIPS)) for lane in range(2 * _STRIPS)]
    signs = ir.Constant(_VEC, [-1.0] * _STRIPS + [1.0] * _STRIPS)
    left = builder.fsub(
        builder.fadd(_broadcast(builder, first_x), ir.Constant(_VEC, strips)), _broadcast(builder, scalar(_MEAN_X))
    )
    reach = _broadcast(builder, scalar(_REACH_X))
    low = _largest(builder, left, builder.fneg(reach))
    high = _least(builder, builder.fadd(left, _constant(LANES - 1)), reach)
    at = builder.fmul(signs, _broadcast(builder, scalar(_TOP_X)))
    at = _least(builder, _largest(builder, at, low), high)
    aspect, height, shear = (_broadcast(builder, scalar(column)) for column in (_ASPECT, _HEIGHT, _SHEAR))
    square = builder.fsub(height, builder.fmul(builder.fmul(at, at), aspect))
    half = _call(builder, f"llvm.sqrt.v{LANES}f32", _VEC, [_largest(builder, square, _constant(0.0))])
    edge = _fma(builder, shear, at, _broadcast(builder, builder.fsub(scalar(_MEAN_Y), top)))
    edge = _fma(builder, signs, half, edge)
    limit = _broadcast(builder, rows)
    edge = _least(builder, _largest(builder, edge, _constant(-1.0)), limit)  # so that a NaN has no rows
    whole = _call(builder, f"llvm.floor.v{LANES}f32", _VEC, [edge])
    # ceil of the first, floor + 1 of the last
    sides = ir.Constant(_MASK, [False] * _STRIPS + [True] * _STRIPS)
    further = builder.or_(builder.fcmp_ordered("<", whole, edge), sides)
    whole = builder.fadd(whole, builder.select(further, _constant(1.0), _constant(0.0)))
    return builder.fptosi(_least(builder, _largest(builder, whole, _constant(0.0)), limit), _INTS)


def _table_row(context, builder, kind, table, n):
    """Pointer to a splat's row of the table."""
    return builder.gep(_data(context, builder, kind, table), [builder.mul(n, _index(_NUM_COLUMNS))])


@intrinsic
def _bound_strips(typing, strips, count, table, n, entry, begin, left, top, rows):
    """Write the strips of splat n from a column of a tile on behind those there are; as many as a tile can hold.

    A strip is two int32: its entry; its first row, one past its last, and its column, 8, 8 and 16 bits.
    """
    signature = types.void(strips, types.int64, table, *(types.int64,) * 6)
    lanes = ir.VectorType(_I32, _STRIPS)

    def constant(values):
        return ir.Constant(lanes, list(values))

    def broadcast(builder, whole):
        vector = builder.insert_element(ir.Constant(lanes, ir.Undefined), builder.trunc(whole, _I32), _index(0))
        return builder.shuffle_vector(vector, vector, constant([0] * _STRIPS))

    def generate(context, builder, signature, arguments):
        strips_, count_, table_, n_, entry_, begin_, left_, top_, rows_ = arguments
        row = _table_row(context, builder, signature.args[2], table_, n_)
        first_x, top, rows = (
            builder.sitofp(whole, ir.FloatType()) for whole in (builder.add(left_, begin_), top_, rows_)
        )
        bounds = _strip_rows(
            builder, lambda column: builder.load(builder.gep(row, [_index(column)])), first_x, top, rows
        )
        first, last = (
            builder.shuffle_vector(bounds, bounds, constant(range(side, side + _STRIPS))) for side in (0, _STRIPS)
        )
        column = builder.add(broadcast(builder, begin_), constant(range(0, TILE_COLUMNS, LANES)))
        packed = builder.or_(first, builder.shl(last, constant([8] * _STRIPS)))
        packed = builder.or_(packed, builder.shl(column, constant([16] * _STRIPS)))
        place = builder.gep(_data(context, builder, signature.args[0], strips_), [count_])
        for offset, value in ((0, broadcast(builder, entry_)), (_MOST_RUNS, packed)):
            address = builder.bitcast(builder.gep(place, [_index(offset)]), lanes.as_pointer())
            builder.store(value, address, align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _prefetch(typing, table, n):
    """Ask for splat n's row of the table before it is needed."""
    signature = types.void(table, types.int64)

    def generate(context, builder, signature, arguments):
        row = _table_row(context, builder, signature.args[0], *arguments)
        hints = [ir.Constant(_I32, hint) for hint in (0, 3, 1)]  # to read, into all caches, data
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), [builder.bitcast(row, ir.IntType(8).as_pointer()), *hints])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _cut_strips(typing, runs, strips, count, table, entries, planes, left, top):
    """Cut `count` strips into runs; return how many."""
    signature = types.int64(runs, strips, types.int64, table, entries, *(types.int64,) * 3)

    def generate(context, builder, signature, arguments):
        runs_, strips_, count_, table_, entries_, planes_, left_, top_ = arguments
        runs_, strips_, entries_ = (_data(context, builder, signature.args[k], arguments[k]) for k in (0, 1, 4))

        def real(whole):
            return builder.sitofp(whole, ir.FloatType())

        def whole(pointer, *offsets):
            for offset in offsets:
                pointer = builder.gep(pointer, [offset])
            return builder.zext(builder.load(pointer), _I64)

        planned = cgutils.alloca_once_value(builder, _index(0))
        with cgutils.for_range(builder, count_) as loop:
            entry = whole(strips_, loop.index)
            packed = whole(strips_, loop.index, _index(_MOST_RUNS))
            y0 = builder.and_(packed, _index(255))
            y1 = builder.and_(builder.lshr(packed, _index(8)), _index(255))
            column = builder.lshr(packed, _index(16))
            row = _table_row(context, builder, signature.args[3], table_, whole(entries_, entry))
            scalars = (builder.load(builder.gep(row, [_index(k)])) for k in (_MEAN_X, _MEAN_Y, _LENGTH))
            mean_x, mean_y, length = scalars
            length = builder.fptosi(length, _I64)
            shape = [_broadcast(builder, builder.load(builder.gep(row, [_index(k)]))) for k in (_SHEAR, _ASPECT, _RATE)]
            dx = builder.fsub(real(builder.add(left_, column)), mean_x)
            with cgutils.for_range_slice(builder, y0, y1, length) as (y, _):
                index = builder.load(planned)
                builder.store(builder.add(index, _index(1)), planned)
                record = _record(builder, runs_, index)
                _store(builder, _load(builder, row, _index(0)), record, _index(0))
                rest = builder.sub(y1, y)
                rest = builder.select(builder.icmp_signed("<", rest, length), rest, length)
                for item, value in (
                    (_RUN_OFFSET, builder.add(builder.mul(builder.mul(y, planes_), _index(_PITCH)), column)),
                    (_RUN_PAIRS, builder.lshr(builder.add(rest, _index(1)), _index(1))),
                    (_RUN_ENTRY, entry),
                ):
                    address = builder.bitcast(builder.gep(record, [_index(item)]), _I32.as_pointer())
                    builder.store(builder.trunc(value, _I32), address)
                dy = builder.fsub(real(builder.add(top_, y)), mean_y)
                for item, value in ((_RUN_DX, dx), (_RUN_DY, dy)):
                    builder.store(value, builder.gep(record, [_index(item)]))
                dx_v = builder.fadd(_broadcast(builder, dx), _RAMP)
                _begin_run(builder, record, dx_v, _broadcast(builder, dy), *shape)
        return builder.load(planned)

    return signature, generate


class _Run:
    """One run of a strip: the registers that stay, and the walk down its rows, shared by both passes."""

    def __init__(self, builder, runs, index, planes):
        self.builder = builder
        self.planes = planes
        self.record = _record(builder, runs, index)
        self.colors = [self.value(_COLORS + k) for k in range(planes)]

    def value(self, column):
        """A value of the run in all lanes."""
        return _broadcast(self.builder, self.builder.load(self.builder.gep(self.record, [_index(column)])))

    def whole(self, column):
        """One of the run's integers."""
        builder = self.builder
        address = builder.bitcast(builder.gep(self.record, [_index(column)]), _I32.as_pointer())
        return builder.sext(builder.load(address), _I64)

    def walk(self, pointer, body):
        """For each two rows call body(pointers, gs, insides): g is anything, even NaN, where it is not inside."""
        builder = self.builder
        ratio, ratio_4 = self.value(_RATIO), self.value(_RATIO_4)
        cutoffs = self.value(_CUTOFF), self.value(_CUTOFF_ODD)
        g, r = (_load(builder, self.record, _index(place)) for place in (_RUN_G, _RUN_R))
        r_even = builder.fmul(r, builder.fmul(r, ratio))
        r_odd = builder.fmul(r_even, builder.fmul(ratio, ratio))
        gs = [cgutils.alloca_once_value(builder, value) for value in (g, builder.fmul(g, r))]
        rs = [cgutils.alloca_once_value(builder, value) for value in (r_even, r_odd)]
        at = cgutils.alloca_once_value(builder, pointer)
        with cgutils.for_range(builder, self.whole(_RUN_PAIRS)):
            even = builder.load(at)
            odd, following = (builder.gep(even, [_index(rows * self.planes * _PITCH)]) for rows in (1, 2))
            here, inside = [], []
            for g_slot, r_slot, cutoff in zip(gs, rs, cutoffs, strict=True):
                g, r = builder.load(g_slot), builder.load(r_slot)
                here.append(g)
                inside.append(builder.fcmp_ordered(">=", g, cutoff))
                builder.store(builder.fmul(g, r), g_slot)
                builder.store(builder.fmul(r, ratio_4), r_slot)
            body((even, odd), here, inside)
            builder.store(following, at)


def _for_planes(builder, planes, emit):
    """Code for each number of planes that there may be, of which one runs: kernels are compiled once for all."""
    for count in range(1, _MOST_PLANES + 1):
        with builder.if_then(builder.icmp_signed("==", planes, _index(count))):
            emit(count)


@intrinsic
def _paint_runs(typing, canvas, planes, runs, count):
    """Add `count` runs to every plane of a tile."""
    signature = types.void(canvas, types.int64, runs, types.int64)

    def generate(context, builder, signature, arguments):
        canvas_, runs_ = (_data(context, builder, signature.args[k], arguments[k]) for k in (0, 2))

        def emit(planes):
            with cgutils.for_range(builder, arguments[3]) as loop:
                run = _Run(builder, runs_, loop.index, planes)

                def body(pointers, gs, insides):
                    for pointer, g, inside in zip(pointers, gs, insides, strict=True):
                        g = builder.select(inside, g, _constant(0.0))
                        for k, color in enumerate(run.colors):
                            value = _load(builder, pointer, _index(k * _PITCH))
                            _store(builder, _fma(builder, g, color, value), pointer, _index(k * _PITCH))

                run.walk(builder.gep(canvas_, [run.whole(_RUN_OFFSET)]), body)

        _for_planes(builder, arguments[1], emit)
        return context.get_dummy_value()

    return signature, generate


def _sum_vectors(builder, vectors):
    """One vector of 8 whose lane k is the sum over all lanes of vectors[k]; at most 8 of them."""
    parts = [*vectors, *[_constant(0.0)] * (8 - len(vectors))]
    half = LANES // 2  # of the lanes that belong to one vector
    while len(parts) > 1:
        low = [lane // half * 2 * half + lane % half for lane in range(LANES)]
        high = [lane + half for lane in low]
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [
            builder.fadd(*(builder.shuffle_vector(a, b, ir.Constant(_INTS, lanes)) for lanes in (low, high)))
            for a, b in pairs
        ]
        half //= 2
    eight = ir.VectorType(ir.IntType(32), 8)
    ends = [
        builder.shuffle_vector(parts[0], parts[0], ir.Constant(eight, [2 * lane + side for lane in range(8)]))
        for side in range(2)
    ]
    return builder.fadd(*ends)


def _pull_run(builder, pulled, run):
    """The moments of a run, a vector of lanes each: colour gradients, then w dx, w t, w dx², w dx t, w t².

    w is g * sum_k colour_k * residual_k.  The rows' offsets t are T - j, where j counts the rows from 1, the last one,
    up: sums of sums of w make the moments of j, and additions are cheaper here than products.  They run over pairs of
    rows, counted likewise by i: j is 2 i in the even row and 2 i - 1 in the odd one.
    """
    once, twice, thrice, odd_once, odd_twice = (cgutils.alloca_once_value(builder, _constant(0.0)) for _ in range(5))
    alone = run.planes == 1  # then w is the colour times what its gradient sums
    colored = [once] if alone else [cgutils.alloca_once_value(builder, _constant(0.0)) for _ in run.colors]

    def add(slots, value):
        for slot in slots:
            value = builder.fadd(builder.load(slot), value)
            builder.store(value, slot)

    def weigh(values):
        total = builder.fmul(values[0], run.colors[0])
        for value, color in zip(values[1:], run.colors[1:], strict=True):
            total = _fma(builder, value, color, total)
        return total

    def body(pointers, gs, insides):
        def pull(pointer, g, inside, k):
            value = builder.fmul(g, _load(builder, pointer, _index(k * _PITCH)))
            return builder.select(inside, value, _constant(0.0))

        even, odd = ([pull(*row, k) for k in range(run.planes)] for row in zip(pointers, gs, insides, strict=True))
        both = [builder.fadd(a, b) for a, b in zip(even, odd, strict=True)]
        if not alone:
            for slot, value in zip(colored, both, strict=True):
                add([slot], value)
        add([once, twice, thrice], both[0] if alone else weigh(both))
        add([odd_once, odd_twice], odd[0] if alone else weigh(odd))

    run.walk(builder.gep(pulled, [run.whole(_RUN_OFFSET)]), body)
    sums = [builder.load(slot) for slot in colored]
    w, wi, half, odd, odd_i = (builder.load(slot) for slot in (once, twice, thrice, odd_once, odd_twice))
    if alone:
        w, wi, half, odd, odd_i = (builder.fmul(value, run.colors[0]) for value in (w, wi, half, odd, odd_i))
    dx = builder.fadd(run.value(_RUN_DX), _RAMP)
    first = builder.fsub(run.value(_RUN_DY), builder.fmul(run.value(_SHEAR), dx))
    pairs = _broadcast(builder, builder.sitofp(run.whole(_RUN_PAIRS), ir.FloatType()))
    end = _fma(builder, pairs, _constant(2.0), first)  # T
    wj = _fma(builder, wi, _constant(2.0), builder.fneg(odd))
    wii = _fma(builder, half, _constant(2.0), builder.fneg(wi))  # half is w i (i + 1) / 2
    wjj = _fma(builder, builder.fsub(wii, odd_i), _constant(4.0), odd)
    wt = builder.fsub(builder.fmul(w, end), wj)
    wtt = _fma(builder, end, builder.fsub(wt, wj), wjj)
    wx = builder.fmul(w, dx)
    return [*sums, wx, wt, builder.fmul(wx, dx), builder.fmul(wt, dx), wtt]


@intrinsic
def _pull_runs(typing, pulled, offset, planes, runs, count, moments):
    """Add the moments of `count` runs to those of their entries."""
    signature = types.void(pulled, types.int64, types.int64, runs, types.int64, moments)

    def generate(context, builder, signature, arguments):
        pulled_, runs_, moments_ = (_data(context, builder, signature.args[k], arguments[k]) for k in (0, 3, 5))
        pulled_ = builder.gep(pulled_, [arguments[1]])

        def emit(planes):
            with cgutils.for_range(builder, arguments[4]) as loop:
                run = _Run(builder, runs_, loop.index, planes)
                entry = builder.gep(moments_, [builder.mul(run.whole(_RUN_ENTRY), _index(_NUM_MOMENTS))])
                total = _sum_vectors(builder, _pull_run(builder, pulled_, run))
                address = builder.bitcast(entry, total.type.as_pointer())
                builder.store(builder.fadd(builder.load(address, align=4), total), address, align=4)

        _for_planes(builder, arguments[2], emit)
        return context.get_dummy_value()

    return signature, generate


def _blocks(builder, columns, body):
    """Call body(start, mask) for the vectors of a row; the mask is None where all lanes lie within the row."""
    whole = builder.and_(columns, _index(-LANES))
    with cgutils.for_range_slice(builder, _index(0), whole, _index(LANES)) as (start, _):
        body(start, None)
    with builder.if_then(builder.icmp_signed("<", whole, columns)):
        rest = _broadcast(builder, builder.trunc(builder.sub(columns, whole), _I32))
        lanes = ir.Constant(_INTS, list(range(LANES)))
        body(whole, builder.icmp_signed("<", lanes, rest))


def _masked_load(builder, pointer, mask):
    """Floats where the mask is set, else 0; a mask of None is all set."""
    if mask is None:
        return builder.load(pointer, align=4)
    name = f"llvm.masked.load.v{LANES}f32.p0"
    return _call(builder, name, _VEC, [pointer, ir.Constant(_I32, 4), mask, _constant(0.0)])


@intrinsic
def _begin_row(typing, canvas, offset, target, source, columns):
    """Set a row of a tile to minus the target."""
    signature = types.void(canvas, types.int64, target, types.int64, types.int64)

    def generate(context, builder, signature, arguments):
        canvas_, offset_, target_, source_, columns_ = arguments
        into = builder.gep(_data(context, builder, signature.args[0], canvas_), [offset_])
        out_of = builder.gep(_data(context, builder, signature.args[2], target_), [source_])

        def body(start, mask):
            value = _masked_load(builder, _at(builder, out_of, start), mask)
            _store(builder, builder.fneg(value), into, start)

        _blocks(builder, columns_, body)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _weigh_row(typing, canvas, offset, columns, weight, pulled, place):
    """Store weight times a row of residuals; return the sum of their squares."""
    signature = types.float32(canvas, types.int64, types.int64, types.float32, pulled, types.int64)

    def generate(context, builder, signature, arguments):
        canvas_, offset_, columns_, weight_, pulled_, place_ = arguments
        out_of = builder.gep(_data(context, builder, signature.args[0], canvas_), [offset_])
        into = builder.gep(_data(context, builder, signature.args[4], pulled_), [place_])
        weight_v = _broadcast(builder, weight_)
        squares = cgutils.alloca_once_value(builder, _constant(0.0))

        def body(start, mask):
            value = _masked_load(builder, _at(builder, out_of, start), mask)
            builder.store(_fma(builder, value, value, builder.load(squares)), squares)
            _store(builder, builder.fmul(value, weight_v), into, start)

        _blocks(builder, columns_, body)
        return _lane_sum(builder, builder.load(squares))

    return signature, generate


@intrinsic
def _accumulate(typing, pulled, place, below, count):
    """Add to some rows of a level, a whole number of vectors, those of the next one, `below` floats on."""
    signature = types.void(pulled, types.int64, types.int64, types.int64)

    def generate(context, builder, signature, arguments):
        pulled_, place_, below_, count_ = arguments
        into = builder.gep(_data(context, builder, signature.args[0], pulled_), [place_])
        out_of = builder.gep(into, [below_])
        with cgutils.for_range_slice(builder, _index(0), count_, _index(LANES)) as (start, _):
            _store(builder, builder.fadd(_load(builder, into, start), _load(builder, out_of, start)), into, start)
        return context.get_dummy_value()

    return signature, generate


def _codes(builder, value, scale, bits):
    """Values clipped and rounded to integers."""
    for comparison, bound in ((">", _constant(0.0)), ("<", _constant(1.0))):
        value = builder.select(builder.fcmp_ordered(comparison, value, bound), value, bound)
    value = builder.fptosi(_fma(builder, value, scale, _constant(0.5)), _INTS)
    return builder.trunc(value, ir.VectorType(ir.IntType(bits), LANES))


@intrinsic
def _write_row(typing, canvas, offset, columns, max_code, out, place, size):
    """Write a row of a tile, as samples of `size` bytes: of 4, as they are; of 1 or 2, clipped and rounded to codes."""
    signature = types.void(canvas, types.int64, types.int64, types.float32, out, types.int64, types.int64)

    def generate(context, builder, signature, arguments):
        canvas_, offset_, columns_, max_code_, out_, place_, size_ = arguments
        out_of = builder.gep(_data(context, builder, signature.args[0], canvas_), [offset_])
        into = builder.gep(_data(context, builder, signature.args[4], out_), [builder.mul(place_, size_)])
        scale = _broadcast(builder, max_code_)

        def emit(size):
            def body(start, mask):
                value = _load(builder, out_of, start)
                value = value if size == 4 else _codes(builder, value, scale, 8 * size)
                pointer = builder.gep(into, [builder.mul(start, _index(size))])
                pointer = builder.bitcast(pointer, value.type.as_pointer())
                if mask is None:
                    builder.store(value, pointer, align=size)
                else:
                    name = f"llvm.masked.store.v{LANES}{'f' if size == 4 else 'i'}{8 * size}.p0"
                    _call(builder, name, ir.VoidType(), [value, pointer, ir.Constant(_I32, size), mask])

            _blocks(builder, columns_, body)

        for size in (1, 2, 4):
            with builder.if_then(builder.icmp_signed("==", size_, _index(size))):
                emit(size)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _take(typing, counter):
    """Add 1 to counter[0], atomically, and return what it was."""
    signature = types.int64(counter)

    def generate(context, builder, signature, arguments):
        data = _data(context, builder, signature.args[0], arguments[0])
        return builder.atomic_rmw("add", data, _index(1), "monotonic")

    return signature, generate


def _transposed(builder, rows):
    """Sixteen vectors whose lanes are what those of `rows` have in one lane."""
    step = LANES // 2
    while step:
        low = [lane if not lane & step else LANES + lane - step for lane in range(LANES)]
        high = [lane + step if not lane & step else LANES + lane for lane in range(LANES)]
        swapped = list(rows)
        for lane in range(LANES):
            if not lane & step:
                pair = rows[lane], rows[lane + step]
                swapped[lane] = builder.shuffle_vector(*pair, ir.Constant(_INTS, low))
                swapped[lane + step] = builder.shuffle_vector(*pair, ir.Constant(_INTS, high))
        rows = swapped
        step //= 2
    return rows


@intrinsic
def _tabulate_vector(typing, table, boxes, sources, first, width, height):
    """Fill in rows of the table, and boxes, of the splats that one vector holds; see `_tabulate`."""
    signature = types.void(table, boxes, sources, *(types.int64,) * 3)
    reach = math.sqrt(-_LEAST_EXPONENT / _HALF_LOG2_E)  # in standard deviations

    def generate(context, builder, signature, arguments):
        table_, boxes_, sources_, first_, width_, height_ = arguments
        stride = cgutils.unpack_tuple(builder, context.make_array(signature.args[2])(context, builder, sources_).shape)
        table_, boxes_, sources_ = (
            _data(context, builder, kind, array) for kind, array in zip(signature.args[:3], arguments[:3], strict=True)
        )
        x, y, l1, l2, l3, cutoff, *colors = (
            _load(builder, sources_, builder.add(builder.mul(stride[1], _index(k)), first_))
            for k in range(_NUM_SOURCES)
        )
        zero, one = _constant(0.0), _constant(1.0)

        def root(value):
            return _call(builder, f"llvm.sqrt.v{LANES}f32", _VEC, [value])

        def size(value):
            return _call(builder, f"llvm.fabs.v{LANES}f32", _VEC, [value])

        def bounded(value, low, high):
            return _least(builder, _largest(builder, value, _constant(low)), _constant(high))

        def power(exponent):
            return _exp2(builder, bounded(exponent, _LEAST_EXPONENT, -_LEAST_EXPONENT))

        radius = root(_largest(builder, cutoff, zero))
        square = builder.fmul(l3, l3)
        rate = builder.fneg(bounded(builder.fdiv(_constant(_HALF_LOG2_E), square), _TINY, _HUGE))
        deviation_y = root(_fma(builder, l2, l2, square))
        reach_x = bounded(builder.fmul(radius, size(l1)), 0.0, _HUGE)
        reach_y = bounded(builder.fmul(radius, deviation_y), 0.0, _HUGE)
        top_x = builder.fmul(builder.fmul(radius, l1), builder.fdiv(l2, deviation_y))
        aspect = builder.fdiv(l3, l1)
        # a lane within the ellipse at the end of a run must not begin it below the least exponent
        length = _fma(builder, size(l3), builder.fsub(_constant(reach), radius), one)
        length = builder.fptosi(bounded(length, 1.0, _MOST_ROWS), _INTS)
        length = builder.sitofp(builder.and_(length, ir.Constant(_INTS, [-2] * LANES)), _VEC)
        single = builder.fcmp_ordered("<", length, one)
        cut = power(builder.fmul(cutoff, _constant(-_HALF_LOG2_E)))
        columns = {
            _MEAN_X: x,
            _MEAN_Y: y,
            _HEIGHT: _least(builder, builder.fmul(cutoff, square), _constant(_HUGE)),
            _TOP_X: bounded(top_x, -_HUGE, _HUGE),
            _REACH_X: reach_x,
            _LENGTH: builder.select(single, one, length),
            _ASPECT: bounded(builder.fmul(aspect, aspect), _TINY, _HUGE),
            _RATE: rate,
            _SHEAR: bounded(builder.fdiv(l2, l1), -_HUGE, _HUGE),
            _RATIO: power(builder.fmul(rate, _constant(2.0))),
            _RATIO_4: power(builder.fmul(rate, _constant(8.0))),
            _CUTOFF: cut,
            _CUTOFF_ODD: builder.select(single, _constant(math.inf), cut),
            **{_COLORS + k: color for k, color in enumerate(colors)},
        }
        for lane, row in enumerate(_transposed(builder, [columns[column] for column in range(_NUM_COLUMNS)])):
            _store(builder, row, table_, builder.mul(builder.add(first_, _index(lane)), _index(_NUM_COLUMNS)))

        counts = builder.fcmp_ordered(">", cutoff, zero)
        tiles = []
        for center, reach_, samples, span in ((x, reach_x, width_, TILE_COLUMNS), (y, reach_y, height_, TILE_ROWS)):
            end = _broadcast(builder, builder.sitofp(samples, ir.FloatType()))
            low = _least(builder, _largest(builder, builder.fsub(center, reach_), zero), end)
            high = _largest(
                builder, _least(builder, builder.fadd(center, reach_), builder.fsub(end, one)), _constant(-1)
            )
            low = builder.fptosi(_call(builder, f"llvm.ceil.v{LANES}f32", _VEC, [low]), _INTS)
            high = builder.fptosi(_call(builder, f"llvm.floor.v{LANES}f32", _VEC, [high]), _INTS)
            counts = builder.and_(counts, builder.icmp_signed("<=", low, high))
            shift = ir.Constant(_INTS, [span.bit_length() - 1] * LANES)
            tiles += [builder.ashr(low, shift), builder.add(builder.ashr(high, shift), ir.Constant(_INTS, [1] * LANES))]
        for side, tile in enumerate(tiles):
            offset = builder.add(builder.mul(stride[1], _index(side)), first_)
            address = builder.bitcast(builder.gep(boxes_, [offset]), _INTS.as_pointer())
            builder.store(builder.select(counts, tile, ir.Constant(_INTS, [0] * LANES)), address, align=4)
        return context.get_dummy_value()

    return signature, generate


@njit(cache=True, error_model="numpy")
def _tabulate(table, boxes, sources, width, height):
    """Fill in a table [N, _NUM_COLUMNS], and the tiles that each splat reaches, from what it is in one plane.

    N is a multiple of `LANES`.  Boxes are the first tile and one past the last across, then down, [4, N] int32, and
    empty for splats that do not count; sources are [_NUM_SOURCES, N] float32.
    """
    for first in range(0, len(table), LANES):
        _tabulate_vector(table, boxes, sources, first, width, height)


@njit(cache=True, error_model="numpy")
def _span(low, high, size):
    """The samples of 0..size - 1 within [low, high], half open; empty where there are none."""
    most = f32(size - 1)
    if not (low <= most and high >= f32(0.0)):  # so not for a NaN
        return i32(0), i32(0)
    low = max(low, f32(0.0))
    first = i32(low)  # truncation: floor and ceil of what is not negative, without a call of libm
    return first + i32(f32(first) < low), i32(min(high, most)) + i32(1)


@njit(cache=True, error_model="numpy")
def _bin(boxes, width, height):
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


@njit(cache=True, error_model="numpy")
def _columns(table, n, left, columns):
    """First column and one past the last of a tile that splat n can reach."""
    x = table[n, _MEAN_X] - f32(left)
    return _span(x - table[n, _REACH_X], x + table[n, _REACH_X], columns)


@njit(cache=True, error_model="numpy")
def _tile_box(tile, width, height):
    """Left, top, columns and rows of a tile."""
    across = (width + TILE_COLUMNS - 1) // TILE_COLUMNS
    left = (tile % across) * TILE_COLUMNS
    top = (tile // across) * TILE_ROWS
    return left, top, min(TILE_COLUMNS, width - left), min(TILE_ROWS, height - top)


@njit(cache=True, error_model="numpy")
def _plan(runs, strips, table, planes, entries, entry, end, left, top, columns, rows):
    """Cut entries, from one on and while they are before splat `end`, into as many runs as there is room for.

    First all strips, then all runs: what is cut into a number of parts that cannot be foreseen lies ready by then, and
    a wrong guess costs little.  Returns the number of runs, 0 once there are no more, and the entry that follows.
    """
    planned = 0
    while planned == 0 and entry < len(entries) and entries[entry] < end:  # splats may miss a tile within their box
        count, most = 0, 0
        while entry < len(entries) and entries[entry] < end and most <= _MOST_RUNS - _ROOM:
            n = entries[entry]
            _prefetch(table, entries[min(entry + _AHEAD, len(entries) - 1)])
            begin, stop = _columns(table, n, left, columns)
            aligned = begin // LANES * LANES
            if (stop - aligned - 1) // LANES == (stop - begin - 1) // LANES:  # then it costs no further strip
                begin = aligned
            _bound_strips(strips, count, table, n, entry, begin, left, top, rows)
            own = (stop - begin + LANES - 1) // LANES
            most += own * (1 + i32(f32(TILE_ROWS) / table[n, _LENGTH]))
            count += own
            entry += 1
        planned = _cut_strips(runs, strips, count, table, entries, planes, left, top)
    return planned, entry


@njit(cache=True)
def _aligned(size):
    """Floats from the beginning of a cache line on, of any value."""
    whole = np.empty(size + LANES, f32)
    return whole[-(whole.ctypes.data // 4) % LANES :][:size]


@njit(cache=True, error_model="numpy")
def _render_tile(tile, canvas, runs, strips, table, ends, background, entries, width, height, max_code, out, size):
    """Paint one tile; see `_render_tiles`."""
    planes = len(background)
    box = _tile_box(tile, width, height)
    left, top, columns, rows = box
    for row in range(rows):
        for k in range(planes):
            canvas[(row * planes + k) * _PITCH : (row * planes + k + 1) * _PITCH] = background[k]
    entry = 0
    for picture in range(len(ends)):
        count = 1
        while count > 0:
            count, entry = _plan(runs, strips, table, planes, entries, entry, ends[picture], *box)
            _paint_runs(canvas, planes, runs, count)
        for k in range(planes):
            for row in range(rows):
                place = ((picture * planes + k) * height + top + row) * width + left
                _write_row(canvas, (row * planes + k) * _PITCH, columns, max_code, out, place, size)


@njit(cache=True, nogil=True)
def _render_tiles(counter, table, ends, background, starts, entries, width, height, max_code, out, size):
    """Paint tiles while there are any; `out` takes the bytes of samples [pictures, C, height, width]."""
    canvas = _aligned(_TILE_FLOATS * len(background))
    runs = _aligned(_MOST_RUNS * _RUN_SIZE).reshape(_MOST_RUNS, _RUN_SIZE)
    strips = np.empty((2, _MOST_RUNS), i32)
    tile = _take(counter)
    while tile < len(starts) - 1:
        own = entries[starts[tile] : starts[tile + 1]]
        _render_tile(tile, canvas, runs, strips, table, ends, background, own, width, height, max_code, out, size)
        tile = _take(counter)


@njit(cache=True, error_model="numpy")
def _fit_tile(tile, canvas, pulled, plans, strips, table, ends, weights, target, entries, squared, moments):
    """Forward and, where there is room for moments, backward of one tile; see `_fit_tiles`."""
    levels = len(ends)
    planes, height, width = target.shape
    box = _tile_box(tile, width, height)
    left, top, columns, rows = box
    size = _TILE_FLOATS * planes  # of a level in `pulled`
    flat = target.reshape(-1)
    if columns < TILE_COLUMNS or rows < TILE_ROWS:  # strips read on past the last column and row
        pulled[:] = f32(0.0)
    for row in range(rows):
        for k in range(planes):
            source = (k * height + top + row) * width + left
            _begin_row(canvas, (row * planes + k) * _PITCH, flat, source, columns)
    firsts = np.zeros(levels, np.int64)  # entry of each level
    planned = np.zeros(levels, np.int64)  # runs of a level that stay planned; 0 where there are too many for that
    entry = 0
    for level in range(levels):
        firsts[level] = entry
        count, entry = _plan(plans[level], strips, table, planes, entries, entry, ends[level], *box)
        planned[level] = count
        while count > 0:
            _paint_runs(canvas, planes, plans[level], count)
            count, entry = _plan(plans[level], strips, table, planes, entries, entry, ends[level], *box)
            if count > 0:
                planned[level] = 0
        for row in range(rows):
            for k in range(planes):
                place = (row * planes + k) * _PITCH
                squares = _weigh_row(canvas, place, columns, weights[level, k], pulled, level * size + place)
                squared[level, k] += squares
    if len(moments) == 0:
        return
    for level in range(levels - 2, -1, -1):  # R_l = sum over the levels from l on
        _accumulate(pulled, level * size, size, rows * planes * _PITCH)
    moments[:] = f32(0.0)
    for level in range(levels):
        entry, count = firsts[level], planned[level]
        if count > 0:
            _pull_runs(pulled, level * size, planes, plans[level], count, moments)
            continue
        count = 1
        while count > 0:
            count, entry = _plan(plans[level], strips, table, planes, entries, entry, ends[level], *box)
            _pull_runs(pulled, level * size, planes, plans[level], count, moments)


@njit(cache=True, nogil=True)
def _fit_tiles(counter, table, ends, weights, target, starts, entries, squared, moments):
    """Forward and, where there is room for moments, backward of tiles while there are any.

    Squared errors go to [tiles, levels, C], moments of dx and t to [entries or none, _NUM_MOMENTS].
    """
    planes, levels = len(target), len(ends)
    canvas = _aligned(_TILE_FLOATS * planes)
    pulled = _aligned(levels * _TILE_FLOATS * planes)
    pulled[:] = f32(0.0)
    plans = _aligned(levels * _MOST_RUNS * _RUN_SIZE).reshape(levels, _MOST_RUNS, _RUN_SIZE)
    strips = np.empty((2, _MOST_RUNS), i32)
    tile = _take(counter)
    while tile < len(starts) - 1:
        own = slice(starts[tile], starts[tile + 1])
        reached, pulls = entries[own], moments[own]
        _fit_tile(tile, canvas, pulled, plans, strips, table, ends, weights, target, reached, squared[tile], pulls)
        tile = _take(counter)


@njit(cache=True, error_model="numpy")
def _gather(moments, entries, cholesky, planes):
    """Sum the tiles' moments per splat, in the order of the tiles, and whiten them: [N, C + 5]."""
    total = np.zeros((len(cholesky), _NUM_MOMENTS), f32)
    for entry in range(len(moments)):
        n = entries[entry]
        for k in range(_NUM_MOMENTS):
            total[n, k] += moments[entry, k]
    for n in range(len(total)):
        i1, i3 = f32(1.0 / cholesky[n, 0]), f32(1.0 / cholesky[n, 2])
        total[n, planes] *= i1
        total[n, planes + 1] *= i3
        total[n, planes + 2] *= i1 * i1
        total[n, planes + 3] *= i1 * i3
        total[n, planes + 4] *= i3 * i3
    return total[:, : planes + NUM_SHAPE_MOMENTS]


@cache
def _helpers() -> ThreadPoolExecutor:
    """Threads beside the caller's own."""
    return ThreadPoolExecutor(thread_name_prefix="rasteriser")


def _keep_freed_memory() -> None:
    """Have the allocator keep what one pass frees for the next: fresh pages can take longer than the work on them.

    glibc returns memory to the system by the size of the largest block, below 32 MiB, that it has mapped and unmapped.
    """
    np.empty(31 << 20, np.uint8)


_keep_freed_memory()


def _share(kernel, *arguments) -> None:
    """Run a kernel on all threads at once; they take tiles from one counter."""
    counter = np.zeros(1, np.int64)
    helpers = [_helpers().submit(kernel, counter, *arguments) for _ in range(get_num_threads() - 1)]
    kernel(counter, *arguments)
    for helper in helpers:
        helper.result()


def _prepare(splats: Splats, width: int, height: int, grid: PlaneGrid, channels: slice):
    """What every pass starts from: the splats on this grid, their table, the bins."""
    plane = project(splats, width, height, grid)
    count = -(-len(splats) // LANES) * LANES  # those that fill the last vector do not count
    sources = np.zeros((_NUM_SOURCES, count), f32)
    used = sources[:, : len(splats)]
    used[:2], used[2:5], used[5] = plane.means.T, plane.cholesky.T, plane.cutoff
    colors = splats.colors[:, channels].T
    np.multiply(colors, plane.gains, out=used[6 : 6 + len(colors)], casting="same_kind")
    table = _aligned(count * _NUM_COLUMNS).reshape(count, _NUM_COLUMNS)
    boxes = np.empty((4, count), i32)
    _tabulate(table, boxes, sources, grid.width, grid.height)
    return plane, table, *_bin(boxes, grid.width, grid.height)


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
    _, table, starts, entries = _prepare(splats, width, height, grid, channels)
    under = np.array(background, f32)
    stops = np.array(ends, np.int64)
    dtype = np.dtype(f32 if max_code == 0 else np.uint8 if max_code <= 255 else np.uint16)
    out = np.empty((len(stops), len(under), grid.height, grid.width), dtype)
    samples = out.reshape(-1).view(np.uint8), dtype.itemsize
    size = grid.width, grid.height
    _share(_render_tiles, table, stops, under, starts, entries, *size, f32(max_code), *samples)
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
    *,
    with_moments: bool = True,
) -> StepResult:
    """As `reference.fit_step`, in float32: all levels for one render and one backward pass.

    Without `with_moments` there is no backward pass, and the moments are those of no splats, [0, C + 5].
    """
    plane, table, starts, entries = _prepare(splats, width, height, grid, channels)
    weights = (2.0 * np.outer(level_weights, channel_weights)).astype(f32)
    stops = np.array(ends, np.int64)
    source = np.ascontiguousarray(target, f32)
    squared = np.zeros((len(starts) - 1, *weights.shape))
    moments = np.empty((len(entries) if with_moments else 0, _NUM_MOMENTS), f32)
    _share(_fit_tiles, table, stops, weights, source, starts, entries, squared, moments)
    pulled = plane.cholesky if with_moments else plane.cholesky[:0]
    return StepResult(squared.sum(axis=0), _gather(moments, entries, pulled, len(source)))
