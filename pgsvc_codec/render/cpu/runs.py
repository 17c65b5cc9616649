"""Walks down the runs of a tile's strips: painting them, and pulling moments from residuals."""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from pgsvc_codec.render.cpu.strips import RUN_DX, RUN_DY, RUN_ENTRY, RUN_G, RUN_OFFSET, RUN_PAIRS, RUN_R, record_of
from pgsvc_codec.render.cpu.table import COLORS, CUTOFF, CUTOFF_ODD, PITCH, RATIO, RATIO_4, SHEAR
from pgsvc_codec.render.cpu.vectors import (
    I32,
    I64,
    RAMP,
    broadcast,
    constant,
    data_of,
    fma,
    i64,
    load,
    store,
    sum_vectors,
)
from pgsvc_codec.render.reference import NUM_SHAPE_MOMENTS

_MOST_PLANES = 3
NUM_MOMENTS = _MOST_PLANES + NUM_SHAPE_MOMENTS  # room for one entry's: 8, half a vector


class _Run:
    """One run of a strip: the registers that stay, and the walk down its rows, shared by both passes."""

    def __init__(self, builder, runs, index, planes):
        self.builder = builder
        self.planes = planes
        self.record = record_of(builder, runs, index)
        self.colors = [self.value(COLORS + k) for k in range(planes)]

    def value(self, column):
        """A value of the run in all lanes."""
        return broadcast(self.builder, self.builder.load(self.builder.gep(self.record, [i64(column)])))

    def whole(self, column):
        """One of the run's integers."""
        builder = self.builder
        address = builder.bitcast(builder.gep(self.record, [i64(column)]), I32.as_pointer())
        return builder.sext(builder.load(address), I64)

    def walk(self, pointer, body):
        """For each two rows call body(pointers, gs, insides): g is anything, even NaN, where it is not inside."""
        builder = self.builder
        ratio, ratio_4 = self.value(RATIO), self.value(RATIO_4)
        cutoffs = self.value(CUTOFF), self.value(CUTOFF_ODD)
        g, r = (load(builder, self.record, i64(place)) for place in (RUN_G, RUN_R))
        r_even = builder.fmul(r, builder.fmul(r, ratio))
        r_odd = builder.fmul(r_even, builder.fmul(ratio, ratio))
        gs = [cgutils.alloca_once_value(builder, value) for value in (g, builder.fmul(g, r))]
        rs = [cgutils.alloca_once_value(builder, value) for value in (r_even, r_odd)]
        at = cgutils.alloca_once_value(builder, pointer)
        with cgutils.for_range(builder, self.whole(RUN_PAIRS)):
            even = builder.load(at)
            odd, following = (builder.gep(even, [i64(rows * self.planes * PITCH)]) for rows in (1, 2))
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
        with builder.if_then(builder.icmp_signed("==", planes, i64(count))):
            emit(count)


@intrinsic
def paint_runs(typing, canvas, planes, runs, count):
    """Add `count` runs to every plane of a tile."""
    signature = types.void(canvas, types.int64, runs, types.int64)

    def generate(context, builder, signature, arguments):
        canvas_, runs_ = (data_of(context, builder, signature.args[k], arguments[k]) for k in (0, 2))

        def emit(planes):
            with cgutils.for_range(builder, arguments[3]) as loop:
                run = _Run(builder, runs_, loop.index, planes)

                def body(pointers, gs, insides):
                    for pointer, g, inside in zip(pointers, gs, insides, strict=True):
                        g = builder.select(inside, g, constant(0.0))
                        for k, color in enumerate(run.colors):
                            value = load(builder, pointer, i64(k * PITCH))
                            store(builder, fma(builder, g, color, value), pointer, i64(k * PITCH))

                run.walk(builder.gep(canvas_, [run.whole(RUN_OFFSET)]), body)

        _for_planes(builder, arguments[1], emit)
        return context.get_dummy_value()

    return signature, generate


def _pull_run(builder, pulled, run):
    """The moments of a run, a vector of lanes each: colour gradients, then w dx, w t, w dx², w dx t, w t².

    w is g * sum_k colour_k * residual_k.  The rows' offsets t are T - j, where j counts the rows from 1, the last one,
    up: sums of sums of w make the moments of j, and additions are cheaper here than products.  They run over pairs of
    rows, counted likewise by i: j is 2 i in the even row and 2 i - 1 in the odd one.
    """
    once, twice, thrice, odd_once, odd_twice = (cgutils.alloca_once_value(builder, constant(0.0)) for _ in range(5))
    alone = run.planes == 1  # then w is the colour times what its gradient sums
    colored = [once] if alone else [cgutils.alloca_once_value(builder, constant(0.0)) for _ in run.colors]

    def add(slots, value):
        for slot in slots:
            value = builder.fadd(builder.load(slot), value)
            builder.store(value, slot)

    def weigh(values):
        total = builder.fmul(values[0], run.colors[0])
        for value, color in zip(values[1:], run.colors[1:], strict=True):
            total = fma(builder, value, color, total)
        return total

    def body(pointers, gs, insides):
        def pull(pointer, g, inside, k):
            value = builder.fmul(g, load(builder, pointer, i64(k * PITCH)))
            return builder.select(inside, value, constant(0.0))

        even, odd = ([pull(*row, k) for k in range(run.planes)] for row in zip(pointers, gs, insides, strict=True))
        both = [builder.fadd(a, b) for a, b in zip(even, odd, strict=True)]
        if not alone:
            for slot, value in zip(colored, both, strict=True):
                add([slot], value)
        add([once, twice, thrice], both[0] if alone else weigh(both))
        add([odd_once, odd_twice], odd[0] if alone else weigh(odd))

    run.walk(builder.gep(pulled, [run.whole(RUN_OFFSET)]), body)
    sums = [builder.load(slot) for slot in colored]
    w, wi, half, odd, odd_i = (builder.load(slot) for slot in (once, twice, thrice, odd_once, odd_twice))
    if alone:
        w, wi, half, odd, odd_i = (builder.fmul(value, run.colors[0]) for value in (w, wi, half, odd, odd_i))
    dx = builder.fadd(run.value(RUN_DX), RAMP)
    first = builder.fsub(run.value(RUN_DY), builder.fmul(run.value(SHEAR), dx))
    pairs = broadcast(builder, builder.sitofp(run.whole(RUN_PAIRS), ir.FloatType()))
    end = fma(builder, pairs, constant(2.0), first)  # T
    wj = fma(builder, wi, constant(2.0), builder.fneg(odd))
    wii = fma(builder, half, constant(2.0), builder.fneg(wi))  # half is w i (i + 1) / 2
    wjj = fma(builder, builder.fsub(wii, odd_i), constant(4.0), odd)
    wt = builder.fsub(builder.fmul(w, end), wj)
    wtt = fma(builder, end, builder.fsub(wt, wj), wjj)
    wx = builder.fmul(w, dx)
    return [*sums, wx, wt, builder.fmul(wx, dx), builder.fmul(wt, dx), wtt]


@intrinsic
def pull_runs(typing, pulled, offset, planes, runs, count, moments):
    """Add the moments of `count` runs to those of their entries."""
    signature = types.void(pulled, types.int64, types.int64, runs, types.int64, moments)

    def generate(context, builder, signature, arguments):
        pulled_, runs_, moments_ = (data_of(context, builder, signature.args[k], arguments[k]) for k in (0, 3, 5))
        pulled_ = builder.gep(pulled_, [arguments[1]])

        def emit(planes):
            with cgutils.for_range(builder, arguments[4]) as loop:
                run = _Run(builder, runs_, loop.index, planes)
                entry = builder.gep(moments_, [builder.mul(run.whole(RUN_ENTRY), i64(NUM_MOMENTS))])
                total = sum_vectors(builder, _pull_run(builder, pulled_, run))
                address = builder.bitcast(entry, total.type.as_pointer())
                builder.store(builder.fadd(builder.load(address, align=4), total), address, align=4)

        _for_planes(builder, arguments[2], emit)
        return context.get_dummy_value()

    return signature, generate
