"""What the levels of a frame still lack, kept while splats change one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main.state import OPPONENT
from pgsvc_codec.picture import PlaneGroup, UnitFrame, plane_groups
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.main.refine_kernels import LANES
from pgsvc_codec.train.objective import Objective


class LayerField(NamedTuple):
    """What the splats of one layer are held against: e_l = sum_k>=l w_k r_k / sum_k>=l w_k, for each size of level.

    A change d of what a layer shows costs `weight` times the sum over its planes of their own weight times
    |d|^2 - 2 <e_l, d>, and leaves e_l - d.
    """

    samples: NDArray[np.float32]  # all planes behind each other, `LANES` samples to spare behind each row
    whole: NDArray[np.int32]  # [G, 6] of each grid, see `refine_kernels.refine_whole`
    floats: NDArray[np.float64]  # [G, 5] likewise
    weight: float  # sum_k>=l w_k
    first: int  # of the grids of the largest levels

    @property
    def spacing(self) -> float:
        """Pixels from sample to sample of the coarsest grid."""
        return float(1 / self.floats[:, 2:4].min())

    def planes(self) -> UnitFrame:
        """Those of the largest levels, as pictures; a copy."""
        planes: list[NDArray[np.float32]] = []
        for offset, width, height, pitch, _, count in self.whole[self.first :]:
            stack = self.samples[offset : offset + count * height * pitch].reshape(count, height, pitch)
            planes.extend(np.ascontiguousarray(stack[:, :, :width]))
        return tuple(planes)


class _View(NamedTuple):
    """Levels of one size."""

    levels: list[int]
    groups: list[PlaneGroup]
    weights: NDArray[np.float64]  # [C] H W / samples

    def samples(self) -> int:
        """Of all planes, those to spare included."""
        return sum(_planes(group) * group.grid.height * (group.grid.width + LANES) for group in self.groups)


def _planes(group: PlaneGroup) -> int:
    return group.channels.stop - group.channels.start


class Residuals:
    """Source minus level for every level of a frame, on the axes of amplitudes.

    Args:
        objective: of the frame, one level per layer.
        background: [C].
        layers: what is painted.
        level_weights: [levels].
        opponent: the stream is RGB, and amplitudes lie on opponent axes.
    """

    def __init__(
        self,
        objective: Objective,
        background: NDArray[np.float32],
        layers: Sequence[Splats],
        level_weights: Sequence[float],
        *,
        opponent: bool,
    ) -> None:
        self._weights = np.asarray(level_weights, np.float64)
        self._views: list[_View] = []
        for level, (picture, grids) in enumerate(objective.targets):
            groups = plane_groups(grids)
            if level and self._views[-1].groups == groups:
                self._views[-1].levels.append(level)
            else:
                weights = np.array([objective.width * objective.height / plane.size for plane in picture])
                self._views.append(_View([level], groups, weights))
        ends = np.cumsum([len(layer) for layer in layers]).tolist()
        residuals = objective.residuals(Splats.concatenate(layers), background, ends)
        self._levels: list[NDArray[np.float32]] = []
        for view in self._views:
            for level in view.levels:
                parts = []
                for grid, channels in view.groups:
                    planes = np.stack(residuals[level][channels])
                    if opponent:
                        planes = np.tensordot(OPPONENT.astype(np.float32), planes, axes=1)
                    padded = np.zeros((len(planes), grid.height, grid.width + LANES), np.float32)
                    padded[:, :, : grid.width] = planes
                    parts.append(padded.ravel())
                self._levels.append(np.concatenate(parts))

    def of_layer(self, layer: int) -> LayerField:
        """What the splats of a layer are held against; a copy."""
        whole: list[list[int]] = []
        floats: list[list[float]] = []
        parts: list[NDArray[np.float32]] = []
        offset = first = 0
        weight = float(self._weights[layer:].sum())
        for view, levels in self._above(layer):
            weights = self._weights[levels]
            share = weights.sum() / weight
            first = len(whole)
            parts.append(np.zeros(view.samples(), np.float32))
            for level, own in zip(levels, weights, strict=True):
                parts[-1] += np.float32(own / weights.sum()) * self._levels[level]
            for group in view.groups:
                grid, channel = group.grid, group.channels.start
                whole.append([offset, grid.width, grid.height, grid.width + LANES, channel, _planes(group)])
                floats.append([grid.x0, grid.y0, 1 / grid.dx, 1 / grid.dy, share * view.weights[channel]])
                offset += _planes(group) * grid.height * (grid.width + LANES)
        return LayerField(np.concatenate(parts), np.array(whole, np.int32), np.array(floats), weight, first)

    def change(self, layer: int, before: NDArray[np.float32], after: NDArray[np.float32]) -> None:
        """Have a layer show something else: `before` and `after` are samples of its field."""
        difference = after - before
        offset = 0
        for view, levels in self._above(layer):
            size = view.samples()
            for level in levels:
                self._levels[level] += difference[offset : offset + size]
            offset += size

    def _above(self, layer: int) -> list[tuple[_View, list[int]]]:
        """The levels that a layer is in, by size."""
        chosen = [(view, [level for level in view.levels if level >= layer]) for view in self._views]
        return [(view, levels) for view, levels in chosen if levels]

    def squared_error(self) -> NDArray[np.float64]:
        """[levels] H W times the mean squared error, summed over planes."""
        errors = []
        for view in self._views:
            for level in view.levels:
                offset, total = 0, 0.0
                for group in view.groups:
                    shape = (_planes(group), group.grid.height, group.grid.width + LANES)
                    planes = self._levels[level][offset : offset + np.prod(shape)].reshape(shape)
                    seen = planes[:, :, : group.grid.width]
                    total += view.weights[group.channels.start] * float(np.square(seen, dtype=np.float64).sum())
                    offset += planes.size
                errors.append(total)
        return np.array(errors)

    def loss(self) -> float:
        """sum_k w_k SSE_k."""
        return float(self._weights @ self.squared_error())
