"""Uncompressed video as bytes: y4m (YUV4MPEG2) and headerless planar frames, read and written exactly.

Readers take any binary stream whose ``read`` may return less than was asked for, as pipes do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import BinaryIO, Protocol

import numpy as np

from pgsvc_codec.errors import ConfigError, InputError
from pgsvc_codec.picture import Frame, check_frame, sample_dtype
from pgsvc_codec.video import MAX_SIDE, PIX_FMTS, Chroma, Matrix, Range, Siting, VideoInfo, guess_matrix

Y4M_MAGIC = b"YUV4MPEG2"
Y4M_FRAME_MAGIC = b"FRAME"
_MAX_LINE = 1024  # bytes of a header line; ffmpeg allows 96 and 80

# The C parameter of y4m: (pixel format, siting).  Deep formats do not tell the siting.
_Y4M_FORMATS = {
    "420jpeg": ("yuv420p", Siting.CENTER),
    "420mpeg2": ("yuv420p", Siting.LEFT),
    "420paldv": ("yuv420p", Siting.TOP_LEFT),
    "420": ("yuv420p", Siting.CENTER),
    "420p10": ("yuv420p10le", Siting.LEFT),
    "422": ("yuv422p", Siting.LEFT),
    "422p10": ("yuv422p10le", Siting.LEFT),
    "444": ("yuv444p", Siting.LEFT),
    "444p10": ("yuv444p10le", Siting.LEFT),
    "mono": ("gray", Siting.LEFT),
    "mono10": ("gray10le", Siting.LEFT),
}
_Y4M_420_TAGS = {Siting.CENTER: "420jpeg", Siting.LEFT: "420mpeg2", Siting.TOP_LEFT: "420paldv"}
_Y4M_TAGS = {pix_fmt: tag for tag, (pix_fmt, _) in _Y4M_FORMATS.items() if pix_fmt != "yuv420p"}


class ByteReader(Protocol):
    """What is needed of a source of bytes."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; none only at the end."""


def read_fully(stream: ByteReader, size: int) -> bytes:
    """``size`` bytes, however small the pieces they come in; fewer only where the stream ends."""
    pieces = []
    while size > 0 and (piece := stream.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def parse_frame(data: bytes, info: VideoInfo) -> Frame:
    """The planes in the bytes of one raw frame (``info.frame_bytes`` of them); rgb24 is packed, all else planar."""
    samples = np.frombuffer(data, sample_dtype(info).newbyteorder("<")).astype(sample_dtype(info), copy=False)
    if info.chroma is Chroma.RGB:
        return tuple(np.ascontiguousarray(samples[c::3].reshape(info.height, info.width)) for c in range(3))
    planes, start = [], 0
    for rows, columns in info.plane_shapes:
        planes.append(samples[start : start + rows * columns].reshape(rows, columns))
        start += rows * columns
    return tuple(planes)


def frame_pieces(frame: Frame, info: VideoInfo) -> list[memoryview]:
    """The bytes of one raw frame, as ffmpeg's rawvideo lays them out: rgb24 packed, all else a piece for each plane.

    Planes that lie in memory as they do in the file are not copied.

    Raises:
        InputError: the planes are not those of ``info``.
    """
    check_frame(frame, info)
    parts = (np.stack(frame, axis=-1),) if info.chroma is Chroma.RGB else frame
    little_endian = sample_dtype(info).newbyteorder("<")
    return [np.ascontiguousarray(part, little_endian).reshape(-1).view(np.uint8).data for part in parts]


def frame_to_bytes(frame: Frame, info: VideoInfo) -> bytes:
    """All `frame_pieces` of one raw frame."""
    return b"".join(frame_pieces(frame, info))


def raw_frames(stream: ByteReader, info: VideoInfo, warn: Callable[[str], None]) -> Iterator[Frame]:
    """The frames of headerless video, as far as they are whole; a short last one is dropped with a warning."""
    index = 0
    while data := read_fully(stream, info.frame_bytes):
        if len(data) < info.frame_bytes:
            warn(f"frame {index} dropped: the input ends after {len(data)} of its {info.frame_bytes} bytes")
            return
        yield parse_frame(data, info)
        index += 1


def geometries_that_fit(size_bytes: int, info: VideoInfo) -> list[str]:
    """The usual sizes of which ``size_bytes`` holds whole frames, the nearest to ``info`` in shape and area first."""
    fits = []
    for width, height in _USUAL_SIZES:
        for pix_fmt in (info.pix_fmt, *(name for name in _USUAL_FORMATS if name != info.pix_fmt)):
            chroma, depth = PIX_FMTS[pix_fmt]
            matrix = Matrix.RGB if chroma is Chroma.RGB else Matrix.BT709
            candidate = replace(info, width=width, height=height, chroma=chroma, depth=depth, matrix=matrix)
            count, rest = divmod(size_bytes, candidate.frame_bytes)
            if count and not rest:
                stretch = abs(math.log((width * info.height) / (height * info.width)))
                growth = abs(math.log((width * height) / (info.width * info.height)))
                distance = (pix_fmt != info.pix_fmt, stretch > 0.01, growth)
                fits.append((distance, f"{count} frame{'s' * (count > 1)} of {width}x{height} {pix_fmt}"))
                break
    return [text for _, text in sorted(fits)]


_USUAL_FORMATS = ("yuv420p", "yuv420p10le", "yuv422p", "yuv444p")
_USUAL_SIZES = (
    (128, 96), (176, 144), (320, 240), (352, 288), (416, 240), (480, 270), (576, 324), (640, 360), (640, 480),
    (704, 576), (720, 480), (720, 576), (768, 512), (832, 480), (854, 480), (960, 540), (1024, 768), (1280, 720),
    (1920, 1080), (2048, 1080), (2160, 1440), (2560, 1440), (2560, 1600), (3840, 2160), (4096, 2160), (7680, 4320),
)  # fmt: skip


@dataclass(frozen=True)
class Y4mHeader:
    """The first line of a y4m stream."""

    info: VideoInfo
    size_bytes: int  # of the line with its newline
    assumed: dict[str, str]  # by option name, what the line does not say


def read_y4m_header(stream: ByteReader, name: str) -> Y4mHeader:
    """Read and parse the first line; interlacing, aspect ratio and unknown X parameters are ignored.

    Raises:
        InputError: not a y4m header, or a size or format that is not supported.
    """
    line = _read_line(stream)
    if line is None or line.split(b" ")[0] != Y4M_MAGIC:
        raise InputError(f"{name}: not a y4m stream: starts with {(line or b'')[:16]!r}, allowed {Y4M_MAGIC!r}")
    parameters: dict[str, str] = {}
    for word in line.decode("ascii", "replace").split(" ")[1:]:
        if word.startswith("X"):
            key, _, value = word.partition("=")
            parameters[key.upper()] = value
        elif word:
            parameters[word[0]] = word[1:]
    width, height = (_y4m_side(parameters, key, name) for key in "WH")
    tag = parameters.get("C", "420jpeg")
    if tag not in _Y4M_FORMATS:
        raise InputError(f"{name}: y4m colour space C{tag} is not supported, allowed C{', C'.join(_Y4M_FORMATS)}")
    pix_fmt, siting = _Y4M_FORMATS[tag]
    chroma, depth = PIX_FMTS[pix_fmt]
    assumed = {}
    rate = _y4m_rate(parameters.get("F", "0:0"), name)
    if rate is None:
        rate = Fraction(25)
        assumed["fps"] = "25 fps"
    tagged_range = parameters.get("XCOLORRANGE", "").lower()
    if tagged_range not in ("limited", "full"):
        tagged_range = "limited"
        assumed["range"] = "range limited"
    matrix = guess_matrix(height)
    if chroma is not Chroma.GRAY:
        assumed["matrix"] = f"matrix {matrix.name.lower()}"
    try:
        info = VideoInfo(width, height, rate, chroma, depth, matrix, Range(tagged_range), siting)
    except ConfigError as error:
        raise InputError(f"{name}: {error}") from None
    return Y4mHeader(info, len(line) + 1, assumed)


def y4m_frames(stream: ByteReader, info: VideoInfo, name: str, warn: Callable[[str], None]) -> Iterator[Frame]:
    """The frames after a y4m header; a short last one is dropped with a warning.

    Raises:
        InputError: something else than a FRAME line where a frame should begin.
    """
    index = 0
    while (line := _read_frame_line(stream, index, name)) is not None:
        data = read_fully(stream, info.frame_bytes) if line else b""
        if len(data) < info.frame_bytes:
            warn(f"frame {index} dropped: the input ends after {len(data)} of its {info.frame_bytes} bytes")
            return
        yield parse_frame(data, info)
        index += 1


def y4m_header(info: VideoInfo) -> bytes:
    """The first line of a y4m stream of ``info``; y4m has no word for the matrix.

    Raises:
        ConfigError: y4m has no RGB.
    """
    if info.chroma is Chroma.RGB:
        raise ConfigError(f"y4m holds no rgb24, allowed {', '.join(fmt for fmt in PIX_FMTS if fmt != 'rgb24')}")
    tag = _Y4M_420_TAGS[info.siting] if info.pix_fmt == "yuv420p" else _Y4M_TAGS[info.pix_fmt]
    rate = f"{info.rate.numerator}:{info.rate.denominator}"
    subsampling = "" if info.chroma is Chroma.GRAY else f" XYSCSS={tag.upper()}"
    return (
        f"YUV4MPEG2 W{info.width} H{info.height} F{rate} Ip A1:1 C{tag}{subsampling} XCOLORRANGE={info.range.name}\n"
    ).encode("ascii")


def locate_y4m_frame(
    stream: BinaryIO, header: Y4mHeader, size_bytes: int, first: int, name: str
) -> tuple[int, int | None]:
    """Walk over the FRAME lines of a seekable stream of ``size_bytes``.

    Returns:
        (number of whole frames, offset of the line of frame ``first`` or None if there is no such frame).

    Raises:
        InputError: something else than a FRAME line where a frame should begin.
    """
    count, offset, found = 0, header.size_bytes, None
    while True:
        stream.seek(offset)
        line = _read_frame_line(stream, count, name)
        if not line or offset + len(line) + 1 + header.info.frame_bytes > size_bytes:
            return count, found
        if count == first:
            found = offset
        offset += len(line) + 1 + header.info.frame_bytes
        count += 1


def _read_line(stream: ByteReader) -> bytes | None:
    """A line without its newline; None where none ends within `_MAX_LINE` bytes."""
    line = bytearray()
    while len(line) < _MAX_LINE and (byte := stream.read(1)):
        if byte == b"\n":
            return bytes(line)
        line += byte
    return None


def _read_frame_line(stream: ByteReader, index: int, name: str) -> bytes | None:
    """The line in front of a frame, without its newline; None at the end of the stream, empty if it is cut there."""
    start = read_fully(stream, len(Y4M_FRAME_MAGIC))
    if not start:
        return None
    rest = _read_line(stream) if start == Y4M_FRAME_MAGIC else None
    if rest is None and Y4M_FRAME_MAGIC.startswith(start) and not stream.read(1):
        return b""
    if rest is None or (rest and not rest.startswith(b" ")):
        raise InputError(f"{name}: y4m frame {index}: starts with {start + (rest or b'')[:8]!r}, allowed b'FRAME'")
    return start + rest


def _y4m_side(parameters: dict[str, str], key: str, name: str) -> int:
    value = parameters.get(key, "nothing")
    if not value.isdecimal():
        raise InputError(f"{name}: y4m parameter {key}: got {value}, allowed 1..{MAX_SIDE}")
    return int(value)


def _y4m_rate(value: str, name: str) -> Fraction | None:
    """Frames per second; None for 0:0, which is y4m's "unknown"."""
    numerator, _, denominator = value.partition(":")
    if not (numerator.isdecimal() and denominator.isdecimal()):
        raise InputError(f"{name}: y4m parameter F: got {value}, allowed N:D")
    if int(numerator) == 0 or int(denominator) == 0:
        return None
    return Fraction(int(numerator), int(denominator))
