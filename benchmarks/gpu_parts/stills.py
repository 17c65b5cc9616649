"""Photographs: seconds until all have the quality that preset slow comes to on a CPU, in about as many bytes.

Whole encodes are in one batch, by several processes, and one by one.  Fits alone are in one batch.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from statistics import fmean
from time import perf_counter

import numpy as np
import torch
from experiment import LAYERS
from gpu_material import Material

from gpu_parts.codec import CUDA, Encoded, Reference, config_of, encoded, material, processes, reference
from gpu_parts.timing import Rows, at_most
from pgsvc_codec.encoder import encode_stills
from pgsvc_codec.render.backend import load
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.levels import LevelSizes
from pgsvc_codec.train.main.aim import Aim, level_weights, step_of_quality
from pgsvc_codec.train.main.fit import IntraFit, Still, fit_stills
from pgsvc_codec.train.objective import Objective

SPLATS = 5000
PRESETS = ("ultrafast", "veryfast", "faster", "fast", "medium", "slow")
WORKERS = 4  # processes on one GPU
TARGET_S = 10.0
NEAR, LARGER = 0.05, 1.05  # dB by which the mean may lie below, and bytes over those of the CPU's files
ITERATIONS = (250, 1500, 3000)  # of the fits in one batch: presets faster, medium, slow
_BUDGET_S = 20.0  # for the presets of one way


def measure(rows: Rows, at: torch.device, *, tiny: bool) -> None:
    """For each way a row for each preset, and one for the first that is good enough."""
    stills = material(tiny=tiny).stills
    if not stills:
        rows.add("stills", None, "s", note="skipped: no photographs in GPU_DATA")
        return
    known = [found for still in stills if (found := reference(still.name, "slow", SPLATS)) is not None]
    goal = None
    if len(known) == len(stills):
        goal = Reference(fmean(one.psnr for one in known), sum(one.size_bytes for one in known))

    def together(preset: str) -> list[Encoded]:
        sinks = [io.BytesIO() for _ in stills]
        reports = encode_stills(stills, sinks, config_of(SPLATS, preset, tiny=tiny))
        return [Encoded(sink.getvalue(), report) for sink, report in zip(sinks, reports, strict=True)]

    def one_by_one(preset: str) -> list[Encoded]:
        return [encoded(still, config_of(SPLATS, preset, tiny=tiny)) for still in stills]

    with rows.trying("stills in one batch"):
        _presets(rows, "in one batch", stills, goal, together, tiny=tiny)
    with rows.trying("stills side by side"), processes(WORKERS, tiny=tiny) as executor:

        def side_by_side(preset: str) -> list[Encoded]:
            config = config_of(SPLATS, preset, tiny=tiny)
            return list(executor.map(encoded, stills, [config] * len(stills)))

        _presets(rows, f"by {WORKERS} processes", stills, goal, side_by_side, tiny=tiny)
    with rows.trying("stills one by one"):
        _presets(rows, "one by one", stills, goal, one_by_one, tiny=tiny)
    with rows.trying("fits in one batch"):
        for iterations in (2,) if tiny else (ITERATIONS[0], *ITERATIONS):  # the first is not to be counted
            started = perf_counter()
            psnr = fit_batch(stills, 6 if tiny else SPLATS, iterations)
            seconds = perf_counter() - started
            what = f"fits of {len(stills)} stills in one batch, {iterations} iterations"
            rows.add(what, seconds, "s", note=f"mean {psnr:.2f} dB, unquantised")


def _presets(
    rows: Rows,
    way: str,
    stills: Sequence[Material],
    goal: Reference | None,
    encode_all: Callable[[str], list[Encoded]],
    *,
    tiny: bool,
) -> None:
    """Rows of one way."""
    name = f"{len(stills)} stills of {SPLATS} splats to preset slow's quality, {way}"
    if not tiny:
        encode_all(PRESETS[0])
    begun = perf_counter()
    told = (
        "its quality is not known"
        if goal is None
        else f"no preset has its {goal.psnr:.2f} dB in {goal.size_bytes} bytes in time"
    )
    for preset in PRESETS[:1] if tiny else PRESETS:
        started = perf_counter()
        made = encode_all(preset)
        seconds, psnr = perf_counter() - started, fmean(one.psnr for one in made)
        size = sum(one.report.size_bytes for one in made)
        rows.add(
            f"{len(stills)} stills, {way}, preset {preset}", seconds, "s", note=f"mean {psnr:.2f} dB, {size} bytes"
        )
        if goal is not None and psnr >= goal.psnr - NEAR and size <= LARGER * goal.size_bytes:
            note = f"preset {preset}, mean {psnr:.2f} of {goal.psnr:.2f} dB, {size} bytes for {goal.size_bytes}"
            rows.add(name, seconds, "s", at_most(TARGET_S), note)
            return
        if perf_counter() - begun > _BUDGET_S:
            break
    rows.add(name, None, "s", at_most(TARGET_S), told)


def fit_batch(stills: Sequence[Material], splats: int, iterations: int) -> float:
    """Fit all pictures at once; the mean of their PSNRs in dB, of the top level."""
    config = config_of(splats, PRESETS[0], tiny=False)
    rasterizer = load(CUDA)
    batch = []
    for number, still in enumerate(stills):
        size = still.info.width, still.info.height
        plan = config.resolve(*size, still.info.rate, still=True)
        objective = LevelSizes(still.info, [size] * LAYERS, rasterizer).read(still.frames[0]).objective
        weights = level_weights(LAYERS, plan.level_weights)
        aim = Aim(step_of_quality(50.0), plan.layer_shares, weights, splats)
        batch.append(Still(objective, aim, np.random.default_rng([0, number])))
    fits = fit_stills(batch, iterations, opponent=True)
    return fmean(_psnr(still.objective, fit) for still, fit in zip(batch, fits, strict=True))


def _psnr(objective: Objective, fit: IntraFit) -> float:
    """Of the top level, over all samples, before rounding to code values."""
    ends = [int(end) for end in np.cumsum([len(layer) for layer in fit.layers])]
    splats = Splats.concatenate(fit.layers)
    step = objective.step(splats, fit.background, ends, [1.0] * LAYERS, with_moments=False)
    samples = sum(plane.size for plane in objective.targets[-1].picture)
    return -10 * math.log10(float(step.squared_error[-1].sum()) / samples)
