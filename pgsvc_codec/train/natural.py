"""The fit in natural coordinates: Adam on whitened parameters, splats held on the grid in the end.

I-frames are here; they start where the picture has detail and end on the quantiser's grid.  P-frames are in `inter`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.splats import Splats
from pgsvc_codec.train.density import removal_costs
from pgsvc_codec.train.grid import LayerGrid, split
from pgsvc_codec.train.inter import inter
from pgsvc_codec.train.model import SplatModel
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.train.qat import RATE, settle_on_grid
from pgsvc_codec.train.rates import WARMUP, descent_of
from pgsvc_codec.train.stack import FloatFit, FrameFit, Stack
from pgsvc_codec.train.start import mean_background, start_splats

__all__ = ["background", "inter", "intra", "intra_float"]  # a `stack.Method`

_WARMUP_INTRA = 10  # iterations
_SETTLING_INTRA = 0.35  # of the iterations are spent while splats take their coded values


def background(objective: Objective) -> NDArray[np.float32]:
    """[C] mean of each plane of the top level's picture."""
    return mean_background(objective.targets[-1].picture)


def intra_float(stack: Stack, background: NDArray[np.float32]) -> FloatFit:
    """As `stack.Method.intra_float`."""
    model = _fit_free(stack, background, stack.iterations)
    return FloatFit(background, split(model.splats(), model.ends))


def intra(stack: Stack, background: NDArray[np.float32]) -> FrameFit:
    """As `stack.Method.intra`."""
    free = math.ceil((1 - _SETTLING_INTRA) * stack.iterations)
    model = _fit_free(stack, background, free)
    grids = [LayerGrid(layer, stack.size, Splats.empty(stack.objective.channels)) for layer in stack.layers]
    for grid, layer in zip(grids, split(model.splats(), model.ends), strict=True):
        grid.fit(layer)
    rest = stack.iterations - free
    descent = descent_of(stack, model, background, rest, RATE, WARMUP)
    splats = settle_on_grid(model, descent, grids, rest, stack.rng, np.zeros(len(model), np.bool_))
    return FrameFit.intra(background, split(splats, model.ends), [grid.whole for grid in grids if grid.whole])


def _fit_free(stack: Stack, background: NDArray[np.float32], iterations: int) -> SplatModel:
    """The part of an I-frame's fit that knows no quantiser."""
    if stack.start is not None:
        return SplatModel(Splats.concatenate(stack.start), stack.ends, *stack.size)
    if stack.ranked:
        return _fit_ranked(stack, background, iterations)
    splats = start_splats(stack.objective, background, stack.ends, stack.rng)
    model = SplatModel(splats, stack.ends, *stack.size)
    descent_of(stack, model, background, iterations, 1.0, _WARMUP_INTRA).run(iterations)
    return model


def _fit_ranked(stack: Stack, background: NDArray[np.float32], iterations: int) -> SplatModel:
    """One fit of all splats to the full level; those whose removal would cost most become the base, and so on."""
    single = stack.as_one_layer()
    model = _fit_free(single, background, iterations)
    splats = model.splats()
    weights = [1.0]
    costs = removal_costs(splats, single.objective.step(splats, background, model.ends, weights), weights, model.ends)
    return SplatModel(splats[np.argsort(-costs, kind="stable")], stack.ends, *stack.size)
