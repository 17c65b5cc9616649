"""What changes of slots cost in bits: a snapshot of flags and deltas, as plain tables."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main.predict import InterSymbols
from pgsvc_codec.jit import kernel
from pgsvc_codec.splats import FloatArray, IntArray
from pgsvc_codec.train.main.refine_slots import REMOVED_MODE

_MODES = REMOVED_MODE + 1
_MOST_DELTA = 255
_GROUPS = np.array([0, 0, 1, 1, 1, 2, 2, 2])  # of columns of deltas, as bits of modes
_NEIGHBOURHOOD = 12  # log2 of the side, in 1/64 pixels, of cells whose slots are neighbours
_ACTIVITIES = 6  # contexts of flags: how much slots nearby do
_SMOOTHING = 6.0  # slots that a context borrows from all contexts together
_USUAL = np.array([0.68] + [0.04] * REMOVED_MODE)  # shares of modes: most slots of most frames stay as predicted
_PRIOR = 4.0  # deltas that a table has seen before the first: magnitudes fall by half from one to the next


class SlotCosts(NamedTuple):
    """Bits of changes, as `refine_slots.refine_slots` looks them up."""

    flags: FloatArray  # [N, 9] of every mode of every slot
    deltas: FloatArray  # [5 + C, 256] of steps by magnitude, the sign included


def slot_costs(symbols: InterSymbols, modes: IntArray, places: IntArray, *, guessed: bool = False) -> SlotCosts:
    """Prices from what slots do now.

    Args:
        symbols: of N slots.
        modes: [N], see `refine_slots.REMOVED_MODE`.
        places: [N, 2] predicted positions.
        guessed: nobody has weighed the changes yet: that they are as many as this is half believed.
    """
    contexts = np.empty(len(modes), np.int32)
    counts, seen = np.zeros((_ACTIVITIES, _MODES)), np.zeros((symbols.deltas.shape[1], _MOST_DELTA + 1))
    columns, rows = (np.maximum(places.max(axis=0, initial=0) >> _NEIGHBOURHOOD, 0) + 1).tolist()
    _count(symbols.deltas, modes, places, np.zeros((2, rows + 2, columns + 2)), contexts, counts, seen)
    pooled = counts.sum(axis=0) + 0.5
    counts += _SMOOTHING * pooled / pooled.sum()
    if guessed:
        counts = counts / counts.sum(axis=1, keepdims=True) + _USUAL
    flags = -np.log2(counts / counts.sum(axis=1, keepdims=True))
    magnitudes = np.arange(_MOST_DELTA + 1)
    shares = seen + _PRIOR * np.maximum(np.exp2(-magnitudes - 1.0), 1e-6)
    deltas = -np.log2(shares / shares.sum(axis=1, keepdims=True)) + (magnitudes > 0)
    return SlotCosts(flags.astype(np.float32)[contexts], deltas.astype(np.float32))


def slot_bits(costs: SlotCosts, symbols: InterSymbols, modes: IntArray) -> float:
    """Of all slots."""
    total = float(costs.flags[np.arange(len(modes)), modes].sum())
    for column, numbers in enumerate(symbols.deltas.T):
        active = (modes >> _GROUPS[column] & 1 == 1) & (modes < REMOVED_MODE)
        total += float(costs.deltas[column, np.minimum(np.abs(numbers[active]), _MOST_DELTA)].sum())
    return total


@kernel(nogil=True, error_model="numpy")
def _count(
    deltas: IntArray,
    modes: IntArray,
    places: IntArray,
    active: NDArray[np.float64],
    contexts: IntArray,
    counts: NDArray[np.float64],
    seen: NDArray[np.float64],
) -> None:
    """Count modes by contexts, how much the other slots around a slot do, and magnitudes.

    Args:
        deltas: [N, 5 + C].
        modes: [N].
        places: [N, 2].
        active: [2, rows + 2, columns + 2] zeros: slots that do something, and slots, in cells with a margin of one.
        contexts: [N] filled.
        counts: [contexts, modes] added to; likewise seen, [5 + C, magnitudes].
    """
    for n in range(len(modes)):
        x, y = max(places[n, 0] >> _NEIGHBOURHOOD, 0) + 1, max(places[n, 1] >> _NEIGHBOURHOOD, 0) + 1
        active[0, y, x] += modes[n] > 0
        active[1, y, x] += 1
    for n in range(len(modes)):
        x, y = max(places[n, 0] >> _NEIGHBOURHOOD, 0) + 1, max(places[n, 1] >> _NEIGHBOURHOOD, 0) + 1
        # its own cell counts twice, itself not at all
        busy = active[0, y, x] - 2 * (modes[n] > 0)
        slots = active[1, y, x] - 2
        for down in range(-1, 2):
            for right in range(-1, 2):
                busy += active[0, y + down, x + right]
                slots += active[1, y + down, x + right]
        contexts[n] = min(int((busy + 0.3) / (slots + 1.0) * _ACTIVITIES), _ACTIVITIES - 1)
        counts[contexts[n], modes[n]] += 1
        if modes[n] < REMOVED_MODE:
            for column in range(deltas.shape[1]):
                if modes[n] >> _GROUPS[column] & 1:
                    seen[column, min(abs(deltas[n, column]), _MOST_DELTA)] += 1
