"""`train.main.changes` on a GPU: float32, in runs of iterations of which the host hears nothing.

What a frame is fitted with lies in buffers that the next frame of the same geometry takes over, so an iteration is
captured once.  Births are decided on the host, by the same rules as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import triton
from numpy.typing import NDArray

from pgsvc_codec.coding.main.predict import field_shape
from pgsvc_codec.coding.main.state import MAX_SHEAR, MIN_LOG_LENGTH, POSITION_BITS
from pgsvc_codec.render.cuda.device import use
from pgsvc_codec.render.cuda.table import blank_table, means_of
from pgsvc_codec.splats import Splats, SplatState
from pgsvc_codec.train.cuda import change_kernels as kernels
from pgsvc_codec.train.cuda.births import find_births
from pgsvc_codec.train.cuda.kept import Kept, rows_for
from pgsvc_codec.train.cuda.passes import Geometry, Passes, geometry_of
from pgsvc_codec.train.cuda.replay import Replay
from pgsvc_codec.train.main.changes import CHANGE_BITS, FIELD_RATE, ROUGH_BITS, Pace
from pgsvc_codec.train.main.deltas import SHAPE_UNITS, Deltas
from pgsvc_codec.train.main.motion_field import KNEE, Nodes
from pgsvc_codec.train.main.problem import InterProblem
from pgsvc_codec.train.main.rebirth import SLOT_BITS, WHOLE_BITS, most_births, paying, rows_of, supervised
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.train.schedule import layer_weights

_BLOCK = 64  # slots, or entries of a node, of a program
_LARGE_BLOCK = 1024  # of an interpreted one, which costs the same whatever its size
_ITERATIONS = 256  # of a fit, to begin with
_GROWTH = 5, 4  # of the rows that there are buffers for


class CudaChanges:
    """`Changes` on the device of the objective's rasteriser; arguments as those of `HostChanges`.

    The numbers of slots lie on the device; `deltas` knows what the slots hold, but not how they have changed.
    """

    def __init__(self, problem: InterProblem, deltas: Deltas, pace: Pace, spacing: int, device: torch.device) -> None:
        self._problem = problem
        self._deltas = deltas
        self._spacing = spacing
        self._nodes: Nodes | None = None  # on which the frame's places hang
        self._frame = frame = _frame_for(problem, deltas, spacing, device)
        frame.passes.load([problem.objective], [problem.background])
        frame.passes.weigh([[problem.level_weights]])
        frame.load(deltas, problem, pace)
        self._following = False

    def errors(self, fields: Sequence[NDArray[np.float64]]) -> list[float]:
        """As `Changes.errors`."""
        frame = self._frame
        self._hang()
        while True:
            losses = []
            for field in fields:
                frame.field.copy_(torch.from_numpy(field.reshape(-1)))
                frame.show(following=True)
                frame.passes.forget_errors()
                frame.passes.fit(frame.table, frame.moments, with_moments=False)
                losses.append(frame.passes.loss())
            errors: list[float] = torch.stack(losses).tolist()
            if not frame.grown():
                break
        frame.begin()
        return errors

    def follow(self, field: NDArray[np.float64]) -> None:
        """As `Changes.follow`."""
        self._hang()
        self._frame.field.copy_(torch.from_numpy(field.reshape(-1)))
        self._following = True

    def fitted_field(self) -> NDArray[np.float64]:
        """As `Changes.fitted_field`."""
        self._frame.move_field()
        self._following = False
        return self._frame.field.cpu().numpy().astype(np.float64).reshape(*self._frame.grid, 2)

    def predict_again(self, predictions: Sequence[SplatState]) -> None:
        """As `Changes.predict_again`."""
        deltas = self._deltas
        rows = deltas.predicted[~deltas.is_new[deltas.predicted]]
        places = np.zeros((len(deltas), 2))
        places[deltas.predicted] = np.concatenate([state.positions for state in predictions]) / (1 << POSITION_BITS)
        self._frame.predict_again(rows, places[rows])

    def run(self, iterations: int) -> None:
        """As `Changes.run`."""
        self._frame.run(iterations, following=self._following)

    def bear(self, layer: int) -> None:
        """As `Changes.bear`."""
        problem, deltas, frame = self._problem, self._deltas, self._frame
        rows, price = rows_of(deltas, layer), problem.lambdas[layer]
        lowest, weight = supervised(problem, layer)
        losses = frame.losses(rows, price)
        most = most_births(deltas, layer)
        while True:
            residual = frame.passes.weighted_residual(lowest, frame.table)
            births = find_births(residual, weight, problem.size, rows.stop - rows.start, most)
            if not frame.grown():
                break
        born = paying(births, losses.cpu().numpy(), rows.start, price)
        if len(born.rows):
            deltas.place(born.rows, born.splats)
            frame.place(born.rows, deltas)

    def _hang(self) -> None:
        """Hang the predictions on a field's nodes, if they do not yet."""
        if self._nodes is None:
            self._nodes = Nodes(self._deltas.places, self._spacing, self._problem.size)
            self._frame.hang(self._nodes, self._deltas)

    def splats(self) -> Splats:
        """As `Changes.splats`."""
        frame, count = self._frame, len(self._deltas)
        frame.show(following=False)
        means, cholesky, colors = (part[:count].clone().cpu().numpy() for part in frame.table[:3])
        return Splats(means_of(means, self._problem.size), cholesky, colors)


class _Frame:
    """Buffers and kernels of one frame at a time.

    Args:
        objective: a frame of the geometry.
        rows: slots at most.
        nodes: rows and columns of the field.
        opponent: amplitudes lie on opponent axes.
        device: where.

    Attributes:
        passes: of the objective.
        table: the slots as splats.
        moments: [rows, C + 5] of these splats.
        field: [2 nodes] pixels.
        grid: rows and columns of the nodes.
    """

    def __init__(
        self, objective: Objective, rows: int, nodes: tuple[int, int], device: torch.device, *, opponent: bool
    ) -> None:
        self._device = device
        self._rows = rows
        self.grid = nodes
        self._opponent = opponent
        self._channels = channels = objective.channels
        layers, count = objective.num_levels, nodes[0] * nodes[1]
        self.passes = Passes([objective], rows, device)
        self.table = blank_table(rows, channels, device)
        self.moments = torch.zeros(rows, channels + 5, device=device)
        # what lasts from one iteration to the next
        parts = (kernels.COLUMNS, kernels.COLUMNS, kernels.COLUMNS, 3, 2)
        self._lasting = torch.zeros(sum(parts) * rows + 6 * count, device=device)
        slots, self._of_field = self._lasting.split([sum(parts) * rows, 6 * count])
        self._base, self._changes, self._first, self._second, self._pulls = slots.view(-1, rows).split(parts)
        self.field, self._field_first, self._field_second = self._of_field.split(2 * count)
        self._done = torch.zeros(1, dtype=torch.int32, device=device)
        # what a frame or a birth sets
        self._still = torch.zeros(2, rows, device=device)
        self._units = torch.ones(2, rows, device=device)
        self._kinds = torch.zeros(rows, dtype=torch.int32, device=device)
        self._index = torch.zeros(4, rows, dtype=torch.int32, device=device)
        self._share = torch.zeros(4, rows, device=device)
        self._order = torch.zeros(4 * rows, dtype=torch.int32, device=device)
        self._offsets = torch.zeros(count + 1, dtype=torch.int32, device=device)
        self._slopes = torch.zeros(2 * count, device=device)
        self._prices = torch.zeros(layers, device=device)
        self._weights = torch.zeros(layers, device=device)
        self._schedule = torch.zeros(_ITERATIONS, 3, device=device)
        self._settings = torch.zeros(5, device=device)
        self._block = _BLOCK if device.type == "cuda" else _LARGE_BLOCK
        self._blocks = triton.cdiv(rows, self._block)
        self._replays = [Replay(self._iterate, device), Replay(self._iterate_on_field, device)]

    def load(self, deltas: Deltas, problem: InterProblem, pace: Pace) -> None:
        """Take the slots of a frame."""
        count, channels, rows = len(deltas), self._channels, self._rows
        numbers = np.zeros((kernels.COLUMNS, rows), np.float32)
        numbers[: 5 + channels, :count] = deltas.predictions(slice(None)).T
        self._base.copy_(torch.from_numpy(numbers))
        self._still.copy_(self._base[:2])
        units = np.ones((2, rows), np.float32)
        units[:, :count] = deltas.units[:, [0, 5]].T
        self._units.copy_(torch.from_numpy(units))
        kinds = np.full(rows, kernels.IDLE.value, np.int32)
        kinds[:count] = np.where(deltas.is_idle, kernels.IDLE.value, 0)
        self._kinds.copy_(torch.from_numpy(kinds))
        layers = np.zeros(rows, np.int32)
        layers[:count] = deltas.layers
        self.table.layers.copy_(torch.from_numpy(layers))
        self._count = count
        self._prices.copy_(torch.tensor(problem.lambdas))
        self._weights.copy_(torch.from_numpy(layer_weights(problem.level_weights).copy()))
        steps = np.zeros((len(pace.scales), 3), np.float32)
        steps[:, 0] = pace.scales
        steps[:, 1] = 1 - pace.decay ** np.arange(1, len(steps) + 1)
        steps[: len(pace.field_scales), 2] = pace.field_scales
        if len(steps) > len(self._schedule):
            self._schedule = torch.zeros(2 * len(steps), 3, device=self._device)
            self._forget()
        self._schedule[: len(steps)].copy_(torch.from_numpy(steps))
        self._settings.copy_(torch.tensor([*pace.rates, pace.decay, deltas.longest]))
        for part in (self._changes, self._first, self._second, self._pulls, self._of_field):
            part.zero_()
        self._done.zero_()

    def begin(self) -> None:
        """Predictions back to where no field has carried them, before the first iteration."""
        self._base[:2].copy_(self._still)
        self._done.zero_()

    def hang(self, nodes: Nodes, deltas: Deltas) -> None:
        """Hang the places of predictions on a field's nodes."""
        count = len(deltas)
        index = np.full((4, self._rows), len(self._offsets) - 1, np.int32)  # spare slots hang nowhere
        share = np.zeros((4, self._rows), np.float32)
        index[:, deltas.predicted] = nodes.index[:, deltas.predicted]
        share[:, :count] = nodes.share
        keys = torch.from_numpy(index).to(self._device)
        self._share.copy_(torch.from_numpy(share))
        self._index.copy_(keys.clamp(max=len(self._offsets) - 2))
        ordered, order = keys.view(-1).sort(stable=True)
        self._order.copy_(order)
        begins = torch.arange(len(self._offsets), dtype=torch.int32, device=self._device)
        self._offsets.copy_(torch.searchsorted(ordered, begins))

    def show(self, *, following: bool) -> None:
        """The slots as they are now into the table; moments start at zero."""
        with use(self._device):
            kernels.values[self._blocks,](
                self._base, self._changes, self._kinds, self._still, self.field, self._index, self._share,
                *self.table[:3], self.moments, self._done, self._rows, channels=self._channels,
                opponent=self._opponent, following=following, block=self._block, num_warps=2,
            )  # fmt: skip

    def move_field(self) -> None:
        """One step of the field, by what the last iteration pulled."""
        count = len(self._offsets) - 1
        with use(self._device):
            kernels.field_slopes[count,](
                self.field, self._slopes, self._pulls, self._share, self._order, self._offsets, self._prices,
                self._rows, *self.grid, rough_bits=ROUGH_BITS, knee=KNEE, block=self._block, num_warps=2,
            )  # fmt: skip
            kernels.field_step[triton.cdiv(2 * count, self._block),](
                self.field, self._slopes, self._field_first, self._field_second, self._schedule, self._settings,
                self._done, 2 * count, rate=FIELD_RATE, block=self._block, num_warps=2,
            )  # fmt: skip

    def _iterate(self) -> None:
        self.show(following=False)
        self._descend()

    def _iterate_on_field(self) -> None:
        self.move_field()
        self.show(following=True)
        self._descend()

    def _descend(self) -> None:
        self.passes.fit(self.table, self.moments)
        with use(self._device):
            kernels.step[self._blocks,](
                self._base, self._changes, self._first, self._second, self._units, self._pulls, self._kinds,
                self.table.layers, self.moments, self._prices, self._schedule, self._settings, self._done, self._rows,
                channels=self._channels, opponent=self._opponent, change_bits=CHANGE_BITS,
                shortest=float(MIN_LOG_LENGTH * SHAPE_UNITS[0]), steepest=float(MAX_SHEAR * SHAPE_UNITS[1]),
                block=self._block, num_warps=2,
            )  # fmt: skip

    def run(self, iterations: int, *, following: bool) -> None:
        """The next iterations, again if there was no room for them."""
        kept = self._lasting.clone(), self._done.clone()
        while True:
            self._replays[following].run(iterations)
            if not self.grown():
                return
            self._lasting.copy_(kept[0])
            self._done.copy_(kept[1])

    def grown(self) -> bool:
        """As `Passes.grow`."""
        if not self.passes.grow():
            return False
        self._forget()
        return True

    def _forget(self) -> None:
        """Buffers are others: what was captured is good no more."""
        for replay in self._replays:
            replay.forget()

    def losses(self, rows: slice, price: float) -> torch.Tensor:
        """[n] what J rises by without what some slots hold, at the splats and moments of the last iteration."""
        count = rows.stop - rows.start
        out = torch.empty(count, device=self._device)
        with use(self._device):
            kernels.losses[max(triton.cdiv(count, self._block), 1),](
                self._changes, self._units, self._kinds, self.table.layers, self.table.cholesky, self.table.colors,
                self.moments, self._weights, out, price, rows.start, count, self._rows, channels=self._channels,
                whole_bits=WHOLE_BITS, slot_bits=SLOT_BITS, block=self._block, num_warps=2,
            )  # fmt: skip
        return out

    def place(self, rows: NDArray[np.intp], deltas: Deltas) -> None:
        """Put the new splats of some slots of `deltas` there."""
        into = torch.from_numpy(rows).to(self._device)
        numbers = np.zeros((kernels.COLUMNS, len(rows)), np.float32)
        numbers[: 5 + self._channels] = deltas.predictions(rows).T
        self._base[:, into] = torch.from_numpy(numbers).to(self._device)
        self._kinds[into] = kernels.NEW.value
        self._changes[:, into] = 0.0
        self._first[:, into] = 0.0
        self._pulls[:, into] = 0.0
        self._second[:, into] = self._second[:, : self._count].mean(dim=1, keepdim=True)

    def predict_again(self, rows: NDArray[np.intp], places: NDArray[np.float64]) -> None:
        """Move the predictions of some slots to `places` [n, 2] while those that have moved stay where they are."""
        into = torch.from_numpy(rows).to(self._device)
        there = torch.from_numpy(places.T.astype(np.float32)).to(self._device)
        log_l1, shear, log_l3 = self._base[2:5, into]
        x, y = self._base[:2, into] - there
        old_along, old_across = self._changes[:2, into]
        l3 = log_l3.exp()
        along = x / log_l1.exp() + old_along
        across = (y - shear * l3 * (along - old_along)) / l3 + old_across
        moved = (old_along != 0) | (old_across != 0)
        self._changes[0, into] = torch.where(moved, along, 0.0)
        self._changes[1, into] = torch.where(moved, across, 0.0)
        self._base[:2, into] = there


_Key = tuple[Geometry, int, int, int, bool]


_kept: Kept[_Key, _Frame] = Kept(most=4)


def _frame_for(problem: InterProblem, deltas: Deltas, spacing: int, device: torch.device) -> _Frame:
    """Buffers for a frame: those of an earlier one if it was alike."""
    objective = problem.objective
    rows = rows_for(len(deltas), _GROWTH)
    key = (geometry_of(objective), rows, spacing, objective.channels, problem.opponent)
    shape = field_shape(*problem.size, spacing)
    return _kept.get(
        objective.rasterizer, key, lambda: _Frame(objective, rows, shape, device, opponent=problem.opponent)
    )
