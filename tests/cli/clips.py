"""A tiny clip, and what to do with it: what tests of the commands share beside fixtures."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pgsvc_codec.media.raw import frame_to_bytes, y4m_header
from pgsvc_codec.picture import Frame
from pgsvc_codec.video import Matrix, VideoInfo

# Enough to see a picture, little enough for a test.
QUICK = ("--profile", "baseline", "-n", "60", "--iterations", "60")  # splats and progress are known to the frame

# Three layers and two GOPs of three frames.
STREAM_OPTIONS = (*QUICK, "-g", "3", "--no-scenecut")

CLIP = VideoInfo(64, 48, Fraction(25), matrix=Matrix.BT601)
CLIP_FRAMES = 6


@dataclass(frozen=True)
class Outcome:
    """What a command said and returned."""

    code: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


@dataclass(frozen=True)
class Encoded:
    """A stream, and what the encoder said of it."""

    path: Path
    report: dict[str, Any]

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()


def command_line(name: str, *arguments: object) -> list[str]:
    """A command as a process of its own."""
    return [sys.executable, "-m", f"pgsvc_codec.cli.{name}", *map(str, arguments)]


def clip_frame(index: int, info: VideoInfo = CLIP) -> Frame:
    """A frame with gradients, an edge that stays and a disc that moves."""
    planes = []
    for plane, (rows, columns) in enumerate(info.plane_shapes):
        y, x = np.mgrid[:rows, :columns] / np.array([rows, columns]).reshape(2, 1, 1)
        value = 70 + 60 * x + 40 * np.sin(5 * y + plane) + 30 * (x + y > 1.2)
        value[(x - 0.2 - 0.05 * index) ** 2 + (y - 0.5) ** 2 < 0.02] = 200 - 50 * plane
        planes.append(np.round(value * info.max_code / 255).astype(np.uint8 if info.depth == 8 else np.uint16))
    return tuple(planes)


def y4m_of(frames: list[Frame], info: VideoInfo = CLIP) -> bytes:
    return y4m_header(info) + b"".join(b"FRAME\n" + frame_to_bytes(frame, info) for frame in frames)
