"""Painting and fitting on one device: `Canvases` full of splats, in launches that the host never waits for."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import triton

from pgsvc_codec.render.cuda import kernels
from pgsvc_codec.render.cuda.binning import Binner, Binning
from pgsvc_codec.render.cuda.canvases import Canvases
from pgsvc_codec.render.cuda.device import use
from pgsvc_codec.render.cuda.table import SplatTable
from pgsvc_codec.render.reference import NUM_SHAPE_MOMENTS

_SQUARES_BLOCK = 1024
_PARTS, _MANY_PARTS = 32, 128  # of a splat that are summed together
_INTERPRETED_BLOCK = 128  # splats, where the interpreter takes as long for one


class Counts(NamedTuple):
    """What one launch has to do at least, each byte read or written once per kernel."""

    entries: int  # splats of tiles
    tested: int  # samples at which a splat is evaluated: entries times the samples of a tile
    painted: int  # those within its rim, on the canvas
    bin_bytes: int  # to bin the splats; a radix sort's passes not counted
    paint_bytes: int  # to paint all slots, of float32
    fit_bytes: int  # forward and backward, without the binning


class Raster:
    """Paints and fits tables of a fixed number of rows on the same canvases, with room for a number of entries.

    An entry is a splat in a tile.  Where a table wants more entries than there is room for, what comes out is wrong:
    `wanted` says so, on the device, and the host may look at it whenever it likes, `grow` and try again.

    Launches are for torch's current stream.  One Raster serves one stream at a time.

    Args:
        canvases: what is painted.
        rows: N of the tables.
        entries: room.
        binning: a way to bin the tables; `GsplatBinning` is the other one.
    """

    def __init__(
        self, canvases: Canvases, rows: int, entries: int, binning: Callable[[Canvases, int], Binner] = Binning
    ) -> None:
        self.canvases = canvases
        self.rows = rows
        self._binning = binning(canvases, rows)
        tile = canvases.tile
        self._tile = {"tile_width": tile.width, "tile_height": tile.height, "lanes": tile.lanes}
        self._warps = max(1, tile.lanes // 32)
        device = canvases.device
        self.wanted = torch.zeros(1, dtype=torch.int64, device=device)  # most entries so far
        planes = canvases.num_slots * canvases.num_channels
        self._squares = torch.empty(planes, canvases.num_tiles, dtype=torch.float32, device=device)
        self.grow(entries)

    @property
    def entries(self) -> int:
        """The room that there is."""
        return self._binning.entries

    def grow(self, entries: int) -> None:
        """Make room for so many entries; what has been captured in a graph must be captured again."""
        self._binning.grow(entries)
        shape = max(self.entries, 1), kernels.NUM_MOMENTS.value
        # zeros, since columns that nobody writes are summed with the others
        self._parts = torch.zeros(shape, dtype=torch.float32, device=self.canvases.device)

    def fit_room(self, wanted: int) -> None:
        """As `grow`, for so many entries and a quarter more: what moves soon wants others."""
        self.grow(wanted + wanted // 4)

    def paint(
        self, splats: SplatTable, background: torch.Tensor, max_code: int, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The picture at each slot's end, which sums all slots up to it.

        Args:
            splats: of `rows` rows.
            background: [pictures, C] float32, C = channels of the canvases.
            max_code: 0 for the sums as they are; 255 or 1023 to have them clipped and rounded to code values.
            out: written; None: a new one.

        Returns:
            [num_slots, total] float32, uint8 or uint16; see `Canvases.planes`.
        """
        canvases = self.canvases
        assert background.is_contiguous()
        assert background.shape == (canvases.num_pictures, canvases.num_channels)
        if out is None:
            kind = torch.float32 if max_code == 0 else torch.uint8 if max_code <= 255 else torch.uint16
            out = torch.empty(canvases.num_slots, canvases.total, dtype=kind, device=canvases.device)
        with use(canvases.device):
            bins = self._binning.bin(splats, self.wanted)
            kernels.paint[canvases.num_tiles,](
                canvases.canvas_of_tile, canvases.shapes, canvases.begins, bins.table, bins.starts, bins.splats,
                background, out, canvases.total, canvases.num_slots, channels=canvases.num_channels,
                max_code=max_code, num_warps=self._warps, **self._tile,
            )  # fmt: skip
        return out

    def fit(
        self,
        splats: SplatTable,
        target: torch.Tensor,
        weights: torch.Tensor,
        squared_error: torch.Tensor,
        moments: torch.Tensor,
        *,
        with_moments: bool = True,
    ) -> None:
        """One forward and backward pass over all slots; see `reference.fit_step`.

        Args:
            splats: of `rows` rows.
            target: [total] float32 minus the background.
            weights: [pictures, num_slots, C] float32, level weight * channel weight.
            squared_error: [pictures, num_slots, C] float64, added to.
            moments: [rows, channels of a splat + 5] float32, added to: d loss / d colour in the columns of the
                canvases' channels, then the five of `reference.StepResult`.
            with_moments: False leaves the backward pass out, and the moments alone.
        """
        canvases = self.canvases
        channels = canvases.num_channels
        all_channels = splats.colors.shape[1]
        assert moments.shape == (self.rows, all_channels + NUM_SHAPE_MOMENTS)
        assert all(tensor.is_contiguous() for tensor in (target, weights, squared_error, moments))
        assert weights.shape == squared_error.shape == (canvases.num_pictures, canvases.num_slots, channels)
        assert target.shape == (canvases.total,)
        with use(canvases.device):
            bins = self._binning.bin(splats, self.wanted)
            kernels.fit[canvases.num_tiles,](
                canvases.canvas_of_tile, canvases.shapes, canvases.begins, bins.table, bins.starts, bins.splats,
                bins.places, target, weights, self._squares, self._parts, canvases.num_slots, canvases.num_tiles,
                channels=channels, with_moments=with_moments, num_warps=self._warps, **self._tile,
            )  # fmt: skip
            block = min(_SQUARES_BLOCK, triton.next_power_of_2(canvases.num_tiles))
            kernels.sum_squares[len(canvases.canvases), canvases.num_slots * channels](
                canvases.shapes, self._squares, squared_error, len(canvases.canvases), canvases.num_tiles,
                canvases.num_slots, channels=channels, block=block,
            )  # fmt: skip
            if with_moments:
                block = 1 if canvases.device.type != "cpu" else _INTERPRETED_BLOCK
                kernels.sum_moments[triton.cdiv(self.rows, block),](
                    bins.counts, bins.ends, self._parts, moments, self.rows, self.entries,
                    first_channel=canvases.channels.start, channels=channels, all_channels=all_channels, block=block,
                    stretch=_PARTS, long_stretch=_MANY_PARTS, num_warps=1,
                )  # fmt: skip

    def count(self, splats: SplatTable) -> Counts:
        """What a launch of these splats comes to; waits for the device."""
        canvases = self.canvases
        samples = torch.empty(canvases.num_tiles, dtype=torch.int32, device=canvases.device)
        with use(canvases.device):
            bins = self._binning.bin(splats, self.wanted)
            kernels.count_samples[canvases.num_tiles,](
                canvases.canvas_of_tile, canvases.shapes, canvases.begins, bins.table, bins.starts, bins.splats,
                samples, canvases.num_slots, num_warps=self._warps, **self._tile,
            )  # fmt: skip
        entries = int(bins.starts[-1])
        tile = canvases.tile.width * canvases.tile.height
        table = 4 * bins.table.numel()
        lists = 4 * entries + 4 * bins.starts.numel()
        source = sum(column.numel() * column.element_size() for column in splats)
        moments = 2 * 4 * self.rows * (splats.colors.shape[1] + NUM_SHAPE_MOMENTS)
        parts = 2 * 4 * entries * kernels.NUM_MOMENTS.value
        key = 2 if canvases.num_bins < 2**16 else 4
        return Counts(
            entries,
            entries * tile,
            int(samples.sum()),
            bin_bytes=source + 2 * table + 16 * self.rows + entries * (3 * key + 4 + 8 + 4 + 8),
            paint_bytes=table + lists + 4 * canvases.num_slots * canvases.total,
            fit_bytes=table + lists + 4 * entries + 4 * canvases.total + parts + moments + 8 * self._squares.numel(),
        )
