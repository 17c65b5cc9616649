"""Iterations of a fit, all levels and planes in each, and where the time of an encode goes."""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable
from importlib.util import find_spec
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
from pgsvc_codec.train.adan import Adan
from pgsvc_codec.train.descent import Descent
from pgsvc_codec.train.grid import LayerGrid
from pgsvc_codec.train.levels import LevelSizes
from pgsvc_codec.train.lsq import QuantizedModel, coded_parts
from pgsvc_codec.train.main.fit import LIMITS
from pgsvc_codec.train.model import SplatModel
from pgsvc_codec.train.plain import PlainModel
from pgsvc_codec.train.rates import adam_of
from pgsvc_codec.train.schedule import cyclic, half_cosine
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
    counts = (1, 2) if tiny else (SHORT, LONG)
    for splats in SPLATS[:1] if tiny else SPLATS:
        with rows.trying(f"joint iteration, {splats} splats"):
            scene = fitted(frames[0], splats, tiny=tiny)
            what = f"{scene.frame.name}, {scene.splats} splats"
            target = at_most(ITERATION_MS) if splats == SPLATS[0] else None
            note = "optimiser's step and all, by the wall clock"
            rows.add(f"joint iteration: {what}", iteration_ms(joint(scene), at, *counts), "ms", target, note)
        for name, descent in (("paper's iteration", paper), ("paper's iteration under quantisation", tuning)):
            if find_spec("pytorch_optimizer") is None:
                rows.add(f"{name}, {splats} splats", None, "", note="left out: no pytorch_optimizer")
                continue
            with rows.trying(f"{name}, {splats} splats"):
                rows.add(f"{name}: {what}", iteration_ms(descent(scene), at, *counts), "ms", note=note)
    for name, clip in (("I-frame", frames[0]), ("I- and P-frames", panned(frames[0], 2 if tiny else 4))):
        with rows.trying(f"functions of {name}"):
            functions(rows, name, clip, tiny=tiny)


def iteration_ms(descend: Callable[[int], object], at: torch.device, short: int, long: int) -> float:
    """Milliseconds per iteration of `descend`, which makes so many."""
    if at.type == "cuda":
        descend(short)  # what is compiled on first use is compiled here
    seconds = [wall_s(lambda count=count: descend(count), at) for count in (short, long)]
    return 1e3 * (seconds[1] - seconds[0]) / (long - short)


def _ends_of(scene: Scene) -> list[int]:
    return [int(end) for end in np.cumsum([len(layer) for layer in scene.layers])]


def _descent(scene: Scene) -> Callable[..., Descent]:
    """A descent towards the scene's frame, but for model, optimiser, level weights and step scale."""
    levels = LevelSizes(scene.frame.info, [scene.size] * len(scene.layers), load(CUDA))
    objective = levels.read(scene.frame.frames[0]).objective
    background = np.asarray(scene.background, np.float32)
    return lambda model, optimizer, weights, scale: Descent(model, optimizer, objective, background, weights, scale)


def joint(scene: Scene) -> Callable[[int], object]:
    """A fit in natural coordinates that goes on from the scene, all levels in every iteration."""
    made, ends = _descent(scene), _ends_of(scene)
    weights = [1.0] * len(ends)

    def descend(iterations: int) -> None:
        model = SplatModel(Splats.concatenate(scene.layers), ends, *scene.size, LIMITS)
        optimizer = adam_of(model, DEFAULTS, iterations, 0.1)
        made(model, optimizer, lambda _: weights, half_cosine(iterations, 3)).run(iterations)

    return descend


def paper(scene: Scene) -> Callable[[int], object]:
    """The paper's fit, which goes on from the scene."""
    model = PlainModel(Splats.concatenate(scene.layers), _ends_of(scene), *scene.size)
    return _descent(scene)(model, Adan(model.parameters()), cyclic(len(scene.layers), 0), lambda _: 1.0).run


def tuning(scene: Scene) -> Callable[[int], object]:
    """The paper's fine-tuning under quantisation, of the scene's splats."""
    model = PlainModel(Splats.concatenate(scene.layers), _ends_of(scene), *scene.size)
    nothing = Splats.empty(len(scene.background))
    parts = [
        part
        for layer, (start, splats) in enumerate(zip([0, *model.ends[:-1]], scene.layers, strict=True))
        for part in coded_parts(LayerGrid(layer, scene.size, nothing), splats, start)
    ]
    optimizer, shown = Adan(model.parameters()), QuantizedModel(model, parts)
    optimizer.add(shown.learned)
    return _descent(scene)(shown, optimizer, cyclic(len(scene.layers), 0), lambda _: 0.1).run


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
