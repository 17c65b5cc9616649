"""Splats of the main profile, and what may become of them from frame to frame, for tests of its payloads."""

from __future__ import annotations

import numpy as np

from pgsvc_codec.coding.main.gop import FrameStep
from pgsvc_codec.coding.main.inter import assembled
from pgsvc_codec.coding.main.layer import LayerEncoder
from pgsvc_codec.coding.main.predict import MotionField, flagged
from pgsvc_codec.coding.main.state import STEPS, IntraSymbols, classes_of, position_shifts, state_of
from pgsvc_codec.splats import SplatState

WIDTH, HEIGHT = 320, 200
INDEX = 24


def whole_state(rng: np.random.Generator, number: int, channels: int = 3) -> SplatState:
    """New splats, on their lattices."""
    step = STEPS[INDEX]
    k = np.rint(rng.laplace(size=(number, channels)) * 3).astype(np.int32)
    k[~k.any(axis=1), 0] = 1
    classes = classes_of(k * np.int32(step), step)
    shapes = np.rint(rng.normal([2, 0, 2], 0.8, (number, 3)) * (1 << classes)[:, None]).astype(np.int32)
    shifts = position_shifts(state_of(IntraSymbols(k, shapes, np.zeros((number, 2), np.int32)), step).shapes, classes)
    positions = rng.integers(0, [WIDTH << 6, HEIGHT << 6], (number, 2)).astype(np.int32) >> shifts
    return state_of(IntraSymbols(k, shapes, positions), step)


def moved(rng: np.random.Generator, predicted: SplatState, share: float) -> SplatState:
    """Some slots change in some groups."""
    symbols = [
        rng.integers(-3, 4, part.shape, np.int32) * (rng.random((len(part), 1)) < share)
        for part in (predicted.positions, predicted.shapes, predicted.amplitudes)
    ]
    alive = predicted.amplitudes.any(axis=1)
    deltas = np.concatenate([part * alive[:, None] for part in symbols], axis=1, dtype=np.int32)
    return assembled(predicted, flagged(deltas).flags, deltas, SplatState.empty(predicted.channels), STEPS[INDEX])


def next_frame(
    rng: np.random.Generator, encoder: LayerEncoder, step: FrameStep, field: MotionField | None, share: float
) -> tuple[SplatState, np.ndarray | None]:
    """Targets of a frame; in P-frames some slots die, some are reborn, some are added."""
    predicted = encoder.predicted(step, field).state
    targets = moved(rng, predicted, share)
    if step.future is not None:
        return targets, None
    draw = rng.random(len(targets))
    targets.amplitudes[draw < 0.05] = 0
    new = whole_state(rng, int((draw > 0.9).sum()) + 3, predicted.channels)
    reborn = np.concatenate([draw > 0.9, np.ones(3, np.bool_)])
    parts = []
    for name in ("positions", "shapes", "amplitudes"):
        part = np.concatenate([getattr(targets, name), np.zeros((3, getattr(targets, name).shape[1]), np.int32)])
        part[reborn] = getattr(new, name)
        parts.append(part)
    return SplatState(*parts), reborn
