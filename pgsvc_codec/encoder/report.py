"""What an encode reads, and what it tells of itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from pgsvc_codec.config import EncodePlan
from pgsvc_codec.picture import Frame
from pgsvc_codec.video import VideoInfo


class FrameSource(Protocol):
    """What `encode` reads: `media.open_source` gives one, any object of this shape will do."""

    info: VideoInfo
    frame_count: int | None  # None where nobody knows yet
    still: bool  # a single picture rather than a clip of one frame

    def __iter__(self) -> Iterator[Frame]: ...


class Progress(NamedTuple):
    """Where an encode stands, after each frame."""

    frames: int  # done
    frame_count: int | None  # in all, if known
    size_bytes: int  # of payloads so far
    psnr: float  # dB, all layers, over the frames done
    seconds: float


class LevelReport(NamedTuple):
    """One level of a finished stream, cumulative over its layers."""

    layers: int
    width: int  # of its pictures
    height: int
    splats: int  # summed over frames
    size_bytes: int  # of headers, index and the segments that the level needs
    psnr: float  # dB, see `PsnrMeter.combined`
    psnr_planes: tuple[float, ...]


class EncodeReport(NamedTuple):
    """What `encode` did."""

    frames: int
    size_bytes: int  # of the whole stream
    levels: tuple[LevelReport, ...]
    gops: int
    seconds: float
    device: str
    plan: EncodePlan
