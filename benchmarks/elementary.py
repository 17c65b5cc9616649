"""Clips as elementary streams of other codecs, through the libraries that PyAV carries: planes in, bytes, planes out.

Every stream is one closed GOP with a single I-frame, coded by one thread, so that machines agree; messages that a
codec writes into its own stream (SEI: versions and options, no pixels) are left out.
"""

from __future__ import annotations

import io
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from numpy.typing import NDArray

from pgsvc_codec.picture import Frame, sample_dtype
from pgsvc_codec.video import VideoInfo

os.environ.setdefault("SVT_LOG", "1")  # errors alone
_LONGEST = 9999  # frames of a GOP
_SELF_PORTRAIT = """
import io, sys, av
sink = io.BytesIO()
with av.open(sink, "w", format=sys.argv[2]) as container:
    stream = container.add_stream(sys.argv[1], rate=25)
    stream.width, stream.height, stream.pix_fmt = 128, 128, "yuv420p"
    for picture in (av.VideoFrame(128, 128, "yuv420p"), None):
        container.mux(stream.encode(picture))
sys.stdout.buffer.write(sink.getvalue())
"""  # a stream in which, or beside which, an encoder says who it is


@dataclass(frozen=True, eq=False)
class VideoCodec:
    """An encoder of PyAV and what it always gets."""

    library: str  # PyAV's name of it
    muxer: str  # of its elementary stream
    options: dict[str, str]
    own: str  # the option that takes what PyAV has no names for
    own_options: dict[str, str]
    drop: str  # bit stream filter
    name: bytes  # a pattern of what it calls itself


# With AVX-512 x264 weighs macroblocks by memory that it has not written: at some widths (176) the same call gives other
# bytes, by up to 5 %.
_ASSEMBLY = {"asm": "SSE4.2"} if platform.machine() in ("x86_64", "AMD64") else {}
X264 = VideoCodec("libx264", "h264", {"g": str(_LONGEST), "threads": "1"}, "x264-params",
                  {"scenecut": "0", "keyint": str(_LONGEST)} | _ASSEMBLY, "filter_units=remove_types=6",
                  rb"x264 - core \d+(?: r\w+)?")  # fmt: skip
X265 = VideoCodec("libx265", "hevc", {}, "x265-params",
                  {"keyint": str(_LONGEST), "min-keyint": str(_LONGEST), "scenecut": "0", "open-gop": "0", "pools": "1",
                   "frame-threads": "1", "info": "0", "log-level": "error"}, "filter_units=remove_types=39|40",
                  rb"x265 \(build \d+\) - [^:\s]+")  # fmt: skip
SVT_AV1 = VideoCodec("libsvtav1", "obu", {"g": str(_LONGEST)}, "svtav1-params", {"lp": "1", "scd": "0"}, "null",
                     rb"SVT-AV1 Encoder Lib v[\d.]+")  # fmt: skip


def is_there(codec: VideoCodec) -> bool:
    """Whether this PyAV carries the encoder."""
    return codec.library in av.codec.codecs_available


@cache
def version_of(codec: VideoCodec) -> str:
    """What the encoder calls itself, and what brings it."""
    command = [sys.executable, "-c", _SELF_PORTRAIT, codec.library, codec.muxer]
    told = subprocess.run(command, env=os.environ | {"SVT_LOG": "3"}, capture_output=True, check=True)
    found = re.search(codec.name, told.stdout + told.stderr)
    name = found[0].decode() if found else codec.library
    return f"{name}, PyAV {av.__version__}, libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"


def encode(
    codec: VideoCodec, frames: Iterable[Frame], info: VideoInfo, options: dict[str, str], own: dict[str, str]
) -> bytes:
    """The elementary stream of a clip.

    Args:
        frames: planes as `info` describes them.
        options: for the encoder, by PyAV's names.
        own: by the encoder's own names.
    """
    sink = io.BytesIO()
    given = codec.options | options | {codec.own: ":".join(f"{k}={v}" for k, v in (codec.own_options | own).items())}
    with av.open(sink, "w", format=codec.muxer) as container:
        stream: Any = container.add_stream(codec.library, rate=info.rate, options=given)
        stream.width, stream.height, stream.pix_fmt = info.width, info.height, info.pix_fmt
        stream.codec_context.time_base = 1 / Fraction(info.rate)
        kept = BitStreamFilterContext(codec.drop, stream)
        for number, frame in enumerate(frames):
            picture = _picture_of(frame, info)
            picture.pts = number
            for packet in stream.encode(picture):
                container.mux(kept.filter(packet))
        for packet in stream.encode(None):
            container.mux(kept.filter(packet))
    return sink.getvalue()


def decode(codec: VideoCodec, data: bytes, info: VideoInfo) -> Iterator[Frame]:
    """The frames of an elementary stream, in display order."""
    with av.open(io.BytesIO(data), format=codec.muxer) as container:
        for picture in container.decode(video=0):
            if (picture.width, picture.height, picture.format.name) != (info.width, info.height, info.pix_fmt):
                raise ValueError(
                    f"{codec.library}: decoded {picture}, allowed {info.width}x{info.height} {info.pix_fmt}"
                )
            yield tuple(
                np.ascontiguousarray(_samples(plane, info)[:, : shape[1]])
                for plane, shape in zip(picture.planes, info.plane_shapes, strict=True)
            )


def _picture_of(frame: Frame, info: VideoInfo) -> av.VideoFrame:
    picture = av.VideoFrame(info.width, info.height, info.pix_fmt)
    for plane, samples in zip(picture.planes, frame, strict=True):
        _samples(plane, info)[:, : samples.shape[1]] = samples
    return picture


def _samples(plane: Any, info: VideoInfo) -> NDArray[Any]:
    """A plane in place [rows, columns and what pads them]."""
    return np.frombuffer(plane, sample_dtype(info)).reshape(plane.height, -1)
