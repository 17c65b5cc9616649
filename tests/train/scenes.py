"""Small pictures and splats to fit."""

from __future__ import annotations

import numpy as np

from pgsvc_codec.picture import UnitFrame, plane_grids
from pgsvc_codec.render import cpu
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.video import Chroma, Matrix, Range, VideoInfo


def rgb_info(width: int, height: int) -> VideoInfo:
    return VideoInfo(width, height, chroma=Chroma.RGB, matrix=Matrix.RGB, range=Range.FULL)


def scene(width: int, height: int, shift: tuple[float, float] = (0.0, 0.0), planes: int = 3) -> UnitFrame:
    """Smooth waves and one sharp disc, moved by `shift` pixels."""
    x, y = np.meshgrid(np.arange(width) - shift[0], np.arange(height) - shift[1])
    disc = np.hypot(x - 0.6 * width, y - 0.4 * height) < 0.2 * height
    waves = [0.5 + 0.2 * np.sin(x / (5 + k)) * np.cos(y / (7 - k)) for k in range(planes)]
    return tuple(np.clip(wave + 0.25 * disc * (-1) ** k, 0, 1).astype(np.float32) for k, wave in enumerate(waves))


def objective_of(picture: UnitFrame, info: VideoInfo | None = None) -> Objective:
    height, width = picture[0].shape
    return Objective(picture, plane_grids(info or rgb_info(width, height)), cpu)


def some_splats(rng, count, signs=True):
    lengths = rng.uniform(1.5, 4, (count, 2)) * (rng.choice([-1, 1], (count, 2)) if signs else 1)
    return Splats(
        rng.uniform(-0.8, 0.8, (count, 2)).astype(np.float32),
        np.stack([lengths[:, 0], rng.normal(0, 1.5, count), lengths[:, 1]], axis=1).astype(np.float32),
        rng.normal(0, 0.2, (count, 3)).astype(np.float32),
    )
