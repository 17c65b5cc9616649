"""Layers of splats to frames of code values, on any grid: what leaves a decoder, and what an encoder reports."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.picture import Frame, Plane, PlaneGrid, plane_groups
from pgsvc_codec.splats import Splats


def paint_levels(
    rasterizer: ModuleType,
    layers: Sequence[Splats],
    background: NDArray[np.float32],
    size: tuple[int, int],
    grids: Sequence[PlaneGrid],
    max_code: int,
    levels: Sequence[int],
) -> list[Frame]:
    """The pictures of some levels, each painted on from the one below.

    Args:
        rasterizer: module with `render`, see `backend.load`.
        layers: decoded splats, base first.
        background: [C].
        size: full width and height, in which lengths are measured.
        grids: one per plane, see `picture.plane_grids`.
        max_code: 255 or 1023.
        levels: ascending numbers of layers, each 1..len(layers).
    """
    splats = Splats.concatenate(layers)
    sizes = np.cumsum([len(layer) for layer in layers])
    ends = [int(sizes[level - 1]) for level in levels]
    frames: list[list[Plane]] = [[] for _ in levels]
    for grid, channels in plane_groups(grids):
        drawn = rasterizer.render(splats, *size, grid, channels, background[channels], ends, max_code)
        for planes, picture in zip(frames, drawn, strict=True):
            planes.extend(picture)
    return [tuple(planes) for planes in frames]
