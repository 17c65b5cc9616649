"""A `.pgs` stream in, frames out: any level, any size, any planes, from whatever part of the stream is there."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

import numpy as np

from pgsvc_codec.coding.ahead import SplatsAhead
from pgsvc_codec.coding.gop import DecodedSplats, GopDecoder, most_threads
from pgsvc_codec.errors import ConfigError, FormatError, InputError, TruncatedError
from pgsvc_codec.format.container import StreamReader
from pgsvc_codec.format.header import VideoRecord
from pgsvc_codec.picture import Frame, color_transform, matching_info, plane_grids
from pgsvc_codec.render.backend import load
from pgsvc_codec.render.frames import FramePainter
from pgsvc_codec.video import Chroma, Matrix, Range, Siting, VideoInfo


class DecodedFrame(NamedTuple):
    """One frame of the output."""

    number: int  # in display order, 0 = first of the stream
    layers: int  # that it was decoded from; fewer than asked for where the stream has no more
    planes: Frame


def _video_info(record: VideoRecord) -> VideoInfo:
    return VideoInfo(
        width=record.width,
        height=record.height,
        rate=record.rate,
        chroma=Chroma(record.chroma),
        depth=record.depth,
        matrix=Matrix(record.matrix),
        range=Range.FULL if record.color_range else Range.LIMITED,
        siting=Siting(record.siting),
        primaries=record.primaries,
        transfer=record.transfer,
    )


class Decoder:
    """Reads one stream.

    Use it as a context manager, or call `close`.

    Args:
        source: a path, an open binary file (left open; spooled where it cannot seek) or the bytes themselves.
        device: see `render.backend.load`.

    Attributes:
        info: what the frames were when they were encoded.
        num_layers: layers of the stream, the base included.
        frame_count: frames of the stream.
        warnings: what is missing of the stream, and what was damaged in the part decoded so far, one line each.
        reader: the stream's structure.

    Raises:
        InputError: there is no such file, or it cannot be read.
        FormatError: this is no PGS stream, or no part of it can be decoded.
        BackendError: the device is not available.
    """

    def __init__(self, source: str | Path | BinaryIO | bytes, *, device: str = "auto") -> None:
        self._rasterizer = load(device)
        self._file: BinaryIO | None = None
        self._reading = Lock()  # every iterator of `frames` reads in threads of its own
        if isinstance(source, str | Path):
            try:
                self._file = open(source, "rb")  # noqa: SIM115
            except OSError as error:
                raise InputError(f"{source}: cannot be read: {error.strerror}") from error
        try:
            self.reader = StreamReader(self._file or source)  # type: ignore[arg-type]
        except BaseException:
            if self._file is not None:
                self._file.close()
            raise
        self.info = _video_info(self.reader.header.video)
        self.num_layers = self.reader.header.num_layers
        self.frame_count = self.reader.frame_count
        report = self.reader.truncation_report()
        self.warnings: list[str] = [report] if report else []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file, if the decoder opened it."""
        with self._reading:
            self.reader.close()
            if self._file is not None:
                self._file.close()

    def level_size(self, layers: int | None = None) -> tuple[int, int]:
        """The native size of a level, width and height in luma samples: full unless scalability is in resolution.

        Args:
            layers: how many layers, 1 = base only; None = all.

        Raises:
            ConfigError: the stream has not so many layers.
        """
        level = self._level(layers)
        record = self.reader.header.layers.levels[level - 1]
        return record.width, record.height

    def output_info(
        self,
        size: tuple[int, int] | None = None,
        pix_fmt: str | None = None,
        range: Range | None = None,
        *,
        layers: int | None = None,
    ) -> VideoInfo:
        """What `frames` yields for this output size (width, height), pixel format, range and number of layers.

        None is the native size of the level, and as encoded, but for the range where RGB is made of Y′CbCr or the
        reverse: see `matching_info`.

        Raises:
            ConfigError: the size, the format or the number of layers is out of range.
        """
        info = self.info if pix_fmt is None else matching_info(self.info, pix_fmt)
        info = info if range is None else replace(info, range=range)
        native = self.level_size(layers)
        width, height = native if size is None else size
        return replace(info, width=width, height=height)

    def frames(
        self,
        *,
        layers: int | None = None,
        size: tuple[int, int] | None = None,
        pix_fmt: str | None = None,
        range: Range | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> Iterator[DecodedFrame]:
        """Decode frames in display order.

        GOPs that lie outside the range are not read.  Where layers of a GOP are missing or damaged it comes from
        those below, at the same output size; a GOP without its base is left out; `warnings` says so.

        While a frame is painted, threads read and decode the splats of the next ones; they end with the iterator,
        closed early or not.  Use `reader` for nothing but looking meanwhile.  On a GPU several frames are painted at
        a time, but the first one alone, so that it is there as soon as it can be.

        Args:
            layers: how many layers, 1 = base only; None = all.
            size: output width and height in luma samples; None = native, see `level_size`.
            pix_fmt: planes of the output, a name of `video.PIX_FMTS`.
            range: span of the output's code values; see `output_info`.
            start: first frame.
            stop: one past the last frame; None = to the end.

        Raises:
            ConfigError: an argument is out of range.
        """
        level = self._level(layers)
        end = self.frame_count if stop is None else min(stop, self.frame_count)
        if not 0 <= start <= self.frame_count:
            raise ConfigError(f"start: got frame {start}, allowed 0..{self.frame_count}")
        output = self.output_info(size, pix_fmt, range, layers=level)
        return self._decode(level, output, start, end)

    def _level(self, layers: int | None) -> int:
        level = self.num_layers if layers is None else layers
        if not 1 <= level <= self.num_layers:
            raise ConfigError(f"layers: got {level}, allowed 1..{self.num_layers}")
        return level

    def _decode(self, level: int, output: VideoInfo, start: int, end: int) -> Iterator[DecodedFrame]:
        lost: list[str] = []
        with closing(self._splats(level, start, end, lost)) as decoded:
            coded = (((number, len(splats.layers), told), *splats) for number, told, splats in decoded)
            for (number, layers, told), planes in self._painter(output, level).paint_all(coded, end - start):
                self.warnings += told
                yield DecodedFrame(number, layers, planes)
        self.warnings += lost

    def _splats(
        self, level: int, start: int, end: int, lost: list[str]
    ) -> Generator[tuple[int, list[str], DecodedSplats], None, None]:
        """What there is to paint, with the number of the frame and what was lost until then.

        Args:
            lost: has in the end what was lost behind the last frame.
        """
        wanted = [
            (number, gop)
            for number, gop in enumerate(self.reader.gops)
            if gop.first_frame < end and gop.first_frame + gop.frames > start
        ]
        losses: list[list[str]] = [[] for _ in wanted]

        def open_gop(index: int) -> GopDecoder:
            number, gop = wanted[index]
            on_loss = partial(_note_loss, losses[index], number)
            payloads = self._payloads(number, level, on_loss)
            return GopDecoder(payloads, self.reader.header, on_loss, end - gop.first_frame)

        with SplatsAhead(open_gop, len(wanted), level, most_threads(self.reader.header)) as ahead:
            for (_, gop), noted, decoded in zip(wanted, losses, ahead.gops(), strict=True):
                for frame, splats in enumerate(decoded, start=gop.first_frame):
                    if start <= frame < end:
                        yield frame, [*lost, *noted], splats
                        lost.clear()
                        noted.clear()
                lost += noted

    def _payloads(self, gop: int, level: int, on_loss: Callable[[int, FormatError], None]) -> list[list[bytes]]:
        """Per layer, per frame, for as many layers up to `level` as are whole."""
        payloads: list[list[bytes]] = []
        for layer in range(level):
            try:
                with self._reading:
                    payloads.append(self.reader.read_segment(gop, layer))
            except TruncatedError:  # told once for the whole stream
                break
            except FormatError as error:
                on_loss(layer, error)
                break
        return payloads

    def _painter(self, output: VideoInfo, level: int) -> FramePainter:
        # chroma siting and subsampling of the output, over the full-size picture of the stream
        full_size = replace(output, width=self.info.width, height=self.info.height)
        width, height = self.level_size(level)
        native = replace(self.info, width=width, height=height)
        matrix, offset = color_transform(self.info, full_size)
        same = matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(len(matrix))) and not offset.any()
        return FramePainter(
            self._rasterizer,
            (self.info.width, self.info.height),
            plane_grids(full_size, output.width, output.height, native=native),
            output.max_code,
            None if same else (matrix, offset),
        )


def _note_loss(losses: list[str], gop: int, layer: int, error: FormatError) -> None:
    kept = f"decoded from {layer} of its layers" if layer else "left out"
    losses.append(f"GOP {gop} is {kept}: {error}")
