"""Iterations of a fit, all levels and planes in each, and where the time of an encode goes."""

from __future__ import annotations

import cProfile
import pstats
from pathlib import Path

import numpy as np
import torch
from gpu_material import Material, panned

import pgsvc_codec
from gpu_parts.codec import CUDA, config_of, encoded, material
from gpu_parts.scenes import Scene, fitted
from gpu_parts.timing import Rows, at_most, wall_s
from pgsvc_codec.render.availability import is_interpreted
from pgsvc_codec.render.backend import load
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.descent import Descent
from pgsvc_codec.train.levels import LevelSizes
from pgsvc_codec.train.main.fit import LIMITS
from pgsvc_codec.train.model import SplatModel
from pgsvc_codec.train.rates import adam_of
from pgsvc_codec.train.schedule import half_cosine
from pgsvc_codec.train.tuning import DEFAULTS

SPLATS = (12_000, 27_000)
ITERATION_MS = 0.5  # at the fewer splats
SHORT, LONG = 100, 400  # iterations of two runs, whose difference has no beginning and no end
FUNCTIONS_SHOWN = 24
_ROOT = Path(pgsvc_codec.__file__).parent


def measure(rows: Rows, at: torch.device, *, tiny: bool) -> None:
    """Rows for iterations at both numbers of splats, and for the functions of an encode."""
    frames = material(tiny=tiny).full_hd
    if not frames:
        rows.add("fit", None, "", note="skipped: no picture in GPU_DATA")
        return
    for splats in SPLATS[:1] if tiny else SPLATS:
        with rows.trying(f"joint iteration, {splats} splats"):
            scene = fitted(frames[0], splats, tiny=tiny)
            milliseconds = iteration_ms(scene, at, *((1, 2) if tiny else (SHORT, LONG)))
            target = at_most(ITERATION_MS) if splats == SPLATS[0] else None
            what = f"{scene.frame.name}, {scene.splats} splats"
            rows.add(
                f"joint iteration: {what}", milliseconds, "ms", target, "optimiser's step and all, by the wall clock"
            )
    for name, clip in (("I-frame", frames[0]), ("I- and P-frames", panned(frames[0], 2 if tiny else 4))):
        with rows.trying(f"functions of {name}"):
            functions(rows, name, clip, tiny=tiny)


def iteration_ms(scene: Scene, at: torch.device, short: int, long: int) -> float:
    """Milliseconds per iteration of a plain fit that goes on from the scene."""
    size = scene.size
    levels = LevelSizes(scene.frame.info, [size] * len(scene.layers), load(CUDA))
    objective = levels.read(scene.frame.frames[0]).objective
    ends = [int(end) for end in np.cumsum([len(layer) for layer in scene.layers])]
    background = np.asarray(scene.background, np.float32)
    weights = [1.0] * len(ends)

    def run(iterations: int) -> None:
        model = SplatModel(Splats.concatenate(scene.layers), ends, *size, LIMITS)
        optimizer = adam_of(model, DEFAULTS, iterations, 0.1)
        schedule = half_cosine(iterations, 3)
        Descent(model, optimizer, objective, background, lambda _: weights, schedule).run(iterations)

    if at.type == "cuda":
        run(short)  # what is compiled on first use is compiled here
    seconds = [wall_s(lambda count=count: run(count), at) for count in (short, long)]
    return 1e3 * (seconds[1] - seconds[0]) / (long - short)


def functions(rows: Rows, name: str, clip: Material, *, tiny: bool) -> None:
    """Rows for the functions of the package that an encode spends most time in, whatever these call included."""
    config = config_of(SPLATS[0], "faster", tiny=tiny, keyint=max(2, clip.frame_count), scenecut=0)
    if not is_interpreted():
        encoded(clip, config)
    profile = cProfile.Profile()
    made = profile.runcall(encoded, clip, config)
    spent = []
    for (path, _, function), (_, calls, _, seconds, _) in pstats.Stats(profile).stats.items():
        place = Path(path)
        if place.is_relative_to(_ROOT):
            spent.append((seconds, f"{place.relative_to(_ROOT).with_suffix('')}:{function}", calls))
    rows.add(f"{name}, profiled", made.report.seconds, "s", note=f"{clip.name}, {made.note}; slower than unprofiled")
    for seconds, where, calls in sorted(spent, reverse=True)[:FUNCTIONS_SHOWN]:
        rows.add(f"{name}: {where}", seconds, "s", note=f"{calls} calls")
