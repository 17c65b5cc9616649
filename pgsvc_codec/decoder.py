"""A `.pgs` stream in, frames out: any level, any size, any planes, from whatever part of the stream is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

import numpy as np

from pgsvc_codec.coding.payload import LayerDecoder
from pgsvc_codec.errors import ConfigError, FormatError, InputError
from pgsvc_codec.format.container import GopEntry, StreamReader
from pgsvc_codec.format.header import VideoRecord
from pgsvc_codec.picture import Frame, PlaneGrid, color_transform, matching_info, plane_grids
from pgsvc_codec.render.backend import load
from pgsvc_codec.render.frames import paint_levels
from pgsvc_codec.splats import FloatArray, Splats
from pgsvc_codec.video import Chroma, Matrix, Range, Siting, VideoInfo


class DecodedFrame(NamedTuple):
    """One frame of the output."""

    index: int  # in display order, from the first of the stream
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
        warnings: what was missing or damaged in what has been decoded so far, one line each.
        reader: the stream's structure.

    Raises:
        InputError: there is no such file, or it cannot be read.
        FormatError: this is no PGS stream, or no part of it can be decoded.
        BackendError: the device is not available.
    """

    def __init__(self, source: str | Path | BinaryIO | bytes, *, device: str = "auto") -> None:
        self._rasterizer = load(device)
        self._file: BinaryIO | None = None
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
        self.warnings: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file, if the decoder opened it."""
        self.reader.close()
        if self._file is not None:
            self._file.close()

    def output_info(self, size: tuple[int, int] | None = None, pix_fmt: str | None = None) -> VideoInfo:
        """What `frames` yields for this output size (width, height) and pixel format; None = as encoded.

        Raises:
            ConfigError: the size or format is out of range.
        """
        info = self.info if pix_fmt is None else matching_info(self.info, pix_fmt)
        return info if size is None else replace(info, width=size[0], height=size[1])

    def frames(
        self,
        *,
        layers: int | None = None,
        size: tuple[int, int] | None = None,
        pix_fmt: str | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> Iterator[DecodedFrame]:
        """Decode frames in display order.

        GOPs that lie outside the range are not read.  Where layers of a GOP are missing or damaged it comes from
        those below; a GOP without its base is left out; `warnings` says so.

        Args:
            layers: how many layers, 1 = base only; None = all.
            size: output width and height in luma samples.
            pix_fmt: planes of the output, a name of `video.PIX_FMTS`.
            start: first frame.
            stop: one past the last frame; None = to the end.

        Raises:
            ConfigError: an argument is out of range.
        """
        level = self.num_layers if layers is None else layers
        if not 1 <= level <= self.num_layers:
            raise ConfigError(f"layers: got {level}, allowed 1..{self.num_layers}")
        end = self.frame_count if stop is None else min(stop, self.frame_count)
        if not 0 <= start <= self.frame_count:
            raise ConfigError(f"start: got frame {start}, allowed 0..{self.frame_count}")
        output = self.output_info(size, pix_fmt)
        return self._decode(level, output, start, end)

    def _decode(self, level: int, output: VideoInfo, start: int, end: int) -> Iterator[DecodedFrame]:
        painter = _Painter(self._rasterizer, self.info, output)
        for number, gop in enumerate(self.reader.gops):
            if gop.first_frame >= end or gop.first_frame + gop.frames <= start:
                continue
            for index, layers, background in self._decode_gop(number, gop, level):
                if start <= index < end:
                    yield DecodedFrame(index, len(layers), painter.paint(layers, background))

    def _decode_gop(
        self, number: int, gop: GopEntry, level: int
    ) -> Iterator[tuple[int, list[Splats], FloatArray]]:
        """The splats of each frame of a GOP, layer by layer, and its background."""
        channels = self.info.chroma.num_planes
        payloads: list[list[bytes]] = []
        for layer in range(level):
            try:
                payloads.append(self.reader.read_segment(number, layer))
            except FormatError as error:
                self.warnings.append(_loss(number, layer, error))
                break
        decoders = [LayerDecoder(layer, channels) for layer in range(len(payloads))]
        for position in range(gop.frames if decoders else 0):
            decoded: list[Splats] = []
            for layer, decoder in enumerate(decoders):
                try:
                    decode = decoder.decode_intra if position == 0 else decoder.decode_inter
                    decoded.append(decode(payloads[layer][position]))
                except FormatError as error:  # its checksum fits, so the encoder was at fault
                    self.warnings.append(_loss(number, layer, error))
                    del decoders[layer:]
                    break
            if not decoded:
                return
            yield gop.first_frame + position, decoded, decoders[0].background


def _loss(gop: int, layer: int, error: FormatError) -> str:
    kept = f"decoded from {layer} of its layers" if layer else "left out"
    return f"GOP {gop} is {kept}: {error}"


class _Painter:
    """Splats of the stream's colour space onto the planes of the output.

    A sum of splats is linear in their colours, so a change of colour space is applied to the colours, and chroma is
    painted at whatever resolution the output has.
    """

    def __init__(self, rasterizer, source: VideoInfo, output: VideoInfo) -> None:
        self._rasterizer = rasterizer
        self._size = (source.width, source.height)
        self._max_code = output.max_code
        full_size = replace(output, width=source.width, height=source.height)
        self._grids: Sequence[PlaneGrid] = plane_grids(full_size, output.width, output.height)
        self._matrix, self._offset = color_transform(source, full_size)
        channels = source.chroma.num_planes
        self._is_identity = np.array_equal(self._matrix, np.eye(channels)) and not self._offset.any()

    def paint(self, layers: Sequence[Splats], background: FloatArray) -> Frame:
        """One frame."""
        if not self._is_identity:
            layers = [
                Splats(part.means, part.cholesky, (part.colors @ self._matrix.T).astype(np.float32)) for part in layers
            ]
            background = (self._matrix @ background + self._offset).astype(np.float32)
        level = len(layers)
        frames = paint_levels(
            self._rasterizer, layers, background, self._size, self._grids, self._max_code, [level]
        )
        return frames[0]
