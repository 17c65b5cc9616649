"""How a fit's iterations are spent: which levels each one supervises, and how step sizes fall."""

from __future__ import annotations

import math
from collections.abc import Callable

LevelWeights = Callable[[int], list[float]]


def all_levels(num_layers: int) -> LevelWeights:
    """Every level in every iteration, weighted by how often the cycle of `cyclic` would take it."""
    others = max(num_layers - 1, 1)
    weights = [1.0 / others] * (num_layers - 1) + [1.0]
    return lambda iteration: weights


def cyclic(num_layers: int) -> LevelWeights:
    """The paper's Eq. 9: the full level, and one of the others in turn."""

    def weights(iteration: int) -> list[float]:
        level = iteration % max(num_layers - 1, 1)
        return [float(k == level or k == num_layers - 1) for k in range(num_layers)]

    return weights


LEVEL_SCHEDULES: dict[str, Callable[[int], LevelWeights]] = {"all": all_levels, "cyclic": cyclic}


def step_scale(iteration: int, iterations: int, warmup: int) -> float:
    """Factor on the learning rates: linear over `warmup` iterations, then a half cosine down to zero."""
    rise = min(1.0, (iteration + 1) / max(warmup, 1))
    return rise * 0.5 * (1.0 + math.cos(math.pi * iteration / max(iterations, 1)))
