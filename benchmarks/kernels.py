"""How fast the CPU rasteriser is, and how near to what its arithmetic alone would take.

    python benchmarks/kernels.py peak     painting and pulling one run over and over: no bounds, no cache misses
    python benchmarks/kernels.py table    passes over N splats, picture sizes and threads, per sample that splats cover

Splats are random: in three equal layers, lengths about `--spread` times the distance between them, 4:2:0.  Times are
the least of `--repeats`, in milliseconds per pass of all planes: processor time on one thread, so that other work on
the machine does not count, else wall time, which is worth something on an idle machine only.  Blocks are the vectors
of 16 samples that a pass visits, and a ratio of 2 is twice what the peak needs for as many, on one thread, bounds and
bins and all.  The column `evaluate_ns` is what a Gaussian would take as an exponential rather than by the recurrence.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numba
import numpy as np
from experiment import LAYERS, parser_of
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from results_file import ResultsFile

from pgsvc_codec.picture import plane_grids, plane_groups
from pgsvc_codec.render import cpu
from pgsvc_codec.render.cpu.runs import NUM_MOMENTS, paint_runs, pull_runs
from pgsvc_codec.render.cpu.strips import MOST_RUNS, RUN_ENTRY, RUN_OFFSET, RUN_PAIRS, RUN_SIZE, plan
from pgsvc_codec.render.cpu.table import MOST_ROWS, NUM_COLUMNS, PITCH, TILE_FLOATS, aligned, tile_box
from pgsvc_codec.render.cpu.vectors import broadcast, constant, data_of, exp2, fma, i64, load, store
from pgsvc_codec.render.projection import project
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.objective import LevelTarget, Objective
from pgsvc_codec.video import VideoInfo

SIZES = ((768, 512), (1280, 720), (1920, 1080))
COUNTS = (1000, 3000, 5000, 9000, 12000, 18000, 27000)
PEAK_RUNS = 256


def least(run: Callable[[], object], repeats: int, threads: int = 1) -> float:
    """Seconds of the fastest of several calls after a first one; on one thread, those that it had the processor."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    run()
    best = math.inf
    for _ in range(repeats):
        started = clock()
        run()
        best = min(best, clock() - started)
    return best


def random_splats(count: int, width: int, height: int, spread: float) -> Splats:
    """Splats that cover a picture evenly."""
    rng = np.random.default_rng(count)
    length = spread * math.sqrt(width * height / count)
    lengths = rng.lognormal(math.log(length), 0.4, (count, 2))
    shear = rng.normal(0.0, length / 2, count)
    return Splats(
        rng.uniform(-1, 1, (count, 2)).astype(np.float32),
        np.stack([lengths[:, 0], shear, lengths[:, 1]], axis=1).astype(np.float32),
        rng.normal(0, 0.15, (count, 3)).astype(np.float32),
    )


def covered(splats: Splats, info: VideoInfo) -> float:
    """Samples within the ellipses, summed over splats and groups of planes; those beyond the borders included."""
    total = 0.0
    for grid, _ in plane_groups(plane_grids(info)):
        plane = project(splats, info.width, info.height, grid)
        areas = math.pi * np.abs(plane.cholesky[:, 0] * plane.cholesky[:, 2]) * np.maximum(plane.cutoff, 0.0)
        total += float(areas.sum())
    return total


@njit
def _paint(canvas, planes, runs):
    paint_runs(canvas, planes, runs, len(runs))


@njit
def _pull(pulled, planes, runs, moments):
    pull_runs(pulled, 0, planes, runs, len(runs), moments)


@njit
def _count(runs, strips, table, starts, entries, width, height):
    blocks = 0
    whole = runs.view(np.int32)
    for tile in range(len(starts) - 1):
        box = tile_box(tile, width, height)
        own = entries[starts[tile] : starts[tile + 1]]
        entry, count = 0, 1
        while count > 0:
            count, entry = plan(runs, strips, table, 1, own, entry, len(table), *box)
            for run in range(count):
                blocks += 2 * whole[run, RUN_PAIRS]
    return blocks


@intrinsic
def _evaluate_rows(typing, canvas, count):
    """Add to rows of a tile Gaussians that are an exponential each: a parabola, a polynomial, a power of two."""
    signature = types.void(canvas, types.int64)

    def generate(context, builder, signature, arguments):
        data = data_of(context, builder, signature.args[0], arguments[0])
        constants = [broadcast(builder, builder.load(builder.gep(data, [i64(k)]))) for k in range(4)]
        shift, floor, rate, cutoff = constants
        t_slot = cgutils.alloca_once_value(builder, shift)
        with cgutils.for_range(builder, arguments[1]) as loop:
            offset = builder.mul(builder.add(loop.index, i64(1)), i64(PITCH))
            t = builder.load(t_slot)
            builder.store(builder.fadd(t, constant(1.0)), t_slot)
            g = exp2(builder, fma(builder, builder.fmul(t, rate), t, floor))
            g = builder.select(builder.fcmp_ordered(">=", g, cutoff), g, constant(0.0))
            store(builder, builder.fadd(g, load(builder, data, offset)), data, offset)
        return context.get_dummy_value()

    return signature, generate


@njit
def _evaluate(canvas, rows, repeats):
    for _ in range(repeats):
        _evaluate_rows(canvas, rows)


def evaluation(repeats: int) -> float:
    """Nanoseconds per block of one plane if each Gaussian were an exponential."""
    canvas = aligned(TILE_FLOATS)
    canvas[:] = 0.0
    canvas[:4] = -8.0, -0.5, -0.01, 1e-3
    rows = MOST_ROWS // 2
    return 1e9 / (PEAK_RUNS * rows) * least(lambda: _evaluate(canvas, rows, PEAK_RUNS), repeats)


def peak(planes: int, repeats: int) -> tuple[float, float]:
    """Nanoseconds per block of painting and of pulling."""
    table = cpu._prepare(*_square(random_splats(1, 128, 64, 0.2)), slice(0, planes))[1]
    runs = aligned(PEAK_RUNS * RUN_SIZE).reshape(PEAK_RUNS, RUN_SIZE)
    runs[:, :NUM_COLUMNS] = table[0]
    runs[:, NUM_COLUMNS:] = 0.9  # Gaussians and their ratios
    whole = runs.view(np.int32)
    whole[:, [RUN_OFFSET, RUN_ENTRY]] = 0
    whole[:, RUN_PAIRS] = MOST_ROWS // 2
    canvas = aligned(TILE_FLOATS * planes)
    canvas[:] = 0.0
    moments = np.zeros((1, NUM_MOMENTS), np.float32)
    scale = 1e9 / (PEAK_RUNS * MOST_ROWS)
    painting = least(lambda: _paint(canvas, planes, runs), repeats)
    pulling = least(lambda: _pull(canvas, planes, runs, moments), repeats)
    return scale * painting, scale * pulling


def _square(splats: Splats):
    """The first arguments of a pass over one tile."""
    info = VideoInfo(128, 64)
    return splats, info.width, info.height, plane_grids(info)[0]


PEAK = ["planes", "paint_ns", "pull_ns", "evaluate_ns"]


def write_peak(results: ResultsFile, repeats: int) -> None:
    """A row for each number of planes."""
    for planes in (1, 2, 3):
        paint_ns, pull_ns = peak(planes, 10 * repeats)
        evaluate_ns = evaluation(10 * repeats) if planes == 1 else None
        results.add(planes=planes, paint_ns=paint_ns, pull_ns=pull_ns, evaluate_ns=evaluate_ns)


TABLE = [
    "width", "height", "splats", "threads", "million_covered", "million_blocks", "decode_ms", "step_ms", "joint_ms",
    "decode_ns_per_covered", "step_ns_per_covered", "decode_ratio", "step_ratio", "rasteriser_share",
]  # fmt: skip


def write_table(results: ResultsFile, repeats: int, spread: float) -> None:
    """A row for each size, number of splats and number of threads."""
    peaks = {planes: peak(planes, 10 * repeats) for planes in (1, 2)}
    for width, height in SIZES:
        for count in COUNTS:
            measured = measure(width, height, random_splats(count, width, height, spread), peaks, repeats)
            for row in measured:
                results.add(width=width, height=height, splats=count, **row)


def measure(width: int, height: int, splats: Splats, peaks: dict[int, tuple[float, float]], repeats: int):
    """Yield the measured values of one scene, for one thread and for all."""
    info = VideoInfo(width, height)
    grids = plane_grids(info)
    groups = plane_groups(grids)
    count = len(splats)
    ends = [count * (layer + 1) // LAYERS for layer in range(LAYERS)]
    rng = np.random.default_rng(1)
    picture = tuple(rng.uniform(0, 1, shape).astype(np.float32) for shape in info.plane_shapes)
    targets = [np.stack(picture[channels]) for _, channels in groups]
    background = np.full(3, 0.5, np.float32)
    objective = Objective((width, height), [LevelTarget(picture, grids)] * LAYERS, cpu)
    ones = [1.0] * LAYERS

    def decode() -> None:
        for grid, channels in groups:
            cpu.render(splats, width, height, grid, channels, background[channels], [count], info.max_code)

    def step() -> None:
        for (grid, channels), target in zip(groups, targets, strict=True):
            cpu.fit_step(splats, width, height, grid, channels, target, ends, ones, [1.0] * len(target))

    samples = covered(splats, info)
    blocks, paint_s, pull_s = 0, 0.0, 0.0
    runs = np.empty((MOST_RUNS, RUN_SIZE), np.float32)
    strips = np.empty((2, MOST_RUNS), np.int32)
    for grid, channels in groups:
        _, *binned = cpu._prepare(splats, width, height, grid, channels)
        own = _count(runs, strips, *binned, grid.width, grid.height)
        paint_ns, pull_ns = peaks[channels.stop - channels.start]
        blocks += own
        paint_s += own * paint_ns / 1e9
        pull_s += own * pull_ns / 1e9
    for threads in sorted({1, numba.config.NUMBA_NUM_THREADS}):
        numba.set_num_threads(threads)
        decoding, stepping = least(decode, repeats, threads), least(step, repeats, threads)
        joint = least(lambda: objective.step(splats, background, ends, ones), repeats, threads)
        yield {
            "threads": threads,
            "million_covered": samples / 1e6,
            "million_blocks": blocks / 1e6,
            "decode_ms": 1e3 * decoding,
            "step_ms": 1e3 * stepping,
            "joint_ms": 1e3 * joint,
            "decode_ns_per_covered": 1e9 * decoding / samples,
            "step_ns_per_covered": 1e9 * stepping / samples,
            "decode_ratio": decoding / paint_s if threads == 1 else None,
            "step_ratio": stepping / (paint_s + pull_s) if threads == 1 else None,
            "rasteriser_share": stepping / joint,
        }


def main() -> None:
    """Run one part and write its results."""
    parser = parser_of(__doc__)
    parser.add_argument("part", choices=("peak", "table"))
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--spread", type=float, default=0.45)
    options = parser.parse_args()
    if options.part == "peak":
        with ResultsFile("kernels-peak", PEAK) as results:
            write_peak(results, options.repeats)
    else:
        with ResultsFile("kernels", TABLE) as results:
            write_table(results, options.repeats, options.spread)


if __name__ == "__main__":
    main()
