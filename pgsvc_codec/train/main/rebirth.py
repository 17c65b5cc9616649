"""New splats in the slots of a P-frame, where they are worth their bits.

A splat coded whole costs some thirty bits, a slot that nobody moves next to none.  So a birth is accepted for what it
takes off the error beyond those bits and beyond what the slot's old splat was still worth; slots that hold no splat are
taken first.  Decided splat by splat, this pays on quiet clips too, where a fixed share of relocations only costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.render.reference import StepResult
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.births import find_births
from pgsvc_codec.train.main.deltas import Deltas
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.train.relocate import removal_costs

_YIELD = 0.9  # of the matched filter's gain is left once neighbours have found the error too
_WHOLE_BITS = 20.0  # of a splat coded whole
_SLOT_BITS = 3.0  # that a slot more costs over the frames to come
_MOST = 0.1  # share of a layer that is born at a time, beside a quarter of its idle slots


class Birth(NamedTuple):
    """Slots and the splats that are born there."""

    rows: NDArray[np.intp]  # [K]
    splats: Splats  # K


def change_bits(deltas: Deltas) -> NDArray[np.float64]:
    """[N] about how many bits the changes of each slot take; more than a handful only where they are large."""
    sizes = np.abs(deltas.changes / deltas.units)
    return np.where(sizes > 0.5, 1.0 + 2.0 * np.log2(1.0 + sizes), 0.0).sum(axis=1)


def find_rebirths(
    deltas: Deltas,
    objective: Objective,
    background: NDArray[np.float32],
    splats: Splats,
    step: StepResult,
    level_weights: Sequence[float],
    layer: int,
    price: float,
) -> Birth:
    """Which splats of a layer should be born, and in which slots.

    Args:
        deltas: all layers.
        objective: of the frame.
        background: [C].
        splats: of `deltas`, at which `step` was taken.
        level_weights: of all levels; one of those that the layer is in weighs something.
        layer: index.
        price: squared error that a bit is worth, in this layer.
    """
    start, end = (deltas.ends[layer - 1] if layer else 0), deltas.ends[layer]
    rows = slice(start, end)
    worth = removal_costs(splats, step, level_weights, deltas.ends)[rows]
    spent = np.where(deltas.is_new[rows], _WHOLE_BITS, change_bits(deltas)[rows])
    loss = np.where(deltas.is_idle[rows], price * _SLOT_BITS, worth - price * spent)
    lowest = next(k for k in range(layer, len(deltas.ends)) if level_weights[k])
    weight = sum(level_weights[k] for k in objective.peers(lowest))
    residual = objective.weighted_residual(lowest, splats, background, deltas.ends, level_weights)
    count = end - start
    most = int(_MOST * count) + int(deltas.is_idle[rows].sum()) // 4
    births = find_births(residual, weight, (objective.width, objective.height), count, most)
    cheapest = np.argsort(loss, kind="stable")[: len(births.gains)]
    # gains fall and losses rise, so profits end once and for all
    chosen = int((_YIELD * births.gains > loss[cheapest] + price * _WHOLE_BITS).sum())
    return Birth(start + cheapest[:chosen], births.splats[:chosen])
