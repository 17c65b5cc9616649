"""What changes of slots cost in bits: a snapshot of flags and deltas, as plain tables."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main.predict import InterSymbols
from pgsvc_codec.splats import FloatArray, IntArray
from pgsvc_codec.train.main.refine_slots import REMOVED_MODE

_MODES = REMOVED_MODE + 1
_MOST_DELTA = 255
_NEIGHBOURHOOD = 12  # log2 of the side, in 1/64 pixels, of cells whose slots are neighbours
_ACTIVITIES = 6  # contexts of flags: how much slots nearby do
_SMOOTHING = 6.0  # slots that a context borrows from all contexts together
_USUAL = np.array([0.68] + [0.04] * REMOVED_MODE)  # shares of modes: most slots of most frames stay as predicted
_PRIOR = 4.0  # deltas that a table has seen before the first: magnitudes fall by half from one to the next


class SlotCosts(NamedTuple):
    """Bits of changes, as `refine_slots.refine_slots` looks them up."""

    flags: FloatArray  # [N, 9] of every mode of every slot
    deltas: FloatArray  # [5 + C, 256] of steps by magnitude, the sign included


def modes_of(symbols: InterSymbols) -> IntArray:
    """[N] which groups change: the sum of 1 (position), 2 (shape) and 4 (colour)."""
    modes: IntArray = np.zeros(len(symbols.positions), np.int32)
    for bit, part in enumerate(symbols):
        modes |= part.any(axis=1).astype(np.int32) << bit
    return modes


def slot_costs(symbols: InterSymbols, modes: IntArray, places: IntArray, *, guessed: bool = False) -> SlotCosts:
    """Prices from what slots do now.

    Args:
        symbols: of N slots.
        modes: [N], see `refine_slots.REMOVED_MODE`.
        places: [N, 2] predicted positions.
        guessed: nobody has weighed the changes yet: that they are as many as this is half believed.
    """
    contexts = _contexts(modes, places)
    counts = np.zeros((_ACTIVITIES, _MODES))
    np.add.at(counts, (contexts, modes), 1)
    pooled = counts.sum(axis=0) + 0.5
    counts += _SMOOTHING * pooled / pooled.sum()
    if guessed:
        counts = counts / counts.sum(axis=1, keepdims=True) + _USUAL
    flags = -np.log2(counts / counts.sum(axis=1, keepdims=True))
    columns = []
    prior = np.maximum(np.exp2(-np.arange(_MOST_DELTA + 1.0) - 1), 1e-6)
    for group, part in enumerate(symbols):
        active = (modes >> group & 1 == 1) & (modes < REMOVED_MODE)
        for column in part.T:
            seen = np.bincount(np.minimum(np.abs(column[active]), _MOST_DELTA), minlength=_MOST_DELTA + 1)
            shares = seen + _PRIOR * prior
            columns.append(-np.log2(shares / shares.sum()) + (np.arange(_MOST_DELTA + 1) > 0))
    return SlotCosts(flags[contexts].astype(np.float32), np.array(columns, np.float32))


def slot_bits(costs: SlotCosts, symbols: InterSymbols, modes: IntArray) -> float:
    """Of all slots."""
    total = float(costs.flags[np.arange(len(modes)), modes].sum())
    column = 0
    for group, part in enumerate(symbols):
        active = (modes >> group & 1 == 1) & (modes < REMOVED_MODE)
        for numbers in part.T:
            total += float(costs.deltas[column, np.minimum(np.abs(numbers[active]), _MOST_DELTA)].sum())
            column += 1
    return total


def _contexts(modes: IntArray, places: IntArray) -> NDArray[np.intp]:
    """[N] how much the other slots around a slot do."""
    cells = np.maximum(places >> _NEIGHBOURHOOD, 0)
    columns, rows = (cells.max(axis=0, initial=0) + 1).tolist()
    flat = cells[:, 1] * columns + cells[:, 0]
    active = (modes > 0).astype(np.float64)
    sums = []
    for weights in (active, np.ones(len(modes))):
        grid = np.bincount(flat, weights, minlength=rows * columns).reshape(rows, columns)
        padded = np.pad(grid, 1)
        around = sum(
            padded[1 + down : 1 + down + rows, 1 + right : 1 + right + columns]
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
        )
        sums.append((grid + around).ravel()[flat] - 2 * weights)  # its own cell counts twice, itself not at all
    share = (sums[0] + 0.3) / (sums[1] + 1.0)
    return np.minimum((share * _ACTIVITIES).astype(np.intp), _ACTIVITIES - 1)
