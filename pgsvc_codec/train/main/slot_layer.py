"""The slots of a layer of a P- or B-frame, while they settle on the lattices around their predictions."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main.cost import IntraCosts, sparse_costs
from pgsvc_codec.coding.main.intra import grid_shape
from pgsvc_codec.coding.main.predict import InterSymbols, changes, flagged, inter_shifts
from pgsvc_codec.coding.main.state import AMPLITUDE_BITS, POSITION_BITS, parts_of, splats_of
from pgsvc_codec.splats import IntArray, Splats, SplatState
from pgsvc_codec.train.main.refine_slots import REMOVED_MODE
from pgsvc_codec.train.main.residuals import Change, Finish, Lattice, Residuals, State
from pgsvc_codec.train.main.rounding import round_whole
from pgsvc_codec.train.main.slot_costs import slot_bits, slot_costs
from pgsvc_codec.train.main.whole_layer import WholeLayer, finely, widened

_REVIVAL_BITS = 3.0  # of the flags that say a slot holds a new splat


class _Pending(NamedTuple):
    """A pass that may still be under way."""

    finish: Finish
    state: State
    painted: NDArray[np.float64]
    modes: IntArray


class SlotLayer:
    """A layer's slots: those of a fit until they are first settled, then points of their lattices.

    Args:
        predicted: [N] slots.
        splats: [M] of the fit, the first N those predicted.
        reborn: [M] whether a slot holds a new splat, to be coded whole; true of all behind the first N.
        step: D.
        size: full width and height of the frame.
        opponent: amplitudes lie on opponent axes.
        removable: slots can be removed.
    """

    def __init__(
        self,
        predicted: SplatState,
        splats: Splats,
        reborn: NDArray[np.bool_],
        step: int,
        size: tuple[int, int],
        *,
        opponent: bool,
        removable: bool,
    ) -> None:
        self._step = step
        self._size = size
        self._opponent = opponent
        self._removable = removable
        self._lattice = Lattice(step, np.array(size, np.int64) << POSITION_BITS, opponent)
        self._count = len(splats)
        self._rows = np.flatnonzero(~reborn[: len(predicted)] & predicted.amplitudes.any(axis=1))
        self._all = predicted
        self._predicted = predicted[self._rows]
        self._positions, self._shapes, self._painted = finely(splats[self._rows], size, opponent=opponent, margin=True)
        self._amplitudes = widened(self._predicted.amplitudes)
        self._loose = True
        self._pending: _Pending | None = None
        self._symbols = self._rounded()
        self._modes = self._symbols.flags
        self._costs = slot_costs(self._symbols, self._modes, self._predicted.positions, guessed=True)
        born = np.flatnonzero(reborn)
        prices = _prices_of_new(splats, len(born), step, size, opponent=opponent) if len(born) else None
        self._new = WholeLayer(splats[born], step, size, opponent=opponent, prices=prices, rows=born)

    def _rounded(self) -> InterSymbols:
        """The steps that come nearest to the fit, one by one."""
        place_shifts, form_shifts = inter_shifts(self._predicted, self._step)
        amplitudes = np.rint(self._painted * (1 << AMPLITUDE_BITS)).astype(np.int64)
        channels = self._predicted.channels
        parts = (
            (self._positions - self._predicted.positions) / np.exp2(place_shifts),
            (self._shapes - self._predicted.shapes) / np.exp2(form_shifts)[:, None],
            (amplitudes[:, :channels] - self._predicted.amplitudes) / float(self._step),
        )
        return flagged(np.rint(np.concatenate(parts, axis=1)).astype(np.int32))

    def splats(self) -> Splats:
        """What the layer shows."""
        self._finish()
        channels = self._predicted.channels
        amplitudes = np.rint(self._painted[:, :channels] * (1 << AMPLITUDE_BITS)).astype(np.int32)
        shown = SplatState(self._positions, self._shapes, amplitudes)
        return Splats.concatenate([splats_of(shown, *self._size, opponent=self._opponent), self._new.splats()])

    def _found(self, removed: NDArray[np.bool_]) -> InterSymbols:
        """The symbols of the slots as they are; those removed change nothing."""
        amplitudes = np.ascontiguousarray(self._amplitudes[:, : self._predicted.channels])
        state = SplatState(self._positions, self._shapes, amplitudes)
        return changes(self._predicted, state, self._step, removed)

    def bits(self) -> float:
        """Estimate."""
        self._finish()
        bits = slot_bits(self._costs, self._symbols, self._modes)
        return bits + self._new.bits() if len(self._new) else bits

    def settle(self, residuals: Residuals, layer: int, rate: float) -> None:
        """One pass over all slots; arguments as those of `WholeLayer.settle`."""
        self._finish()
        field = residuals.of_layer(layer)
        state = self._positions.copy(), self._shapes.copy(), self._amplitudes.copy()
        modes = np.full_like(self._modes, -1) if self._loose else self._modes.copy()
        painted = self._painted.copy()
        predicted = self._predicted.positions, self._predicted.shapes, widened(self._predicted.amplitudes)
        change = Change(modes, predicted, self._costs, self._removable)
        finish = field.settle_slots(state, painted, rate / field.weight, change, self._lattice)
        residuals.change(layer, field)
        if len(self._new):
            self._new.settle(residuals, layer, rate, 0.0)
        self._pending = _Pending(finish, state, painted, modes)

    def _finish(self) -> None:
        """Take in what the last pass has come to, and what changes cost from now on."""
        if self._pending is None:
            return
        finish, state, painted, modes = self._pending
        self._pending = None
        finish()
        self._positions, self._shapes, self._amplitudes = state
        self._painted = painted
        self._loose = False
        self._symbols = self._found(modes == REMOVED_MODE)
        self._modes = np.where(modes == REMOVED_MODE, modes, self._symbols.flags)
        self._costs = slot_costs(self._symbols, self._modes, self._predicted.positions)

    def state(self) -> tuple[SplatState, NDArray[np.bool_]]:
        """The slots, those of no amplitude being dead, and which of them hold new splats.

        Slots behind those predicted whose splats did not last are not among them.
        """
        self._finish()
        channels = self._predicted.channels
        new, rows = self._new.state(), self._new.rows
        extra = self._count - len(self._all)
        parts = [np.concatenate([part, np.zeros((extra, part.shape[1]), np.int32)]) for part in parts_of(self._all)]
        reborn = np.zeros(self._count, np.bool_)
        reborn[rows] = True
        parts[2][:] = 0
        for part, ours, theirs in zip(
            parts,
            (self._positions, self._shapes, self._amplitudes[:, :channels]),
            parts_of(new),
            strict=True,
        ):
            part[self._rows], part[rows] = ours, theirs
        kept = np.concatenate([np.ones(len(self._all), np.bool_), reborn[len(self._all) :]])
        return SplatState(*parts)[kept], reborn[kept]


def _prices_of_new(splats: Splats, count: int, step: int, size: tuple[int, int], *, opponent: bool) -> IntraCosts:
    """Prices of new splats, which are too few for tables of their own: those of all; and of being among so few."""
    nearest = round_whole(splats, step, size, opponent=opponent)
    rows, columns = grid_shape(*size)
    gap = math.log2(rows * columns * math.e / count) if count < rows * columns else math.e
    return sparse_costs(nearest, step, *size, gap + _REVIVAL_BITS)
