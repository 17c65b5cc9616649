"""Moving splats to where they are worth more while a fit goes on (paper, GSP and GSA; GaussianImage++).

The paper prunes by a learned weight and injects at random.  Here both sides have a price in squared error, and a
splat moves only where that pays:

    removal   what the loss rises by without splat n, exact for one splat: W |c|^2 pi l1 l3 - c . dloss/dc
    birth     what a new splat takes off, see `births`

One layer moves at a time, against the residual of all levels that it is in, so that no layer fills a hole which
another one has just filled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pgsvc_codec.render.reference import StepResult
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.adam import Adam
from pgsvc_codec.train.model import SplatModel
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.train.schedule import layer_weights
from pgsvc_codec.train.stack import Stack

_BIRTH_YIELD = 0.9  # of the matched filter's gain is left once neighbours have found the error too


def removal_costs(
    splats: Splats, step: StepResult, level_weights: Sequence[float], ends: Sequence[int]
) -> NDArray[np.float64]:
    """[N] rise of the loss if the splat were not there, from the moments of a step at these splats."""
    channels = splats.channels
    colors = splats.colors.astype(np.float64)
    layer_of = np.searchsorted(np.asarray(ends), np.arange(len(splats)), side="right")
    weights = layer_weights(level_weights)[layer_of]
    areas = math.pi * np.abs(splats.cholesky[:, 0] * splats.cholesky[:, 2]).astype(np.float64)
    # a chroma plane has fewer samples and counts them as much more, so areas in luma samples serve all
    energy = weights * areas * (colors**2).sum(axis=1)
    return energy - (colors * step.moments[:, :channels]).sum(axis=1)


class Relocation(NamedTuple):
    """Rows of a model and the splats that should be there instead."""

    rows: NDArray[np.intp]  # [K]
    splats: Splats  # K


def relocate(
    objective: Objective,
    background: NDArray[np.float32],
    splats: Splats,
    step: StepResult,
    level_weights: Sequence[float],
    ends: Sequence[int],
    layer: int,
    most: float,
) -> Relocation:
    """Which splats of a layer should go, and where.

    Args:
        splats: of all layers, at which `step` was taken.
        level_weights: of all levels; one of those that the layer is in weighs something.
        most: share of the layer that may go.
    """
    start, end = (ends[layer - 1] if layer else 0), ends[layer]
    costs = removal_costs(splats, step, level_weights, ends)[start:end]
    # residuals of one size only can be added up: the smallest that the layer is supervised at
    lowest = next(k for k in range(layer, len(ends)) if level_weights[k])
    layer_size = end - start
    births = objective.find_births(lowest, splats, background, ends, level_weights, layer_size, int(most * layer_size))
    cheapest = np.argsort(costs, kind="stable")[: len(births.gains)]
    # gains fall and costs rise, so profits end once and for all
    moves = int((_BIRTH_YIELD * births.gains > costs[cheapest]).sum())
    return Relocation(start + cheapest[:moves], births.splats[:moves])


class Turns(NamedTuple):
    """When a fit relocates: the layers in turn, every `interval` iterations from `first` to `last`."""

    first: int
    last: int
    interval: int

    def layer(self, iteration: int, num_layers: int) -> int | None:
        """Whose turn it is after an iteration."""
        turn, wait = divmod(iteration - self.first, self.interval)
        return None if wait or not self.first <= iteration <= self.last else turn % num_layers


class Relocations:
    """Relocations of a fit as it goes on; a `descent.Between`.

    Args:
        stack: what is fitted.
        background: [C].
        model: of the fit; rows are replaced in place.
        optimizer: of the model.
        turns: when.
        most: per layer, share of its splats that may go at a time.
    """

    def __init__(
        self,
        stack: Stack,
        background: NDArray[np.float32],
        model: SplatModel,
        optimizer: Adam,
        turns: Turns,
        most: Sequence[float],
    ) -> None:
        self._stack = stack
        self._background = background
        self._model = model
        self._optimizer = optimizer
        self._turns = turns
        self._most = most
        self.is_new = np.zeros(len(model), np.bool_)  # [N] rows that were replaced

    def is_due(self, iteration: int) -> bool:
        """As `descent.Between.is_due`."""
        return self._turns.layer(iteration, len(self._most)) is not None

    def __call__(self, iteration: int, splats: Splats, step: StepResult) -> None:
        """As `descent.Between`."""
        layer = self._turns.layer(iteration, len(self._most))
        if layer is None:
            return
        objective, weights = self._stack.objective, self._stack.level_weights(iteration)
        most = self._most[layer]
        moved = relocate(objective, self._background, splats, step, weights, self._model.ends, layer, most)
        self._model.replace(moved.rows, moved.splats)
        self._optimizer.forget(torch.from_numpy(moved.rows))
        self.is_new[moved.rows] = True
