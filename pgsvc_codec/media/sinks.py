"""Frames out: a table of formats, each a few lines, over outputs that appear whole or not at all."""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.errors import ConfigError
from pgsvc_codec.media.output import AtomicFile
from pgsvc_codec.media.raw import Y4M_FRAME_MAGIC, frame_pieces, y4m_header
from pgsvc_codec.picture import Frame, check_frame, matching_info, sample_dtype
from pgsvc_codec.video import Chroma, Range, VideoInfo

_EXTENSIONS = {
    ".y4m": "y4m",
    ".yuv": "yuv",
    ".raw": "yuv",
    ".rgb": "yuv",
    ".png": "png",
    ".ppm": "ppm",
    ".pgm": "ppm",
    ".npy": "npy",
    ".md5": "md5",
    ".framemd5": "framemd5",
}
_Piece = bytes | memoryview
_NUMBER = re.compile(r"%(?:n|(0[0-9]+)?d)")  # %n, %d, %04d


class _Format:
    """Bytes of a format: a head, each frame, a tail."""

    head_counts_frames = False  # the head is written again at the end, when the number of frames is known

    def __init__(self, info: VideoInfo) -> None:
        self.info = info

    def head(self, num_frames: int) -> bytes:
        """What comes before the first frame."""
        return b""

    def frame(self, frame: Frame) -> Sequence[_Piece]:
        """The bytes of the next frame, in pieces."""
        return frame_pieces(frame, self.info)

    def tail(self) -> bytes:
        """What comes after the last frame."""
        return b""


class _Yuv(_Format):
    """Frames one after another, as ffmpeg's rawvideo."""


class _Y4m(_Format):
    """YUV4MPEG2."""

    def head(self, num_frames: int) -> bytes:
        return y4m_header(self.info)

    def frame(self, frame: Frame) -> Sequence[_Piece]:
        return [Y4M_FRAME_MAGIC + b"\n", *frame_pieces(frame, self.info)]


class _Npy(_Format):
    """One NumPy array: [frames, rows, columns] for gray, else [frames, rows, columns, 3]."""

    head_counts_frames = True

    def head(self, num_frames: int) -> bytes:
        shape: tuple[int, ...] = (num_frames, self.info.height, self.info.width)
        if self.info.chroma is not Chroma.GRAY:
            shape += (3,)
        header = {"descr": sample_dtype(self.info).newbyteorder("<").str, "fortran_order": False, "shape": shape}
        file = io.BytesIO()
        # NumPy pads so that the first axis can grow: the length does not depend on the number of frames.
        np.lib.format.write_array_header_1_0(file, header)
        return file.getvalue()

    def frame(self, frame: Frame) -> Sequence[_Piece]:
        check_frame(frame, self.info)
        pixels = np.stack(frame, axis=-1)
        return [pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()]


class _Md5(_Format):
    """The MD5 of all raw frames together, in hexadecimal."""

    def __init__(self, info: VideoInfo) -> None:
        super().__init__(info)
        self._digest = hashlib.md5(usedforsecurity=False)

    def frame(self, frame: Frame) -> Sequence[_Piece]:
        for piece in frame_pieces(frame, self.info):
            self._digest.update(piece)
        return []

    def tail(self) -> bytes:
        return f"{self._digest.hexdigest()}\n".encode("ascii")


class _FrameMd5(_Format):
    """A line with the MD5 of each raw frame, as ``ffmpeg -f framemd5`` writes them."""

    def __init__(self, info: VideoInfo) -> None:
        super().__init__(info)
        self._index = 0

    def head(self, num_frames: int) -> bytes:
        return (
            "#format: frame checksums\n#version: 2\n#hash: MD5\n"
            f"#tb 0: {self.info.rate.denominator}/{self.info.rate.numerator}\n"
            "#media_type 0: video\n#codec_id 0: rawvideo\n"
            f"#dimensions 0: {self.info.width}x{self.info.height}\n#sar 0: 1/1\n"
            "#stream#, dts,        pts, duration,     size, hash\n"
        ).encode("ascii")

    def frame(self, frame: Frame) -> Sequence[_Piece]:
        digest = hashlib.md5(usedforsecurity=False)
        for piece in frame_pieces(frame, self.info):
            digest.update(piece)
        index = self._index
        self._index += 1
        size, told = self.info.frame_bytes, digest.hexdigest()
        return [f"0, {index:10}, {index:10}, {1:8}, {size:8}, {told}\n".encode("ascii")]


class _Null(_Format):
    """Frames checked and dropped."""

    def frame(self, frame: Frame) -> Sequence[_Piece]:
        check_frame(frame, self.info)
        return []


class _Ppm(_Format):
    """A binary PPM, or PGM for gray."""

    def frame(self, frame: Frame) -> Sequence[_Piece]:
        kind = "P5" if self.info.chroma is Chroma.GRAY else "P6"
        head = f"{kind}\n{self.info.width} {self.info.height}\n255\n".encode("ascii")
        return [head, *frame_pieces(frame, self.info)]


class _Png(_Format):
    """A PNG of 8 bits per sample, RGB or gray."""

    def frame(self, frame: Frame) -> Sequence[_Piece]:
        check_frame(frame, self.info)
        color_type = 0 if self.info.chroma is Chroma.GRAY else 2
        header = struct.pack(">IIBBBBB", self.info.width, self.info.height, 8, color_type, 0, 0, 0)
        pixels = zlib.compress(_png_rows(np.stack(frame, axis=-1)), 6)
        chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
        return [
            b"\x89PNG\r\n\x1a\n",
            *(
                struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
                for kind, data in chunks
            ),
        ]


def _png_rows(pixels: NDArray[np.uint8 | np.uint16]) -> bytes:
    """Rows [height, width, channels] behind PNG's Paeth filter, which suits photographs, each after its filter byte."""
    height, width, channels = pixels.shape
    padded = np.zeros((height + 1, width + 1, channels), np.int16)
    padded[1:, 1:] = pixels
    left, up, corner = padded[1:, :-1], padded[:-1, 1:], padded[:-1, :-1]
    to_left, to_up, to_corner = np.abs(up - corner), np.abs(left - corner), np.abs(left + up - 2 * corner)
    prediction = np.where(to_up <= to_corner, up, corner)
    prediction = np.where((to_left <= to_up) & (to_left <= to_corner), left, prediction)
    rows = np.empty((height, 1 + width * channels), np.uint8)
    rows[:, 0] = 4  # the filter type
    rows[:, 1:] = (padded[1:, 1:] - prediction).astype(np.uint8).reshape(height, -1)
    return rows.tobytes()


_STREAMS: dict[str, type[_Format]] = {
    "y4m": _Y4m,
    "yuv": _Yuv,
    "npy": _Npy,
    "md5": _Md5,
    "framemd5": _FrameMd5,
    "null": _Null,
}
_IMAGES: dict[str, type[_Format]] = {"png": _Png, "ppm": _Ppm}
FORMATS = (*_STREAMS, *_IMAGES)


class Sink(ABC):
    """Takes the frames of a video, in order.

    As a context manager it closes at the end of the block and aborts on an exception.
    """

    info: VideoInfo  # what frames must be

    @abstractmethod
    def write(self, frame: Frame) -> None:
        """Take the next frame.

        Raises:
            InputError: the planes are not those of ``info``.
            ConfigError: the output holds one frame and this is the second, or a numbered file exists.
            OutputError: it cannot be written.
        """

    @abstractmethod
    def close(self) -> None:
        """Finish the output; it appears under its name.

        Raises:
            OutputError: it cannot be written.
        """

    @abstractmethod
    def abort(self) -> None:
        """Drop what is unfinished; an existing file of that name stays as it was."""

    def __enter__(self) -> Sink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self.abort()  # does nothing after a close that succeeded


class _StreamSink(Sink):
    """All frames in one output."""

    def __init__(self, encoder: _Format, file: AtomicFile) -> None:
        self.info = encoder.info
        self._encoder = encoder
        self._file = file
        self._num_frames = 0
        self._file.write(encoder.head(0))

    def write(self, frame: Frame) -> None:
        for piece in self._encoder.frame(frame):
            self._file.write(piece)
        self._num_frames += 1

    def close(self) -> None:
        self._file.write(self._encoder.tail())
        if self._encoder.head_counts_frames:
            self._file.seek(0)
            self._file.write(self._encoder.head(self._num_frames))
        self._file.commit()

    def abort(self) -> None:
        self._file.abort()


class _ImageSink(Sink):
    """One file for each frame, numbered where the name has a place for the number."""

    def __init__(self, encoder: _Format, name: str, pattern: str, first: int, overwrite: bool) -> None:
        self.info = encoder.info
        self._encoder = encoder
        self._name = name
        self._pattern = pattern
        self._index = first
        self._overwrite = overwrite
        # Opened before there is a frame, so that a place that cannot be written is found before any work.
        self._file = self._open()
        self._waits = True  # for a frame

    def write(self, frame: Frame) -> None:
        if not self._waits:
            self._next()
        for piece in self._encoder.frame(frame):
            self._file.write(piece)
        self._waits = False

    def close(self) -> None:
        if self._waits:
            self._file.abort()
        else:
            self._file.commit()

    def abort(self) -> None:
        self._file.abort()

    def _next(self) -> None:
        if not _NUMBER.search(self._pattern):
            raise ConfigError(
                f"{self._pattern}: a {self._name} file holds one frame; number more, as in frame_%04d.{self._name}"
            )
        self.close()
        self._index += 1
        self._file = self._open()
        self._waits = True

    def _open(self) -> AtomicFile:
        def number(match: re.Match[str]) -> str:
            return f"{self._index:{match[1] or ''}d}"

        return AtomicFile(_NUMBER.sub(number, self._pattern), overwrite=self._overwrite)


def open_sink(format: str, output: str, info: VideoInfo, *, overwrite: bool = False, first: int = 0) -> Sink:
    """A sink for frames of ``info`` (as `sink_info` gives it for the format).

    Args:
        format: one of `FORMATS`.
        output: a path, or ``-`` for standard output; for png and ppm it may number the frames: ``%n``, ``%04d``.
        info: what the frames are.
        overwrite: whether existing files may be replaced.
        first: number of the first frame in numbered files.

    Raises:
        ConfigError: the format is unknown or does not take such frames, or the output exists or does not fit it.
        OutputError: the output cannot be written.
    """
    accepted = sink_info(format, info)
    if accepted != info:
        raise ConfigError(
            f"{format}: got {info.pix_fmt} {info.range.value} range, "
            f"allowed {accepted.pix_fmt} {accepted.range.value} range"
        )
    if format in _IMAGES:
        return _ImageSink(_IMAGES[format](info), format, output, first, overwrite)
    if format == "null" and output != "-":
        raise ConfigError(f"null writes nothing: got output {output}, allowed -")
    encoder = _STREAMS[format](info)
    if encoder.head_counts_frames and (output == "-" or _is_special(output)):
        raise ConfigError(f"{output}: {format} needs a file, because the number of frames stands in front of them")
    return _StreamSink(encoder, AtomicFile(output, overwrite=overwrite))


def sink_info(format: str, info: VideoInfo) -> VideoInfo:
    """The nearest that a format takes of a video: what to ask of whoever renders the frames for it.

    yuv, md5, framemd5 and null take everything; y4m has no RGB; npy wants chroma at full size; png and ppm want
    8-bit full-range RGB or gray.

    Raises:
        ConfigError: the format is unknown.
    """
    if format not in FORMATS:
        raise ConfigError(f"output format: got {format}, allowed {', '.join(FORMATS)}")
    if format in _IMAGES:
        return replace(matching_info(info, "gray" if info.chroma is Chroma.GRAY else "rgb24"), range=Range.FULL)
    if format == "y4m" and info.chroma is Chroma.RGB:
        return matching_info(info, "yuv444p")
    if format == "npy" and info.chroma.shift != (0, 0):
        return matching_info(info, "yuv444p" if info.depth == 8 else "yuv444p10le")
    return info


def format_for(output: str, still: bool) -> str:
    """The format that an output name asks for: its extension; y4m for streams; png for a still without extension.

    Raises:
        ConfigError: nothing in the name tells.
    """
    if output == "-" or _is_special(output):
        return "y4m"
    extension = Path(output).suffix.lower()
    if extension in _EXTENSIONS:
        return _EXTENSIONS[extension]
    if still and not extension:
        return "png"
    raise ConfigError(f"{output}: its name does not tell the output format, allowed {', '.join(_EXTENSIONS)}")


def _is_special(output: str) -> bool:
    """Whether the name is that of a device or pipe."""
    path = Path(output)
    return path.exists() and not path.is_file() and not path.is_dir()
