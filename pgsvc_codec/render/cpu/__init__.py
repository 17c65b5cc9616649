"""The CPU rasteriser: tiles in parallel, splats in column strips of explicit SIMD, forward and backward (numba).

Shape of the work.  The plane is cut into tiles by its size alone; each tile paints the splats that reach it in stored
order, so results depend neither on the number of threads nor on who takes which tile.  Within a tile a splat is a row
of *strips*, one vector wide, and the kernels walk down a strip's rows between the ellipse's highest and lowest point
in it.  With the offset (dx, dy) from the mean and the shear k = l2 / l1, the exponent is a sum of two positive terms,

    q = dx^2 / l1^2 + t^2 / l3^2,    t = dy - k dx,

so thin splats lose no digits; and down a column, where dx stands still, it is a parabola in t.  The Gaussian then
follows a recurrence, ``g *= r; r *= c`` with one c for the whole splat: two multiplications take the place of an
exponential.  Even and odd rows have one each, so that neither waits for the other; a strip of an odd number of rows
visits one more.  It begins anew often enough that no sample inside the ellipse comes out of an underflow (`table`).

Gradients need only per-splat *moments* (see `reference.StepResult`); those of dx and t are those of the whitened
offsets, u1 = dx / l1 and u2 = t / l3, but for the scale.

Vectors (`vectors`) are what kernels are written in; `table` holds the splats of a plane, `strips` cuts those of a tile,
`runs` paints and pulls what was cut, `rows` is what is done to samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numba import get_num_threads
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from pgsvc_codec.jit import kernel
from pgsvc_codec.render.cpu.rows import accumulate, begin_row, weigh_row, write_row
from pgsvc_codec.render.cpu.runs import NUM_MOMENTS, paint_runs, pull_runs
from pgsvc_codec.render.cpu.strips import MOST_RUNS, RUN_SIZE, plan
from pgsvc_codec.render.cpu.table import (
    NUM_COLUMNS,
    NUM_SOURCES,
    PITCH,
    TILE_COLUMNS,
    TILE_FLOATS,
    TILE_ROWS,
    aligned,
    bin_splats,
    tabulate,
    tile_box,
)
from pgsvc_codec.render.cpu.vectors import LANES, data_of, i64
from pgsvc_codec.render.projection import project
from pgsvc_codec.render.reference import NUM_SHAPE_MOMENTS, StepResult
from pgsvc_codec.splats import Splats

if TYPE_CHECKING:
    from pgsvc_codec.picture import PlaneGrid

f32 = np.float32
i32 = np.int32


@intrinsic
def _take(typing, counter):
    """Add 1 to counter[0], atomically, and return what it was."""
    signature = types.int64(counter)

    def generate(context, builder, signature, arguments):
        data = data_of(context, builder, signature.args[0], arguments[0])
        return builder.atomic_rmw("add", data, i64(1), "monotonic")

    return signature, generate


@kernel(error_model="numpy")
def _render_tile(tile, canvas, runs, strips, table, ends, background, entries, width, height, max_code, out, size):
    """Paint one tile; see `_render_tiles`."""
    planes = len(background)
    box = tile_box(tile, width, height)
    left, top, columns, rows = box
    for row in range(rows):
        for k in range(planes):
            canvas[(row * planes + k) * PITCH : (row * planes + k + 1) * PITCH] = background[k]
    entry = 0
    for picture in range(len(ends)):
        count = 1
        while count > 0:
            count, entry = plan(runs, strips, table, planes, entries, entry, ends[picture], *box)
            paint_runs(canvas, planes, runs, count)
        for k in range(planes):
            for row in range(rows):
                place = ((picture * planes + k) * height + top + row) * width + left
                write_row(canvas, (row * planes + k) * PITCH, columns, max_code, out, place, size)


@kernel(nogil=True)
def _render_tiles(counter, table, ends, background, starts, entries, width, height, max_code, out, size):
    """Paint tiles while there are any; `out` takes the bytes of samples [pictures, C, height, width]."""
    canvas = aligned(TILE_FLOATS * len(background))
    runs = aligned(MOST_RUNS * RUN_SIZE).reshape(MOST_RUNS, RUN_SIZE)
    strips = np.empty((2, MOST_RUNS), i32)
    tile = _take(counter)
    while tile < len(starts) - 1:
        own = entries[starts[tile] : starts[tile + 1]]
        _render_tile(tile, canvas, runs, strips, table, ends, background, own, width, height, max_code, out, size)
        tile = _take(counter)


@kernel(error_model="numpy")
def _fit_tile(tile, canvas, pulled, plans, strips, table, ends, weights, target, entries, squared, moments):
    """Forward and, where there is room for moments, backward of one tile; see `_fit_tiles`."""
    levels = len(ends)
    planes, height, width = target.shape
    box = tile_box(tile, width, height)
    left, top, columns, rows = box
    size = TILE_FLOATS * planes  # of a level in `pulled`
    flat = target.reshape(-1)
    if columns < TILE_COLUMNS or rows < TILE_ROWS:  # strips read on past the last column and row
        pulled[:] = f32(0.0)
    for row in range(rows):
        for k in range(planes):
            source = (k * height + top + row) * width + left
            begin_row(canvas, (row * planes + k) * PITCH, flat, source, columns)
    firsts = np.zeros(levels, np.int64)  # entry of each level
    planned = np.zeros(levels, np.int64)  # runs of a level that stay planned; 0 where there are too many for that
    entry = 0
    for level in range(levels):
        firsts[level] = entry
        count, entry = plan(plans[level], strips, table, planes, entries, entry, ends[level], *box)
        planned[level] = count
        while count > 0:
            paint_runs(canvas, planes, plans[level], count)
            count, entry = plan(plans[level], strips, table, planes, entries, entry, ends[level], *box)
            if count > 0:
                planned[level] = 0
        for row in range(rows):
            for k in range(planes):
                place = (row * planes + k) * PITCH
                squares = weigh_row(canvas, place, columns, weights[level, k], pulled, level * size + place)
                squared[level, k] += squares
    if len(moments) == 0:
        return
    for level in range(levels - 2, -1, -1):  # R_l = sum over the levels from l on
        accumulate(pulled, level * size, size, rows * planes * PITCH)
    moments[:] = f32(0.0)
    for level in range(levels):
        entry, count = firsts[level], planned[level]
        if count > 0:
            pull_runs(pulled, level * size, planes, plans[level], count, moments)
            continue
        count = 1
        while count > 0:
            count, entry = plan(plans[level], strips, table, planes, entries, entry, ends[level], *box)
            pull_runs(pulled, level * size, planes, plans[level], count, moments)


@kernel(nogil=True)
def _fit_tiles(counter, table, ends, weights, target, starts, entries, squared, moments):
    """Forward and, where there is room for moments, backward of tiles while there are any.

    Squared errors go to [tiles, levels, C], moments of dx and t to [entries or none, NUM_MOMENTS].
    """
    planes, levels = len(target), len(ends)
    canvas = aligned(TILE_FLOATS * planes)
    pulled = aligned(levels * TILE_FLOATS * planes)
    pulled[:] = f32(0.0)
    plans = aligned(levels * MOST_RUNS * RUN_SIZE).reshape(levels, MOST_RUNS, RUN_SIZE)
    strips = np.empty((2, MOST_RUNS), i32)
    tile = _take(counter)
    while tile < len(starts) - 1:
        own = slice(starts[tile], starts[tile + 1])
        reached, pulls = entries[own], moments[own]
        _fit_tile(tile, canvas, pulled, plans, strips, table, ends, weights, target, reached, squared[tile], pulls)
        tile = _take(counter)


@kernel(error_model="numpy")
def _gather(moments, entries, cholesky, planes):
    """Sum the tiles' moments per splat, in the order of the tiles, and whiten them: [N, C + 5]."""
    total = np.zeros((len(cholesky), NUM_MOMENTS), f32)
    for entry in range(len(moments)):
        n = entries[entry]
        for k in range(NUM_MOMENTS):
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
    sources = np.zeros((NUM_SOURCES, count), f32)
    used = sources[:, : len(splats)]
    used[:2], used[2:5], used[5] = plane.means.T, plane.cholesky.T, plane.cutoff
    colors = splats.colors[:, channels].T
    np.multiply(colors, plane.gains, out=used[6 : 6 + len(colors)], casting="same_kind")
    table = aligned(count * NUM_COLUMNS).reshape(count, NUM_COLUMNS)
    boxes = np.empty((4, count), i32)
    tabulate(table, boxes, sources, grid.width, grid.height)
    return plane, table, *bin_splats(boxes, grid.width, grid.height)


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
    """See `Rasterizer.render`."""
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
    """See `Rasterizer.fit_step`."""
    plane, table, starts, entries = _prepare(splats, width, height, grid, channels)
    weights = (2.0 * np.outer(level_weights, channel_weights)).astype(f32)
    stops = np.array(ends, np.int64)
    source = np.ascontiguousarray(target, f32)
    squared = np.zeros((len(starts) - 1, *weights.shape))
    moments = np.empty((len(entries) if with_moments else 0, NUM_MOMENTS), f32)
    _share(_fit_tiles, table, stops, weights, source, starts, entries, squared, moments)
    pulled = plane.cholesky if with_moments else plane.cholesky[:0]
    return StepResult(squared.sum(axis=0), _gather(moments, entries, pulled, len(source)))
