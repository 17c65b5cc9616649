"""The codecs that streams are compared with: what each is given, its steps from low to high rate, and its version.

What is not installed is named and left out.  Rates are bytes of the files that the codecs write, headers and
containers included; clips are elementary streams.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import elementary
import numpy as np
from elementary import SVT_AV1, X264, X265, VideoCodec
from numpy.typing import NDArray
from PIL import Image, __version__, features

from pgsvc_codec.picture import (
    Frame,
    color_transform,
    from_unit,
    matching_info,
    plane_grids,
    resample,
    to_rgb,
    to_unit,
)
from pgsvc_codec.video import Chroma, Matrix, Range, VideoInfo

Pixels = NDArray[np.uint8]  # RGB [rows, columns, 3]


class Step(NamedTuple):
    """One of an encoder's settings that trade rate for quality."""

    option: str
    value: float

    def __str__(self) -> str:
        return f"{self.option} {self.value:g}"


@dataclass(frozen=True)
class StillAnchor:
    """A codec of pictures."""

    name: str
    options: str  # that are the same at every step
    version: str
    steps: tuple[Step, ...]
    encode: Callable[[Pixels, float], bytes]  # with the value of a step
    decode: Callable[[bytes, Pixels], Pixels]  # also given the source, for the sake of its size


@dataclass(frozen=True)
class ClipAnchor:
    """A codec of clips."""

    name: str
    codec: VideoCodec
    settings: dict[str, str]
    own_settings: dict[str, str]
    steps: tuple[Step, ...]

    @property
    def options(self) -> str:
        """All that is the same at every step."""
        own = ":".join(f"{k}={v}" for k, v in (self.codec.own_options | self.own_settings).items())
        words = (f"-{key} {value}" for key, value in (self.codec.options | self.settings).items())
        return f"-c {self.codec.library} {' '.join(words)} -{self.codec.own} {own}"

    @property
    def version(self) -> str:
        """Of the codec and of what brings it."""
        return elementary.version_of(self.codec)

    def encode(self, frames: Sequence[Frame], info: VideoInfo, value: float) -> bytes:
        """The elementary stream at a step, planes as `info` describes them."""
        step = {"crf": f"{value:g}"}
        return elementary.encode(self.codec, frames, info, self.settings | step, self.own_settings)

    def decode(self, data: bytes, info: VideoInfo) -> Iterator[Frame]:
        """Its frames."""
        return elementary.decode(self.codec, data, info)


def ycbcr_of(planes: Frame, info: VideoInfo, pix_fmt: str) -> tuple[Frame, VideoInfo]:
    """Planes of RGB as Y′CbCr, BT.709 in limited range, chroma averaged down; others as they are.

    `picture.to_rgb` is the way back.
    """
    if info.chroma is not Chroma.RGB:
        return planes, info
    target = replace(matching_info(info, pix_fmt), matrix=Matrix.BT709)
    full = replace(target, chroma=Chroma.YUV444)
    matrix, offset = color_transform(info, full)
    units = to_unit(planes, info)
    converted = tuple(
        sum((weight * unit for weight, unit in zip(row, units, strict=True)), start).astype(np.float32)
        for row, start in zip(matrix, offset, strict=True)
    )
    return from_unit(resample(converted, plane_grids(full), plane_grids(target)), target), target


def still_anchors() -> list[StillAnchor]:
    """Those that are installed."""
    jpeg_steps = _steps("quality", 1, 3, 5, 7, 10, 14, 19, 25, 33, 44, 58, 70)
    avif_steps = _steps("quality", 2, 5, 9, 14, 19, 25, 31, 38, 45, 53, 62)
    avif = {"codec": "aom", "speed": 6, "subsampling": "4:4:4", "max_threads": 1}
    rates = tuple(Step("bpp", rate) for rate in (0.015, 0.03, 0.045, 0.065, 0.09, 0.125, 0.18, 0.25, 0.35, 0.5, 0.7, 1))
    candidates = [
        _pillow("jpeg", "JPEG", {"subsampling": "4:2:0", "optimize": True}, jpeg_steps),
        _pillow("jpeg 4:4:4", "JPEG", {"subsampling": "4:4:4", "optimize": True}, jpeg_steps),
        _pillow("jpeg2000", "JPEG2000", {"irreversible": True, "mct": 1, "quality_mode": "rates"}, rates),
        _pillow("webp", "WEBP", {"method": 6}, _steps("quality", 0, 2, 5, 9, 14, 21, 30, 42, 55, 68, 77, 84, 90)),
        _pillow("avif", "AVIF", avif, avif_steps),
        _pillow("avif psnr", "AVIF", avif | {"advanced": {"tune": "psnr"}}, avif_steps),
        _jpegxl(),
        _intra("x265 intra", X265, "yuv444p", {"preset": "slow", "tune": "psnr"}, {}, range(16, 50, 3)),
        _intra("svt-av1 intra", SVT_AV1, "yuv420p", {"preset": "4"}, {"tune": "1"}, range(18, 64, 5)),
    ]
    return [anchor for anchor in candidates if anchor is not None]


def clip_anchors() -> list[ClipAnchor]:
    """Those that this PyAV carries."""
    steps = tuple(Step("crf", value) for value in (22, 26, 30, 34, 37, 40, 43, 46, 49, 51))
    steps_av1 = tuple(Step("crf", value) for value in (24, 30, 36, 42, 48, 53, 58, 61, 63))
    medium = {"preset": "medium"}
    candidates = [
        ClipAnchor("x264", X264, medium, {}, steps),
        ClipAnchor("x264 psnr", X264, medium | {"tune": "psnr"}, {}, steps),
        ClipAnchor("x265", X265, medium, {}, steps),
        ClipAnchor("x265 psnr", X265, medium | {"tune": "psnr"}, {}, steps),
        ClipAnchor("svt-av1", SVT_AV1, {"preset": "6"}, {"tune": "1"}, steps_av1),
    ]
    return [anchor for anchor in candidates if _is_there(anchor.name, anchor.codec)]


def _steps(option: str, *values: float) -> tuple[Step, ...]:
    return tuple(Step(option, value) for value in values)


def _left_out(name: str, what: str) -> None:
    print(f"skipped: {name}, there is no {what}", file=sys.stderr)


def _is_there(name: str, codec: VideoCodec) -> bool:
    if not elementary.is_there(codec):
        _left_out(name, f"{codec.library} in PyAV")
        return False
    return True


_PILLOW_FEATURES = {"JPEG": "jpg", "JPEG2000": "jpg_2000", "WEBP": "webp", "AVIF": "avif"}
_PILLOW_LIBRARIES = {"JPEG2000": "OpenJPEG", "WEBP": "libwebp", "AVIF": "libavif"}


def _pillow(name: str, format: str, options: dict[str, Any], steps: tuple[Step, ...]) -> StillAnchor | None:
    """A format that Pillow writes and reads."""
    feature = _PILLOW_FEATURES[format]
    if not features.check(feature):
        _left_out(name, f"{format} in Pillow")
        return None

    def encode(pixels: Pixels, value: float) -> bytes:
        # a rate of JPEG 2000 is how many times smaller than 24 bits per pixel the file shall be
        step = {"quality_layers": [24 / value]} if format == "JPEG2000" else {"quality": int(value)}
        sink = io.BytesIO()
        Image.fromarray(pixels).save(sink, format, **options, **step)
        return sink.getvalue()

    def decode(data: bytes, _: Pixels) -> Pixels:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    told = " ".join(f"{key}={value}" for key, value in options.items())
    return StillAnchor(name, f"Pillow {format} {told}", _pillow_version(format), steps, encode, decode)


@cache
def _pillow_version(format: str) -> str:
    if format == "JPEG":
        turbo = features.version("libjpeg_turbo")
        library = f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version('jpg')}"
    else:
        library = f"{_PILLOW_LIBRARIES[format]} {features.version(_PILLOW_FEATURES[format])}"
    if format == "AVIF":
        from PIL import _avif

        library += f" ({_avif.codec_versions()})"
    return f"{library}, Pillow {__version__}"


def _jpegxl() -> StillAnchor | None:
    """JPEG XL; at larger distances than these libjxl halves the picture, and comes out above its own curve."""
    try:
        import imagecodecs
    except ImportError:
        _left_out("jpegxl", "imagecodecs")
        return None

    def encode(pixels: Pixels, value: float) -> bytes:
        return bytes(imagecodecs.jpegxl_encode(pixels, distance=value, effort=7, usecontainer=False, numthreads=1))

    def decode(data: bytes, _: Pixels) -> Pixels:
        return np.asarray(imagecodecs.jpegxl_decode(data))

    steps = _steps("distance", 15, 12.5, 10, 8, 6.3, 5, 4, 3, 2.2)
    version = f"{imagecodecs.jpegxl_version()}, imagecodecs {imagecodecs.__version__}"
    return StillAnchor("jpegxl", "imagecodecs jpegxl_encode effort=7, no container", version, steps, encode, decode)


def _intra(
    name: str,
    codec: VideoCodec,
    pix_fmt: str,
    settings: dict[str, str],
    own_settings: dict[str, str],
    values: Sequence[int],
) -> StillAnchor | None:
    """The I-frame of a codec of clips, of Y′CbCr planes."""
    if not _is_there(name, codec):
        return None
    clip = ClipAnchor(name, codec, settings, own_settings, _steps("crf", *reversed(values)))

    def info_of(pixels: Pixels) -> VideoInfo:
        rows, columns, _ = pixels.shape
        return VideoInfo(columns, rows, chroma=Chroma.RGB, matrix=Matrix.RGB, range=Range.FULL)

    def planes_of(pixels: Pixels) -> tuple[Frame, VideoInfo]:
        return ycbcr_of(tuple(np.moveaxis(pixels, -1, 0)), info_of(pixels), pix_fmt)

    def encode(pixels: Pixels, value: float) -> bytes:
        frame, info = planes_of(pixels)
        return clip.encode([frame], info, value)

    def decode(data: bytes, pixels: Pixels) -> Pixels:
        info = replace(matching_info(info_of(pixels), pix_fmt), matrix=Matrix.BT709)
        (frame,) = clip.decode(data, info)
        return to_rgb(frame, info)

    options = f"{clip.options} -pix_fmt {pix_fmt}, BT.709 limited"
    return StillAnchor(name, options, clip.version, clip.steps, encode, decode)
