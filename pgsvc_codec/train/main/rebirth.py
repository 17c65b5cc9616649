"""New splats in the slots of a P-frame, where they are worth their bits.

A splat coded whole costs some thirty bits, a slot that nobody moves next to none.  So a birth is accepted for what it
takes off the error beyond those bits and beyond what the slot's old splat was still worth; slots that hold no splat are
taken first.  Decided splat by splat, this pays on quiet clips too, where a fixed share of relocations only costs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.render.reference import StepResult
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.births import Births
from pgsvc_codec.train.main.deltas import Deltas
from pgsvc_codec.train.main.problem import InterProblem
from pgsvc_codec.train.relocate import removal_costs

_YIELD = 0.9  # of the matched filter's gain is left once neighbours have found the error too
WHOLE_BITS = 20.0  # of a splat coded whole
SLOT_BITS = 3.0  # that a slot more costs over the frames to come
_MOST = 0.1  # share of a layer that is born at a time, beside a quarter of its idle slots


class Birth(NamedTuple):
    """Slots and the splats that are born there."""

    rows: NDArray[np.intp]  # [K]
    splats: Splats  # K


def change_bits(deltas: Deltas) -> NDArray[np.float64]:
    """[N] about how many bits the changes of each slot take; more than a handful only where they are large."""
    sizes = np.abs(deltas.changes / deltas.units)
    return np.where(sizes > 0.5, 1.0 + 2.0 * np.log2(1.0 + sizes), 0.0).sum(axis=1)


def find_rebirths(deltas: Deltas, problem: InterProblem, splats: Splats, step: StepResult, layer: int) -> Birth:
    """Which splats of a layer should be born, and in which slots.

    Args:
        deltas: all layers.
        problem: the frame; one of the levels that the layer is in weighs something.
        splats: of `deltas`, at which `step` was taken.
        layer: index.
    """
    level_weights, price = problem.level_weights, problem.lambdas[layer]
    rows = rows_of(deltas, layer)
    worth = removal_costs(splats, step, level_weights, deltas.ends)[rows]
    spent = np.where(deltas.is_new[rows], WHOLE_BITS, change_bits(deltas)[rows])
    losses = np.where(deltas.is_idle[rows], price * SLOT_BITS, worth - price * spent)
    lowest, _ = supervised(problem, layer)
    most = most_births(deltas, layer)
    births = problem.objective.find_births(
        lowest, splats, problem.background, deltas.ends, level_weights, len(losses), most
    )
    return paying(births, losses, rows.start, price)


def rows_of(deltas: Deltas, layer: int) -> slice:
    """The slots of a layer."""
    return slice(deltas.ends[layer - 1] if layer else 0, deltas.ends[layer])


def supervised(problem: InterProblem, layer: int) -> tuple[int, float]:
    """The lowest level that a layer is in and that weighs something, and the weight of all levels of its size."""
    lowest = next(k for k in range(layer, len(problem.level_weights)) if problem.level_weights[k])
    return lowest, sum(problem.level_weights[k] for k in problem.objective.peers(lowest))


def most_births(deltas: Deltas, layer: int) -> int:
    """How many splats of a layer may be born at a time."""
    rows = rows_of(deltas, layer)
    return int(_MOST * (rows.stop - rows.start)) + int(deltas.is_idle[rows].sum()) // 4


def paying(births: Births, losses: NDArray[np.floating], start: int, price: float) -> Birth:
    """Those births that are worth their bits, in the slots that lose least by them.

    Args:
        births: best first.
        losses: [n] what J rises by without what each slot of the layer holds.
        start: number of the layer's first slot.
        price: squared error that a bit is worth.
    """
    cheapest = np.argsort(losses, kind="stable")[: len(births.gains)]
    # gains fall and losses rise, so profits end once and for all
    chosen = int((_YIELD * births.gains > losses[cheapest] + price * WHOLE_BITS).sum())
    return Birth(start + cheapest[:chosen], births.splats[:chosen])
