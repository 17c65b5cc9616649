"""Rows of a tile: begun from a target, weighed, added up from level to level, written as samples."""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from pgsvc_codec.render.cpu.vectors import (
    I32,
    INTS,
    LANES,
    blocks,
    broadcast,
    call,
    constant,
    data_of,
    fma,
    i64,
    lane_sum,
    load,
    masked_load,
    store,
    vector_at,
)


@intrinsic
def begin_row(typing, canvas, offset, target, source, columns):
    """Set a row of a tile to minus the target."""
    signature = types.void(canvas, types.int64, target, types.int64, types.int64)

    def generate(context, builder, signature, arguments):
        canvas_, offset_, target_, source_, columns_ = arguments
        into = builder.gep(data_of(context, builder, signature.args[0], canvas_), [offset_])
        out_of = builder.gep(data_of(context, builder, signature.args[2], target_), [source_])

        def body(start, mask):
            value = masked_load(builder, vector_at(builder, out_of, start), mask)
            store(builder, builder.fneg(value), into, start)

        blocks(builder, columns_, body)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def weigh_row(typing, canvas, offset, columns, weight, pulled, place):
    """Store weight times a row of residuals; return the sum of their squares."""
    signature = types.float32(canvas, types.int64, types.int64, types.float32, pulled, types.int64)

    def generate(context, builder, signature, arguments):
        canvas_, offset_, columns_, weight_, pulled_, place_ = arguments
        out_of = builder.gep(data_of(context, builder, signature.args[0], canvas_), [offset_])
        into = builder.gep(data_of(context, builder, signature.args[4], pulled_), [place_])
        weight_v = broadcast(builder, weight_)
        squares = cgutils.alloca_once_value(builder, constant(0.0))

        def body(start, mask):
            value = masked_load(builder, vector_at(builder, out_of, start), mask)
            builder.store(fma(builder, value, value, builder.load(squares)), squares)
            store(builder, builder.fmul(value, weight_v), into, start)

        blocks(builder, columns_, body)
        return lane_sum(builder, builder.load(squares))

    return signature, generate


@intrinsic
def accumulate(typing, pulled, place, below, count):
    """Add to some rows of a level, a whole number of vectors, those of the next one, `below` floats on."""
    signature = types.void(pulled, types.int64, types.int64, types.int64)

    def generate(context, builder, signature, arguments):
        pulled_, place_, below_, count_ = arguments
        into = builder.gep(data_of(context, builder, signature.args[0], pulled_), [place_])
        out_of = builder.gep(into, [below_])
        with cgutils.for_range_slice(builder, i64(0), count_, i64(LANES)) as (start, _):
            store(builder, builder.fadd(load(builder, into, start), load(builder, out_of, start)), into, start)
        return context.get_dummy_value()

    return signature, generate


def _codes(builder, value, scale, bits):
    """Values clipped and rounded to integers."""
    for comparison, bound in ((">", constant(0.0)), ("<", constant(1.0))):
        value = builder.select(builder.fcmp_ordered(comparison, value, bound), value, bound)
    value = builder.fptosi(fma(builder, value, scale, constant(0.5)), INTS)
    return builder.trunc(value, ir.VectorType(ir.IntType(bits), LANES))


@intrinsic
def write_row(typing, canvas, offset, columns, max_code, out, place, size):
    """Write a row of a tile, as samples of `size` bytes: of 4, as they are; of 1 or 2, clipped and rounded to codes."""
    signature = types.void(canvas, types.int64, types.int64, types.float32, out, types.int64, types.int64)

    def generate(context, builder, signature, arguments):
        canvas_, offset_, columns_, max_code_, out_, place_, size_ = arguments
        out_of = builder.gep(data_of(context, builder, signature.args[0], canvas_), [offset_])
        into = builder.gep(data_of(context, builder, signature.args[4], out_), [builder.mul(place_, size_)])
        scale = broadcast(builder, max_code_)

        def emit(size):
            def body(start, mask):
                value = load(builder, out_of, start)
                value = value if size == 4 else _codes(builder, value, scale, 8 * size)
                pointer = builder.gep(into, [builder.mul(start, i64(size))])
                pointer = builder.bitcast(pointer, value.type.as_pointer())
                if mask is None:
                    builder.store(value, pointer, align=size)
                else:
                    name = f"llvm.masked.store.v{LANES}{'f' if size == 4 else 'i'}{8 * size}.p0"
                    call(builder, name, ir.VoidType(), [value, pointer, ir.Constant(I32, size), mask])

            blocks(builder, columns_, body)

        for size in (1, 2, 4):
            with builder.if_then(builder.icmp_signed("==", size_, i64(size))):
                emit(size)
        return context.get_dummy_value()

    return signature, generate
