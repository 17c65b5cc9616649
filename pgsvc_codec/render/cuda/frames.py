"""Frames painted several at a time, while those before are on their way to the host and those behind are decoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from pgsvc_codec.picture import Frame, Plane, PlaneGroup
from pgsvc_codec.render.cuda.canvases import Canvas, Canvases
from pgsvc_codec.render.cuda.device import Mark, Stream, host_buffer, mark, use
from pgsvc_codec.render.cuda.raster import Raster
from pgsvc_codec.render.cuda.table import SplatTable, pixels_of
from pgsvc_codec.splats import Splats

_Tag = TypeVar("_Tag")

_MOST_FRAMES = 8  # of a batch: launches cost little beside so many
_MOST_BYTES = 128 << 20  # of its planes
_MOST_WAITING = 2  # batches that are painted or copied while the next one is filled
_LEAST_ROWS = 64
_ENTRIES_PER_ROW = 16  # room to begin with


class _Sources(NamedTuple):
    """What the frames of a batch are painted from: views of one buffer, which is copied as a whole."""

    means: torch.Tensor  # [rows, 2]; see SplatTable
    cholesky: torch.Tensor  # [rows, 3]
    colors: torch.Tensor  # [rows, channels]
    pictures: torch.Tensor  # [rows]
    backgrounds: tuple[torch.Tensor, ...]  # of each group of planes [frames, channels of the group]

    @staticmethod
    def floats(rows: int, channels: int, frames: int, num_groups: int) -> int:
        """Size of the buffer."""
        return rows * (6 + channels) + num_groups * _background_floats(frames)

    @classmethod
    def of(cls, buffer: torch.Tensor, rows: int, frames: int, groups: Sequence[PlaneGroup]) -> _Sources:
        """The parts of a buffer, float32."""
        num_channels = groups[-1].channels.stop
        tables = [rows * width for width in (2, 3, num_channels, 1)]
        parts = buffer.split([*tables, *[_background_floats(frames)] * len(groups)])
        backgrounds = []
        for part, (_, channels) in zip(parts[len(tables) :], groups, strict=True):
            count = channels.stop - channels.start
            backgrounds.append(part[: frames * count].view(frames, count))
        means, cholesky, colors, pictures = parts[: len(tables)]
        return cls(
            means.view(rows, 2),
            cholesky.view(rows, 3),
            colors.view(rows, num_channels),
            pictures.view(torch.int32),
            tuple(backgrounds),
        )


def _background_floats(frames: int) -> int:
    """Room for the backgrounds of a group; a multiple of 16 bytes, as rows are, for the sake of whoever reads them."""
    return 4 * frames


class _Batch:
    """The buffers of frames that are painted at once, on both sides."""

    def __init__(
        self, canvases: Sequence[Canvases], groups: Sequence[PlaneGroup], rows: int, kind: torch.dtype
    ) -> None:
        device, frames = canvases[0].device, len(canvases[0].canvases)
        floats = _Sources.floats(rows, groups[-1].channels.stop, frames, len(groups))
        self.buffer = host_buffer([floats], torch.float32, device)
        self.buffer.zero_()
        self.sources = _Sources.of(self.buffer, rows, frames, groups)
        self.sources.cholesky.fill_(1.0)  # rows that take no part are shaped like splats
        self.device_buffer = torch.empty(floats, dtype=torch.float32, device=device)
        self.device_sources = _Sources.of(self.device_buffer, rows, frames, groups)
        self.samples = [torch.empty(1, own.total, dtype=kind, device=device) for own in canvases]
        self.host_samples = [host_buffer(samples.shape, kind, device) for samples in self.samples]
        self.wanted = torch.empty(len(groups), dtype=torch.int64, device=device)  # entries of each group
        self.host_wanted = host_buffer(self.wanted.shape, torch.int64, device)
        self.room = [0] * len(groups)  # entries that there was room for
        self.done = Mark()


class BatchPainter:
    """Paints frames of one kind; see `render.frames.FramePainter`, whose arguments these are.

    Every group of planes is a launch for all frames of a batch; planes leave it as code values.  Batches are copied
    to the host on a stream of their own.

    Args:
        device: where it is painted; the CPU means Triton's interpreter.
        size: full width and height of the coded picture.
        groups: planes of the output, see `picture.plane_groups`.
        max_code: of the output, 255 or 1023.
        num_frames: as many as will come, or more.
    """

    def __init__(
        self, device: torch.device, size: tuple[int, int], groups: Sequence[PlaneGroup], max_code: int, num_frames: int
    ) -> None:
        self._device = device
        self._groups = groups
        self._size = size
        self._max_code = max_code
        self._kind = torch.uint8 if max_code <= 255 else torch.uint16
        samples = sum((own.stop - own.start) * grid.width * grid.height for grid, own in groups)
        most = _MOST_BYTES // (samples * self._kind.itemsize)
        self._frames = max(1, min(_MOST_FRAMES, most, num_frames))
        self._canvases = [
            Canvases([Canvas(number, size, grid) for number in range(self._frames)], channels, [0], device)
            for grid, channels in groups
        ]
        self._rows = 0
        self._rasters: list[Raster] = []
        self._layers = torch.zeros(0, dtype=torch.int32, device=device)
        self._free: list[_Batch] = []
        self._downloads = Stream(device)

    def paint(self, frames: Iterable[tuple[_Tag, Splats, NDArray[np.floating]]]) -> Iterator[tuple[_Tag, Frame]]:
        """The frames in order.

        The first one is painted before others are asked for.  An error of who makes them comes in its place.

        Args:
            frames: of each a tag, which comes back with it, the splats with the colours of the output, and the
                background [C].
        """
        source = iter(frames)
        waiting: deque[tuple[_Batch, list[_Tag]]] = deque()
        count = 1
        end: Exception | None = None
        try:
            while end is None:
                chosen, end = _taken(source, count)
                if not chosen:
                    break
                rows = sum(len(splats) for _, splats, _ in chosen)
                while waiting and (rows > self._rows or len(waiting) == _MOST_WAITING):
                    yield from self._finished(*waiting.popleft())
                if rows > self._rows or not self._rasters:
                    self._make_room(max(len(splats) for _, splats, _ in chosen))
                batch = self._free.pop() if self._free else self._new_batch()
                waiting.append((batch, [tag for tag, _, _ in chosen]))
                self._fill(batch, [(splats, background) for _, splats, background in chosen])
                self._launch(batch)
                while waiting and (count == 1 or waiting[0][0].done.is_done):
                    yield from self._finished(*waiting.popleft())
                count = self._frames
            while waiting:
                yield from self._finished(*waiting.popleft())
            if end is not None and not isinstance(end, StopIteration):
                raise end
        finally:
            for batch, _ in waiting:
                batch.done.wait()

    def _make_room(self, splats: int) -> None:
        """Begin anew with room for frames of so many splats, and some more; no batch is waiting."""
        self._rows = -(-max(self._frames * splats * 5 // 4, splats, 1) // _LEAST_ROWS) * _LEAST_ROWS
        self._rasters = [Raster(canvases, self._rows, _ENTRIES_PER_ROW * self._rows) for canvases in self._canvases]
        self._layers = torch.zeros(self._rows, dtype=torch.int32, device=self._device)
        self._free.clear()

    def _new_batch(self) -> _Batch:
        return _Batch(self._canvases, self._groups, self._rows, self._kind)

    def _fill(self, batch: _Batch, frames: Sequence[tuple[Splats, NDArray[np.floating]]]) -> None:
        means, cholesky, colors, pictures = (part.numpy() for part in batch.sources[:4])
        first = 0
        for number, (splats, background) in enumerate(frames):
            rows = slice(first, first + len(splats))
            means[rows] = pixels_of(splats, self._size)
            cholesky[rows] = splats.cholesky
            colors[rows] = splats.colors
            pictures[rows] = number
            for under, (_, channels) in zip(batch.sources.backgrounds, self._groups, strict=True):
                under.numpy()[number] = background[channels]
            first = rows.stop
        colors[first:] = 0

    def _launch(self, batch: _Batch) -> None:
        means, cholesky, colors, pictures, backgrounds = batch.device_sources
        table = SplatTable(means, cholesky, colors, pictures, self._layers)
        with use(self._device):
            batch.device_buffer.copy_(batch.buffer, non_blocking=True)
            for group, raster in enumerate(self._rasters):
                raster.paint(table, backgrounds[group], self._max_code, out=batch.samples[group])
                batch.wanted[group : group + 1].copy_(raster.wanted)
                batch.room[group] = raster.entries
            painted = mark(self._device)
        with self._downloads:
            painted.hold(self._device)
            for host, own in zip(batch.host_samples, batch.samples, strict=True):
                host.copy_(own, non_blocking=True)
            batch.host_wanted.copy_(batch.wanted, non_blocking=True)
            batch.done = mark(self._device)

    def _finished(self, batch: _Batch, tags: Sequence[_Tag]) -> Iterator[tuple[_Tag, Frame]]:
        """The frames of a batch, painted again with more room where there was too little."""
        batch.done.wait()
        while any(wanted > room for wanted, room in zip(batch.host_wanted.tolist(), batch.room, strict=True)):
            for raster, wanted in zip(self._rasters, batch.host_wanted.tolist(), strict=True):
                if wanted > raster.entries:
                    raster.fit_room(wanted)
            self._launch(batch)
            batch.done.wait()
        for number, tag in enumerate(tags):
            planes: list[Plane] = []
            for canvases, samples in zip(self._canvases, batch.host_samples, strict=True):
                planes += [plane.copy() for plane in canvases.planes(samples[0], number).numpy()]
            yield tag, tuple(planes)
        self._free.append(batch)


def _taken(source: Iterator[_Tag], count: int) -> tuple[list[_Tag], Exception | None]:
    """Up to so many items, and what came in the place of the next: the end or an error."""
    items: list[_Tag] = []
    try:
        while len(items) < count:
            items.append(next(source))
    except Exception as error:
        return items, error
    return items, None
