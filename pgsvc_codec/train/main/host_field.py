"""Residuals in host memory, and what settles splats there (numba)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main.cost import IntraCosts
from pgsvc_codec.coding.main.state import AMPLITUDE_BITS, OPPONENT
from pgsvc_codec.picture import UnitFrame
from pgsvc_codec.splats import IntArray, Splats
from pgsvc_codec.train.births import Births, find_births
from pgsvc_codec.train.main.refine_slots import refine_slots
from pgsvc_codec.train.main.refine_sums import LANES, show_splats
from pgsvc_codec.train.main.refine_whole import refine_whole
from pgsvc_codec.train.main.residuals import SLOT_LIMITS, Change, Finish, Grids, Lattice, Residuals, State
from pgsvc_codec.train.main.visits import visits
from pgsvc_codec.train.objective import Objective


class HostField(NamedTuple):
    """A `LayerField` in host memory."""

    samples: NDArray[np.float32]  # `LANES` to spare behind each row
    before: NDArray[np.float32]  # the samples that there were
    grids: Grids

    @property
    def weight(self) -> float:
        """See `LayerField`."""
        return self.grids.weight

    @property
    def _spacing(self) -> float:
        """Pixels from sample to sample of the coarsest grid."""
        return float(1 / self.grids.floats[:, 2:4].min())

    def _planes(self) -> UnitFrame:
        """Those of the largest levels, as pictures; a copy."""
        planes: list[NDArray[np.float32]] = []
        for offset, width, height, pitch, _, count in self.grids.whole[self.grids.first :]:
            stack = self.samples[offset : offset + count * height * pitch].reshape(count, height, pitch)
            planes.extend(np.ascontiguousarray(stack[:, :, :width]))
        return tuple(planes)

    def births(self, full_size: tuple[int, int], layer_size: int, most: int) -> Births:
        """See `LayerField`."""
        return find_births(self._planes(), 1.0, full_size, layer_size, most)

    def show(self, positions: IntArray, shapes: IntArray, painted: NDArray[np.float64], lattice: Lattice) -> None:
        """See `LayerField`."""
        show_splats(self.samples, self.grids.whole, self.grids.floats, positions, shapes, painted, lattice.opponent)

    def settle_whole(
        self, state: State, painted: NDArray[np.float64], rate: float, costs: IntraCosts, lattice: Lattice
    ) -> Finish:
        """See `LayerField`."""
        field = self.samples, self.grids.whole, self.grids.floats
        rest = state, painted, lattice.step / (1 << AMPLITUDE_BITS), rate, costs, lattice.ends, lattice.opponent
        order = visits([state[:2]], self._spacing)
        order.go(lambda rows, bounds: refine_whole(*field, rows, bounds, *rest))
        return _finished

    def settle_slots(
        self, state: State, painted: NDArray[np.float64], rate: float, change: Change, lattice: Lattice
    ) -> Finish:
        """See `LayerField`."""
        field = self.samples, self.grids.whole, self.grids.floats
        rest = state, change.modes, painted, change.predicted, lattice.step, rate, *change.costs
        ends = SLOT_LIMITS, change.removable, lattice.opponent
        order = visits([change.predicted[:2], state[:2]], self._spacing)
        order.go(lambda rows, bounds: refine_slots(*field, rows, bounds, *rest, *ends))
        return _finished


def _finished() -> None:
    """Nothing is left to do."""


class HostResiduals(Residuals):
    """`Residuals` in host memory.

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
        super().__init__(objective, level_weights, LANES)
        ends = np.cumsum([len(layer) for layer in layers]).tolist()
        residuals = objective.residuals(Splats.concatenate(layers), background, ends)
        for view in self._views:
            for level in range(view.first, view.last + 1):
                parts = []
                for group in view.groups:
                    planes = np.stack(residuals[level][group.channels])
                    if opponent:
                        planes = np.tensordot(OPPONENT.astype(np.float32), planes, axes=1)
                    padded = np.zeros(self._shape(group), np.float32)
                    padded[:, :, : group.grid.width] = planes
                    parts.append(padded.ravel())
                self._levels.append(np.concatenate(parts))

    def of_layer(self, layer: int) -> HostField:
        """See `Residuals`."""
        parts: list[NDArray[np.float32]] = []
        for view, levels in self._above(layer):
            parts.append(np.zeros(self._size(view), np.float32))
            for level, share in zip(levels, self._shares(levels), strict=True):
                parts[-1] += np.float32(share) * self._levels[level]
        samples = np.concatenate(parts)
        return HostField(samples, samples.copy(), self._grids(layer))

    def squared_error(self) -> NDArray[np.float64]:
        """See `Residuals`."""
        errors = []
        for view in self._views:
            for level in range(view.first, view.last + 1):
                offset, total = 0, 0.0
                for group in view.groups:
                    shape = self._shape(group)
                    planes = self._levels[level][offset : offset + np.prod(shape)].reshape(shape)
                    seen = planes[:, :, : group.grid.width]
                    total += view.channel_weights[group.channels.start] * float(np.square(seen, dtype=np.float64).sum())
                    offset += planes.size
                errors.append(total)
        return np.array(errors)
