"""The rasteriser at 1920x1080: frames per second, a pass of all levels with its kernels, binning, tiles, roofline."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import torch

from gpu_parts import card
from gpu_parts.card import Ceilings
from gpu_parts.codec import material
from gpu_parts.scenes import Rasters, Scene, fitted, table_of
from gpu_parts.timing import Rows, at_least, device_ms, kernel_times
from pgsvc_codec.render.cuda.binning import Binning
from pgsvc_codec.render.cuda.canvases import TILE, TileShape
from pgsvc_codec.render.cuda.device import capture
from pgsvc_codec.render.cuda.gsplat_binning import GsplatBinning
from pgsvc_codec.render.cuda.table import SplatTable

SPLATS = (12_000, 27_000)
BATCH = 8
INPUTS = 4  # tables that take turns
ROUNDS = 40
RENDERED_FPS = 4000.0  # all three levels of each frame, at the fewer splats
TILES = (
    TileShape(16, 16, 32), TileShape(16, 8, 32), TileShape(32, 8, 32), TileShape(8, 8, 32), TileShape(32, 16, 64),
    TileShape(16, 16, 64), TileShape(32, 32, 128),
)  # fmt: skip
KERNELS_SHOWN = 14

# Operations of one sample and splat, read off the kernels: a Gaussian (and one power of two), then per plane.
GAUSSIAN, PAINTED, PULLED, SHAPE = 6, 2, 6, 5


class Work(NamedTuple):
    """What one pass over all grids counts up to."""

    entries: int  # splats of tiles
    tested: int  # samples at which a splat is evaluated, forward
    painted: int  # those that it reaches: no pass can do with fewer
    operations: float  # of a forward and backward pass over what is tested
    least_operations: float  # over what is painted
    bytes: float

    def floors_ms(self, ceilings: Ceilings) -> tuple[float, float]:
        """Time of the dearest of operations, powers of two and bytes at best: over what is tested, what is painted."""

        def floor(samples: int, operations: float) -> float:
            times = (operations / ceilings["fma"], 2 * samples / ceilings["exp2"], self.bytes / ceilings["bytes"])
            return 1e3 * max(times)

        return floor(self.tested, self.operations), floor(self.painted, self.least_operations)


def measure(rows: Rows, at: torch.device, *, tiny: bool) -> None:
    """Rows for both numbers of splats."""
    frames = material(tiny=tiny).full_hd
    if not frames:
        rows.add("raster", None, "", note="skipped: no picture in GPU_DATA")
        return
    rounds = 1 if tiny else ROUNDS
    ceilings = card.measure(rows, at, tiny=tiny)
    scenes = []
    for splats in SPLATS[:1] if tiny else SPLATS:
        scene = fitted(frames[0], splats, tiny=tiny)
        scenes.append(scene)
        what = f"{scene.frame.name}, {scene.splats} splats"
        with rows.trying(f"rendering: {what}"):
            is_held = splats == SPLATS[0]
            render(rows, scene, what, at, rounds, 2 if tiny else BATCH, is_held=is_held)
        with rows.trying(f"pass: {what}"):
            passes(rows, scene, what, at, rounds, ceilings)
        with rows.trying(f"binning: {what}"):
            binning(rows, scene, what, at, rounds)
    for tile in TILES[1:2] if tiny else TILES:
        with rows.trying(f"tiles of {tile.width}x{tile.height}, {tile.lanes} lanes"):
            sweep(rows, scenes[0], tile, at, rounds)
    with rows.trying("binning by gsplat"):  # last, for it is compiled on first use, which takes minutes
        gsplat_binning(rows, scene, what, at, rounds)


def inputs(scene: Scene, count: int, at: torch.device) -> list[SplatTable]:
    """Tables of `count` pictures that take turns: the scene moved a little further each time."""
    turns = INPUTS if at.type == "cuda" else 1
    return [table_of(scene, range(count * turn, count * (turn + 1)), at) for turn in range(turns)]


def rotating(work: Callable[[SplatTable], object], tables: list[SplatTable]) -> Callable[[int], None]:
    """A call that takes the tables in turn."""
    return lambda number: work(tables[number % len(tables)])


def replaying(work: Callable[[SplatTable], None], tables: list[SplatTable], at: torch.device) -> Callable[[int], None]:
    """Likewise, of graphs captured over each table."""
    for table in tables if at.type == "cuda" else []:
        work(table)
    graphs = [capture(lambda table=table: work(table), at) for table in tables]
    return lambda number: graphs[number % len(graphs)]()


def render(rows: Rows, scene: Scene, what: str, at: torch.device, rounds: int, batch: int, *, is_held: bool) -> None:
    """Frames per second, all levels of each."""
    target = at_least(RENDERED_FPS) if is_held else None
    for count in (1, batch):
        rasters = Rasters(scene, count, at)
        tables = inputs(scene, count, at)
        for name, run in (
            ("launches", rotating(rasters.paint, tables)),
            ("a graph", replaying(rasters.paint, tables, at)),
        ):
            fps = 1e3 * count / device_ms(run, at, rounds)
            rows.add(f"rendering by {name}, {count} in one: {what}", fps, "frames/s", target, "all levels of each")
        if count == 1:
            add_kernels(rows, f"rendering: {what}", kernel_times(rasters.paint, at, rounds))


def passes(rows: Rows, scene: Scene, what: str, at: torch.device, rounds: int, ceilings: Ceilings) -> None:
    """Forward and backward pass of all levels and planes, without the optimiser's step, and its roofline."""
    rasters = Rasters(scene, 1, at)
    tables = inputs(scene, 1, at)
    plain = device_ms(rotating(rasters.fit, tables), at, rounds)
    rows.add(f"pass by launches: {what}", plain, "ms", note="forward and backward, binning included")
    by_graph = device_ms(replaying(rasters.fit, tables, at), at, rounds)
    rows.add(f"pass by a graph: {what}", by_graph, "ms", note="forward and backward, binning included")
    spent = kernel_times(rasters.fit, at, rounds)
    add_kernels(rows, f"pass: {what}", spent)
    work = count_work(rasters)
    rows.add(f"entries: {what}", work.entries, "", note=f"{work.entries / scene.splats:.1f} tiles for each splat")
    rows.add(f"samples tested: {what}", work.tested / 1e6, "million")
    rows.add(f"samples painted: {what}", work.painted / 1e6, "million")
    rows.add(
        f"operations of a pass: {what}", work.operations / 1e9, "G", note=f"{work.least_operations / 1e9:.3g} at least"
    )
    rows.add(f"bytes of a pass: {what}", work.bytes / 1e6, "MB", note="a radix sort's passes not counted")
    floor, least = work.floors_ms(ceilings)
    rows.add(f"roofline of a pass: {what}", floor, "ms", note="of the samples tested, forward and backward")
    rows.add(f"roofline of samples painted: {what}", least, "ms")
    rows.add(f"pass by a graph over its roofline: {what}", by_graph / floor, "times")
    own = sum(microseconds for name, microseconds in spent.items() if name.startswith("fit"))
    if own:
        rows.add(f"kernel fit over the roofline: {what}", own / 1e3 / floor, "times")


def count_work(rasters: Rasters) -> Work:
    """Of a forward and backward pass; what threads hand to each other is not counted."""
    entries, tested, painted, operations, least, moved = 0, 0, 0, 0.0, 0.0, 0.0
    for raster in rasters.rasters:
        own, planes = raster.count(rasters.table), raster.canvases.num_channels
        both = GAUSSIAN + PAINTED * planes + GAUSSIAN + PULLED * planes + SHAPE
        entries += own.entries
        tested += own.tested
        painted += own.painted
        operations += own.tested * both
        least += own.painted * both
        moved += own.bin_bytes + own.fit_bytes
    return Work(entries, tested, painted, operations, least, moved)


def binning(rows: Rows, scene: Scene, what: str, at: torch.device, rounds: int) -> None:
    """Projection, entries, sort and bins of the full-size planes alone."""
    raster = Rasters(scene, 1, at).rasters[0]
    tables = inputs(scene, 1, at)
    own = Binning(raster.canvases, raster.rows)
    own.grow(raster.entries)
    wanted = torch.zeros_like(raster.wanted)

    def run(table: SplatTable) -> None:
        own.bin(table, wanted)

    by_graph = device_ms(replaying(run, tables, at), at, rounds)
    plain = device_ms(rotating(run, tables), at, rounds)
    rows.add(f"binning by our sort, a graph: {what}", by_graph, "ms", note="luma")
    rows.add(f"binning by our sort, launches: {what}", plain, "ms", note="luma")


def gsplat_binning(rows: Rows, scene: Scene, what: str, at: torch.device, rounds: int) -> None:
    """Likewise by gsplat, where it is installed."""
    if find_spec("gsplat") is None:
        rows.add(f"binning by gsplat: {what}", None, "ms", note="gsplat is not installed")
        return
    if at.type != "cuda":  # gsplat's binning runs nowhere else
        return
    raster = Rasters(scene, 1, at).rasters[0]
    lists = GsplatBinning(raster.canvases, raster.rows)
    lists.grow(raster.entries)
    wanted = torch.zeros_like(raster.wanted)
    milliseconds = device_ms(rotating(lambda table: lists.bin(table, wanted), inputs(scene, 1, at)), at, rounds)
    rows.add(f"binning by gsplat: {what}", milliseconds, "ms", note="luma; reads back to the host")


def sweep(rows: Rows, scene: Scene, tile: TileShape, at: torch.device, rounds: int) -> None:
    """A pass and a frame with other tiles."""
    rasters = Rasters(scene, 1, at, tile)
    tables = inputs(scene, 1, at)
    name = f"tiles of {tile.width}x{tile.height}, {tile.lanes} lanes"
    note = "as shipped" if tile == TILE else ""
    passed = device_ms(replaying(rasters.fit, tables, at), at, rounds)
    painted = device_ms(replaying(rasters.paint, tables, at), at, rounds)
    rows.add(f"pass, {name}", passed, "ms", note=note)
    rows.add(f"frame, {name}", painted, "ms", note=f"{rasters.entries} entries {note}")


def add_kernels(rows: Rows, what: str, spent: dict[str, float]) -> None:
    """Rows for the kernels that take longest."""
    for name, microseconds in list(spent.items())[:KERNELS_SHOWN]:
        rows.add(f"kernel {name[:60]}: {what}", microseconds, "us")
