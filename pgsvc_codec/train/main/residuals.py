"""What the levels of a frame still lack, kept while splats change one by one, wherever samples lie."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main.cost import IntraCosts
from pgsvc_codec.coding.main.state import MAX_LOG_LENGTH, MAX_POSITION, MAX_SHEAR, MIN_LOG_LENGTH, MIN_POSITION
from pgsvc_codec.picture import PlaneGroup
from pgsvc_codec.splats import IntArray
from pgsvc_codec.train.births import Births
from pgsvc_codec.train.main.slot_costs import SlotCosts
from pgsvc_codec.train.objective import Objective, View

# Of slots: least and largest position, least and largest log length, largest shear.
SLOT_LIMITS = np.array([MIN_POSITION, MAX_POSITION, MIN_LOG_LENGTH, MAX_LOG_LENGTH, MAX_SHEAR], np.int64)

State = tuple[IntArray, IntArray, IntArray]  # positions, shapes, amplitudes or their symbols [N, 3]
Finish = Callable[[], None]


class Lattice(NamedTuple):
    """What splats of one layer may be, whatever they are now."""

    step: int  # D
    ends: NDArray[np.int64]  # [2] of positions coded whole, one past the last
    opponent: bool  # amplitudes lie on opponent axes


class Change(NamedTuple):
    """Slots that change what is predicted for them."""

    modes: IntArray  # [N] see `refine_slots.REMOVED_MODE`
    predicted: State  # amplitudes in 1/4096, as those of the state
    costs: SlotCosts
    removable: bool


class LayerField(Protocol):
    """What the splats of one layer are held against: e_l = sum_k>=l w_k r_k / sum_k>=l w_k, for each size of level.

    A change d of what a layer shows costs `weight` times the sum over its planes of their own weight times
    |d|^2 - 2 <e_l, d>, and leaves e_l - d.

    What settles splats changes arrays in place, at the latest when what it returns is called.
    """

    @property
    def samples(self) -> Any:
        """All planes behind each other, an array or a tensor; changed in place."""
        ...

    @property
    def weight(self) -> float:
        """sum_k>=l w_k"""
        ...

    def births(self, full_size: tuple[int, int], layer_size: int, most: int) -> Births:
        """As `train.births.find_births`, in the largest levels; gains are those of a weight of 1."""
        ...

    def show(self, positions: IntArray, shapes: IntArray, painted: NDArray[np.float64], lattice: Lattice) -> None:
        """Have further splats shown, so that the residual lacks them: [K, 2], [K, 3] and [K, 3] in unit values."""
        ...

    def settle_whole(
        self, state: State, painted: NDArray[np.float64], rate: float, costs: IntraCosts, lattice: Lattice
    ) -> Finish:
        """One pass over splats coded whole, see `refine_whole.refine_whole`; changes `state` and `painted`."""
        ...

    def settle_slots(
        self, state: State, painted: NDArray[np.float64], rate: float, change: Change, lattice: Lattice
    ) -> Finish:
        """One pass over slots, see `refine_slots.refine_slots`; changes `state`, `painted` and `change.modes`."""
        ...


def num_planes(group: PlaneGroup) -> int:
    """C of a group."""
    return group.channels.stop - group.channels.start


class Grids(NamedTuple):
    """Where the samples of a layer's field lie, which are all planes of all sizes behind each other."""

    whole: NDArray[np.int32]  # [G, 6] of each grid, see `refine_whole.refine_whole`
    floats: NDArray[np.float64]  # [G, 5] likewise
    first: int  # of the grids of the largest levels
    weight: float  # sum_k>=l w_k


class Residuals(ABC):
    """Source minus level for every level of a frame, on the axes of amplitudes.

    Args:
        objective: of the frame, one level per layer.
        level_weights: [levels].
        spare: samples to spare behind each row.
    """

    def __init__(self, objective: Objective, level_weights: Sequence[float], spare: int) -> None:
        self._weights = np.asarray(level_weights, np.float64)
        self._spare = spare
        self._views = objective.views

    @abstractmethod
    def of_layer(self, layer: int) -> LayerField:
        """What the splats of a layer are held against; a copy."""

    @abstractmethod
    def change(self, layer: int, field: LayerField) -> None:
        """Have a layer show what has become of its field, which is the last that was asked for."""

    @abstractmethod
    def squared_error(self) -> NDArray[np.float64]:
        """[levels] H W times the mean squared error, summed over planes."""

    def _shape(self, group: PlaneGroup) -> tuple[int, int, int]:
        """Planes, rows, samples from row to row."""
        return num_planes(group), group.grid.height, group.grid.width + self._spare

    def _size(self, view: View) -> int:
        """Samples of all planes, those to spare included."""
        return sum(int(np.prod(self._shape(group))) for group in view.groups)

    def _above(self, layer: int) -> list[tuple[View, list[int]]]:
        """The levels that a layer is in, by size."""
        return [(view, [*range(max(view.first, layer), view.last + 1)]) for view in self._views if view.last >= layer]

    def _grids(self, layer: int) -> Grids:
        """Of the field of a layer."""
        whole: list[list[int]] = []
        floats: list[list[float]] = []
        offset = first = 0
        weight = float(self._weights[layer:].sum())
        for view, levels in self._above(layer):
            share = self._weights[levels].sum() / weight
            first = len(whole)
            for group in view.groups:
                grid, channel = group.grid, group.channels.start
                planes, height, pitch = self._shape(group)
                whole.append([offset, grid.width, height, pitch, channel, planes])
                floats.append([grid.x0, grid.y0, 1 / grid.dx, 1 / grid.dy, share * view.channel_weights[channel]])
                offset += planes * height * pitch
        return Grids(np.array(whole, np.int32), np.array(floats), first, weight)

    def _shares(self, levels: list[int]) -> NDArray[np.float64]:
        """Of levels of one size in the residual that a layer is held against."""
        weights = self._weights[levels]
        shares: NDArray[np.float64] = weights / weights.sum()
        return shares
