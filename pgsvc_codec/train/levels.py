"""The pictures of all levels of a stream: what each should look like, and what a decoder shows of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.picture import Frame, UnitFrame, from_unit, plane_grids, resample, to_unit
from pgsvc_codec.render.frames import FramePainter
from pgsvc_codec.render.rasterizer import Rasterizer
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.objective import LevelTarget, Objective
from pgsvc_codec.video import VideoInfo


class _LevelSize:
    """Consecutive levels of one size: how their pictures are made from a frame, and from splats.

    Args:
        info: of the frames.
        size: width and height of the levels.
        levels: numbers of layers.
        rasterizer: see `render.backend.load`.
    """

    def __init__(self, info: VideoInfo, size: tuple[int, int], levels: list[int], rasterizer: Rasterizer) -> None:
        self.levels = levels
        self._grids = plane_grids(info, *size)
        self._info = replace(info, width=size[0], height=size[1])
        self._full_grids = plane_grids(info)
        self._painter = FramePainter(rasterizer, (info.width, info.height), self._grids, info.max_code)

    def target(self, picture: UnitFrame) -> LevelTarget:
        """What the levels should look like."""
        same = self._grids == self._full_grids
        return LevelTarget(picture if same else resample(picture, self._full_grids, self._grids), self._grids)

    def reference(self, frame: Frame, target: LevelTarget) -> Frame:
        """What the levels are measured against."""
        return frame if self._grids == self._full_grids else from_unit(target.picture, self._info)

    def paint(self, layers: Sequence[Splats], background: NDArray[np.float32]) -> list[Frame]:
        """What a decoder shows of each level."""
        return self._painter.paint(layers, background, self.levels)


class SourceFrame(NamedTuple):
    """A frame as a fit and its measurement see it."""

    objective: Objective
    references: list[Frame]  # what each level is measured against


class LevelSizes:
    """All levels of a stream.

    Args:
        info: of the frames.
        sizes: width and height of each level.
        rasterizer: see `render.backend.load`.
    """

    def __init__(self, info: VideoInfo, sizes: Sequence[tuple[int, int]], rasterizer: Rasterizer) -> None:
        self._info = info
        self._rasterizer = rasterizer
        levels = groupby(range(1, len(sizes) + 1), key=lambda level: sizes[level - 1])
        self._sizes = [_LevelSize(info, size, list(group), rasterizer) for size, group in levels]

    def read(self, frame: Frame) -> SourceFrame:
        """Make the pictures of all levels of a frame."""
        picture = to_unit(frame, self._info)
        targets, references = [], []
        for size in self._sizes:
            target = size.target(picture)
            targets += [target] * len(size.levels)
            references += [size.reference(frame, target)] * len(size.levels)
        objective = Objective((self._info.width, self._info.height), targets, self._rasterizer)
        return SourceFrame(objective, references)

    def references(self, frame: Frame) -> list[Frame]:
        """What each level of a frame is measured against."""
        return self.read(frame).references

    def paint(self, layers: Sequence[Splats], background: NDArray[np.float32]) -> list[Frame]:
        """What a decoder shows, level by level."""
        return [picture for size in self._sizes for picture in size.paint(layers, background)]
