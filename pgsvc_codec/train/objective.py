"""The loss of the layered fit: squared error of every supervised level against the source (paper, Eq. 7 to 9).

    loss = sum_k level_weights[k] * sum_c (H W / samples_k,c) * |level_k,c - source_k,c|^2

that is, H W times the mean squared error summed over planes: planes of different size weigh alike, as they would
after upsampling, and so do levels.  Planes on the same grid are one pass of the rasteriser, and so are levels of the
same size (quality scalability); levels of different sizes are a pass each (resolution scalability).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pgsvc_codec.picture import PlaneGrid, PlaneGroup, UnitFrame, plane_groups
from pgsvc_codec.render.rasterizer import Rasterizer
from pgsvc_codec.render.reference import NUM_SHAPE_MOMENTS, StepResult
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.births import Births, find_births


class LevelTarget(NamedTuple):
    """What one level should look like."""

    picture: UnitFrame
    grids: Sequence[PlaneGrid]  # where its planes have their samples


class View(NamedTuple):
    """Consecutive levels of one size, which one pass of a rasteriser shows for each group of planes."""

    first: int
    last: int  # included
    picture: UnitFrame
    groups: list[PlaneGroup]
    channel_weights: NDArray[np.float64]  # [C] H W / samples

    @property
    def levels(self) -> slice:
        """Indices of the levels."""
        return slice(self.first, self.last + 1)


class Objective:
    """One frame to fit, on one rasteriser.

    Args:
        size: full width and height of the frame, in which splats' lengths are measured.
        targets: one per level; levels of one size have equal grids and the same picture.
        rasterizer: see `render.backend.load`.

    Attributes:
        views: the levels by their sizes.
    """

    def __init__(self, size: tuple[int, int], targets: Sequence[LevelTarget], rasterizer: Rasterizer) -> None:
        self.width, self.height = size
        self.targets = list(targets)
        self.rasterizer = rasterizer
        self.views: list[View] = []
        self._there: dict[tuple[int, int], tuple[NDArray[np.float32], torch.Tensor]] = {}
        self._uncovered: tuple[bytes, dict[tuple[int, int], NDArray[np.float32]]] = (b"", {})
        for level, (picture, grids) in enumerate(self.targets):
            if level and self.views[-1].groups == plane_groups(grids):
                self.views[-1] = self.views[-1]._replace(last=level)
                continue
            weights = np.array([self.width * self.height / plane.size for plane in picture])
            self.views.append(View(level, level, picture, plane_groups(grids), weights))

    @property
    def num_levels(self) -> int:
        """Levels that have a target."""
        return len(self.targets)

    @property
    def channels(self) -> int:
        """C, planes of a picture."""
        return len(self.targets[-1].picture)

    def peers(self, level: int) -> range:
        """The levels from `level` on that have its size: those that a residual of it can be added to."""
        return range(level, self._view(level).last + 1)

    def _view(self, level: int) -> View:
        """The one that a level is in."""
        return next(view for view in self.views if view.first <= level <= view.last)

    def without(self, level: int, residual: UnitFrame, splats: Splats) -> UnitFrame:
        """A residual of one level after further splats have been painted."""
        single = Objective(
            (self.width, self.height), [LevelTarget(residual, self.targets[level].grids)], self.rasterizer
        )
        return single.residuals(splats, np.zeros(splats.channels, np.float32), [len(splats)])[0]

    def alone(self, level: int, below: Splats, background: NDArray[np.float32]) -> Objective:
        """What is left for one level to show over `below` and `background`, as an objective of a single level."""
        picture, grids = self.targets[level]
        uncovered = tuple(plane - under for plane, under in zip(picture, background, strict=True))
        rest = LevelTarget(self.without(level, uncovered, below), grids)
        return Objective((self.width, self.height), [rest], self.rasterizer)

    def step(
        self,
        splats: Splats,
        background: NDArray[np.float32],  # [C]
        ends: Sequence[int],
        level_weights: Sequence[float],
        *,
        with_moments: bool = True,
    ) -> StepResult:
        """Squared errors [levels, C] and the moments of all planes together [N, C + 5].

        Errors of levels that weigh nothing are left out (zero) where they would need a pass of their own.  Without
        `with_moments` there is no backward pass, and the moments are those of no splats, [0, C + 5].
        """
        squared_error = np.zeros((len(ends), splats.channels))
        moments = np.zeros((len(splats) if with_moments else 0, splats.channels + NUM_SHAPE_MOMENTS), np.float32)
        for view in self.views:
            weights = level_weights[view.levels]
            if len(self.views) > 1 and not any(weights):
                continue
            count = ends[view.last]
            for grid, planes in view.groups:
                part = self.rasterizer.fit_step(
                    splats if count == len(splats) else splats[:count],
                    self.width,
                    self.height,
                    grid,
                    planes,
                    self._target(view, planes, background),
                    ends[view.levels],
                    weights,
                    view.channel_weights[planes].tolist(),
                    with_moments=with_moments,
                )
                squared_error[view.levels, planes] = part.squared_error
                own = planes.stop - planes.start
                moments[:count, planes] += part.moments[:, :own]
                moments[:count, splats.channels :] += part.moments[:, own:]
        return StepResult(squared_error, moments)

    def _target(self, view: View, planes: slice, background: NDArray[np.float32]) -> NDArray[np.float32]:
        """[C, h, w] some planes of a view minus the background; kept, since a fit asks for it in every iteration."""
        under = background.tobytes()
        if self._uncovered[0] != under:
            self._uncovered = (under, {})
        kept, key = self._uncovered[1], (view.first, planes.start)
        if key not in kept:
            kept[key] = np.stack(view.picture[planes]) - background[planes, None, None]
        return kept[key]

    def _target_there(
        self, view: View, planes: slice, background: NDArray[np.float32], device: torch.device
    ) -> torch.Tensor:
        """As `_target`, on a device, and kept there."""
        target = self._target(view, planes, background)
        kept, key = self._there, (view.first, planes.start)
        if key not in kept or kept[key][0] is not target:
            kept[key] = target, torch.from_numpy(target).to(device)
        return kept[key][1]

    def loss(self, squared_error: NDArray[np.float64], level_weights: Sequence[float]) -> float:
        """Eq. 7 for one iteration, per luma sample."""
        total = 0.0
        for view in self.views:
            per_level = squared_error[view.levels] @ view.channel_weights / (self.width * self.height)
            total += float(np.asarray(level_weights[view.levels]) @ per_level)
        return total

    def weighted_residual(
        self,
        level: int,
        splats: Splats,
        background: NDArray[np.float32],
        ends: Sequence[int],
        level_weights: Sequence[float],
    ) -> UnitFrame:
        """Sum over `peers(level)` of level weight * (source - level): float32 planes."""
        view, total, weighted = self._weighted(level, splats, ends, level_weights)
        size = self.width, self.height
        planes: list[NDArray[np.float32]] = []
        for grid, channels in view.groups:
            under = np.zeros(channels.stop - channels.start, np.float32)
            drawn = self.rasterizer.render(weighted, *size, grid, channels, under, [len(weighted)])[0]
            planes.extend(np.float32(total) * self._target(view, channels, background) - drawn)
        return tuple(planes)

    def find_births(
        self,
        level: int,
        splats: Splats,
        background: NDArray[np.float32],
        ends: Sequence[int],
        level_weights: Sequence[float],
        layer_size: int,
        most: int,
    ) -> Births:
        """The best places for new splats over a weighted residual, wherever that lies.

        Args:
            level: as that of `weighted_residual`; likewise splats, background, ends and level_weights.
            layer_size: as that of `births.find_births`; likewise most.
        """
        weight = sum(level_weights[k] for k in self.peers(level))
        size = self.width, self.height
        rasterizer = self.rasterizer
        if not hasattr(rasterizer, "paint"):
            residual = self.weighted_residual(level, splats, background, ends, level_weights)
            return find_births(residual, weight, size, layer_size, most)
        from pgsvc_codec.train.cuda import births as cuda

        view, total, weighted = self._weighted(level, splats, ends, level_weights)
        planes: list[torch.Tensor] = []
        for grid, channels in view.groups:
            under = np.zeros(channels.stop - channels.start, np.float32)
            drawn = rasterizer.paint(weighted, self.width, self.height, grid, channels, under, [len(weighted)])[0]
            planes.extend(total * self._target_there(view, channels, background, drawn.device) - drawn)
        return cuda.find_births(planes, weight, size, layer_size, most)

    def _weighted(
        self, level: int, splats: Splats, ends: Sequence[int], level_weights: Sequence[float]
    ) -> tuple[View, float, Splats]:
        """What shows the weighted sum of the peers of a level: their view, the sum of their weights, and splats.

        A splat of layer l counts in every level from l on, so that one picture of weighted colours has them all.
        """
        levels = self.peers(level)
        view = self._view(level)
        below = splats[: ends[view.last]]
        sizes = np.diff([0, *ends[: view.last + 1]])
        weights = [sum(level_weights[k] for k in levels if k >= layer) for layer in range(len(sizes))]
        scaled = below.colors * np.repeat(np.array(weights, np.float32), sizes)[:, None]
        return view, weights[0], Splats(below.means, below.cholesky, scaled)

    def residuals(self, splats: Splats, background: NDArray[np.float32], ends: Sequence[int]) -> list[UnitFrame]:
        """Source minus level, for every level: float32 planes."""
        planes: list[list[NDArray[np.float32]]] = [[] for _ in ends]
        for view in self.views:
            below = splats[: ends[view.last]]
            for grid, channels in view.groups:
                drawn = self.rasterizer.render(
                    below, self.width, self.height, grid, channels, background[channels], ends[view.levels]
                )
                source = np.stack(view.picture[channels])
                for level, group in enumerate(drawn, start=view.first):
                    planes[level].extend(source - group)
        return [tuple(level) for level in planes]
