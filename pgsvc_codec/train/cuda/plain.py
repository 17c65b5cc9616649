"""Runs of iterations of a `train.plain.PlainModel` on a GPU: torch's operations on tensors that stay there."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from pgsvc_codec.render.cuda.table import SplatTable
from pgsvc_codec.train.adan import Adan
from pgsvc_codec.train.cuda.passes import Passes
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.train.plain import PlainModel


def run(
    model: PlainModel,
    optimizer: Adan,
    objective: Objective,
    background: NDArray[np.float32],
    level_weights: Sequence[Sequence[float]],
    scales: Sequence[float],
) -> list[float]:
    """So many iterations as there are scales; the loss that each of them saw.

    Args:
        model: changed in place; on the device of the objective's rasteriser, as its optimiser's memory.
        objective: of the frame.
        background: [C].
        level_weights: of all levels, in each iteration.
        scales: factor on the learning rates, in each iteration.
    """
    buffers = _kept.get(objective)
    if buffers is None or buffers.rows < len(model):
        _kept[objective] = buffers = _Buffers(objective, len(model), model.means.device)
    return buffers.run(model, optimizer, objective, background, level_weights, scales)


class _Buffers:
    """What a frame is fitted with.

    Args:
        objective: the frame.
        rows: splats at most.
        device: where.
    """

    def __init__(self, objective: Objective, rows: int, device: torch.device) -> None:
        self.rows = rows
        self._device = device
        self._passes = Passes([objective], rows, device)
        self._table = SplatTable(
            means=torch.zeros(rows, 2, device=device),
            cholesky=torch.ones(rows, 3, device=device),
            colors=torch.zeros(rows, objective.channels, device=device),
            pictures=torch.zeros(rows, dtype=torch.int32, device=device),
            layers=torch.zeros(rows, dtype=torch.int32, device=device),
        )
        self._under = b""  # background that is loaded
        self._moments = torch.zeros(rows, objective.channels + 5, device=device)
        self._half = torch.tensor([objective.width / 2, objective.height / 2], device=device)

    def run(
        self,
        model: PlainModel,
        optimizer: Adan,
        objective: Objective,
        background: NDArray[np.float32],
        level_weights: Sequence[Sequence[float]],
        scales: Sequence[float],
    ) -> list[float]:
        """See `run`; again if there was no room."""
        passes, table = self._passes, self._table
        if self._under != background.tobytes():
            passes.load([objective], [background])
            self._under = background.tobytes()
        passes.weigh([[weights] for weights in level_weights])
        count = len(model)
        layers = np.searchsorted(model.ends, np.arange(count), side="right").astype(np.int32)
        table.layers[:count].copy_(torch.from_numpy(layers))
        table.colors[count:] = 0.0
        kept = [parameter.clone() for parameter in model.parameters()], optimizer.memory()
        numbers = torch.arange(1, len(scales) + 1, dtype=torch.int32, device=self._device).split(1)
        while True:
            losses = torch.stack([self._iterate(model, optimizer, *pair) for pair in zip(numbers, scales, strict=True)])
            if not passes.grow():
                seen: list[float] = losses.tolist()
                return seen
            for parameter, before in zip(model.parameters(), kept[0], strict=True):
                parameter.copy_(before)
            optimizer.remember(kept[1])

    def _iterate(self, model: PlainModel, optimizer: Adan, number: torch.Tensor, scale: float) -> torch.Tensor:
        """One iteration; the loss that it saw, [] float64."""
        table, passes, count = self._table, self._passes, len(model)
        table.means[:count] = (model.means + 1) * self._half - 0.5
        table.cholesky[:count] = model.cholesky
        table.colors[:count] = model.colors * model.weights
        self._moments.zero_()
        passes.follow(number)
        passes.forget_errors()
        passes.fit(table, self._moments)
        model.descend(self._moments[:count])
        optimizer.step(scale)
        model.settle()
        return passes.loss()


_kept: WeakKeyDictionary[Objective, _Buffers] = WeakKeyDictionary()
