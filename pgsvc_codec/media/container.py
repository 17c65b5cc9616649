"""Frames of what PyAV decodes, containers and images, with their native planes and colour tags.

PyAV is loaded on first use.  Its own conversions serve palettes and bitmaps only, where no matrix and no range
can enter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.errors import ConfigError, InputError
from pgsvc_codec.media.raw import ByteReader
from pgsvc_codec.picture import Frame
from pgsvc_codec.video import PIX_FMTS, UNSPECIFIED, Chroma, Matrix, Range, Siting, VideoInfo, guess_matrix

# Tags are FFmpeg's, whose numbers are those of CICP; 5 and 6 are both BT.601.
_MATRICES = {1: Matrix.BT709, 5: Matrix.BT601, 6: Matrix.BT601, 9: Matrix.BT2020NC}
_NO_MATRIX = (0, UNSPECIFIED)  # 0 is RGB, which gray images carry too
_RANGES = {1: Range.LIMITED, 2: Range.FULL}
_CENTER_SITED_CODECS = ("mjpeg", "jpegls", "mpeg1video", "webp")  # no tag reaches us; all else sites left

# Formats whose planes are ours; yuvj is FFmpeg's old name for full range, yuva has an alpha plane more.
_PLANAR = {name: name for name in PIX_FMTS if name != "rgb24"}
_PLANAR |= {f"yuv{kind}{chroma}p": f"yuv{chroma}p" for kind in "ja" for chroma in ("420", "422", "444")}
_PACKED_RGB = ("rgb24", "bgr24", "rgba", "bgra", "argb", "abgr", "rgb0", "bgr0", "0rgb", "0bgr")
_PLANAR_RGB = ("gbrp", "gbrap")
_CONVERTED = {"pal8": "rgba", "monob": "gray", "monow": "gray"}
_GRAY_ALPHA = "ya8"
_INDEX_LAST = (
    "an MP4 whose index (moov) comes last cannot be read from a pipe, allowed the file itself, or the index in front "
    "(ffmpeg -i in.mp4 -c copy -movflags +faststart out.mp4)"
)
_DECODABLE = (*_PLANAR, *_PACKED_RGB, *_PLANAR_RGB, *_CONVERTED, _GRAY_ALPHA)


def is_index_last(head: bytes) -> bool:
    """Whether an MP4 that begins so has its pictures (mdat) before their index (moov)."""
    at = 0
    while head[4:8] == b"ftyp" and at + 8 <= len(head):
        size, kind = int.from_bytes(head[at : at + 4], "big"), head[at + 4 : at + 8]
        if kind in (b"mdat", b"moov") or size < 8:
            return kind == b"mdat"
        at += size
    return False


class ContainerReader:
    """The first video stream of a container, or the picture of an image file.

    Args:
        stream: the bytes; where it cannot seek, a container is read from front to back.
        name: of the input, for messages.
        warn: takes what is to be said of the input.
        matrix: overrules the one that a tag says.
        index_last: `is_index_last` of a stream that cannot seek.

    Raises:
        InputError: it cannot be decoded, or holds something that is not supported.
    """

    info: VideoInfo
    is_image: bool
    num_frames: int | None  # as announced by the container
    assumed: dict[str, str]  # by option name, what no tag says

    def __init__(
        self,
        stream: ByteReader,
        name: str,
        warn: Callable[[str], None],
        matrix: Matrix | None = None,
        *,
        index_last: bool = False,
    ) -> None:
        import av

        av.logging.set_level(None)
        self._name = name
        self._warn = warn
        self._alpha_seen = False
        self._index = 0
        with self._decoding("is not readable as video or image"):
            self._container = av.open(stream, mode="r", metadata_errors="ignore")
        try:
            if not self._container.streams.video:
                raise InputError(f"{name}: holds no video and no picture")
            video = self._container.streams.video[0]
            if video.codec_context is None:
                raise InputError(f"{name}: there is no decoder for its video codec")
            demuxer = self._container.format.name
            self.is_image = demuxer.endswith("_pipe") or demuxer == "image2"
            self.num_frames = 1 if self.is_image else video.frames or None
            if self.is_image and video.codec_context.name == "mjpeg":
                # Else half a picture passes for a whole one; other decoders complain unasked.
                video.codec_context.options = {"err_detect": "explode"}
            video.thread_type = "AUTO"
            self._decoded = self._container.decode(video)
            with self._decoding(_INDEX_LAST if index_last else None):
                first = next(self._decoded, None)
            if first is None:
                raise InputError(f"{name}: holds no frame")
            self._describe(first, video, matrix)
            if first.rotation:
                warn(f"the display rotation of {first.rotation} degrees is not applied")
            self._first = first
        except BaseException:
            self.close()
            raise

    def frames(self) -> Iterator[Frame]:
        """The frames, once.

        Raises:
            InputError: a frame is damaged, or differs from the first in size or format.
        """
        frame: Any = self._first
        looks = _look(frame)
        while frame is not None:
            if _look(frame) != looks:
                raise InputError(f"{self._name}: frame {self._index} is {_look(frame)}, allowed {looks} as the first")
            if frame.is_corrupt:
                raise InputError(f"{self._name}: frame {self._index} is damaged")
            yield self._planes(frame)
            self._index += 1
            with self._decoding():
                frame = next(self._decoded, None)
        if self.num_frames is not None and self._index < self.num_frames:
            self._warn(f"the input ends after {self._index} of the {self.num_frames} frames that it announces")

    def close(self) -> None:
        """Free the decoder; the stream stays open."""
        self._container.close()

    @contextmanager
    def _decoding(self, trouble: str | None = None) -> Iterator[None]:
        """FFmpeg's errors as `InputError`."""
        import av

        try:
            yield
        except av.FFmpegError as error:
            trouble = trouble or f"frame {self._index} cannot be decoded"
            raise InputError(f"{self._name}: {trouble}: {error.strerror or error}") from None

    def _describe(self, frame: Any, video: Any, matrix: Matrix | None) -> None:
        """Set ``info`` and ``assumed`` from the first frame and the stream."""
        name, source_format = self._name, frame.format.name
        if source_format not in _DECODABLE:
            raise InputError(
                f"{name}: pixel format {source_format} is not supported, allowed {', '.join(PIX_FMTS)} "
                "and the 8-bit kinds of RGB"
            )
        pix_fmt = _CONVERTED.get(source_format, source_format)
        pix_fmt = "gray" if pix_fmt == _GRAY_ALPHA else _PLANAR.get(pix_fmt, "rgb24")
        chroma, depth = PIX_FMTS[pix_fmt]
        self.assumed = {}
        if chroma is Chroma.RGB:
            matrix, value_range = Matrix.RGB, _RANGES.get(int(frame.color_range), Range.FULL)
        else:
            matrix = matrix or self._tagged_matrix(frame, chroma)
            value_range = self._tagged_range(frame, source_format)
        rate = Fraction(video.average_rate or video.guessed_rate or 0)
        if self.is_image or rate <= 0:
            rate = Fraction(25)
            self.assumed["fps"] = "25 fps"
        siting = Siting.CENTER if video.codec_context.name in _CENTER_SITED_CODECS else Siting.LEFT
        primaries, transfer = (int(tag) or UNSPECIFIED for tag in (frame.color_primaries or 0, frame.color_trc or 0))
        try:
            self.info = VideoInfo(
                frame.width, frame.height, rate, chroma, depth, matrix, value_range, siting, primaries, transfer
            )
        except ConfigError as error:
            raise InputError(f"{name}: {error}") from None

    def _tagged_matrix(self, frame: Any, chroma: Chroma) -> Matrix:
        tag = int(frame.colorspace)
        if tag in _MATRICES:
            return _MATRICES[tag]
        guess = guess_matrix(frame.height)
        if chroma is Chroma.GRAY:
            return guess
        if tag not in _NO_MATRIX:
            allowed = ", ".join(matrix.name.lower() for matrix in dict.fromkeys(_MATRICES.values()))
            raise InputError(
                f"{self._name}: matrix coefficients {tag} (CICP) are not supported, allowed {allowed}; "
                "an explicit matrix overrules the tag"
            )
        self.assumed["matrix"] = f"matrix {guess.name.lower()}"
        return guess

    def _tagged_range(self, frame: Any, source_format: str) -> Range:
        if source_format.startswith("yuvj"):
            return Range.FULL
        if int(frame.color_range) in _RANGES:
            return _RANGES[int(frame.color_range)]
        value_range = Range.FULL if self.is_image else Range.LIMITED
        self.assumed["range"] = f"range {value_range.value}"
        return value_range

    def _planes(self, frame: Any) -> Frame:
        """The planes of a decoded frame, without padding and alpha."""
        kind = frame.format.name
        if kind in _CONVERTED:
            kind = _CONVERTED[kind]
            frame = frame.reformat(format=kind)
        if kind in _PACKED_RGB:
            order = kind.removesuffix("24")
            pixels = _samples(frame, 0)[:, : frame.width * len(order)].reshape(frame.height, frame.width, len(order))
            channels = {letter: pixels[..., index] for index, letter in enumerate(order)}
        elif kind in _PLANAR_RGB:
            order = kind.removesuffix("p")
            channels = {letter: _samples(frame, i)[:, : frame.width] for i, letter in enumerate(order)}
        elif kind == _GRAY_ALPHA:
            pixels = _samples(frame, 0)[:, : 2 * frame.width].reshape(frame.height, frame.width, 2)
            channels = {"y": pixels[..., 0], "a": pixels[..., 1]}
        else:
            letters = "yuva"[: len(frame.planes)]
            channels = {letter: _samples(frame, i)[:, : frame.planes[i].width] for i, letter in enumerate(letters)}
        if "a" in channels:
            self._drop_alpha(channels["a"])
        kept = "rgb" if "r" in channels else "yuv"[: self.info.chroma.num_planes]
        return tuple(np.ascontiguousarray(channels[letter]) for letter in kept)

    def _drop_alpha(self, alpha: NDArray[Any]) -> None:
        if not self._alpha_seen and alpha.min() < 255:
            self._alpha_seen = True
            self._warn("the alpha channel is dropped")


def _look(frame: Any) -> str:
    """What must not change within a stream."""
    return f"{frame.width}x{frame.height} {frame.format.name}"


def _samples(frame: Any, index: int) -> NDArray[Any]:
    """A plane with the padding of its rows [rows, samples]."""
    plane = frame.planes[index]
    dtype = "<u2" if frame.format.name.endswith("10le") else np.uint8
    # A copy: the decoder may reuse the buffer once the frame is gone.
    return np.frombuffer(plane, dtype).reshape(plane.height, -1).copy()
