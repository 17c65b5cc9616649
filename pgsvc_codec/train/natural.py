"""The fit in natural coordinates: Adam on whitened parameters, splats held on the grid in the end.

I-frames are here; they start where the picture has detail and end on the quantiser's grid.  P-frames are in `inter`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.splats import Splats
from pgsvc_codec.train.adam import Adam
from pgsvc_codec.train.grid import LayerGrid, split
from pgsvc_codec.train.inter import inter
from pgsvc_codec.train.model import SplatModel
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.train.qat import RATE, settle_on_grid
from pgsvc_codec.train.rates import WARMUP, adam_of, descent_of
from pgsvc_codec.train.relocate import Relocations, Turns, removal_costs
from pgsvc_codec.train.schedule import half_cosine
from pgsvc_codec.train.stack import FloatFit, FrameFit, Stack
from pgsvc_codec.train.start import mean_background, start_splats
from pgsvc_codec.train.tuning import CODED, FREE, Limits, Tuning

__all__ = ["background", "inter", "intra", "intra_float"]  # a `stack.Method`

_USUAL = 500  # iterations, for which `Tuning.relocations` holds
_ALL_AWAKE = 150  # iterations up to which all splats are there from the start
_LEAST_INTERVAL = 4  # iterations from one relocation to the next
_SETTLING_INTRA = 0.35  # of the iterations are spent while splats take their coded values


def background(objective: Objective) -> NDArray[np.float32]:
    """[C] mean of each plane of the top level's picture."""
    return mean_background(objective.targets[-1].picture)


def intra_float(stack: Stack, background: NDArray[np.float32]) -> FloatFit:
    """As `stack.Method.intra_float`."""
    model = _fit_free(stack, background, stack.iterations, FREE)
    return FloatFit(background, split(model.splats(), model.ends))


def intra(stack: Stack, background: NDArray[np.float32]) -> FrameFit:
    """As `stack.Method.intra`."""
    free = math.ceil((1 - _SETTLING_INTRA) * stack.iterations)
    model = _fit_free(stack, background, free, CODED)
    grids = [LayerGrid(layer, stack.size, Splats.empty(stack.objective.channels)) for layer in stack.layers]
    for grid, layer in zip(grids, split(model.splats(), model.ends), strict=True):
        grid.fit(layer)
    rest = stack.iterations - free
    descent = descent_of(stack, model, background, rest, RATE, WARMUP)
    splats = settle_on_grid(model, descent, grids, rest, stack.rng, np.zeros(len(model), np.bool_))
    return FrameFit.intra(background, split(splats, model.ends), [grid.whole for grid in grids if grid.whole])


def _fit_free(stack: Stack, background: NDArray[np.float32], iterations: int, limits: Limits) -> SplatModel:
    """The part of an I-frame's fit that knows no quantiser."""
    if stack.start is not None:
        return SplatModel(Splats.concatenate(stack.start), stack.ends, *stack.size, limits)
    if stack.ranked:
        return _fit_ranked(stack, background, iterations, limits)
    tuning = stack.tuning
    splats = begin(stack, background, iterations)
    model = SplatModel(splats, stack.ends, *stack.size, limits)
    optimizer = adam_of(model, tuning, iterations)
    moves = relocations(stack, background, model, optimizer, iterations)
    schedule = half_cosine(iterations, tuning.warmup)
    stack.descent(model, optimizer, background, schedule, between=moves).run(iterations)
    return model


def begin(stack: Stack, background: NDArray[np.float32], iterations: int) -> Splats:
    """Where the splats of an I-frame start."""
    awake = _awake(stack.tuning, iterations)
    return start_splats(stack.objective, background, stack.ends, stack.rng, stack.tuning, awake)


def _awake(tuning: Tuning, iterations: int) -> float:
    """Share of the splats to begin with: growing is better where there is time for it, 0.1 to 0.2 dB."""
    if tuning.awake is not None or not tuning.relocations:  # which is how layers grow
        return tuning.awake or 1.0
    return min(max(1 - (iterations - _ALL_AWAKE) / 600, 0.5), 1.0)


def relocations(
    stack: Stack, background: NDArray[np.float32], model: SplatModel, optimizer: Adam, iterations: int
) -> Relocations:
    """Those of an I-frame; a longer fit has more, but not in proportion: it has more use for quiet."""
    tuning = stack.tuning
    last = math.floor(tuning.relocated_until * iterations)
    wanted = tuning.relocations * math.sqrt(iterations / _USUAL)
    interval = max(math.ceil(last / wanted), _LEAST_INTERVAL) if wanted else last + 1
    most = [tuning.relocated] * len(stack.sizes)
    return Relocations(stack, background, model, optimizer, Turns(interval, last, interval), most)


def _fit_ranked(stack: Stack, background: NDArray[np.float32], iterations: int, limits: Limits) -> SplatModel:
    """One fit of all splats to the full level; those whose removal would cost most become the base, and so on."""
    single = stack.as_one_layer()
    model = _fit_free(single, background, iterations, limits)
    splats = model.splats()
    weights = [1.0]
    costs = removal_costs(splats, single.objective.step(splats, background, model.ends, weights), weights, model.ends)
    return SplatModel(splats[np.argsort(-costs, kind="stable")], stack.ends, *stack.size, limits)
