"""Buffers of fits on a GPU: what one iteration does to them is captured, and a run repeats it.

The host hears nothing until a run ends.  Between runs models lie with the host, which is where splats are replaced,
dropped, born and held; a run takes them along and brings them back, as well as their optimisers' memories.  Buffers
and what was captured over them stay for the next run, whatever its frames, as long as their geometry does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Generic, Protocol, TypeVar
from weakref import ref

import numpy as np
import torch
from numpy.typing import NDArray

from pgsvc_codec.render.cuda.table import blank_table
from pgsvc_codec.train.cuda.passes import Passes
from pgsvc_codec.train.cuda.replay import Replay
from pgsvc_codec.train.objective import Objective

_BLOCK = 64  # splats of a program
_LARGE_BLOCK = 1024  # of an interpreted one, which costs the same whatever its size
_ITERATIONS = 256  # of a run, to begin with
GROWTH = 3, 2  # of the rows that there are buffers for


class Layered(Protocol):
    """Splats in layers."""

    ends: list[int]  # cumulative layer sizes

    def __len__(self) -> int: ...


class Iterations(Protocol):
    """A model, and so many iterations as there are scales, at least one."""

    @property
    def model(self) -> Layered:
        """Not empty; changed in place, as is its optimiser's memory."""
        ...

    @property
    def objective(self) -> Objective:
        """Of the frame."""
        ...

    @property
    def background(self) -> NDArray[np.float32]:
        """[C]."""
        ...

    @property
    def level_weights(self) -> Sequence[Sequence[float]]:
        """Of all levels, in each iteration."""
        ...

    @property
    def scales(self) -> Sequence[float]:
        """Factor on the learning rates, in each iteration."""
        ...


_Going = TypeVar("_Going", bound=Iterations)


class FitBuffers(ABC, Generic[_Going]):
    """Where models of one geometry are, some at a time, those of several pictures side by side.

    Args:
        objectives: frames of the geometries.
        rows: splats at most.
        device: where.
        blank: numbers of a splat that takes no part.
        memories: of an optimiser, for each number of a splat.
        schedule: shape of what an iteration reads in the schedule.

    Attributes:
        passes: of the objectives.
        table: the models as splats.
        moments: [rows, C + 5] of these splats.
        lasting: [1 + memories, numbers, rows] the models, and their optimisers' memories.
        schedule: [iterations, ...].
        done: [1] iterations of this run that have begun.
        block: splats of a program.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        rows: int,
        device: torch.device,
        *,
        blank: Sequence[float],
        memories: int,
        schedule: Sequence[int],
    ) -> None:
        self.device = device
        self.rows = rows
        self.channels = channels = objectives[0].channels
        self.passes = Passes(objectives, rows, device)
        self.table = blank_table(rows, channels, device)
        self.moments = torch.zeros(rows, channels + 5, device=device)
        self.lasting = torch.zeros(1 + memories, len(blank), rows, device=device)
        self.schedule = torch.zeros(_ITERATIONS, *schedule, device=device)
        self.done = torch.zeros(1, dtype=torch.int32, device=device)
        self.block = _BLOCK if device.type == "cuda" else _LARGE_BLOCK
        self.replay = Replay(self._iterate, device)
        self._blank = np.array(blank, np.float32)
        self._taken: list[tuple[ref[Objective], bytes]] = []  # frames that are here, and their backgrounds
        self._trimmed = False

    @abstractmethod
    def _iterate(self) -> None:
        """One iteration: what is captured."""

    @abstractmethod
    def _lasting_of(self, going: _Going) -> Sequence[Sequence[torch.Tensor]]:
        """The model, and each memory of its optimiser: tensors [N, k] whose columns are the numbers."""

    @abstractmethod
    def _schedule_of(self, goings: Sequence[_Going]) -> NDArray[np.float32]:
        """[iterations, ...]."""

    def _saved(self) -> list[torch.Tensor]:
        """All that an iteration leaves for the next one."""
        return [self.lasting]

    def take(self, goings: Sequence[_Going]) -> None:
        """Take the frames, unless they are here."""
        wanted = [(going.objective, going.background.tobytes()) for going in goings]
        if [(objective(), under) for objective, under in self._taken] != wanted:
            self.passes.load([going.objective for going in goings], [going.background for going in goings])
            self._taken = [(ref(objective), under) for objective, under in wanted]

    def load(self, goings: Sequence[_Going]) -> None:
        """Take the models along, and what is planned for them."""
        numbers = np.zeros(self.lasting.shape, np.float32)
        numbers[0] = self._blank[:, None]
        pictures, layers = np.zeros((2, self.rows), np.int32)
        for number, (own, going) in enumerate(zip(rows_of(goings), goings, strict=True)):
            for there, parts in zip(numbers, self._lasting_of(going), strict=True):
                columns = torch.cat(list(parts), dim=1).numpy().T
                there[: len(columns), own] = columns
            pictures[own] = number
            layers[own] = np.searchsorted(going.model.ends, np.arange(len(going.model)), side="right")
        for here, values in ((self.lasting, numbers), (self.table.pictures, pictures), (self.table.layers, layers)):
            here.copy_(torch.from_numpy(values))
        schedule = self._schedule_of(goings)
        if len(schedule) > len(self.schedule):
            self.schedule = torch.zeros(2 * len(schedule), *schedule.shape[1:], device=self.device)
            self.replay.forget()
        self.schedule[: len(schedule)].copy_(torch.from_numpy(schedule))
        weights = list(zip(*(going.level_weights for going in goings), strict=True))
        if self.passes.weigh(weights):
            self.replay.forget()

    def repeat(self, iterations: int) -> None:
        """The iterations, again if there was no room for them."""
        kept = [tensor.clone() for tensor in self._saved()]
        while True:
            self.iterate(iterations)
            if not self.passes.grow():
                break
            self.replay.forget()
            for here, before in zip(self._saved(), kept, strict=True):
                here.copy_(before)
        if not self._trimmed:  # splats of a fit want less and less
            self._trimmed = True
            if self.passes.trim():
                self.replay.forget()

    def iterate(self, iterations: int) -> None:
        """Iterations from the first of the schedule on; waits for nothing."""
        self.done.zero_()
        self.replay.run(iterations)

    def store(self, goings: Sequence[_Going]) -> None:
        """Make the models what they have become here."""
        numbers = self.lasting.cpu()
        for own, going in zip(rows_of(goings), goings, strict=True):
            for there, parts in zip(numbers[:, :, own], self._lasting_of(going), strict=True):
                widths = [part.shape[1] for part in parts]
                for part, columns in zip(parts, there[: sum(widths)].T.split(widths, dim=1), strict=True):
                    part.copy_(columns)


def rows_of(goings: Sequence[Iterations]) -> list[slice]:
    """Where the splats of each model are."""
    ends = np.cumsum([len(going.model) for going in goings]).tolist()
    return [slice(*pair) for pair in pairwise([0, *ends])]
