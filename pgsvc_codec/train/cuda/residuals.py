"""`train.main.residuals` on a GPU, where samples stay: states of splats come up and go down once a pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pgsvc_codec.coding.main.cost import IntraCosts
from pgsvc_codec.coding.main.state import AMPLITUDE_BITS, OPPONENT
from pgsvc_codec.render.cuda.device import host_buffer, mark, use
from pgsvc_codec.render.cuda.rasterizer import CudaRasterizer
from pgsvc_codec.splats import IntArray, Splats
from pgsvc_codec.train.births import Births
from pgsvc_codec.train.cuda import refine_slots, refine_sums, refine_whole
from pgsvc_codec.train.cuda.births import find_births
from pgsvc_codec.train.cuda.tiles import Tiles, cut
from pgsvc_codec.train.main.residuals import Change, Finish, Grids, Lattice, LayerField, Residuals, State
from pgsvc_codec.train.objective import Objective

# Samples that a program works on at a time: in tiles, in tiles of at least so many bits, of large splats.
_BLOCK = {"rows": 8, "columns": 32, "num_warps": 4}
_WIDE, _WIDE_BLOCK = 7, {"rows": 16, "columns": 64, "num_warps": 8}
_LARGE_BLOCK = {"rows": 8, "columns": 64, "num_warps": 4}
_PARTS = 64  # programs that a large splat is shared by
_STATE = refine_sums.EXPECTED.value  # columns of a table that are read back


class CudaField:
    """A `LayerField` on a device.

    Args:
        samples: changed in place.
        grids: where they lie.

    Attributes:
        samples: as given.
        before: the samples that there were.
    """

    def __init__(self, samples: torch.Tensor, grids: Grids) -> None:
        self.before = samples.clone()
        self.samples = samples
        self._grids = grids
        self._tables = self._uploaded(grids.whole), self._uploaded(grids.floats.astype(np.float32))

    @property
    def weight(self) -> float:
        """See `LayerField`."""
        return self._grids.weight

    def _uploaded(self, values: NDArray[Any]) -> torch.Tensor:
        return _upload(values, self.samples.device)

    @property
    def _field(self) -> tuple[torch.Tensor | int, ...]:
        """As kernels take it."""
        return self.samples, *self._tables, len(self._grids.whole)

    def births(self, full_size: tuple[int, int], layer_size: int, most: int) -> Births:
        """See `LayerField`."""
        planes: list[torch.Tensor] = []
        for offset, width, height, pitch, _, count in self._grids.whole[self._grids.first :].tolist():
            stack = self.samples[offset : offset + count * height * pitch].view(count, height, pitch)
            planes.extend(stack[:, :, :width])
        return find_births(planes, 1.0, full_size, layer_size, most)

    def show(self, positions: IntArray, shapes: IntArray, painted: NDArray[np.float64], lattice: Lattice) -> None:
        """See `LayerField`."""
        tiles = cut([(positions, shapes)], np.zeros(len(shapes), np.bool_))
        table = self._uploaded(_table((positions, shapes, np.zeros_like(shapes)), painted))
        order, starts = self._uploaded(tiles.order), self._uploaded(tiles.starts)
        with use(self.samples.device):
            for at in range(int(tiles.starts[-1]), len(tiles.order)):
                self._paint_large(table, order, at, lattice)
            for group in tiles.groups:
                refine_sums.paint_tiles[group.number,](
                    *self._field, table, order, starts, group.first, int(lattice.opponent), **_block(group.bits)
                )

    def _paint_large(self, table: torch.Tensor, order: torch.Tensor, at: int, lattice: Lattice) -> None:
        refine_sums.paint_large[_PARTS,](*self._field, table, order, at, int(lattice.opponent), **_LARGE_BLOCK)

    def settle_whole(
        self, state: State, painted: NDArray[np.float64], rate: float, costs: IntraCosts, lattice: Lattice
    ) -> Finish:
        """See `LayerField`."""
        table, tables = self._uploaded(_table(state, painted)), self._uploaded(_joined(costs))
        loose = (painted != state[2] * (lattice.step / (1 << AMPLITUDE_BITS))).any(axis=1)
        across = costs.cells_more.shape[1]
        most_x, most_y = (int(end) for end in lattice.ends)
        of = lattice.step, int(lattice.opponent)
        self._settle_all(
            cut([state[:2]], loose),
            table,
            rate,
            refine_whole,
            (tables, across, most_x, most_y, *of),
            (tables, *of),
            lattice,
        )
        return _to_take_back(table, state, painted)

    def settle_slots(
        self, state: State, painted: NDArray[np.float64], rate: float, change: Change, lattice: Lattice
    ) -> Finish:
        """See `LayerField`."""
        table, flags = self._uploaded(_table(state, painted, change)), self._uploaded(change.costs.flags)
        deltas = np.zeros((refine_slots.COLOR_DELTAS.value + 3, change.costs.deltas.shape[1]), np.float32)
        deltas[: len(change.costs.deltas)] = change.costs.deltas  # what is not there costs nothing
        prices = flags, self._uploaded(deltas), lattice.step, int(lattice.opponent)
        self._settle_all(
            cut([change.predicted[:2], state[:2]], change.modes < 0),
            table,
            rate,
            refine_slots,
            (*prices, int(change.removable)),
            prices,
            lattice,
        )
        return _to_take_back(table, state, painted, change.modes)

    def _settle_all(
        self,
        tiles: Tiles,
        table: torch.Tensor,
        rate: float,
        kernels: ModuleType,
        proposed: tuple[torch.Tensor | int, ...],
        chosen: tuple[torch.Tensor | int, ...],
        lattice: Lattice,
    ) -> None:
        """One pass of the kernels for whole splats or slots; what is proposed and chosen from are their arguments."""
        device = self.samples.device
        order, starts, bounds = (self._uploaded(part) for part in tiles[:3])
        numbers = self._uploaded(np.array([rate]))
        most = max((group.number for group in tiles.groups), default=1)
        scratch = torch.empty(most, refine_sums.SCRATCH.value, dtype=torch.float64, device=device)
        with use(device):
            large = range(int(tiles.starts[-1]), len(tiles.order))
            room = (_PARTS * refine_sums.NUM_SUMS.value, refine_sums.MOST_TRIALS.value * _PARTS * 8)
            sums, tried = (torch.empty(size if large else 0, dtype=torch.float64, device=device) for size in room)
            shared = scratch, bounds[-1], numbers
            for at in large:
                of = table, order, at
                refine_sums.take_large[_PARTS,](*self._field, *of, sums, int(lattice.opponent), **_LARGE_BLOCK)
                kernels.propose_large[1,](*of, sums, *shared, *proposed, parts=_PARTS, num_warps=4)
                refine_sums.pull_large[_PARTS, refine_sums.MOST_TRIALS.value](
                    *self._field, scratch, tried, **_LARGE_BLOCK
                )
                kernels.choose_large[1,](*of, tried, *shared, *chosen, parts=_PARTS, num_warps=4)
                self._paint_large(table, order, at, lattice)
            for group in tiles.groups:
                kernels.settle[group.number,](
                    *self._field, table, order, starts, bounds, group.first, scratch, numbers, *proposed,
                    **_block(group.bits),
                )  # fmt: skip


class CudaResiduals(Residuals):
    """`Residuals` on the device of the objective's rasteriser.

    Args:
        objective: of the frame, one level per layer.
        background: [C].
        layers: what is painted.
        level_weights: [levels].
        opponent: the stream is RGB, and amplitudes lie on opponent axes.
    """

    def __init__(
        self,
        objective: Objective,
        background: NDArray[np.float32],
        layers: Sequence[Splats],
        level_weights: Sequence[float],
        *,
        opponent: bool,
    ) -> None:
        super().__init__(objective, level_weights, 0)
        rasterizer = objective.rasterizer
        assert isinstance(rasterizer, CudaRasterizer)
        splats = Splats.concatenate(layers)
        ends = np.cumsum([len(layer) for layer in layers]).tolist()
        levels: list[list[torch.Tensor]] = [[] for _ in ends]
        for view in self._views:
            shown = splats[: ends[view.last]]
            own = ends[view.levels]
            for grid, channels in view.groups:
                source = _upload(np.stack(view.picture[channels]), rasterizer.device)
                size = objective.width, objective.height
                painted = rasterizer.paint(shown, *size, grid, channels, background[channels], own)
                for level, planes in enumerate(painted, start=view.first):
                    rest = source - planes
                    if opponent:
                        axes = _upload(OPPONENT.astype(np.float32), rasterizer.device)
                        rest = torch.einsum("ij,jyx->iyx", axes, rest)
                    levels[level].append(rest.flatten())
        self._levels = [torch.cat(parts) for parts in levels]  # samples of each, flat

    def of_layer(self, layer: int) -> CudaField:
        """See `Residuals`."""
        parts = []
        for _, levels in self._above(layer):
            total = torch.zeros_like(self._levels[levels[0]])
            for level, share in zip(levels, self._shares(levels), strict=True):
                total += float(np.float32(share)) * self._levels[level]
            parts.append(total)
        return CudaField(torch.cat(parts), self._grids(layer))

    def change(self, layer: int, field: LayerField) -> None:
        """See `Residuals`."""
        assert isinstance(field, CudaField)
        difference = field.samples - field.before
        offset = 0
        for view, levels in self._above(layer):
            size = self._size(view)
            for level in levels:
                self._levels[level] += difference[offset : offset + size]
            offset += size

    def squared_error(self) -> NDArray[np.float64]:
        """See `Residuals`."""
        errors = []
        for view in self._views:
            for level in range(view.first, view.last + 1):
                offset, totals = 0, []
                for group in view.groups:
                    size = int(np.prod(self._shape(group)))
                    planes = self._levels[level][offset : offset + size]
                    totals.append(view.channel_weights[group.channels.start] * planes.double().square().sum())
                    offset += size
                errors.append(torch.stack(totals).sum())
        return torch.stack(errors).cpu().numpy()


def _table(state: State, painted: NDArray[np.float64], change: Change | None = None) -> IntArray:
    """The table of splats that kernels work on, see `refine_sums`."""
    lacked = np.rint(painted * (1 << AMPLITUDE_BITS)).astype(np.int32)
    rest = np.zeros((len(painted), 9), np.int32)
    if change is not None:
        rest = np.concatenate([change.modes[:, None], *change.predicted], axis=1)
    return np.concatenate([*state, lacked, rest], axis=1, dtype=np.int32)


def _to_take_back(
    table: torch.Tensor, state: State, painted: NDArray[np.float64], modes: IntArray | None = None
) -> Finish:
    """What puts the first columns of a table where they belong, once they have come back."""
    back = _download(table[:, :_STATE])

    def take() -> None:
        columns = back()
        positions, shapes, amplitudes = state
        positions[:], shapes[:], amplitudes[:] = columns[:, :2], columns[:, 2:5], columns[:, 5:8]
        painted[:] = columns[:, 8:11] / (1 << AMPLITUDE_BITS)
        if modes is not None:
            modes[:] = columns[:, 11]

    return take


def _block(bits: int) -> dict[str, int]:
    """How many samples a program of tiles of a size works on at a time."""
    return _WIDE_BLOCK if bits >= _WIDE else _BLOCK


def _joined(costs: IntraCosts) -> NDArray[np.float32]:
    """Prices of whole splats behind each other, see `refine_whole`."""
    joined = np.zeros(refine_whole.CELLS.value, np.float32)
    places = refine_whole.COLORS, refine_whole.SIGNS, refine_whole.LENGTHS_1, refine_whole.LENGTHS_3
    for begin, part in zip((*places, refine_whole.FRACTIONS, refine_whole.SHEARS), costs[:6], strict=True):
        joined[begin.value : begin.value + part.size] = part.ravel()
    cells = np.stack([costs.cells_more, costs.cells_fewer], axis=-1, dtype=np.float32)
    return np.concatenate([joined, cells.ravel()])


def _upload(values: NDArray[Any], device: torch.device) -> torch.Tensor:
    """A copy on a device, made when the device comes to it."""
    there = host_buffer(values.shape, torch.from_numpy(np.empty(0, values.dtype)).dtype, device)
    there.numpy()[...] = values
    return there.to(device, non_blocking=True)


def _download(values: torch.Tensor) -> Callable[[], NDArray[Any]]:
    """Have a copy made when the device comes to it; what is returned waits for it."""
    there = host_buffer(values.shape, values.dtype, values.device)
    there.copy_(values.contiguous(), non_blocking=True)
    done = mark(values.device)

    def wait() -> NDArray[Any]:
        done.wait()
        return there.numpy()

    return wait
