"""Runs of iterations of `train.model.SplatModel`s on a GPU, models of several pictures in the same launches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import triton
from numpy.typing import NDArray

from pgsvc_codec.render.cuda.device import use
from pgsvc_codec.render.cuda.table import means_of
from pgsvc_codec.render.reference import StepResult
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.adam import Adam
from pgsvc_codec.train.cuda import model_kernels as kernels
from pgsvc_codec.train.cuda.buffers import GROWTH, FitBuffers, rows_of
from pgsvc_codec.train.cuda.kept import Kept, rows_for
from pgsvc_codec.train.cuda.passes import Geometry, geometry_of
from pgsvc_codec.train.main.rate import CELL, FINER
from pgsvc_codec.train.model import SplatModel
from pgsvc_codec.train.objective import Objective


class Going(NamedTuple):
    """A model, and so many iterations as there are scales, at least one."""

    model: SplatModel  # not empty; changed in place, as is its optimiser's memory
    optimizer: Adam
    objective: Objective  # of the frame
    background: NDArray[np.float32]  # [C]
    level_weights: Sequence[Sequence[float]]  # of all levels, in each iteration
    scales: Sequence[float]  # factor on the learning rates, in each iteration
    densities: NDArray[np.float32] | None = None  # [layers, DENSITIES] see `model_kernels.step`; None: bits are free
    ramps: Sequence[float] = ()  # share of their prices, in each iteration


class Run(NamedTuple):
    """What the last iteration of a run saw, before its step."""

    loss: float  # Eq. 7
    splats: Splats
    step: StepResult
    bits: NDArray[np.float32]  # [N] of these splats, if they cost anything


def run(goings: Sequence[Going], device: torch.device, *, opponent: bool = False) -> list[Run]:
    """Iterations of several models, as many of each.

    Args:
        goings: of objectives of one `passes.kind_of`, on one rasteriser; bits are free in all of them or in none.
        device: of that rasteriser.
        opponent: amplitudes lie on the axes of `coding.main.state.OPPONENT`.
    """
    buffers = _buffers_for(goings, device, opponent=opponent)
    buffers.take(goings)
    buffers.load(goings)
    return buffers.run(goings)


class _Buffers(FitBuffers[Going]):
    """Models of one geometry and the prices of their bits; arguments as those of `FitBuffers`, of `run`, and

    Args:
        rated: whether bits cost something.
    """

    def __init__(
        self, objectives: Sequence[Objective], rows: int, device: torch.device, *, opponent: bool, rated: bool
    ) -> None:
        count = len(objectives)
        super().__init__(
            objectives, rows, device, blank=[0.0] * kernels.COLUMNS, memories=2, schedule=(count, kernels.SCHEDULE)
        )
        self._opponent = opponent
        self._rated = rated
        self._longest = torch.ones(rows, device=device)
        self._held = torch.zeros(rows, dtype=torch.int32, device=device)
        self._densities = torch.ones(count, objectives[0].num_levels, kernels.DENSITIES, device=device)
        self._bits = torch.zeros(rows, device=device)
        self._settings = torch.zeros(count, kernels.SETTINGS, device=device)

    def load(self, goings: Sequence[Going]) -> None:
        """As `FitBuffers.load`."""
        super().load(goings)
        longest = np.ones(self.rows, np.float32)
        held = np.zeros(self.rows, np.int32)
        for own, going in zip(rows_of(goings), goings, strict=True):
            longest[own] = going.model.longest.numpy()
            held[own][going.model.held_geometry] |= kernels.GEOMETRY.value
            held[own][going.model.held_amplitudes] |= kernels.AMPLITUDES.value
        self._longest.copy_(torch.from_numpy(longest))
        self._held.copy_(torch.from_numpy(held))
        if self._rated:
            densities = [going.densities for going in goings if going.densities is not None]
            self._densities.copy_(torch.from_numpy(np.stack(densities)))
        self._settings.copy_(torch.tensor([_settings(going) for going in goings]))

    def _lasting_of(self, going: Going) -> list[list[torch.Tensor]]:
        model, optimizer = going.model, going.optimizer
        return [[model.means, model.shapes, model.amplitudes], optimizer.first, optimizer.second]

    def _schedule_of(self, goings: Sequence[Going]) -> NDArray[np.float32]:
        return np.stack([_schedule(going) for going in goings], axis=1)

    def run(self, goings: Sequence[Going]) -> list[Run]:
        """The iterations; the models are what they have made of them."""
        iterations = len(goings[0].scales)
        self.repeat(iterations)
        self.store(goings)
        means, cholesky, colors, moments, bits = (
            part.clone().cpu().numpy() for part in (*self.table[:3], self.moments, self._bits)
        )  # fmt: skip
        runs = []
        for own, going, squared_error in zip(rows_of(goings), goings, self.passes.squared_errors(), strict=True):
            going.optimizer.steps += iterations
            places = means_of(means[own], (going.objective.width, going.objective.height))
            step = StepResult(squared_error, moments[own])
            loss = going.objective.loss(squared_error, going.level_weights[-1])
            runs.append(Run(loss, Splats(places, cholesky[own], colors[own]), step, bits[own]))
        return runs

    def iterate(self, iterations: int) -> None:
        """As `FitBuffers.iterate`, with the squared errors of the last one."""
        super().iterate(iterations - 1)
        self.passes.forget_errors()
        self.replay.run(1)

    def _iterate(self) -> None:
        blocks = triton.cdiv(self.rows, self.block)
        shared = {"channels": self.channels, "opponent": self._opponent, "block": self.block, "num_warps": 2}
        num_pictures, num_layers, _ = self._densities.shape
        state, first, second = self.lasting
        with use(self.device):
            kernels.values[blocks,](state, *self.table[:3], self.moments, self.done, self.rows, **shared)
            self.passes.follow(self.done)
            self.passes.fit(self.table, self.moments)
            kernels.step[blocks,](
                state, first, second, self._longest, self._held, self.table.pictures, self.table.layers, self.moments,
                self._densities, self._bits, self.schedule, self._settings, self.done, self.rows,
                num_pictures, num_layers, rated=self._rated, finer=FINER, cell=math.log2(CELL), **shared,
            )  # fmt: skip


def _schedule(going: Going) -> NDArray[np.float32]:
    """[iterations, SCHEDULE] of one model, see `model_kernels`."""
    optimizer, count = going.optimizer, len(going.scales)
    first_decay, second_decay = optimizer.betas
    steps = optimizer.steps + np.arange(1, count + 1)
    schedule = np.zeros((count, kernels.SCHEDULE), np.float32)
    schedule[:, 0] = np.asarray(going.scales) / (1 - first_decay**steps)
    schedule[:, 1] = 1 - second_decay**steps
    if going.densities is not None:
        schedule[:, 2] = going.ramps
    return schedule


def _settings(going: Going) -> list[float]:
    """[SETTINGS] of one model, see `model_kernels.step`."""
    limits, optimizer = going.model.limits, going.optimizer
    size = [side - 0.5 - 1e-3 for side in going.model.size.tolist()]
    return [*optimizer.rates, *optimizer.betas, limits.ridge, math.log(limits.shortest), limits.thinnest, *size]


_Key = tuple[tuple[Geometry, ...], int, bool, bool]


_kept: Kept[_Key, _Buffers] = Kept(most=8)


def _buffers_for(goings: Sequence[Going], device: torch.device, *, opponent: bool) -> _Buffers:
    """Buffers for some models: those of earlier ones if they were alike."""
    rows = rows_for(sum(len(going.model) for going in goings), GROWTH)
    objectives = [going.objective for going in goings]
    rated = goings[0].densities is not None
    key = tuple(map(geometry_of, objectives)), rows, opponent, rated
    return _kept.get(
        objectives[0].rasterizer, key, lambda: _Buffers(objectives, rows, device, opponent=opponent, rated=rated)
    )
