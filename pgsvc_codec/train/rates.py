"""Learning rates of the fit in natural coordinates."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.train.adam import Adam
from pgsvc_codec.train.descent import Descent
from pgsvc_codec.train.model import SplatModel
from pgsvc_codec.train.schedule import half_cosine
from pgsvc_codec.train.stack import Stack

_OFFSET_RATE = 0.6  # standard deviations of the splat per step
_SHAPE_RATE = 0.18  # of log lengths and shear
_AMPLITUDE_RATE = 0.07  # times sqrt(pixels per splat): amplitudes grow with the area a splat has to itself
WARMUP = 5  # iterations, where a fit goes on from a good one


def descent_of(
    stack: Stack, model: SplatModel, background: NDArray[np.float32], iterations: int, rate: float, warmup: int
) -> Descent:
    """Iterations with the learning rates of natural coordinates, times `rate`, falling to zero over `iterations`."""
    pixels_per_splat = stack.objective.width * stack.objective.height / max(len(model), 1)
    rates = (_OFFSET_RATE, _SHAPE_RATE, _AMPLITUDE_RATE * math.sqrt(pixels_per_splat))
    optimizer = Adam(model.parameters(), [rate * peak for peak in rates])
    schedule = half_cosine(iterations, warmup)
    return Descent(model, optimizer, stack.objective, background, stack.level_weights, schedule, stack.observe)
