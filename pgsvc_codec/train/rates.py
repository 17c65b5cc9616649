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
from pgsvc_codec.train.tuning import Tuning

WARMUP = 5  # iterations, where a fit goes on from a good one


def adam_of(model: SplatModel, tuning: Tuning, rate: float = 1.0) -> Adam:
    """An optimiser with the learning rates of natural coordinates, times `rate`."""
    pixels_per_splat = float(model.size.prod()) / max(len(model), 1)
    rates = (tuning.offset_rate, tuning.shape_rate, tuning.amplitude_rate * math.sqrt(pixels_per_splat))
    return Adam(model.parameters(), [rate * peak for peak in rates], tuning.betas)


def descent_of(
    stack: Stack, model: SplatModel, background: NDArray[np.float32], iterations: int, rate: float, warmup: int
) -> Descent:
    """Iterations with these learning rates, falling to zero over `iterations`."""
    optimizer = adam_of(model, stack.tuning, rate)
    schedule = half_cosine(iterations, warmup)
    return Descent(model, optimizer, stack.objective, background, stack.level_weights, schedule, stack.observe)
