"""Small pictures and splats to fit."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.config import EncodeConfig, EncodePlan
from pgsvc_codec.picture import UnitFrame, plane_grids, resample
from pgsvc_codec.render import cpu
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.grid import LayerGrid, split
from pgsvc_codec.train.lsq import CodedPart, coded_parts
from pgsvc_codec.train.objective import LevelTarget, Objective
from pgsvc_codec.train.plain import PlainModel
from pgsvc_codec.video import Chroma, Matrix, Range, VideoInfo

SIZE = (72, 56)


def rgb_info(width: int, height: int) -> VideoInfo:
    return VideoInfo(width, height, chroma=Chroma.RGB, matrix=Matrix.RGB, range=Range.FULL)


def scene(width: int, height: int, shift: tuple[float, float] = (0.0, 0.0), planes: int = 3) -> UnitFrame:
    """Smooth waves and one sharp disc, moved by `shift` pixels."""
    x, y = np.meshgrid(np.arange(width) - shift[0], np.arange(height) - shift[1])
    disc = np.hypot(x - 0.6 * width, y - 0.4 * height) < 0.2 * height
    waves = [0.5 + 0.2 * np.sin(x / (5 + k)) * np.cos(y / (7 - k)) for k in range(planes)]
    return tuple(np.clip(wave + 0.25 * disc * (-1) ** k, 0, 1).astype(np.float32) for k, wave in enumerate(waves))


def objective_of(picture: UnitFrame, info: VideoInfo | None = None, levels: int = 3, rasterizer=cpu) -> Objective:
    """All levels at full size."""
    height, width = picture[0].shape
    return Objective(
        (width, height), [LevelTarget(picture, plane_grids(info or rgb_info(width, height)))] * levels, rasterizer
    )


def growing_objective(picture: UnitFrame, sizes: Sequence[tuple[int, int]], rasterizer=cpu) -> Objective:
    """Levels of these sizes, each against the picture at its own size; full-size RGB."""
    height, width = picture[0].shape
    info = rgb_info(width, height)
    targets = []
    for size in sizes:
        grids = plane_grids(info, *size)
        targets.append(LevelTarget(resample(picture, plane_grids(info), grids), grids))
    return Objective((width, height), targets, rasterizer)


def plan_of(size: tuple[int, int] = SIZE, **options) -> EncodePlan:
    return EncodeConfig(**{"profile": "baseline", "splats": 120, "iterations": 80, **options}).resolve(
        *size, Fraction(25), still=False
    )


def psnr(objective: Objective, layers: Sequence[Splats], background: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of every level, dB, over all samples of all planes."""
    ends = np.cumsum([len(layer) for layer in layers]).tolist()
    squared = objective.step(Splats.concatenate(layers), background, ends, [1.0] * len(ends)).squared_error
    samples = [sum(plane.size for plane in target.picture) for target in objective.targets]
    return 10 * np.log10(samples / squared.sum(axis=1))


def some_splats(rng, count, signs=True):
    lengths = rng.uniform(1.5, 4, (count, 2)) * (rng.choice([-1, 1], (count, 2)) if signs else 1)
    return Splats(
        rng.uniform(-0.8, 0.8, (count, 2)).astype(np.float32),
        np.stack([lengths[:, 0], rng.normal(0, 1.5, count), lengths[:, 1]], axis=1).astype(np.float32),
        rng.normal(0, 0.2, (count, 3)).astype(np.float32),
    )


def assert_equal_splats(one: Splats, other: Splats) -> None:
    for name in ("means", "cholesky", "colors"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def parts_of(model: PlainModel, grids: Sequence[LayerGrid]) -> list[CodedPart]:
    """All parts of all layers."""
    layers = split(model.splats(), model.ends)
    starts = [0, *model.ends[:-1]]
    parts = [coded_parts(grid, layer, start) for grid, layer, start in zip(grids, layers, starts, strict=True)]
    return [part for own in parts for part in own]


def model_and_grids(
    rng: np.random.Generator,
    counts: tuple[int, int, int] = (50, 40, 30),
    size: tuple[int, int] = SIZE,
    planes: int = 3,
) -> tuple[PlainModel, list[LayerGrid], list[CodedPart]]:
    """Two layers, the second with survivors of a frame before, on quantisers of their own; the first planes of them.

    Args:
        counts: splats of the first layer, survivors, other splats of the second.
    """
    base, survivors, others = counts
    reference = some_splats(rng, survivors)
    moved = Splats(
        reference.means + rng.normal(0, 0.01, (survivors, 2)).astype(np.float32),
        reference.cholesky + rng.normal(0, 0.1, (survivors, 3)).astype(np.float32),
        reference.colors + rng.normal(0, 0.02, (survivors, 3)).astype(np.float32),
    )
    splats = Splats.concatenate([some_splats(rng, base, signs=False), moved, some_splats(rng, others)])
    splats, reference = (
        Splats(whole.means, whole.cholesky, np.ascontiguousarray(whole.colors[:, :planes]))
        for whole in (splats, reference)
    )
    model = PlainModel(splats, [base, sum(counts)], *size)
    grids = [LayerGrid(0, size, Splats.empty(planes)), LayerGrid(1, size, reference)]
    return model, grids, parts_of(model, grids)
