"""Fitted slots to integers: each change to a whole number of its steps, new splats to their own lattices."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main.predict import InterSymbols, changed, inter_shifts
from pgsvc_codec.coding.main.state import parameters_of
from pgsvc_codec.splats import IntArray, Splats, SplatState
from pgsvc_codec.train.main.rounding import round_whole

_ROUND_UP = 0.6  # of a step: a larger change costs bits, a smaller one is made good by neighbours


class Settled(NamedTuple):
    """The slots of one layer as they are coded."""

    state: SplatState  # [M]
    reborn: NDArray[np.bool_]  # [M] slots coded whole


def settle_changes(
    predicted: SplatState,
    splats: Splats,
    reborn: NDArray[np.bool_],
    step: int,
    size: tuple[int, int],
    *,
    opponent: bool,
) -> Settled:
    """Round the slots of one layer.

    Args:
        predicted: [N] slots.
        splats: [K] K >= N, the first N those predicted.
        reborn: [K] slots that are coded whole; true of all behind the first N.
        step: D.
        size: full width and height of the frame.
        opponent: the stream is RGB.

    Returns:
        M <= K: added slots whose amplitudes round to nothing are left out; other new splats of which nothing remains
        leave their slot dead.
    """
    count = len(predicted)
    places, shapes, amplitudes = parameters_of(splats, *size, opponent=opponent)
    place_shifts, shape_shifts = inter_shifts(predicted, step)
    as_predicted = reborn[:count] | ~predicted.amplitudes.any(axis=1)

    def counts(values: NDArray[np.float64], before: IntArray, width: NDArray[np.float64] | int) -> IntArray:
        steps = (values[:count] - before) / width
        whole = np.sign(steps) * np.floor(np.abs(steps) + (1 - _ROUND_UP))
        whole[as_predicted] = 0
        return whole.astype(np.int32)

    symbols = InterSymbols(
        counts(places, predicted.positions, np.exp2(place_shifts)),
        counts(shapes, predicted.shapes, np.exp2(shape_shifts)[:, None]),
        counts(amplitudes, predicted.amplitudes, step),
    )
    kept = changed(predicted, symbols, step)
    added = SplatState(*(np.zeros((len(splats) - count, part.shape[1]), np.int32) for part in symbols))
    slots = SplatState.concatenate([kept, added])
    is_whole = reborn & np.rint(amplitudes / step).any(axis=1)
    slots.amplitudes[reborn] = 0
    whole = round_whole(splats[is_whole], step, size, opponent=opponent)
    slots.positions[is_whole], slots.shapes[is_whole] = whole.positions, whole.shapes
    slots.amplitudes[is_whole] = whole.amplitudes
    stays = is_whole | (np.arange(len(splats)) < count)
    return Settled(slots[stays], is_whole[stays])
