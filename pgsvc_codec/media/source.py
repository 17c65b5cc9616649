"""Frames in: every kind of input behind one iterator, with what it is, and what had to be assumed, said.

What an input *is* is decided by its first bytes; its name counts only where bytes say nothing, as in raw video.
Native planes are kept: nothing here converts colours.
"""

from __future__ import annotations

import io
import re
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from pgsvc_codec.errors import ConfigError, InputError
from pgsvc_codec.media.container import ContainerReader, is_index_last
from pgsvc_codec.media.names import facts_from_name
from pgsvc_codec.media.raw import (
    Y4M_MAGIC,
    ByteReader,
    geometries_that_fit,
    locate_y4m_frame,
    raw_frames,
    read_fully,
    read_y4m_header,
    y4m_frames,
)
from pgsvc_codec.picture import Frame
from pgsvc_codec.video import PIX_FMTS, Chroma, Matrix, Range, VideoInfo, guess_matrix

RAW_EXTENSIONS = (".yuv", ".raw", ".rgb")
IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".ppm", ".pgm", ".tif", ".tiff", ".webp", ".bmp")

# First bytes by which a format is known: (offset, bytes, name).
_MAGICS = (
    (0, Y4M_MAGIC, "y4m"),
    (0, b"\x89PGS\r\n\x1a\n", "pgs"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (8, b"WEBP", "WebP"),
    (0, b"GIF8", "GIF"),
    (4, b"ftyp", "MP4"),
    (4, b"moov", "MP4"),
    (0, b"\x1aE\xdf\xa3", "Matroska"),
    (8, b"AVI ", "AVI"),
    (0, b"DKIF", "IVF"),
    (0, b"OggS", "Ogg"),
    (0, b"FLV\x01", "FLV"),
)
_HEAD_BYTES = 16
_BOXES_BYTES = 4096  # behind them, in which an MP4 says whether its index comes first

_Warn = Callable[[str], None]


class Source:
    """Frames of an input, to be iterated once; made by `open_source`, and a context manager."""

    info: VideoInfo
    frame_count: int | None  # frames that iterating will give, as far as it can be told beforehand
    still: bool  # one image
    assumed: list[str]  # what neither the input nor an option said
    warnings: list[str]  # grows while frames are read

    def __init__(
        self, opened: _Opened, name: str, seek: int, frames: int | None, warnings: list[str], resources: ExitStack
    ) -> None:
        self.info = opened.info
        self.assumed = list(opened.assumed.values())
        self.warnings = warnings
        self._resources = resources
        self._frames = opened.frames
        self._limit = frames
        self._limit_warned = False
        self._first: Frame | None = _find_first(opened, name, seek)
        rest = None if opened.count is None else max(opened.count - seek, 1)
        self.frame_count = rest if frames is None else frames if rest is None else min(rest, frames)
        self.still = opened.is_image and self.frame_count == 1
        if rest is not None:
            self._check_limit(rest)

    def __iter__(self) -> Iterator[Frame]:
        """The frames, as tuples of planes.

        Raises:
            InputError: the input turns out to be damaged.
        """
        if self._first is None:
            raise ValueError("a source is iterated once")
        frame: Frame | None = self._first
        self._first = None
        given = 0
        while frame is not None:
            self._check_codes(frame, given)
            yield frame
            given += 1
            if given == self._limit:
                return
            frame = next(self._frames, None)
        self._check_limit(given)

    def close(self) -> None:
        """Free files and decoders."""
        self._resources.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_limit(self, available: int) -> None:
        if self._limit is not None and available < self._limit and not self._limit_warned:
            self._limit_warned = True
            self.warnings.append(f"frames {self._limit}: the input has only {available}")

    def _check_codes(self, frame: Frame, index: int) -> None:
        """Refuse deep samples that are scaled or deeper than was said: they must not be taken for others."""
        if self.info.depth == 8:
            return
        largest = max(int(plane.max()) for plane in frame)
        if largest > self.info.max_code:
            raise InputError(
                f"frame {index}: code value {largest} is no {self.info.pix_fmt}, allowed 0..{self.info.max_code}"
            )


def open_source(
    location: str,
    *,
    size: tuple[int, int] | None = None,
    pix_fmt: str | None = None,
    fps: Fraction | None = None,
    range: Range | None = None,
    matrix: Matrix | None = None,
    y4m: bool = False,
    seek: int = 0,
    frames: int | None = None,
) -> Source:
    """Open an input and read its first frame.

    Args:
        location: a y4m, raw (.yuv, .raw, .rgb) or image file, a folder of images, a pattern such as
            ``frame_%03d.png``, any container that PyAV opens, or ``-`` for standard input.
        size: width and height of raw video; default: from the file name.
        pix_fmt: format of raw video, a key of `PIX_FMTS`; default: from the file name, else yuv420p.
        fps: frames per second; default: what the input or its name says, else 25.
        range: default: what the input says, else limited, full for RGB and images.
        matrix: default: what the input says, else `guess_matrix`.
        y4m: insist that the input is y4m.
        seek: frames to skip.
        frames: frames to read at most; default: all.

    Raises:
        ConfigError: an option is out of range, missing, or cannot apply to this input.
        InputError: the input is missing, unreadable, unsupported, damaged, or not what was said.
    """
    if seek < 0:
        raise ConfigError(f"seek: got {seek}, allowed 0 and more")
    if frames is not None and frames < 1:
        raise ConfigError(f"frames: got {frames}, allowed 1 and more")
    if fps is not None and fps <= 0:
        raise ConfigError(f"fps: got {fps}, allowed > 0")
    options = _Options(size, pix_fmt, fps, range, matrix, y4m)
    warnings: list[str] = []

    def warn(message: str) -> None:
        if message not in warnings:
            warnings.append(message)

    name = "standard input" if location == "-" else location
    resources = ExitStack()
    try:
        opened = _Opener(name, options, seek, warn, resources).open(location)
        return Source(opened, name, seek, frames, warnings, resources)
    except BaseException:
        resources.close()
        raise


@dataclass(frozen=True)
class _Options:
    """What the caller says about the input; None and False where nothing."""

    size: tuple[int, int] | None
    pix_fmt: str | None
    fps: Fraction | None
    range: Range | None
    matrix: Matrix | None
    y4m: bool

    def refuse(self, kind: str, name: str, *options: str) -> None:
        """Raise where an option is given that this kind of input has no use for."""
        for option in options:
            if getattr(self, option):
                raise ConfigError(f"{option} does not apply to {name}, which is {kind}")

    def overrule(self, info: VideoInfo, assumed: dict[str, str], warn: _Warn) -> VideoInfo:
        """``info`` of a self-describing input with what was said instead; ``assumed`` loses what no longer is."""
        changes: dict[str, object] = {}
        for option, field in (("fps", "rate"), ("range", "range"), ("matrix", "matrix")):
            value, found = getattr(self, option), getattr(info, field)
            if value is None:
                continue
            if option == "matrix" and info.chroma is Chroma.RGB:
                raise ConfigError("matrix does not apply to RGB input")
            if assumed.pop(option, None) is None and value != found:
                warn(f"{option}: {_text(value)} overrules {_text(found)} of the input")
            changes[field] = value
        return replace(info, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Opened:
    """An input that is open: what it is, and its frames."""

    info: VideoInfo
    frames: Iterator[Frame]
    positioned: bool  # whether the frames start where the caller wants to; else at 0
    count: int | None  # frames of the whole input
    assumed: dict[str, str]  # by option
    is_image: bool = False


def _find_first(opened: _Opened, name: str, seek: int) -> Frame:
    """The first frame wanted: read at once, so that an input without it is refused before any work."""
    index = seek if opened.positioned else 0
    while (frame := next(opened.frames, None)) is not None:
        if index == seek:
            return frame
        index += 1
    available = opened.count if opened.positioned else index
    if not available:
        raise InputError(f"{name}: holds no whole frame")
    raise InputError(f"{name}: seek {seek} is beyond its end, allowed 0..{available - 1}")


class _Rejoined:
    """A stream that cannot seek, with the bytes that were read from it to look at put back in front."""

    def __init__(self, head: bytes, stream: ByteReader) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes."""
        if self._head:
            piece, self._head = self._head[:size], self._head[size:]
            return piece
        return self._stream.read(size)


@dataclass(frozen=True)
class _Opener:
    """Finds out what an input is, and opens it."""

    name: str  # of the input, for messages
    options: _Options
    seek: int  # first frame wanted
    warn: _Warn
    resources: ExitStack  # takes what is to be closed

    def open(self, location: str) -> _Opened:
        """Tell files, folders, patterns and pipes apart."""
        if location == "-":
            if sys.stdin is None or sys.stdin.isatty():
                raise InputError("standard input is closed or a terminal, allowed a pipe or a file")
            return self._open_pipe(sys.stdin.buffer, "")
        path = Path(location)
        try:
            if path.is_dir():
                return self._open_images(_images_in(path))
            if "%" in path.name and not path.exists():
                return self._open_images(self._images_like(path))
            file = self.resources.enter_context(path.open("rb"))
            if stat.S_ISREG(path.stat().st_mode):
                return self._open_file(file, location)
            return self._open_pipe(file, location)
        except OSError as error:
            raise InputError(f"{self.name}: cannot be read: {error.strerror or error}") from None

    def _open_file(self, file: BinaryIO, path: str) -> _Opened:
        size_bytes = file.seek(0, io.SEEK_END)
        file.seek(0)
        kind = self._kind(file.read(_HEAD_BYTES), path)
        file.seek(0)
        if kind == "y4m":
            return self._open_y4m(file, file, size_bytes)
        if kind == "raw":
            return self._open_raw(file, path, file, size_bytes)
        if Path(path).suffix.lower() in IMAGE_EXTENSIONS:
            # Without its name, because FFmpeg takes a % in the name of an image for a pattern.
            return self._open_container(io.BytesIO(file.read()))
        return self._open_container(file)

    def _open_pipe(self, stream: BinaryIO, path: str) -> _Opened:
        head = read_fully(stream, _HEAD_BYTES)
        kind = self._kind(head, path)
        if kind == "container":
            head += read_fully(stream, _BOXES_BYTES)
        rejoined = _Rejoined(head, stream)
        if kind == "y4m":
            return self._open_y4m(rejoined)
        if kind == "raw":
            return self._open_raw(rejoined, path)
        return self._open_container(rejoined, index_last=is_index_last(head))

    def _kind(self, head: bytes, path: str) -> str:
        """y4m, raw or container, from the first bytes and, where they say nothing, the name."""
        if not head:
            raise InputError(f"{self.name}: is empty")
        known = next((kind for offset, magic, kind in _MAGICS if head[offset : offset + len(magic)] == magic), None)
        extension = Path(path).suffix.lower()
        if known == "pgs":
            raise InputError(f"{self.name}: is a .pgs stream, allowed pixels")
        if known != "y4m" and self.options.y4m:
            raise InputError(f"{self.name}: is not y4m: starts with {head!r}, allowed {Y4M_MAGIC!r}")
        if known is not None and extension in RAW_EXTENSIONS and not self.options.y4m:
            raise InputError(f"{self.name}: starts like {known}, allowed raw video in a {extension} file")
        if known == "y4m":
            return "y4m"
        is_raw = extension in RAW_EXTENSIONS or (self.options.size is not None and extension not in IMAGE_EXTENSIONS)
        return "raw" if known is None and is_raw else "container"

    def _open_y4m(self, stream: ByteReader, file: BinaryIO | None = None, size_bytes: int = 0) -> _Opened:
        """``file`` is the stream where that can seek."""
        self.options.refuse("y4m", self.name, "size", "pix_fmt")
        header = read_y4m_header(stream, self.name)
        count = None
        if file is not None:
            count, offset = locate_y4m_frame(file, header, size_bytes, self.seek, self.name)
            file.seek(size_bytes if offset is None else offset)
        info = self.options.overrule(header.info, header.assumed, self.warn)
        frames = y4m_frames(stream, info, self.name, self.warn)
        return _Opened(info, frames, file is not None, count, header.assumed)

    def _open_raw(self, stream: ByteReader, path: str, file: BinaryIO | None = None, size_bytes: int = 0) -> _Opened:
        """``file`` is the stream where that can seek."""
        info, assumed = self._raw_info(path)
        frames = raw_frames(stream, info, self.warn)
        if file is None:
            return _Opened(info, frames, False, None, assumed)
        count, rest = divmod(size_bytes, info.frame_bytes)
        if rest:
            said = f"{info.width}x{info.height} {info.pix_fmt}"
            fits = geometries_that_fit(size_bytes, info)[:3]
            raise InputError(
                f"{self.name}: {size_bytes} bytes are no whole frames of {said}, which have {info.frame_bytes}; "
                + (f"they are {' or '.join(fits)}" if fits else "no usual size fits")
            )
        file.seek(min(self.seek * info.frame_bytes, size_bytes))
        return _Opened(info, frames, True, count, assumed)

    def _raw_info(self, path: str) -> tuple[VideoInfo, dict[str, str]]:
        """What raw video is: options first, then the name, then assumptions, which are returned too."""
        options, assumed = self.options, {}
        facts = facts_from_name(path)
        for option in ("size", "pix_fmt", "fps"):
            said, named = getattr(options, option), getattr(facts, option)
            if None not in (said, named) and said != named:
                self.warn(f"{option}: {_text(said)} overrules {_text(named)} in the name {path}")
        size = options.size or facts.size
        if size is None:
            raise ConfigError(
                f"{self.name}: the size of raw video is unknown; give it, or name the file like clip_1920x1080_50.yuv"
            )
        pix_fmt = options.pix_fmt or facts.pix_fmt
        if pix_fmt is None:
            pix_fmt = "rgb24" if path.lower().endswith(".rgb") else "yuv420p"
            assumed["pix_fmt"] = pix_fmt
        if pix_fmt not in PIX_FMTS:
            raise InputError(f"{self.name}: pixel format {pix_fmt} is not supported, allowed {', '.join(PIX_FMTS)}")
        chroma, depth = PIX_FMTS[pix_fmt]
        fps = options.fps or facts.fps
        if fps is None:
            fps = Fraction(25)
            assumed["fps"] = "25 fps"
        matrix, value_range = options.matrix, options.range
        if chroma is Chroma.RGB:
            options.refuse("RGB", self.name, "matrix")
            matrix = Matrix.RGB
        elif matrix is None:
            matrix = guess_matrix(size[1])
            if chroma is not Chroma.GRAY:
                assumed["matrix"] = f"matrix {_text(matrix)}"
        if value_range is None:
            value_range = Range.FULL if chroma is Chroma.RGB else Range.LIMITED
            assumed["range"] = f"range {_text(value_range)}"
        return VideoInfo(*size, fps, chroma, depth, matrix, value_range), assumed

    def _open_container(self, stream: ByteReader, *, index_last: bool = False) -> _Opened:
        options = self.options
        options.refuse("not raw video", self.name, "size", "pix_fmt")
        reader = ContainerReader(stream, self.name, self.warn, options.matrix, index_last=index_last)
        self.resources.callback(reader.close)
        if reader.is_image:
            reader.assumed.pop("fps", None)  # one picture has no rate to speak of
        info = options.overrule(reader.info, reader.assumed, self.warn)
        return _Opened(info, reader.frames(), False, reader.num_frames, reader.assumed, reader.is_image)

    def _open_images(self, paths: list[Path]) -> _Opened:
        self.options.refuse("a series of images", self.name, "size", "pix_fmt", "y4m")
        info, assumed, _ = self._read_image(paths[0])
        known = self.options.overrule(info, assumed, self.warn)

        def frames() -> Iterator[Frame]:
            for path in paths[self.seek :]:
                found, _, frame = self._read_image(path)
                if found != info:
                    raise InputError(f"{path}: is {_look(found)}, allowed {_look(info)} as in {paths[0].name}")
                yield frame

        return _Opened(known, frames(), True, len(paths), assumed, is_image=True)

    def _read_image(self, path: Path) -> tuple[VideoInfo, dict[str, str], Frame]:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        if not data:
            raise InputError(f"{path}: is empty")
        reader = ContainerReader(io.BytesIO(data), str(path), self.warn, self.options.matrix)
        try:
            if not reader.is_image:
                raise InputError(f"{path}: is no image, allowed {', '.join(IMAGE_EXTENSIONS)}")
            return reader.info, reader.assumed, next(reader.frames())
        finally:
            reader.close()

    def _images_like(self, pattern: Path) -> list[Path]:
        """The files that a printf pattern stands for, by number; gaps are warned of."""
        parts = re.split(r"%(?:0([0-9]+))?d", pattern.name.replace("%%", "\0"))
        if len(parts) != 3 or "%" in parts[0] + parts[2]:
            raise ConfigError(f"{pattern}: allowed one %d or %04d in the name, and %% for %")
        before, after = (re.escape(part.replace("\0", "%")) for part in parts[::2])
        expression = rf"{before}(?P<number>[0-9]{{{parts[1] or 1},}}){after}"
        found = {}
        for path in pattern.parent.iterdir() if pattern.parent.is_dir() else ():
            if match := re.fullmatch(expression, path.name):
                found[int(match["number"])] = path
        if not found:
            raise InputError(f"{pattern}: no file is named like this")
        numbers = sorted(found)
        missing = numbers[-1] - numbers[0] + 1 - len(numbers)
        if missing:
            self.warn(f"{pattern.name}: {missing} of the numbers {numbers[0]}..{numbers[-1]} have no file")
        return [found[number] for number in numbers]


def _images_in(folder: Path) -> list[Path]:
    """The images of a folder, with numbers in their names ordered by value."""

    def natural(path: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", path.name)]

    paths = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_EXTENSIONS and path.is_file()]
    if not paths:
        raise InputError(f"{folder}: is a folder without images, allowed {', '.join(IMAGE_EXTENSIONS)}")
    return sorted(paths, key=natural)


def _look(info: VideoInfo) -> str:
    """What must not change from image to image."""
    return f"{info.width}x{info.height} {info.pix_fmt} {info.range.value} {_text(info.matrix)}"


def _text(value: object) -> str:
    """A value of an option as its user writes it."""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    if isinstance(value, Matrix):
        return value.name.lower()
    return str(value.value) if isinstance(value, Range) else str(value)
