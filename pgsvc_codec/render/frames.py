"""Layers of splats to frames of code values: what leaves a decoder, and what an encoder reports."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.picture import Frame, Plane, PlaneGrid, plane_groups
from pgsvc_codec.splats import Splats

ColorTransform = tuple[NDArray[np.float64], NDArray[np.float64]]  # matrix [C_out, C], offset [C_out]


class FramePainter:
    """Paints frames of one kind.

    A sum of splats is linear in their colours, so a change of colour space is applied to colours and background, and
    every plane is painted at the resolution that the output has for it.

    Args:
        rasterizer: module with `render`, see `backend.load`.
        size: full width and height of the coded picture, in which lengths are measured.
        grids: where the output's planes have their samples, see `picture.plane_grids`.
        max_code: of the output, 255 or 1023.
        transform: from the stream's unit values to the output's, see `picture.color_transform`; None = the same.
    """

    def __init__(
        self,
        rasterizer: ModuleType,
        size: tuple[int, int],
        grids: Sequence[PlaneGrid],
        max_code: int,
        transform: ColorTransform | None = None,
    ) -> None:
        self._rasterizer = rasterizer
        self._size = size
        self._groups = plane_groups(grids)
        self._max_code = max_code
        self._transform = transform

    def paint(self, layers: Sequence[Splats], background: NDArray[np.float32], levels: Sequence[int]) -> list[Frame]:
        """The pictures of some levels, each painted on from the one below.

        Args:
            layers: decoded splats, base first.
            background: [C].
            levels: ascending numbers of layers, each 1..len(layers).
        """
        splats = Splats.concatenate(layers)
        if self._transform is not None:
            matrix, offset = self._transform
            splats = Splats(splats.means, splats.cholesky, (splats.colors @ matrix.T).astype(np.float32))
            background = (matrix @ background + offset).astype(np.float32)
        sizes = np.cumsum([len(layer) for layer in layers])
        ends = [int(sizes[level - 1]) for level in levels]
        frames: list[list[Plane]] = [[] for _ in levels]
        for grid, channels in self._groups:
            drawn = self._rasterizer.render(
                splats, *self._size, grid, channels, background[channels], ends, self._max_code
            )
            for planes, picture in zip(frames, drawn, strict=True):
                planes.extend(picture)
        return [tuple(planes) for planes in frames]
