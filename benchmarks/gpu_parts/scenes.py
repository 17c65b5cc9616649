"""Fitted splats of a frame on the device, as one picture or several, and the rasters that paint and fit them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from gpu_material import STEP, Material

from gpu_parts.codec import config_of, encoded_anyhow
from pgsvc_codec.coding.gop import decode_gop
from pgsvc_codec.format.container import StreamReader
from pgsvc_codec.picture import PlaneGroup, plane_grids, plane_groups, to_unit
from pgsvc_codec.render.cuda.canvases import TILE, Canvas, Canvases, TileShape
from pgsvc_codec.render.cuda.raster import Raster
from pgsvc_codec.render.cuda.table import SplatTable
from pgsvc_codec.render.cuda.table import table_of as splat_table
from pgsvc_codec.splats import Splats

PRESET = "superfast"  # of the encode that the splats are decoded from


class Scene(NamedTuple):
    """A frame, and splats that show it."""

    frame: Material
    layers: list[Splats]
    background: np.ndarray  # [C]

    @property
    def size(self) -> tuple[int, int]:
        """Full width and height."""
        return self.frame.info.width, self.frame.info.height

    @property
    def groups(self) -> list[PlaneGroup]:
        """The planes on one grid each."""
        return plane_groups(plane_grids(self.frame.info))

    @property
    def splats(self) -> int:
        """Of all layers."""
        return sum(len(layer) for layer in self.layers)


def fitted(frame: Material, splats: int, *, tiny: bool) -> Scene:
    """Encode a frame on the device, and decode its splats."""
    made = encoded_anyhow(frame, config_of(splats, PRESET, tiny=tiny))

    def raise_loss(layer: int, error: Exception) -> None:
        raise error

    with StreamReader(made.data) as reader:
        payloads = [reader.read_segment(0, layer) for layer in range(reader.header.num_layers)]
        shown = next(decode_gop(payloads, reader.header, raise_loss))
    return Scene(frame, shown.layers, shown.background)


def table_of(scene: Scene, pictures: Sequence[int], at: torch.device) -> SplatTable:
    """The splats of several pictures: picture n shows the scene moved by `pictures[n]` steps."""
    together = Splats.concatenate(scene.layers)
    layers = np.repeat(np.arange(len(scene.layers)), [len(layer) for layer in scene.layers])
    tables = []
    for number, steps in enumerate(pictures):
        table = splat_table(together, scene.size, layers, len(together), at, number)
        moved = table.means + steps * torch.tensor(STEP, dtype=torch.float32, device=at)
        tables.append(table._replace(means=moved))
    return SplatTable(*(torch.cat(columns) for columns in zip(*tables, strict=True)))


class Rasters:
    """The rasters of a scene's planes, one for each grid, with room for what they paint.

    Args:
        scene: what is painted.
        count: pictures in a launch.
        at: where tensors lie.
        tile: how canvases are cut.
    """

    def __init__(self, scene: Scene, count: int, at: torch.device, tile: TileShape = TILE) -> None:
        info = scene.frame.info
        self.max_code = info.max_code
        self.table = table_of(scene, range(count), at)
        rows, slots = len(self.table.means), range(len(scene.layers))
        self._parts: list[tuple[Raster, torch.Tensor]] = []
        self.painted: list[torch.Tensor] = []
        self._targets: list[torch.Tensor] = []
        self._errors: list[torch.Tensor] = []
        self._weights: list[torch.Tensor] = []
        self.moments = torch.zeros(rows, scene.layers[0].channels + 5, device=at)
        unit = to_unit(scene.frame.frames[0], info)
        for grid, channels in scene.groups:
            canvases = Canvases([Canvas(n, scene.size, grid) for n in range(count)], channels, slots, at, tile)
            raster = Raster(canvases, rows, entries=8 * rows)
            under = torch.from_numpy(scene.background[channels]).to(at).expand(count, -1).contiguous()
            self._parts.append((raster, under))
            dtype = torch.uint8 if info.depth == 8 else torch.uint16
            self.painted.append(torch.empty(len(slots), canvases.total, dtype=dtype, device=at))
            planes = np.stack(
                [plane - value for plane, value in zip(unit[channels], scene.background[channels], strict=True)]
            ).astype(np.float32)
            self._targets.append(torch.from_numpy(planes.ravel()).to(at).repeat(count))
            shape = (count, len(slots), channels.stop - channels.start)
            self._errors.append(torch.zeros(shape, dtype=torch.float64, device=at))
            self._weights.append(torch.ones(shape, device=at))
        self._make_room()

    @property
    def rasters(self) -> list[Raster]:
        """One for each grid."""
        return [raster for raster, _ in self._parts]

    def paint(self, table: SplatTable | None = None) -> None:
        """All levels of all pictures, to code values."""
        for (raster, under), out in zip(self._parts, self.painted, strict=True):
            raster.paint(table or self.table, under, self.max_code, out=out)

    def fit(self, table: SplatTable | None = None) -> None:
        """Errors and moments of all levels of all pictures."""
        for (raster, _), *rest in zip(self._parts, self._targets, self._weights, self._errors, strict=True):
            raster.fit(table or self.table, *rest, self.moments)

    @property
    def entries(self) -> int:
        """Pairs of splat and tile, over all grids."""
        return sum(int(raster.wanted.item()) for raster in self.rasters)

    def _make_room(self) -> None:
        """Paint once, and give rasters room for the entries that they want, and a little more."""
        self.paint()
        for raster in self.rasters:
            raster.grow(int(1.1 * raster.wanted.item()) + 64)
