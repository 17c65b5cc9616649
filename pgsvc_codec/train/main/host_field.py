"""Residuals in host memory, and what settles splats there (numba)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main.cost import IntraCosts
from pgsvc_codec.coding.main.state import AMPLITUDE_BITS, OPPONENT
from pgsvc_codec.jit import kernel
from pgsvc_codec.picture import UnitFrame
from pgsvc_codec.splats import IntArray, Splats
from pgsvc_codec.train.births import Births, find_births
from pgsvc_codec.train.main.refine_slots import refine_slots
from pgsvc_codec.train.main.refine_sums import LANES, show_splats
from pgsvc_codec.train.main.refine_whole import refine_whole
from pgsvc_codec.train.main.residuals import SLOT_LIMITS, Change, Finish, Grids, Lattice, LayerField, Residuals, State
from pgsvc_codec.train.main.visits import visits
from pgsvc_codec.train.objective import Objective

_BLOCK = 1 << 12  # samples that are worked on at a time, in the processor's nearest cache


class HostField(NamedTuple):
    """A `LayerField` in host memory."""

    samples: NDArray[np.float32]  # `LANES` to spare behind each row
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
        self._stacks: list[NDArray[np.float32]] = []  # of each view, [levels, samples]
        ends = np.cumsum([len(layer) for layer in layers]).tolist()
        splats = Splats.concatenate(layers)
        size = objective.width, objective.height
        for view in self._views:
            shown = splats[: ends[view.last]]
            levels = np.zeros((view.last + 1 - view.first, self._size(view)), np.float32)
            offset = 0
            for group in view.groups:
                grid, channels = group
                shape = self._shape(group)
                planes = levels[:, offset : offset + int(np.prod(shape))].reshape(-1, *shape)[..., : grid.width]
                offset += int(np.prod(shape))
                source = np.stack(view.picture[channels])
                under = background[channels]
                painted = objective.rasterizer.render(shown, *size, grid, channels, under, ends[view.levels])
                for rest, level in zip(planes, painted, strict=True):
                    np.subtract(source, level, out=rest)
                    if opponent:
                        rest[:] = np.tensordot(OPPONENT.astype(np.float32), rest, axes=1)
            self._stacks.append(levels)

    def of_layer(self, layer: int) -> HostField:
        """See `Residuals`."""
        grids = self._grids(layer)
        samples = np.empty(sum(self._size(view) for view, _ in self._above(layer)), np.float32)
        self._each(layer, samples, _weigh)
        return HostField(samples, grids)

    def change(self, layer: int, field: LayerField) -> None:
        """See `Residuals`."""
        self._each(layer, field.samples, _spread)

    def _each(self, layer: int, samples: NDArray[np.float32], work: Callable[..., None]) -> None:
        """Call a kernel with the levels that a layer is in, their shares, and the samples of its field."""
        offset = 0
        stacks = self._stacks[len(self._stacks) - len(self._above(layer)) :]
        for (_, levels), stack in zip(self._above(layer), stacks, strict=True):
            shares = self._shares(levels).astype(np.float32)
            work(stack[len(stack) - len(levels) :], shares, samples[offset : offset + stack.shape[1]])
            offset += stack.shape[1]

    def squared_error(self) -> NDArray[np.float64]:
        """See `Residuals`."""
        errors = []
        for view, stack in zip(self._views, self._stacks, strict=True):
            for level in stack:
                offset, total = 0, 0.0
                for group in view.groups:
                    shape = self._shape(group)
                    planes = level[offset : offset + int(np.prod(shape))].reshape(shape)
                    sums = np.zeros(group.grid.width)
                    _add_squares(planes.reshape(-1, shape[-1]), sums)
                    total += view.channel_weights[group.channels.start] * float(sums.sum())
                    offset += planes.size
                errors.append(total)
        return np.array(errors)


@kernel(nogil=True, error_model="numpy")
def _weigh(levels: NDArray[np.float32], shares: NDArray[np.float32], samples: NDArray[np.float32]) -> None:
    """Into samples [n]: the sum of [K, n] levels by their shares [K]."""
    for begin in range(0, len(samples), _BLOCK):
        part = samples[begin : begin + _BLOCK]
        _sum(levels, shares, begin, part)


@kernel(nogil=True, error_model="numpy")
def _spread(levels: NDArray[np.float32], shares: NDArray[np.float32], samples: NDArray[np.float32]) -> None:
    """To [K, n] levels what has been added to samples [n] since `_weigh` has made them of these."""
    before = np.empty(_BLOCK, np.float32)
    for begin in range(0, len(samples), _BLOCK):
        part = samples[begin : begin + _BLOCK]
        difference = before[: len(part)]
        _sum(levels, shares, begin, difference)
        for at in range(len(part)):
            difference[at] = part[at] - difference[at]
        for k in range(len(levels)):
            level = levels[k, begin : begin + _BLOCK]
            for at in range(len(part)):
                level[at] += difference[at]


@kernel(nogil=True, error_model="numpy")
def _sum(levels: NDArray[np.float32], shares: NDArray[np.float32], begin: int, total: NDArray[np.float32]) -> None:
    """Into `total` [m]: of m samples from `begin` on."""
    for k in range(len(levels)):
        level, share = levels[k, begin : begin + _BLOCK], shares[k]
        for at in range(len(total)):
            total[at] = share * level[at] + (total[at] if k else np.float32(0))


@kernel(nogil=True, error_model="numpy")
def _add_squares(rows: NDArray[np.float32], sums: NDArray[np.float64]) -> None:
    """To sums [w] the squares of rows [h, w or more], column by column."""
    for y in range(len(rows)):
        row = rows[y]
        for x in range(len(sums)):
            sums[x] += np.float64(row[x]) * np.float64(row[x])
