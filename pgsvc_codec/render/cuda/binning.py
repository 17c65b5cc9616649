"""Which splats each tile paints: bins of (tile, slot), in the order of the splats, without a word from the host."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
import triton

from pgsvc_codec.render.cuda import kernels
from pgsvc_codec.render.cuda.canvases import Canvases
from pgsvc_codec.render.cuda.table import SplatTable

_BLOCK, _STRETCH = 4, 32  # splats of a program, bands of tiles that it looks at together
_INTERPRETED_BLOCK = 256  # the interpreter takes as long for a few as for hundreds
_ARRANGE_BLOCK = 1024
_MOST_NARROW = 2**31 - 1  # entries that are numbered by int32
_ROOM_STEP = 4  # entries, of 4 bytes: buffers behind each other begin at multiples of 16


class Bins(NamedTuple):
    """The splats of every tile and slot; bin ``tile * num_slots + slot``."""

    table: torch.Tensor  # [rows, 16] float32 what the kernels read of a splat
    counts: torch.Tensor  # [rows] int32 entries of each splat
    ends: torch.Tensor  # [rows] int32 or int64 inclusive sums of them
    starts: torch.Tensor  # [bins + 1] int32 first entry of each bin
    splats: torch.Tensor  # [entries] int32 row of each entry, bin after bin, ascending within
    places: torch.Tensor  # [entries] int32 where the entry would be, were they sorted by splat, then by tile


class Binner(Protocol):
    """A way to bin tables of splats, with room for a number of entries."""

    @property
    def entries(self) -> int:
        """The room that there is."""
        ...

    def grow(self, entries: int) -> None:
        """Make room for so many entries."""
        ...

    def bin(self, splats: SplatTable, wanted: torch.Tensor) -> Bins:
        """Bin a table; raise `wanted` [1] to the number of entries that takes, of which only `entries` are kept."""
        ...


class Projection:
    """Splats as their canvases see them, and how many tiles each touches.

    Args:
        canvases: whose tiles.
        rows: of the tables.
        exact: whether tiles that the ellipse touches count, or those of a rectangle around it.
    """

    def __init__(self, canvases: Canvases, rows: int, *, exact: bool = True) -> None:
        self._canvases = canvases
        self._rows = rows
        device = canvases.device
        self._block = _BLOCK if device.type != "cpu" else _INTERPRETED_BLOCK
        self._grid = (triton.cdiv(rows, self._block),)
        tile = canvases.tile
        # Tiles are counted by one kernel and listed by another: neither may fuse what the other rounds.
        self._walk = {
            "tile_width": tile.width, "tile_height": tile.height, "block": self._block, "stretch": _STRETCH,
            "exact": exact, "enable_fp_fusion": False,
        }  # fmt: skip
        self._smooths = any(grid.smoothing_x or grid.smoothing_y for _, _, grid in canvases.canvases)
        self.table = torch.zeros(rows, kernels.TABLE_COLUMNS.value, device=device)
        self.counts = torch.zeros(rows, dtype=torch.int32, device=device)
        # inclusive sums of the counts, of whatever a stream may want
        most = rows * max(
            triton.cdiv(grid.width, tile.width) * triton.cdiv(grid.height, tile.height)
            for _, _, grid in canvases.canvases
        )
        self.ends = torch.zeros(rows, dtype=torch.int32 if most <= _MOST_NARROW else torch.int64, device=device)

    def project(self, splats: SplatTable, wanted: torch.Tensor) -> None:
        """Fill in `table`, `counts` and `ends`, and raise `wanted` [1] to the number of entries."""
        assert all(len(column) == self._rows and column.is_contiguous() for column in splats)
        if self._rows == 0:
            return
        canvases = self._canvases
        kernels.project[self._grid](
            *splats, canvases.steps, canvases.shapes, canvases.canvas_of_picture, canvases.slots, self.table,
            self.counts, self._rows, first_channel=canvases.channels.start, channels=canvases.num_channels,
            all_channels=splats.colors.shape[1], smooths=self._smooths, **self._walk,
        )  # fmt: skip
        torch.cumsum(self.counts, 0, dtype=self.ends.dtype, out=self.ends)
        torch.maximum(wanted, self.ends[-1:], out=wanted)

    def emit(self, splats: SplatTable, keys: torch.Tensor, first_key: int, owners: torch.Tensor) -> None:
        """Write the bin and the row of every entry, splat after splat, tile after tile, as far as there is room.

        Args:
            keys: [entries] of the bins, counted from `first_key`.
            owners: [entries] int32, the rows.
        """
        if self._rows == 0:
            return
        canvases = self._canvases
        kernels.emit[self._grid](
            splats.pictures, splats.layers, canvases.shapes, canvases.canvas_of_picture, canvases.slots, self.table,
            self.counts, self.ends, keys, owners, self._rows, len(keys), canvases.num_slots, first_key,
            **self._walk,
        )  # fmt: skip


class Binning:
    """Bins tables of splats by a stable sort of their entries, in buffers of fixed size.

    Args:
        canvases: whose tiles.
        rows: of the tables.
        exact: see `Projection`.
    """

    def __init__(self, canvases: Canvases, rows: int, *, exact: bool = True) -> None:
        self._canvases = canvases
        self._projection = Projection(canvases, rows, exact=exact)
        # narrow keys are sorted in half the time, and may be negative
        self._key_type, self._first_key = (torch.int16, -(2**15)) if canvases.num_bins < 2**16 else (torch.int32, 0)
        self._last_key = self._first_key + canvases.num_bins  # of what is in no bin
        self._all_keys = torch.arange(self._first_key, self._last_key + 1, dtype=self._key_type, device=canvases.device)
        self.grow(0)

    @property
    def entries(self) -> int:
        """The room that there is."""
        return len(self._keys)

    def grow(self, entries: int) -> None:
        """Make room for so many entries."""
        device = self._canvases.device
        # no kernel need ask whether there is any room, nor be compiled again for buffers that begin anywhere
        entries = -(-max(entries, 1) // _ROOM_STEP) * _ROOM_STEP
        self._keys = torch.zeros(entries, dtype=self._key_type, device=device)
        self._owners, self._splats, self._places = torch.zeros(3, entries, dtype=torch.int32, device=device)

    def bin(self, splats: SplatTable, wanted: torch.Tensor) -> Bins:
        """See `Binner.bin`."""
        projection = self._projection
        projection.project(splats, wanted)
        self._keys.fill_(self._last_key)  # those that nobody wants go to the end
        projection.emit(splats, self._keys, self._first_key, self._owners)
        keys, order = torch.sort(self._keys, stable=True)
        kernels.arrange[triton.cdiv(self.entries, _ARRANGE_BLOCK),](
            order, self._owners, self._splats, self._places, self.entries, block=_ARRANGE_BLOCK
        )
        starts = torch.searchsorted(keys, self._all_keys, out_int32=True)
        return Bins(projection.table, projection.counts, projection.ends, starts, self._splats, self._places)
