"""Objectives on a GPU: what levels and planes of some pictures should look like, in buffers that outlive a frame.

Pictures that are fitted side by side share launches: their planes are canvases of the same passes.  Frames of one
geometry are loaded into the same buffers one after the other, so that what was captured over them stays good.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import triton
from numpy.typing import NDArray

from pgsvc_codec.picture import PlaneGrid
from pgsvc_codec.render.cuda.canvases import Canvas, Canvases
from pgsvc_codec.render.cuda.device import use
from pgsvc_codec.render.cuda.raster import Raster
from pgsvc_codec.render.cuda.table import SplatTable
from pgsvc_codec.train.cuda.plain_kernels import add_loss
from pgsvc_codec.train.objective import Objective

_ENTRIES = 24  # in lists of tiles, for each splat, to begin with
_WASTE = 1.875  # over what was wanted, from which on less room is better: all of it is sorted
_ITERATIONS = 64  # that weights are planned for, to begin with

Kind = tuple[tuple[int, int, tuple[tuple[int, int], ...]], ...]
Geometry = tuple[tuple[int, int], Kind, tuple[PlaneGrid, ...]]


def kind_of(objective: Objective) -> Kind:
    """What pictures have in common that can be fitted side by side: levels in passes, planes in groups."""
    return tuple(
        (view.first, view.last, tuple((group.channels.start, group.channels.stop) for group in view.groups))
        for view in objective.views
    )


def geometry_of(objective: Objective) -> Geometry:
    """What frames have in common that can be loaded into the same buffers."""
    grids = tuple(group.grid for view in objective.views for group in view.groups)
    return (objective.width, objective.height), kind_of(objective), grids


class Passes:
    """The passes of the rasteriser that show all levels of some pictures.

    Args:
        objectives: frames of the pictures' geometries, of one kind; loaded by `load`.
        rows: splats that a table has at most.
        device: where.
    """

    def __init__(self, objectives: Sequence[Objective], rows: int, device: torch.device) -> None:
        self._device = device
        self._objectives = list(objectives)
        self._level_weights = [[0.0] * objective.num_levels for objective in objectives]
        self._views = objectives[0].views
        self._passes = [
            _Pass(objectives, index, group, rows, device)
            for index, view in enumerate(self._views)
            for group in range(len(view.groups))
        ]
        self._index = torch.zeros(1, dtype=torch.int32, device=device)

    def load(self, objectives: Sequence[Objective], backgrounds: Sequence[NDArray[np.float32]]) -> None:
        """Take a frame of each picture.

        Args:
            objectives: of the geometries that this was made for.
            backgrounds: [C] each.
        """
        self._objectives = list(objectives)
        for one in self._passes:
            one.load(objectives, backgrounds)

    def weigh(self, level_weights: Sequence[Sequence[Sequence[float]]]) -> bool:
        """Take other weights: those of the first iteration, and of others for `follow`.

        Args:
            level_weights: for each iteration, of all levels of each picture.

        Returns:
            Whether what was captured is good no more.
        """
        self._level_weights = [list(weights) for weights in level_weights[0]]
        table = np.array(level_weights, np.float64)
        renewed = [one.weigh(table, self._objectives) for one in self._passes]
        return any(renewed)

    def follow(self, done: torch.Tensor) -> None:
        """Take the weights of an iteration, whose number from 1 is in `done` [1] int32 on the device."""
        torch.sub(done, 1, out=self._index)
        for one in self._passes:
            one.follow(self._index)

    def fit(self, table: SplatTable, moments: torch.Tensor, *, with_moments: bool = True) -> None:
        """Add squared errors to those so far and, with moments, moments [N, C + 5] to `moments`."""
        for one in self._passes:
            one.raster.fit(table, one.target, one.weights, one.squared_error, moments, with_moments=with_moments)

    def forget_errors(self) -> None:
        """Squared errors start at zero again."""
        for one in self._passes:
            one.squared_error.zero_()

    def loss(self) -> torch.Tensor:
        """[] float64 Eq. 7 of the first picture's squared errors so far, as `Objective.loss`."""
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        for one in self._passes:
            total += (one.squared_error[0] * one.weights[0]).sum()
        return total / (self._objectives[0].width * self._objectives[0].height)

    def add_losses(self, losses: torch.Tensor, done: torch.Tensor) -> None:
        """Take the squared errors so far, as those of the first picture, for the loss of an iteration.

        Args:
            losses: [iterations] float64, added to.
            done: as that of `follow`.
        """
        per_pixel = 1.0 / (self._objectives[0].width * self._objectives[0].height)
        with use(self._device):
            for one in self._passes:
                count = one.weights[0].numel()
                add_loss[1,](
                    one.squared_error, one.weights, losses, done, count, per_pixel,
                    block=triton.next_power_of_2(count), num_warps=1,
                )  # fmt: skip

    def squared_errors(self) -> NDArray[np.float64]:
        """[pictures, levels, C] so far, as those of `reference.StepResult`."""
        objective = self._objectives[0]
        squared_errors = np.zeros((len(self._objectives), objective.num_levels, objective.channels))
        for one in self._passes:
            squared_errors[:, one.levels, one.channels] = one.squared_error.cpu().numpy()
        return squared_errors

    def weighted_residual(self, level: int, table: SplatTable) -> list[torch.Tensor]:
        """As `Objective.weighted_residual` of the first picture: [h, w] planes."""
        view = next(view for view in self._views if view.first <= level <= view.last)
        weights = np.array(self._level_weights[0])
        weights[: view.first] = weights[view.last + 1 :] = 0.0
        weights[view.first : level] = 0.0
        by_layer = np.cumsum(weights[::-1])[::-1].astype(np.float32)
        scales = torch.from_numpy(by_layer).to(self._device)[table.layers]
        weighted = table._replace(colors=table.colors * scales[:, None])
        planes: list[torch.Tensor] = []
        for one in self._passes:
            if one.levels == view.levels:
                planes.extend(one.residual(weighted, float(by_layer[0])))
        return planes

    def grow(self) -> bool:
        """Whether splats wanted more room than there was; there is now.  Waits for the GPU."""
        wanting = [one for one in self._passes if int(one.raster.wanted) > one.raster.entries]
        for one in wanting:
            one.raster.fit_room(int(one.raster.wanted))
        return bool(wanting)

    def trim(self) -> bool:
        """Whether there was much more room than splats have wanted so far; it fits them now.  Waits for the GPU."""
        wasting = [one for one in self._passes if _WASTE * int(one.raster.wanted) < one.raster.entries]
        for one in wasting:
            one.raster.fit_room(int(one.raster.wanted))
        return bool(wasting)


class _Pass:
    """Planes that share a grid in each picture, in levels of one size.

    Args:
        view: number of the view that has the levels.
        group: number of the planes' group there.

    Attributes:
        levels, channels: what is shown.
    """

    def __init__(self, objectives: Sequence[Objective], view: int, group: int, rows: int, device: torch.device) -> None:
        self._view, self._group = view, group
        own = objectives[0].views[view]
        self.levels, self.channels = own.levels, own.groups[group].channels
        layers = range(objectives[0].num_levels)
        slots = [max(layer - own.first, 0) if layer <= own.last else -1 for layer in layers]
        canvases = [
            Canvas(picture, (objective.width, objective.height), objective.views[view].groups[group].grid)
            for picture, objective in enumerate(objectives)
        ]
        self._canvases = Canvases(canvases, self.channels, slots, device)
        shape = len(canvases), self.levels.stop - self.levels.start, self.channels.stop - self.channels.start
        self.raster = Raster(self._canvases, rows, _ENTRIES * rows)
        self.target = torch.zeros(self._canvases.total, device=device)
        self.weights = torch.zeros(shape, device=device)
        self.squared_error = torch.zeros(shape, dtype=torch.float64, device=device)
        self._plan = torch.zeros(_ITERATIONS, self.weights.numel(), device=device)
        self._nothing = torch.zeros(len(canvases), shape[2], device=device)

    def load(self, objectives: Sequence[Objective], backgrounds: Sequence[NDArray[np.float32]]) -> None:
        """Take a frame of each picture."""
        for number, (objective, background) in enumerate(zip(objectives, backgrounds, strict=True)):
            planes = objective.views[self._view].picture[self.channels]
            under = background[self.channels]
            for here, plane, less in zip(self._canvases.planes(self.target, number), planes, under, strict=True):
                here.copy_(torch.from_numpy(np.ascontiguousarray(plane)))
                here -= float(less)

    def weigh(self, level_weights: NDArray[np.float64], objectives: Sequence[Objective]) -> bool:
        """As `Passes.weigh`; level_weights [iterations, pictures, levels]."""
        channel_weights = [objective.views[self._view].channel_weights[self.channels] for objective in objectives]
        weights = level_weights[:, :, self.levels, None] * np.stack(channel_weights)[:, None]
        plan = torch.from_numpy(weights.astype(np.float32).reshape(len(weights), -1))
        renewed = len(plan) > len(self._plan)
        if renewed:
            self._plan = torch.zeros(2 * len(plan), plan.shape[1], device=plan.device).to(self._plan.device)
        self._plan[: len(plan)].copy_(plan)
        self.weights.copy_(self._plan[0].view(self.weights.shape))
        return renewed

    def follow(self, index: torch.Tensor) -> None:
        """Take the weights of an iteration, whose number from 0 is in `index`."""
        torch.index_select(self._plan, 0, index, out=self.weights.view(1, -1))

    def residual(self, weighted: SplatTable, total: float) -> torch.Tensor:
        """[C, h, w] `total` times the first picture's target minus splats of weighted colours."""
        drawn = self.raster.paint(weighted, self._nothing, 0)[-1]
        return self._canvases.planes(total * self.target - drawn, 0)
