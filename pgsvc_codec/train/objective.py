"""The loss of the layered fit: squared error of every supervised level against the source (paper, Eq. 7 to 9).

    loss = sum_k level_weights[k] * sum_c (H W / samples_c) * |level_k,c - source_c|^2

that is, H W times the mean squared error summed over planes: planes of different size weigh alike, as they would
after upsampling.  Planes on the same grid are one pass of the rasteriser.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.picture import PlaneGrid, UnitFrame, plane_groups
from pgsvc_codec.render.reference import NUM_SHAPE_MOMENTS, StepResult
from pgsvc_codec.splats import Splats


class Objective:
    """One picture to fit, on one rasteriser."""

    def __init__(self, picture: UnitFrame, grids: Sequence[PlaneGrid], rasterizer: ModuleType) -> None:
        self.picture = picture
        self.rasterizer = rasterizer
        self.groups = plane_groups(grids)
        self.height, self.width = picture[0].shape
        self.channel_weights = np.array([picture[0].size / plane.size for plane in picture])

    def step(
        self,
        splats: Splats,
        background: NDArray[np.float32],  # [C]
        ends: Sequence[int],
        level_weights: Sequence[float],
    ) -> StepResult:
        """Squared errors [levels, C] and the moments of all planes together [N, C + 5]."""
        channels = splats.channels
        squared_error = np.zeros((len(ends), channels))
        moments = np.zeros((len(splats), channels + NUM_SHAPE_MOMENTS), np.float32)
        for grid, planes in self.groups:
            target = np.stack(self.picture[planes]) - background[planes, None, None]
            part = self.rasterizer.fit_step(
                splats,
                self.width,
                self.height,
                grid,
                planes,
                target,
                ends,
                level_weights,
                self.channel_weights[planes],
            )
            squared_error[:, planes] = part.squared_error
            width = planes.stop - planes.start
            moments[:, planes] = part.moments[:, :width]
            moments[:, channels:] += part.moments[:, width:]
        return StepResult(squared_error, moments)

    def loss(self, squared_error: NDArray[np.float64], level_weights: Sequence[float]) -> float:
        """Eq. 7 for one iteration, per luma sample."""
        per_level = squared_error @ self.channel_weights / (self.width * self.height)
        return float(np.asarray(level_weights) @ per_level)

    def residuals(self, splats: Splats, background: NDArray[np.float32], ends: Sequence[int]) -> list[UnitFrame]:
        """Source minus level, for every level: float32 planes."""
        planes: list[list[NDArray[np.float32]]] = [[] for _ in ends]
        for grid, channels in self.groups:
            drawn = self.rasterizer.render(splats, self.width, self.height, grid, channels, background[channels], ends)
            source = np.stack(self.picture[channels])
            for level, group in enumerate(drawn):
                planes[level].extend(source - group)
        return [tuple(level) for level in planes]
