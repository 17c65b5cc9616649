"""Layers of splats to frames of code values: what leaves a decoder, and what an encoder reports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.picture import Frame, Plane, PlaneGrid, PlaneGroup, plane_groups
from pgsvc_codec.render.rasterizer import Rasterizer
from pgsvc_codec.splats import Splats

_Tag = TypeVar("_Tag")

ColorTransform = tuple[NDArray[np.float64], NDArray[np.float64]]  # matrix [C_out, C], offset [C_out]


@runtime_checkable
class BatchRasterizer(Protocol):
    """A rasteriser that paints faster where it may paint several frames at a time."""

    def paint_frames(
        self,
        frames: Iterable[tuple[_Tag, Splats, NDArray[np.floating]]],
        size: tuple[int, int],
        groups: Sequence[PlaneGroup],
        max_code: int,
        num_frames: int,
    ) -> Iterator[tuple[_Tag, Frame]]:
        """As `FramePainter.paint_all`, of splats that have the colours of the output."""
        ...


class FramePainter:
    """Paints frames of one kind.

    A sum of splats is linear in their colours, so a change of colour space is applied to colours and background, and
    every plane is painted at the resolution that the output has for it.

    Args:
        rasterizer: see `backend.load`.
        size: full width and height of the coded picture, in which lengths are measured.
        grids: where the output's planes have their samples, see `picture.plane_grids`.
        max_code: of the output, 255 or 1023.
        transform: from the stream's unit values to the output's, see `picture.color_transform`; None = the same.
    """

    def __init__(
        self,
        rasterizer: Rasterizer,
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
        splats, background = self._of_output(layers, background)
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

    def paint_all(
        self, frames: Iterable[tuple[_Tag, Sequence[Splats], NDArray[np.float32]]], num_frames: int
    ) -> Iterator[tuple[_Tag, Frame]]:
        """Pictures of all layers, one frame after the other.

        Some rasterisers ask for several frames ahead of the one that they hand out, but for the first one.

        Args:
            frames: of each a tag, which comes back with it, its layers and its background; see `paint`.
            num_frames: as many as will come, or more.
        """
        if isinstance(self._rasterizer, BatchRasterizer):
            of_output = ((tag, *self._of_output(layers, background)) for tag, layers, background in frames)
            yield from self._rasterizer.paint_frames(of_output, self._size, self._groups, self._max_code, num_frames)
            return
        for tag, layers, background in frames:
            yield tag, self.paint(layers, background, [len(layers)])[0]

    def _of_output(
        self, layers: Sequence[Splats], background: NDArray[np.float32]
    ) -> tuple[Splats, NDArray[np.float32]]:
        """All splats, and the background, with the colours of the output."""
        splats = Splats.concatenate(layers)
        if self._transform is None:
            return splats, background
        matrix, offset = self._transform
        splats = Splats(splats.means, splats.cholesky, (splats.colors @ matrix.T).astype(np.float32))
        return splats, (matrix @ background + offset).astype(np.float32)
