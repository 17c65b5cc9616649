"""Which levels each iteration of a fit supervises, and how step sizes fall."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

LevelWeights = Callable[[int], list[float]]  # weights of all levels in iteration i


def all_levels(num_layers: int, seed: int) -> LevelWeights:
    """Every level in every iteration, weighted by how often the cycle of `cyclic` would take it."""
    others = max(num_layers - 1, 1)
    weights = [1.0 / others] * (num_layers - 1) + [1.0]
    return lambda iteration: weights


def cyclic(num_layers: int, seed: int) -> LevelWeights:
    """The paper's Eq. 9: the full level, and one of the others in turn."""
    return lambda iteration: _pair(num_layers, iteration % max(num_layers - 1, 1))


def uniform(num_layers: int, seed: int) -> LevelWeights:
    """The paper's Fig. 5a: the full level, and one of the others at random."""

    def weights(iteration: int) -> list[float]:
        # a generator per iteration: the draw does not depend on which iterations were asked for before
        return _pair(num_layers, int(np.random.default_rng([seed, iteration]).integers(max(num_layers - 1, 1))))

    return weights


def layer_weights(level_weights: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """[layers] sum of the weights of all levels that a layer is in."""
    return np.cumsum(np.asarray(level_weights, np.float64)[::-1])[::-1]


def full_level(num_layers: int, seed: int) -> LevelWeights:
    """The full level alone."""
    return lambda iteration: [0.0] * (num_layers - 1) + [1.0]


def emphasised(weights: LevelWeights, emphasis: Sequence[float]) -> LevelWeights:
    """A schedule with every level's weight multiplied."""
    if all(factor == 1 for factor in emphasis):
        return weights
    return lambda iteration: [weight * factor for weight, factor in zip(weights(iteration), emphasis, strict=True)]


def _pair(num_layers: int, level: int) -> list[float]:
    return [float(k in (level, num_layers - 1)) for k in range(num_layers)]


def half_cosine(iterations: int, warmup: int) -> Callable[[int], float]:
    """Factor on the learning rates: linear over `warmup` iterations, then a half cosine down to zero."""

    def scale(iteration: int) -> float:
        rise = min(1.0, (iteration + 1) / max(warmup, 1))
        return rise * 0.5 * (1.0 + math.cos(math.pi * iteration / max(iterations, 1)))

    return scale


def halving(period: int) -> Callable[[int], float]:
    """Factor on the learning rates: halved every `period` iterations (paper, section 4.1)."""
    return lambda iteration: 0.5 ** (iteration // period)
