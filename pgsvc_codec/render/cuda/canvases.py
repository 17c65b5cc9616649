"""What one launch paints: canvases of several pictures, cut into tiles, as tables on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from pgsvc_codec.picture import PlaneGrid


class Canvas(NamedTuple):
    """The planes of one picture that lie on one grid."""

    picture: int  # number of the picture in this launch, which splats name too
    size: tuple[int, int]  # full width and height, in which splats' lengths are measured
    grid: PlaneGrid


class TileShape(NamedTuple):
    """Samples of a tile, and the threads that share them."""

    width: int  # power of two, at most the lanes
    height: int  # power of two
    lanes: int = 32  # of all warps of a program


TILE = TileShape(16, 16)
# The interpreter takes as long for a few samples as for thousands.
_INTERPRETED_TILE = TileShape(64, 64, 64)


class Canvases:
    """Static tables of the canvases of a launch.

    Samples of all canvases lie in one flat buffer: canvas after canvas, its planes behind each other, row by row.
    Tiles are numbered canvas after canvas, row by row.

    Args:
        canvases: one per picture.
        channels: which of the splats' colours the planes are; the same for all canvases.
        slots: for each layer, the level at which it first shows in this launch, counted from 0 and ascending; -1
            where it does not show.
        device: where the tables lie.
        tile: how canvases are cut; None: as is best for the device.
    """

    def __init__(
        self,
        canvases: Sequence[Canvas],
        channels: slice,
        slots: Sequence[int],
        device: torch.device,
        tile: TileShape | None = None,
    ) -> None:
        self.canvases = tuple(canvases)
        self.channels = channels
        self.device = device
        if tile is None:
            tile = TILE if device.type != "cpu" else _INTERPRETED_TILE
        self.tile = tile
        self.num_channels: int = channels.stop - channels.start
        self.num_slots = max(slots) + 1
        self.num_pictures = 1 + max(canvas.picture for canvas in canvases)
        shapes: list[tuple[int, ...]] = []
        begins: list[int] = []
        canvas_of_tile: list[int] = []
        self.total = 0
        for number, (picture, _, grid) in enumerate(canvases):
            across, down = -(-grid.width // tile.width), -(-grid.height // tile.height)
            shapes.append((grid.width, grid.height, across, len(canvas_of_tile), picture))
            begins.append(self.total)
            canvas_of_tile += [number] * (across * down)
            self.total += self.num_channels * grid.width * grid.height
        self.offsets = tuple(begins)
        self.num_tiles = len(canvas_of_tile)
        self.num_bins = self.num_tiles * self.num_slots
        canvas_of_picture = [-1] * self.num_pictures
        for number, canvas in enumerate(canvases):
            canvas_of_picture[canvas.picture] = number
        steps = [
            (g.x0, g.y0, 1.0 / g.dx, 1.0 / g.dy, g.smoothing_x, g.smoothing_y) for _, _, g in canvases
        ]  # fmt: skip
        # tables that kernels read
        self.steps = torch.tensor(steps, dtype=torch.float32, device=device)
        self.shapes = torch.tensor(shapes, dtype=torch.int32, device=device)
        self.begins = torch.tensor(begins, dtype=torch.int64, device=device)
        self.canvas_of_picture = torch.tensor(canvas_of_picture, dtype=torch.int32, device=device)
        self.canvas_of_tile = torch.tensor(canvas_of_tile, dtype=torch.int32, device=device)
        self.slots = torch.tensor(list(slots), dtype=torch.int32, device=device)

    def planes(self, samples: torch.Tensor, number: int) -> torch.Tensor:
        """The planes [..., C, height, width] of one canvas, as a view of flat samples [..., total]."""
        grid = self.canvases[number].grid
        size = self.num_channels * grid.width * grid.height
        own = samples[..., self.offsets[number] : self.offsets[number] + size]
        return own.unflatten(-1, (self.num_channels, grid.height, grid.width))
