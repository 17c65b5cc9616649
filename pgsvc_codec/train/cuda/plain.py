"""Runs of iterations of a `train.plain.PlainModel` on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import triton
from numpy.typing import NDArray

from pgsvc_codec.render.cuda.device import use
from pgsvc_codec.train.adan import BETAS, RATE, Adan
from pgsvc_codec.train.cuda import plain_kernels as kernels
from pgsvc_codec.train.cuda.buffers import GROWTH, FitBuffers
from pgsvc_codec.train.cuda.kept import Kept, rows_for
from pgsvc_codec.train.cuda.passes import Geometry, geometry_of
from pgsvc_codec.train.lsq import CodedPart
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.train.plain import PlainModel

_BLANK = [0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]


class Going(NamedTuple):
    """See `buffers.Iterations`."""

    model: PlainModel
    optimizer: Adan
    objective: Objective
    background: NDArray[np.float32]
    level_weights: Sequence[Sequence[float]]
    scales: Sequence[float]
    parts: Sequence[CodedPart] = ()  # quantisers that the model is shown through


def run(going: Going, device: torch.device) -> list[float]:
    """The iterations; the loss that each of them saw.

    Args:
        device: of the objective's rasteriser.
    """
    objective, rows = going.objective, rows_for(len(going.model), GROWTH)
    key = geometry_of(objective), rows
    buffers = _kept.get(objective.rasterizer, key, lambda: PlainBuffers(objective, rows, device))
    return buffers.run(going)


class PlainBuffers(FitBuffers[Going]):
    """A model of one geometry at a time.

    Args:
        objective: a frame of the geometry.
        rows: splats at most.
        device: where.
        groups: of parameters whose steps are counted apart: the first ones, and those that came last.

    Attributes:
        frame: half the width and half the height of the frame in pixels, and 1 / pixels.
    """

    def __init__(self, objective: Objective, rows: int, device: torch.device, groups: int = 1) -> None:
        super().__init__(
            [objective], rows, device, blank=_BLANK, memories=kernels.MEMORIES, schedule=(groups, kernels.PACES)
        )
        width, height = objective.width, objective.height
        self.frame = width / 2, height / 2, 1 / (width * height)
        self._losses = torch.zeros(len(self.schedule), dtype=torch.float64, device=device)
        self.shared = {"channels": self.channels, "block": self.block, "num_warps": 2}

    def _lasting_of(self, going: Going) -> list[list[torch.Tensor]]:
        model = going.model
        parameters = [model.means, model.cholesky, model.weights, model.colors]
        memories = [going.optimizer.memory(parameter) for parameter in parameters]
        return [parameters, *map(list, zip(*memories, strict=True))]

    def _schedule_of(self, goings: Sequence[Going]) -> NDArray[np.float32]:
        (going,) = goings
        steps = [going.optimizer.steps[0], going.optimizer.steps[-1]][: self.schedule.shape[1]]
        paces = [_paces(so_far, going.scales) for so_far in steps]
        return np.stack(paces, axis=1)

    def run(self, going: Going) -> list[float]:
        """See `run`."""
        iterations = len(going.scales)
        self.take([going])
        self.load([going])
        if len(self._losses) < len(self.schedule):
            self._losses = torch.zeros(len(self.schedule), dtype=torch.float64, device=self.device)
        self.repeat(iterations)
        self.store([going])
        going.optimizer.skip(iterations)
        losses: list[float] = self._losses[:iterations].tolist()
        return losses

    def iterate(self, iterations: int) -> None:
        """As `FitBuffers.iterate`, with the loss of each of them."""
        self._losses.zero_()
        self.passes.forget_errors()
        super().iterate(iterations)

    def _iterate(self) -> None:
        self._show()
        self.passes.follow(self.done)
        self.passes.fit(self.table, self.moments)
        self.passes.add_losses(self._losses, self.done)
        self._step()

    def _show(self) -> None:
        """The model as splats, with no moments yet."""
        half_width, half_height, _ = self.frame
        with use(self.device):
            kernels.values[triton.cdiv(self.rows, self.block),](
                self.lasting[0], *self.table[:3], self.moments, self.done, self.rows, half_width, half_height,
                **self.shared,
            )  # fmt: skip

    def _step(self) -> None:
        """By the moments."""
        with use(self.device):
            kernels.step[triton.cdiv(self.rows, self.block),](
                self.lasting[0], self.lasting[1:], self.table.cholesky, self.moments, self.schedule, self.done,
                self.rows, *self.frame, **self.shared,
            )  # fmt: skip


def _paces(steps: int, scales: Sequence[float]) -> NDArray[np.float32]:
    """[iterations, PACES] after so many steps, see `plain_kernels.moved`."""
    gradient, difference, square = BETAS
    numbers = steps + np.arange(1, len(scales) + 1)
    rates = RATE * np.asarray(scales)
    factors = rates / (1 - gradient**numbers), rates * difference / (1 - difference**numbers)
    return np.stack([*factors, np.sqrt(1 - square**numbers), numbers > 1], axis=1).astype(np.float32)


_kept: Kept[tuple[Geometry, int], PlainBuffers] = Kept(most=8)
