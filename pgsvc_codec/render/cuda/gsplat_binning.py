"""The same bins from gsplat's tile binning: its lists of rectangles and tiles, of which our exact test keeps some.

gsplat reads the length of its lists back to the host, so that this can neither run ahead of the device nor be part of
a CUDA graph; `binning.Binning` can.
"""

from __future__ import annotations

import torch
import triton

from pgsvc_codec.render.cuda import kernels
from pgsvc_codec.render.cuda.binning import Bins, Projection
from pgsvc_codec.render.cuda.canvases import Canvases
from pgsvc_codec.render.cuda.table import SplatTable

_CULL_BLOCK = 256
_MOST_RANKS = 1 << 24  # depths are float32, which counts so far


class GsplatBinning:
    """Bins tables of splats by gsplat's `isect_tiles` and `isect_offset_encode`; tiles must be square.

    Its depth is the place in the order of the sum: slot, then row.

    Args:
        canvases: whose tiles.
        rows: of the tables.
    """

    def __init__(self, canvases: Canvases, rows: int) -> None:
        tile = canvases.tile
        assert tile.width == tile.height, "gsplat's tiles are square"
        assert canvases.num_slots * rows <= _MOST_RANKS, "depths would no longer be exact"
        self._canvases = canvases
        self._rows = rows
        self._projection = Projection(canvases, rows)
        self._most_across = max(-(-grid.width // tile.width) for _, _, grid in canvases.canvases)
        self._most_down = max(-(-grid.height // tile.height) for _, _, grid in canvases.canvases)
        self.entries = 0

    def grow(self, entries: int) -> None:
        """Keep so many entries."""
        self.entries = entries

    def rectangles(self, splats: SplatTable) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Canvas, cell and splat of every tile in a splat's rectangle, [listed] int32 each; by tile, slot and row.

        A cell is a tile of its canvas, row * tiles across the widest canvas + column.
        """
        from gsplat import isect_offset_encode, isect_tiles

        canvases, table = self._canvases, self._projection.table
        numbers = torch.arange(len(canvases.canvases), device=canvases.device)
        canvas = canvases.canvas_of_picture[splats.pictures.long()]
        slot = canvases.slots[splats.layers.long()]
        shown = (canvas == numbers[:, None]) & (slot >= 0) & (table[:, kernels.SQUARE.value] > 0)
        centers = table[:, : kernels.MEAN_Y.value + 1] + 0.5
        reach = table[:, [kernels.SIDE.value, kernels.REACH.value]].ceil().clamp(max=kernels.WIDEST.value)
        radii = torch.where(shown[..., None], reach, 0.0).to(torch.int32)
        depths = (slot * self._rows + torch.arange(self._rows, device=canvases.device)).to(torch.float32)
        many = len(canvases.canvases), self._rows
        _, ids, flat = isect_tiles(
            centers.expand(*many, 2).contiguous(), radii, depths.expand(many).contiguous(), canvases.tile.width,
            self._most_across, self._most_down,
        )  # fmt: skip
        offsets = isect_offset_encode(ids, len(canvases.canvases), self._most_across, self._most_down)
        place = torch.arange(len(flat), dtype=torch.int32, device=canvases.device)
        cell = torch.searchsorted(offsets.flatten(), place, right=True, out_int32=True) - 1
        canvas, cell = cell // (self._most_across * self._most_down), cell % (self._most_across * self._most_down)
        corner = torch.stack([cell % self._most_across, cell // self._most_across], dim=1) * canvases.tile.width
        own = (corner < canvases.shapes[canvas.long(), :2]).all(dim=1)  # gsplat gives all canvases tiles of the largest
        return canvas[own], cell[own], flat.to(torch.int32)[own] % self._rows

    def bin(self, splats: SplatTable, wanted: torch.Tensor) -> Bins:
        """See `Binner.bin`."""
        canvases, projection = self._canvases, self._projection
        projection.project(splats, wanted)
        canvas, cell, row = self.rectangles(splats)
        touched = torch.zeros_like(cell)
        if len(cell):
            kernels.cull[triton.cdiv(len(cell), _CULL_BLOCK),](
                canvases.shapes, projection.table, row, canvas, cell, touched, len(cell), self._most_across,
                tile_width=canvases.tile.width, tile_height=canvases.tile.height, block=_CULL_BLOCK,
                enable_fp_fusion=False,
            )  # fmt: skip
        kept = touched.bool()
        canvas, cell, row = canvas[kept], cell[kept], row[kept]
        places = torch.empty_like(row)
        places[torch.sort(row, stable=True).indices] = torch.arange(len(row), dtype=torch.int32, device=row.device)
        kept = places < self.entries
        canvas, cell, row, places = canvas[kept], cell[kept], row[kept], places[kept]
        across, first_tile = canvases.shapes[canvas.long(), 2:4].unbind(1)
        tile = first_tile + cell // self._most_across * across + cell % self._most_across
        key = tile * canvases.num_slots + canvases.slots[splats.layers[row.long()].long()]
        numbers = torch.arange(canvases.num_bins + 1, dtype=torch.int32, device=row.device)
        starts = torch.searchsorted(key.to(torch.int32), numbers, out_int32=True)
        return Bins(projection.table, projection.counts, projection.ends, starts, row, places)
