"""Float fits of one picture and what they look like: what the tables and figures of the paper are made of.

Fits are kept in `benchmarks/work/fits`, so that a run that was interrupted, or a figure after a table, need not fit
again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from progress import Ticker
from results_file import WORK

from pgsvc_codec.config import EncodeConfig, EncodePlan
from pgsvc_codec.media.source import open_source
from pgsvc_codec.metrics.psnr import PsnrMeter
from pgsvc_codec.metrics.structural import StructuralMeter, smallest_side
from pgsvc_codec.picture import Frame
from pgsvc_codec.render.backend import load
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.descent import Iteration
from pgsvc_codec.train.fit import fit_float
from pgsvc_codec.train.levels import LevelSizes
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.train.stack import FloatFit
from pgsvc_codec.video import Chroma, VideoInfo

LayerObserver = Callable[[int, Iteration], None]  # told the layer that a layer-wise strategy has come to


class Picture(NamedTuple):
    """A source of one frame."""

    name: str
    info: VideoInfo
    frame: Frame


def read_picture(path: Path) -> Picture:
    """The first frame of a picture or clip."""
    with open_source(str(path), frames=1) as source:
        return Picture(path.name, source.info, next(iter(source)))


def plan_of(picture: Picture, config: EncodeConfig) -> EncodePlan:
    """What a config means for a picture."""
    return config.resolve(picture.info.width, picture.info.height, picture.info.rate, still=True)


@dataclass(frozen=True)
class LevelFit:
    """What a fit shows of every level."""

    pictures: list[Frame]
    references: list[Frame]  # what each is measured against
    splats: list[int]  # up to each level
    seconds: float  # of fitting, as it was when the fit was made
    iterations: int  # that were spent, over all layers
    fit: FloatFit | None = None  # of all levels together

    @classmethod
    def of(
        cls, levels: LevelSizes, references: list[Frame], fit: FloatFit, seconds: float, iterations: int
    ) -> LevelFit:
        """What a fit of all levels together shows."""
        ends = [int(end) for end in accumulate(len(layer) for layer in fit.layers)]
        return cls(levels.paint(fit.layers, fit.background), references, ends, seconds, iterations, fit)

    def psnr(self, info: VideoInfo) -> list[float]:
        """Per level, dB: over all samples of RGB, 6:1:1 of Y′CbCr."""
        meters = [PsnrMeter(info.max_code, is_rgb=info.chroma is Chroma.RGB) for _ in self.pictures]
        return self._measured(meters)

    def ms_ssim(self, info: VideoInfo) -> list[float | None]:
        """Per level; None where a level is too small for five scales."""
        is_rgb = info.chroma is Chroma.RGB
        least = smallest_side(is_multiscale=True)
        return [
            StructuralMeter(info.max_code, is_rgb=is_rgb, is_multiscale=True).add(reference, picture)
            if min(picture[0].shape) >= least
            else None
            for reference, picture in zip(self.references, self.pictures, strict=True)
        ]

    def _measured(self, meters: Sequence[PsnrMeter]) -> list[float]:
        return [
            meter.add(reference, picture)
            for meter, reference, picture in zip(meters, self.references, self.pictures, strict=True)
        ]


def fit_levels(picture: Picture, config: EncodeConfig, observe: LayerObserver | None = None) -> LevelFit:
    """Fit all levels, unquantised, or take them from an earlier run; `monolithic` is a fit per level.

    Args:
        observe: told of every iteration; then nothing is taken from an earlier run.
    """
    if config.strategy != "monolithic":
        return _fit(picture, config, observe)
    plan = plan_of(picture, config)
    fits = []
    for level, size in enumerate(plan.level_sizes, start=1):
        levels = LevelSizes(picture.info, [size], load("cpu"))
        info = replace(picture.info, width=size[0], height=size[1])
        single = Picture(picture.name, info, levels.read(picture.frame).references[0])
        fits.append(_fit(single, config.of_level(level, plan), observe))
    return LevelFit(
        pictures=[fit.pictures[0] for fit in fits],
        references=[fit.references[0] for fit in fits],
        splats=[fit.splats[0] for fit in fits],
        seconds=sum(fit.seconds for fit in fits),
        iterations=sum(fit.iterations for fit in fits),
    )


class _Staged(Objective):
    """An objective that knows which of its layers a layer-wise strategy has come to."""

    layer = 0

    def alone(self, level: int, below: Splats, background: NDArray[np.float32]) -> Objective:
        """What such a strategy asks for when it begins with a layer."""
        self.layer = level
        return super().alone(level, below, background)


def _fit(picture: Picture, config: EncodeConfig, observe: LayerObserver | None) -> LevelFit:
    info = picture.info
    plan = plan_of(picture, config)
    levels = LevelSizes(info, plan.level_sizes, load("cpu"))
    objective, references = levels.read(picture.frame)
    path = WORK / "fits" / f"{Path(picture.name).stem}-{_fingerprint(picture, plan)}.npz"
    if path.exists() and observe is None:
        fit, seconds, iterations = _load(path)
    else:
        spent = 0
        staged = _Staged((info.width, info.height), objective.targets, objective.rasterizer)
        ticker = Ticker(f"{picture.name}, {plan.splats} splats, {plan.strategy}", plan.iterations_intra)

        def count(iteration: Iteration) -> None:
            nonlocal spent
            spent += 1
            ticker.tick(spent, f"loss {iteration.loss:.4g}")
            if observe is not None:
                observe(staged.layer, iteration)

        started = time.monotonic()
        fit = fit_float(staged, plan, np.random.default_rng([plan.seed, 0]), count)
        seconds, iterations = time.monotonic() - started, spent
        _save(path, fit, seconds, iterations)
    return LevelFit.of(levels, references, fit, seconds, iterations)


def _fingerprint(picture: Picture, plan: EncodePlan) -> str:
    """Of everything that decides a fit, but for the code."""
    digest = hashlib.sha256(json.dumps(plan.__dict__, sort_keys=True, default=str).encode())
    for plane in picture.frame:
        digest.update(np.ascontiguousarray(plane).tobytes())
    return digest.hexdigest()[:16]


def _save(path: Path, fit: FloatFit, seconds: float, iterations: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, NDArray[Any]] = {"background": fit.background, "spent": np.array([seconds, iterations])}
    for layer, splats in enumerate(fit.layers):
        for name in ("means", "cholesky", "colors"):
            arrays[f"{name}{layer}"] = getattr(splats, name)
    partial = path.with_suffix(".part.npz")
    np.savez(partial, **arrays)
    partial.replace(path)


def _load(path: Path) -> tuple[FloatFit, float, int]:
    with np.load(path) as arrays:
        layers: list[Splats] = []
        while f"means{len(layers)}" in arrays:
            layers.append(Splats(*(arrays[f"{name}{len(layers)}"] for name in ("means", "cholesky", "colors"))))
        seconds, iterations = arrays["spent"]
        return FloatFit(arrays["background"], layers), float(seconds), int(iterations)
