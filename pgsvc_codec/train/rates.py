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

_FORGETTING, _FORGETTING_POWER, _MOST_FORGETTING = 0.93, -0.32, 0.25  # 0.25 at 60 iterations, 0.15 at 300, 0.1 at 1000
WARMUP = 5  # iterations, where a fit goes on from a good one


def betas_of(tuning: Tuning, iterations: int) -> tuple[float, float]:
    """Adam's decays for a fit of so many iterations.

    Mean and mean square forget alike: gradients of splats that move are soon out of date, and 0.85 for both is 0.2 dB
    better at 300 iterations than the usual longer memory of squares; 0.75 0.7 dB at 60.
    """
    decay = 1 - min(_FORGETTING * max(iterations, 1) ** _FORGETTING_POWER, _MOST_FORGETTING)
    return tuning.betas or (decay, decay)


def adam_of(model: SplatModel, tuning: Tuning, iterations: int, rate: float = 1.0) -> Adam:
    """An optimiser with the learning rates of natural coordinates, times `rate`."""
    pixels_per_splat = float(model.size.prod()) / max(len(model), 1)
    rates = (tuning.offset_rate, tuning.shape_rate, tuning.amplitude_rate * math.sqrt(pixels_per_splat))
    return Adam(model.parameters(), [rate * peak for peak in rates], betas_of(tuning, iterations))


def descent_of(
    stack: Stack, model: SplatModel, background: NDArray[np.float32], iterations: int, rate: float, warmup: int
) -> Descent:
    """Iterations with these learning rates, falling to zero over `iterations`."""
    optimizer = adam_of(model, stack.tuning, iterations, rate)
    return stack.descent(model, optimizer, background, half_cosine(iterations, warmup))
