"""Fit the splats of one frame: I-frames from nothing, P-frames from the decoded frame before (paper, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.quant import QuantTables
from pgsvc_codec.config import EncodePlan
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.descent import descend
from pgsvc_codec.train.model import SplatModel
from pgsvc_codec.train.motion import Motion, move
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.train.qat import LayerGrids, settle_on_grid
from pgsvc_codec.train.schedule import LEVEL_SCHEDULES
from pgsvc_codec.train.start import layer_ends, mean_background, start_splats

_QUANTIZED_SHARE = 0.35  # of the iterations are spent while splats take their coded values


class FrameFit(NamedTuple):
    """What the coder needs of a fitted frame, layer by layer."""

    layers: list[Splats]  # on the quantiser's grid; of a P-frame in the order of the reference
    tables: list[QuantTables]
    background: NDArray[np.float32]  # [C]


def _finish(
    model: SplatModel,
    objective: Objective,
    background: NDArray[np.float32],
    grids: LayerGrids,
    iterations: int,
    plan: EncodePlan,
    rng: np.random.Generator,
    rate: float,
) -> FrameFit:
    """Free iterations, then those on the grid."""
    weights = LEVEL_SCHEDULES[plan.level_schedule](len(model.ends))
    free = max(1, round((1 - _QUANTIZED_SHARE) * iterations))
    descend(model, objective, background, free, weights, rate=rate)
    splats = settle_on_grid(model, objective, background, grids, iterations - free, weights, rng)
    return FrameFit([splats[rows] for rows in grids.slices], grids.tables, background)


def fit_intra(objective: Objective, plan: EncodePlan, rng: np.random.Generator) -> FrameFit:
    """Fit an I-frame from nothing but its picture."""
    ends = layer_ends(plan.splats, plan.layer_shares)
    background = mean_background(objective.picture)
    size = (objective.width, objective.height)
    model = SplatModel(start_splats(objective.picture, background, ends, rng), ends, *size)
    return _finish(model, objective, background, LayerGrids(ends, size), plan.iterations_intra, plan, rng, 1.0)


def fit_inter(
    objective: Objective,
    plan: EncodePlan,
    rng: np.random.Generator,
    reference: Sequence[Splats],
    background: NDArray[np.float32],
    motion: Motion,
    tables: Sequence[QuantTables] | None,
) -> FrameFit:
    """Fit a P-frame.

    Args:
        reference: decoded splats of the previous frame, layer by layer.
        background: [C] of the previous frame, kept.
        motion: from the previous source frame to this one.
        tables: quantisers of differences that this GOP already has, one per layer; None fits new ones.
    """
    base = Splats.concatenate(reference)
    ends = [int(end) for end in np.cumsum([len(layer) for layer in reference])]
    size = (objective.width, objective.height)
    still = [0.0] * (len(ends) - 1) + [1.0]
    moved = Splats(move(base.means, motion, *size), base.cholesky, base.colors)

    def error(splats: Splats) -> float:
        return objective.loss(objective.step(splats, background, ends, still).squared_error, still)

    start = moved if error(moved) < error(base) else base
    model = SplatModel(start, ends, *size)
    grids = LayerGrids(ends, size, base, tables)
    return _finish(model, objective, background, grids, plan.iterations_inter, plan, rng, 0.7)
