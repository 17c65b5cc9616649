"""Runs of iterations of a `train.lsq.QuantizedModel` on a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import triton

from pgsvc_codec.coding.baseline.quant import FLOAT12_FRACTION_BITS, FLOAT16_FRACTION_BITS
from pgsvc_codec.render.cuda.device import use
from pgsvc_codec.train.cuda import coded_kernels as kernels
from pgsvc_codec.train.cuda.buffers import GROWTH
from pgsvc_codec.train.cuda.kept import Kept, rows_for
from pgsvc_codec.train.cuda.passes import Geometry, geometry_of
from pgsvc_codec.train.cuda.plain import Going, PlainBuffers
from pgsvc_codec.train.cuda.plain_kernels import MEMORIES
from pgsvc_codec.train.lsq import DECAY, LEAST_SCALE, UNSEEN, CodedPart
from pgsvc_codec.train.objective import Objective

_BLOCK = 16  # splats that look for their entries
_SUM_BLOCK = 1024  # splats that are summed together


def run(going: Going, device: torch.device) -> list[float]:
    """As `plain.run`, of a model that is shown through its parts."""
    objective, rows, parts = going.objective, rows_for(len(going.model), GROWTH), going.parts
    stages = len(parts[0].stages)
    entries = triton.next_power_of_2(max(len(stage) for part in parts for stage in part.stages))
    key = geometry_of(objective), rows, len(parts), stages, entries
    buffers = _kept.get(
        objective.rasterizer, key, lambda: CodedBuffers(objective, rows, device, len(parts), stages, entries)
    )
    return buffers.run(going)


class CodedBuffers(PlainBuffers):
    """A model and its quantisers; arguments as those of `PlainBuffers`, and

    Args:
        num_parts: rows that share quantisers.
        stages: of their codebooks.
        entries: of a stage at most, a power of two.
    """

    def __init__(
        self, objective: Objective, rows: int, device: torch.device, num_parts: int, stages: int, entries: int
    ) -> None:
        super().__init__(objective, rows, device, groups=2)
        self._reference = torch.zeros(8, rows, device=device)
        self._parts = torch.zeros(rows, dtype=torch.int32, device=device)
        self._spans = torch.zeros(num_parts, 2, dtype=torch.int32, device=device)
        self._settings = torch.ones(num_parts, kernels.SETTINGS, device=device)
        self._numbers = torch.ones(1 + MEMORIES, num_parts, kernels.NUMBERS, device=device)
        self._books = torch.zeros(num_parts, stages, entries, 3, device=device)
        self._averages = torch.zeros(num_parts, stages, entries, 4, device=device)
        self._chosen = torch.zeros(stages, rows, dtype=torch.int32, device=device)
        self._rests = torch.zeros(stages, 3, rows, device=device)
        self._pulls = torch.zeros(kernels.NUMBERS, rows, device=device)

    def _saved(self) -> list[torch.Tensor]:
        return [*super()._saved(), self._numbers, self._books, self._averages]

    def load(self, goings: Sequence[Going]) -> None:
        """As `FitBuffers.load`."""
        super().load(goings)
        (going,) = goings
        reference = np.zeros(self._reference.shape, np.float32)
        of_rows = np.full(self.rows, -1, np.int32)
        books = np.full(self._books.shape, np.inf, np.float32)
        books[..., self.channels :] = 0.0
        averages = np.zeros(self._averages.shape, np.float32)
        for number, part in enumerate(going.parts):
            of_rows[part.rows] = number
            if part.reference is not None:
                old = part.reference
                columns = np.concatenate([old.means, old.cholesky, old.colors], axis=1).T
                reference[: len(columns), part.rows] = columns
            for there, stage in zip(books[number], part.stages, strict=True):
                there[: len(stage), : self.channels] = stage
            for there, (weights, sums) in zip(averages[number], part.averages, strict=True):
                there[: len(weights), 0] = weights
                there[: len(weights), 1 : 1 + self.channels] = sums
        spans = np.array([[part.rows.start, part.rows.stop] for part in going.parts], np.int32)
        settings = np.array([_settings(part) for part in going.parts], np.float32)
        for here, values in (
            (self._reference, reference),
            (self._parts, of_rows),
            (self._books, books),
            (self._averages, averages),
            (self._spans, spans),
            (self._settings, settings),
        ):
            here.copy_(torch.from_numpy(values))
        numbers = torch.zeros(self._numbers.shape)
        numbers[0, :, :3] = 1.0
        for at, tensors in _quantizers(going):
            for there, tensor in zip(numbers, tensors, strict=False):
                there[at] = tensor
        numbers[0, :, 6] = torch.from_numpy(averages[:, 0, :, 0].sum(axis=1))
        self._numbers.copy_(numbers)

    def store(self, goings: Sequence[Going]) -> None:
        """As `FitBuffers.store`."""
        super().store(goings)
        (going,) = goings
        numbers = self._numbers.cpu()
        for at, tensors in _quantizers(going):
            for there, tensor in zip(numbers, tensors, strict=False):
                tensor.copy_(there[at])
        books = self._books[..., : self.channels].cpu().numpy()
        averages = self._averages[..., : 1 + self.channels].cpu().numpy()
        for part, own_books, own_averages in zip(going.parts, books, averages, strict=True):
            for stage, there in zip(part.stages, own_books, strict=True):
                stage[:] = there[: len(stage)]
            for (weights, sums), there in zip(part.averages, own_averages, strict=True):
                weights[:] = there[: len(weights), 0]
                sums[:] = there[: len(weights), 1:]

    def _show(self) -> None:
        _, stages, entries, _ = self._books.shape
        half_width, half_height, _ = self.frame
        block = _BLOCK if self.device.type != "cpu" else self.block
        with use(self.device):
            kernels.decode[triton.cdiv(self.rows, block),](
                self.lasting[0], *self.table[:3], self.moments, self.done, self._reference, self._parts,
                self._settings, self._numbers[0], self._books, self._chosen, self._rests, self.rows,
                half_width, half_height, channels=self.channels, stages=stages, entries=entries, block=block,
                num_warps=4,
            )  # fmt: skip

    def _step(self) -> None:
        num_parts, stages, entries, _ = self._books.shape
        numbers, memory = self._numbers[0], self._numbers[1:]
        with use(self.device):
            kernels.step[triton.cdiv(self.rows, self.block),](
                self.lasting[0], self.lasting[1:], self.table.cholesky, self.table.colors, self.moments,
                self._reference, self._parts, self._settings, numbers, self._pulls, self.schedule, self.done,
                self.rows, *self.frame, **self.shared,
            )  # fmt: skip
            kernels.learn[num_parts, kernels.NUMBERS](
                numbers, memory, self._pulls, self._spans, self._settings, self.schedule, self.done, self.rows,
                num_parts, least_scale=LEAST_SCALE, decay=DECAY, block=_SUM_BLOCK,
            )  # fmt: skip
            kernels.follow[entries, num_parts * stages](
                self._books, self._averages, self._chosen, self._rests, self._pulls, numbers, self._spans,
                self._settings, self.rows, decay=DECAY, unseen=UNSEEN, stages=stages, entries=entries,
                block=_SUM_BLOCK,
            )  # fmt: skip


def _quantizers(going: Going) -> Iterator[tuple[tuple[int, slice], list[torch.Tensor]]]:
    """Where scales and offsets are in `CodedBuffers`, and those with their memories, which only learned ones have."""
    for number, part in enumerate(going.parts):
        for first, tensor in ((0, part.scale), (3, part.offset)):
            memories = going.optimizer.memory(tensor) if part.learn else []
            yield (number, slice(first, first + 3)), [tensor, *memories]


def _settings(part: CodedPart) -> list[float]:
    """[SETTINGS] of one part, see `coded_kernels`."""
    is_difference = part.reference is not None
    unit = 2.0 ** (part.position_fraction_bits - (FLOAT12_FRACTION_BITS if is_difference else FLOAT16_FRACTION_BITS))
    last = unit - max(unit * 2.0**-11, 2.0**-24)  # the fp16 below
    return [*part.levels, part.gradient_scale if part.learn else 0.0, part.commitment, unit, last, is_difference]


_kept: Kept[tuple[Geometry, int, int, int, int], CodedBuffers] = Kept(most=8)
