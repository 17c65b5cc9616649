"""The CUDA rasteriser as everybody else knows one: `render` and `fit_step`, NumPy in and out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from threading import Lock
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from pgsvc_codec.picture import Frame, PlaneGrid, PlaneGroup
from pgsvc_codec.render.cuda.canvases import Canvas, Canvases, TileShape
from pgsvc_codec.render.cuda.frames import BatchPainter
from pgsvc_codec.render.cuda.raster import Raster
from pgsvc_codec.render.cuda.table import SplatTable, table_of
from pgsvc_codec.render.reference import NUM_SHAPE_MOMENTS, StepResult
from pgsvc_codec.splats import Splats

_Tag = TypeVar("_Tag")

_MOST_KEPT = 16  # rasters: of the planes and levels that are painted in turn
_LEAST_ROWS = 64
_ENTRIES_PER_ROW = 8  # room to begin with


class CudaRasterizer:
    """Kernels on one device; on the CPU they are interpreted.  See `rasterizer.Rasterizer`.

    Args:
        device: where it works.
        tile: see `Canvases`.
    """

    def __init__(self, device: torch.device, tile: TileShape | None = None) -> None:
        self.device = device
        self._tile = tile
        self._rasters: OrderedDict[tuple[object, ...], Raster] = OrderedDict()
        self._lock = Lock()  # rasters have buffers of their own, which threads would share

    def render(
        self,
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
        drawn = self.paint(splats, width, height, grid, channels, background, ends, max_code)
        planes: NDArray[np.floating | np.unsignedinteger] = drawn.cpu().numpy()
        return planes

    def paint(
        self,
        splats: Splats,
        width: int,
        height: int,
        grid: PlaneGrid,
        channels: slice,
        background: NDArray[np.floating],
        ends: Sequence[int],
        max_code: int = 0,
    ) -> torch.Tensor:
        """As `render`; what comes out stays on the device."""
        under = torch.from_numpy(np.array(background, np.float32)[None]).to(self.device)
        with self._lock:
            raster, table = self._prepare(splats, (width, height), grid, channels, ends)
            drawn = raster.paint(table, under, max_code)
            while self._grown(raster):
                raster.paint(table, under, max_code, out=drawn)
            return raster.canvases.planes(drawn, 0)

    def fit_step(
        self,
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
        wanted = torch.from_numpy(np.ascontiguousarray(target, np.float32)).to(self.device).flatten()
        weights = torch.from_numpy(np.outer(level_weights, channel_weights).astype(np.float32)[None]).to(self.device)
        planes = channels.stop - channels.start
        with self._lock:
            raster, table = self._prepare(splats, (width, height), grid, channels, ends)
            while True:
                squared_error = torch.zeros(1, len(ends), planes, dtype=torch.float64, device=self.device)
                moments = torch.zeros(raster.rows, splats.channels + NUM_SHAPE_MOMENTS, device=self.device)
                raster.fit(table, wanted, weights, squared_error, moments, with_moments=with_moments)
                if not self._grown(raster):
                    break
            pulled = moments[: len(splats) if with_moments else 0].cpu().numpy()
        columns = [*range(channels.start, channels.stop), *range(splats.channels, splats.channels + NUM_SHAPE_MOMENTS)]
        return StepResult(squared_error[0].cpu().numpy(), pulled[:, columns])

    def paint_frames(
        self,
        frames: Iterable[tuple[_Tag, Splats, NDArray[np.floating]]],
        size: tuple[int, int],
        groups: Sequence[PlaneGroup],
        max_code: int,
        num_frames: int,
    ) -> Iterator[tuple[_Tag, Frame]]:
        """Frames of one kind in order, several at a time; see `render.frames.BatchRasterizer`."""
        return BatchPainter(self.device, size, groups, max_code, num_frames).paint(frames)

    def _prepare(
        self, splats: Splats, size: tuple[int, int], grid: PlaneGrid, channels: slice, ends: Sequence[int]
    ) -> tuple[Raster, SplatTable]:
        """A raster with room for these splats, and the splats; one that has served before where there is one."""
        rows = _LEAST_ROWS
        while rows < len(splats):
            rows *= 2
        key = (size, grid, channels.start, channels.stop, len(ends), rows)
        raster = self._rasters.pop(key, None)
        if raster is None:
            slots = [*range(len(ends)), -1]  # splats beyond the last end are in no picture
            canvases = Canvases([Canvas(0, size, grid)], channels, slots, self.device, self._tile)
            raster = Raster(canvases, rows, _ENTRIES_PER_ROW * rows)
        self._rasters[key] = raster
        if len(self._rasters) > _MOST_KEPT:
            self._rasters.popitem(last=False)
        layers = np.searchsorted(np.asarray(ends), np.arange(len(splats)), side="right")
        return raster, table_of(splats, size, layers, rows, self.device)

    @staticmethod
    def _grown(raster: Raster) -> bool:
        """Whether there was too little room in the last launch; if so, there is more now."""
        wanted = int(raster.wanted)
        if wanted <= raster.entries:
            return False
        raster.fit_room(wanted)
        return True
