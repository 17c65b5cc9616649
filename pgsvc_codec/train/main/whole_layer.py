"""The splats of a layer that are coded whole, while they are settled on their lattice one by one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main.cost import IntraCosts, intra_bits, intra_costs, payload_bits
from pgsvc_codec.coding.main.state import (
    AMPLITUDE_BITS,
    MAX_LOG_LENGTH,
    MAX_POSITION,
    MAX_SHEAR,
    MIN_LOG_LENGTH,
    MIN_POSITION,
    POSITION_BITS,
    parameters_of,
    splats_of,
)
from pgsvc_codec.splats import IntArray, Splats, SplatState
from pgsvc_codec.train.main.residuals import Finish, Lattice, LayerField, Residuals, State
from pgsvc_codec.train.main.rounding import round_whole

_BIRTH_BITS = 14.0  # that a birth must be worth; about half of what a splat costs, for its place and shape get better
_FEWEST_BIRTHS = 16  # that a layer is offered, however small


def widened(columns: IntArray) -> IntArray:
    """[N, 3] of [N, C]: gray splats have no more channels than the first."""
    wide = np.zeros((len(columns), 3), np.int32)
    wide[:, : columns.shape[1]] = columns
    return wide


def finely(
    splats: Splats, size: tuple[int, int], *, opponent: bool, margin: bool = False
) -> tuple[IntArray, IntArray, NDArray[np.float64]]:
    """Positions and shapes in the units of `SplatState`, and amplitudes, as near as these units allow.

    Positions come to lie in the frame, or with `margin` where slots may be.
    """
    positions, shapes, amplitudes = parameters_of(splats, *size, opponent=opponent)
    ends = np.array(size) << POSITION_BITS
    lowest = [MIN_LOG_LENGTH, -MAX_SHEAR, MIN_LOG_LENGTH]
    highest = [MAX_LOG_LENGTH, MAX_SHEAR, MAX_LOG_LENGTH]
    painted = np.zeros((len(splats), 3))
    painted[:, : splats.channels] = np.rint(amplitudes) / (1 << AMPLITUDE_BITS)
    return (
        np.clip(np.rint(positions), *((MIN_POSITION, MAX_POSITION) if margin else (0, ends - 1))).astype(np.int32),
        np.clip(np.rint(shapes), lowest, highest).astype(np.int32),
        painted,
    )


class _Pending(NamedTuple):
    """A pass that may still be under way."""

    finish: Finish
    state: State
    painted: NDArray[np.float64]


class WholeLayer:
    """A layer's splats: those of a fit until they are first settled, then points of the lattice.

    Args:
        splats: of the fit.
        step: D.
        size: full width and height of the frame.
        opponent: amplitudes lie on opponent axes.
        rounded: begin with the lattice points that are nearest.
        prices: that hold throughout; None: those of the layer itself, counted anew for every pass.
        rows: [N] names of the splats, kept beside them; None: their indices.
    """

    def __init__(
        self,
        splats: Splats,
        step: int,
        size: tuple[int, int],
        *,
        opponent: bool,
        rounded: bool = False,
        prices: IntraCosts | None = None,
        rows: NDArray[np.intp] | None = None,
    ) -> None:
        self._step = step
        self._size = size
        self._opponent = opponent
        self._channels = splats.channels
        self._prices = prices
        self._rows = np.arange(len(splats)) if rows is None else rows
        self._pending: _Pending | None = None
        self._counted: tuple[int, IntraCosts] | None = None  # of so many splats
        ends = np.array(size, np.int64) << POSITION_BITS
        self._lattice = Lattice(step, ends, opponent)
        self._nearest = round_whole(splats, step, size, opponent=opponent)
        if rounded:
            self._rows = self._rows[: len(self._nearest)]
            self._positions, self._shapes = self._nearest.positions, self._nearest.shapes
            self._symbols = widened(self._nearest.amplitudes // np.int32(step))
            self._painted = self._symbols * np.float64(self._unit)
        else:
            self._positions, self._shapes, self._painted = finely(splats, size, opponent=opponent)
            self._symbols = np.zeros(self._painted.shape, np.int32)

    def __len__(self) -> int:
        self._finish()
        return len(self._positions)

    @property
    def rows(self) -> NDArray[np.intp]:
        """Of the splats that there are."""
        self._finish()
        return self._rows

    @property
    def _unit(self) -> float:
        """D in unit values."""
        return self._step / (1 << AMPLITUDE_BITS)

    def splats(self) -> Splats:
        """What the layer shows."""
        self._finish()
        amplitudes = np.rint(self._painted[:, : self._channels] * (1 << AMPLITUDE_BITS)).astype(np.int32)
        shown = SplatState(self._positions, self._shapes, amplitudes)
        return splats_of(shown, *self._size, opponent=self._opponent)

    def state(self) -> SplatState:
        """The splats that lie on their lattice."""
        self._finish()
        settled = self._symbols.any(axis=1)
        amplitudes = self._symbols[settled, : self._channels] * np.int32(self._step)
        return SplatState(self._positions[settled], self._shapes[settled], amplitudes)

    def bits(self) -> float:
        """Estimate."""
        state = self.state()
        if self._prices is not None:
            shares = float(self._prices.cells_fewer[0, 0]) * len(state)
            return float(intra_bits(state, self._step, self._prices).sum()) + shares
        return payload_bits(state, self._step, self._costs_of(state))

    def _costs(self) -> IntraCosts:
        """From the splats as they are; before they are settled, from the lattice points nearest to them."""
        state = self.state()
        return self._prices or self._costs_of(state if len(state) else self._nearest)

    def _costs_of(self, state: SplatState) -> IntraCosts:
        """Of the layer's own splats; kept, since both who settles and who counts asks for them."""
        if self._counted is None or self._counted[0] != len(state):
            self._counted = len(state), intra_costs(state, self._step, *self._size)
        return self._counted[1]

    def settle(self, residuals: Residuals, layer: int, rate: float, births: float, room: int | None = None) -> None:
        """One pass over all splats; those that are not worth their bits go.

        Args:
            residuals: of the frame.
            layer: index of this one.
            rate: squared error that a bit is worth.
            births: as many splats, as a share of those there are, are tried where they would take off most error.
            room: most splats that may be born; None: any number.
        """
        self._finish()
        field = residuals.of_layer(layer)
        costs = self._costs()
        if births:
            self._add_births(field, rate / field.weight, births, room)
        state = self._positions.copy(), self._shapes.copy(), self._symbols.copy()
        painted = self._painted.copy()
        finish = field.settle_whole(state, painted, rate / field.weight, costs, self._lattice)
        residuals.change(layer, field)
        self._pending = _Pending(finish, state, painted)

    def _finish(self) -> None:
        """Take in what the last pass has come to."""
        if self._pending is None:
            return
        finish, state, painted = self._pending
        self._pending = self._counted = None
        finish()
        kept = state[2].any(axis=1)
        self._positions, self._shapes, self._symbols = (part[kept] for part in state)
        self._painted = painted[kept]
        self._rows = self._rows[kept]

    def _add_births(self, field: LayerField, rate: float, share: float, room: int | None) -> None:
        count = len(self._positions)
        most = max(int(share * count), _FEWEST_BIRTHS)
        births = field.births(self._size, max(count, 1), most)
        worth = np.flatnonzero(births.gains > _BIRTH_BITS * rate)[:room]
        positions, shapes, painted = finely(births.splats[worth], self._size, opponent=False)  # on the axes already
        field.show(positions, shapes, painted, self._lattice)
        self._positions = np.concatenate([self._positions, positions])
        self._shapes = np.concatenate([self._shapes, shapes])
        self._painted = np.concatenate([self._painted, painted])
        self._symbols = np.concatenate([self._symbols, np.zeros(painted.shape, np.int32)])
        self._rows = np.concatenate([self._rows, np.full(len(painted), -1)])
