"""Runs of iterations of `train.model.SplatModel`s on a GPU, of which the host hears nothing until they end.

Models of several pictures run side by side, in the same launches.  Between runs they lie with the host, which is where
splats are replaced, dropped, born and held; a run takes them along and brings them back, as well as their optimisers'
memories.  Buffers and what was captured over them stay for the next run, whatever its frames, as long as their
geometry does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple
from weakref import ref

import numpy as np
import torch
import triton
from numpy.typing import NDArray

from pgsvc_codec.render.cuda.device import use
from pgsvc_codec.render.cuda.table import blank_table, means_of
from pgsvc_codec.render.reference import StepResult
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.adam import Adam
from pgsvc_codec.train.cuda import model_kernels as kernels
from pgsvc_codec.train.cuda.kept import Kept, rows_for
from pgsvc_codec.train.cuda.passes import Geometry, Passes, geometry_of
from pgsvc_codec.train.cuda.replay import Replay
from pgsvc_codec.train.main.rate import CELL, FINER
from pgsvc_codec.train.model import SplatModel
from pgsvc_codec.train.objective import Objective

_BLOCK = 64  # splats of a program
_LARGE_BLOCK = 1024  # of an interpreted one, which costs the same whatever its size
_ITERATIONS = 256  # of a run, to begin with
_GROWTH = 3, 2  # of the rows that there are buffers for


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


class _Buffers:
    """Where models of one geometry are, some at a time.

    Args:
        objectives: frames of the geometries.
        rows: splats at most.
        device: where.
        opponent: see `run`.
        rated: whether bits cost something.
    """

    def __init__(
        self, objectives: Sequence[Objective], rows: int, device: torch.device, *, opponent: bool, rated: bool
    ) -> None:
        self._device = device
        self._rows = rows
        self._channels = channels = objectives[0].channels
        self._opponent = opponent
        self._rated = rated
        self._passes = Passes(objectives, rows, device)
        self._taken: list[tuple[ref[Objective], bytes]] = []  # frames that are here, and their backgrounds
        self._table = blank_table(rows, channels, device)
        self._moments = torch.zeros(rows, channels + 5, device=device)
        self._lasting = torch.zeros(3, kernels.COLUMNS, rows, device=device)
        self._state, self._first, self._second = self._lasting
        self._longest = torch.ones(rows, device=device)
        self._held = torch.zeros(rows, dtype=torch.int32, device=device)
        self._densities = torch.ones(len(objectives), objectives[0].num_levels, kernels.DENSITIES, device=device)
        self._bits = torch.zeros(rows, device=device)
        self._schedule = torch.zeros(_ITERATIONS, len(objectives), kernels.SCHEDULE, device=device)
        self._settings = torch.zeros(len(objectives), kernels.SETTINGS, device=device)
        self._done = torch.zeros(1, dtype=torch.int32, device=device)
        self._block = _BLOCK if device.type == "cuda" else _LARGE_BLOCK
        self._replay = Replay(self._iterate, device)
        self._trimmed = False

    def take(self, goings: Sequence[Going]) -> None:
        """Take the frames, unless they are here."""
        wanted = [(going.objective, going.background.tobytes()) for going in goings]
        if [(objective(), under) for objective, under in self._taken] != wanted:
            self._passes.load([going.objective for going in goings], [going.background for going in goings])
            self._taken = [(ref(objective), under) for objective, under in wanted]

    def load(self, goings: Sequence[Going]) -> None:
        """Take the models along."""
        rows, channels, count = self._rows, self._channels, sum(len(going.model) for going in goings)
        numbers = np.zeros((3, kernels.COLUMNS, rows), np.float32)
        for there, parts in zip(numbers, zip(*map(_lasting, goings), strict=True), strict=True):
            there[: 5 + channels, :count] = torch.cat(parts).numpy().T
        self._lasting.copy_(torch.from_numpy(numbers))
        longest = np.ones(rows, np.float32)
        held, pictures, layers = np.zeros((3, rows), np.int32)
        for number, (own, going) in enumerate(zip(_rows_of(goings), goings, strict=True)):
            model = going.model
            longest[own] = model.longest.numpy()
            held[own][model.held_geometry] |= kernels.GEOMETRY.value
            held[own][model.held_amplitudes] |= kernels.AMPLITUDES.value
            pictures[own] = number
            layers[own] = np.searchsorted(model.ends, np.arange(len(model)), side="right")
        for here, values in (
            (self._longest, longest),
            (self._held, held),
            (self._table.pictures, pictures),
            (self._table.layers, layers),
        ):
            here.copy_(torch.from_numpy(values))
        if self._rated:
            densities = [going.densities for going in goings if going.densities is not None]
            self._densities.copy_(torch.from_numpy(np.stack(densities)))
        schedule = np.stack([_schedule(going) for going in goings], axis=1)
        if len(schedule) > len(self._schedule):
            self._schedule = torch.zeros(2 * len(schedule), *schedule.shape[1:], device=self._device)
            self._replay.forget()
        self._schedule[: len(schedule)].copy_(torch.from_numpy(schedule))
        self._settings.copy_(torch.tensor([_settings(going) for going in goings]))
        weights = list(zip(*(going.level_weights for going in goings), strict=True))
        if self._passes.weigh(weights):
            self._replay.forget()

    def run(self, goings: Sequence[Going]) -> list[Run]:
        """The iterations, again if there was no room for them; the models are what they have made of them."""
        passes, iterations = self._passes, len(goings[0].scales)
        kept = self._lasting.clone()
        while True:
            self.iterate(iterations)
            if not passes.grow():
                break
            self._replay.forget()
            self._lasting.copy_(kept)
        if not self._trimmed:  # splats of a fit want less and less
            self._trimmed = True
            if passes.trim():
                self._replay.forget()
        numbers = self._lasting.cpu()
        means, cholesky, colors, moments, bits = (
            part.clone().cpu().numpy() for part in (*self._table[:3], self._moments, self._bits)
        )  # fmt: skip
        runs = []
        for own, going, squared_error in zip(_rows_of(goings), goings, passes.squared_errors(), strict=True):
            going.optimizer.steps += iterations
            for mine, column in zip(_parts(going), _columns(numbers[:, :, own], self._channels), strict=True):
                mine.copy_(column)
            places = means_of(means[own], (going.objective.width, going.objective.height))
            step = StepResult(squared_error, moments[own])
            loss = going.objective.loss(squared_error, going.level_weights[-1])
            runs.append(Run(loss, Splats(places, cholesky[own], colors[own]), step, bits[own]))
        return runs

    def iterate(self, iterations: int) -> None:
        """Iterations from the first of the schedule on, with the squared errors of the last; waits for nothing."""
        self._done.zero_()
        self._replay.run(iterations - 1)
        self._passes.forget_errors()
        self._replay.run(1)

    def _iterate(self) -> None:
        blocks = triton.cdiv(self._rows, self._block)
        shared = {"channels": self._channels, "opponent": self._opponent, "block": self._block, "num_warps": 2}
        num_pictures, num_layers, _ = self._densities.shape
        with use(self._device):
            kernels.values[blocks,](self._state, *self._table[:3], self._moments, self._done, self._rows, **shared)
            self._passes.follow(self._done)
            self._passes.fit(self._table, self._moments)
            kernels.step[blocks,](
                self._state, self._first, self._second, self._longest, self._held, self._table.pictures,
                self._table.layers, self._moments, self._densities, self._bits, self._schedule, self._settings,
                self._done, self._rows, num_pictures, num_layers,
                rated=self._rated, finer=FINER, cell=math.log2(CELL), **shared,
            )  # fmt: skip


def _rows_of(goings: Sequence[Going]) -> list[slice]:
    """Where the splats of each model are."""
    ends = np.cumsum([len(going.model) for going in goings]).tolist()
    return [slice(*pair) for pair in pairwise([0, *ends])]


def _parts(going: Going) -> list[torch.Tensor]:
    """What lasts: the state, and the means of gradients and of their squares, three tensors each."""
    model, optimizer = going.model, going.optimizer
    return [model.means, model.shapes, model.amplitudes, *optimizer.first, *optimizer.second]


def _lasting(going: Going) -> tuple[torch.Tensor, ...]:
    """What lasts, as three tensors [N, 5 + C]."""
    parts = _parts(going)
    return tuple(torch.cat(parts[start : start + 3], dim=1) for start in (0, 3, 6))


def _columns(numbers: torch.Tensor, channels: int) -> list[torch.Tensor]:
    """The reverse of `_lasting`, as `_parts` wants it, from [3, COLUMNS, N]."""
    return [part for one in numbers for part in one[: 5 + channels].T.split([2, 3, channels], dim=1)]


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
    rows = rows_for(sum(len(going.model) for going in goings), _GROWTH)
    objectives = [going.objective for going in goings]
    rated = goings[0].densities is not None
    key = tuple(map(geometry_of, objectives)), rows, opponent, rated
    return _kept.get(
        objectives[0].rasterizer, key, lambda: _Buffers(objectives, rows, device, opponent=opponent, rated=rated)
    )
