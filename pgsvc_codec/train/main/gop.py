"""The P- and B-frames of a GOP: their fits, and how far apart its anchors are.

An anchor is fitted from the anchor before it, a B-frame from the mean of its two references.  How far anchors may lie
apart is decided for each GOP by coding its first frames both ways with short fits and comparing J.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main.gop import coding_order
from pgsvc_codec.coding.main.predict import MotionField, Slots, changes, predict_between, predict_inter
from pgsvc_codec.coding.main.state import splats_of
from pgsvc_codec.splats import Splats, SplatState
from pgsvc_codec.train.main.inter import InterProblem, fit_changes, fit_inter
from pgsvc_codec.train.main.settle import Settled, settle_changes

_BETWEEN_PRICES = (1.5, 2.0, 3.0, 3.0)  # of bits, by depth: what few frames or none refer to need not be as good
_WHOLE_BITS = 30.0  # of a splat coded whole
_MOST_COUNTED = 15  # steps of a change that are counted one by one
_TRIAL_FRAMES = 8  # that both ways are tried on
_LARGE, _HUGE = 480 * 320, 1600 * 900  # pixels from which on fields are coarser


class Effort(NamedTuple):
    """How long frames are fitted for."""

    anchor: int  # iterations of a P-frame
    between: int  # of a B-frame


_TRIAL = Effort(20, 10)


class InterTargets(NamedTuple):
    """What the coder needs of a P- or B-frame; one entry per layer in each list."""

    slots: list[SplatState]
    reborn: list[NDArray[np.bool_]]  # slots coded whole; none in a B-frame
    field: MotionField | None  # none in a B-frame


def field_spacing(size: tuple[int, int]) -> int:
    """Pixels from node to node of the motion fields of a frame of width × height."""
    pixels = size[0] * size[1]
    return 16 if pixels < _LARGE else 32 if pixels < _HUGE else 64


def fit_anchor(
    problem: InterProblem,
    reference: Sequence[Slots],
    luma: NDArray[np.float32],
    effort: Effort,
    before: MotionField | None = None,
) -> InterTargets:
    """Fit a P-frame.

    Args:
        problem: the frame, and its prices.
        reference: layers of the anchor before, as decoded.
        luma: [H, W] of that anchor's source, unit values.
        effort: iterations.
        before: the field of that anchor, if it is a P-frame.
    """
    fit = fit_inter(problem, reference, luma, field_spacing(problem.size), effort.anchor, before)
    settled = _settled(problem, [slots.state for slots in fit.predictions], fit.splats, fit.reborn)
    return InterTargets([layer.state for layer in settled], [layer.reborn for layer in settled], fit.field)


def fit_between(problem: InterProblem, predicted: Sequence[Slots], depth: int, effort: Effort) -> InterTargets:
    """Fit a B-frame.

    Args:
        problem: the frame, and the prices of an anchor.
        predicted: layers, see `coding.main.predict.predict_between`.
        depth: see `coding.main.gop.FrameStep`.
        effort: iterations.
    """
    price = _BETWEEN_PRICES[min(depth, len(_BETWEEN_PRICES)) - 1]
    problem = problem._replace(lambdas=[price * bit for bit in problem.lambdas])
    splats = fit_changes(problem, predicted, effort.between)
    none = [np.zeros(len(layer), np.bool_) for layer in splats]
    settled = _settled(problem, [slots.state for slots in predicted], splats, none)
    return InterTargets([layer.state for layer in settled], none, None)


def _settled(
    problem: InterProblem,
    predicted: Sequence[SplatState],
    splats: Sequence[Splats],
    reborn: Sequence[NDArray[np.bool_]],
) -> list[Settled]:
    return [
        settle_changes(*layer, size=problem.size, opponent=problem.opponent)
        for layer in zip(predicted, splats, reborn, problem.steps, strict=True)
    ]


def choose_distance(problems: Sequence[InterProblem], first: Sequence[Slots]) -> int:
    """From one anchor of a GOP to the next: 1, 2, 4 or 8 frames, by the J of coding its first frames.

    Args:
        problems: frames from the I-frame on, as many as are known; the first few count.
        first: layers of the I-frame as decoded.
    """
    problems = problems[: _TRIAL_FRAMES + 1]
    frames = len(problems) - 1
    best, least = 1, math.inf
    for distance in (1, 2, 4, 8):
        if distance > frames:
            break
        cost = _trial_cost(problems, first, distance)
        if cost > least:
            break
        best, least = distance, cost
    return best


def _trial_cost(problems: Sequence[InterProblem], first: Sequence[Slots], distance: int) -> float:
    """J of all frames but the first."""
    decoded: dict[int, Sequence[Slots]] = {0: first}
    total, field = 0.0, None
    for step in coding_order(len(problems), distance)[1:]:
        assert step.past is not None
        problem, past = problems[step.display], decoded[step.past]
        if step.future is None:
            luma = problems[step.past].objective.targets[-1].picture[0]
            targets = fit_anchor(problem, past, luma, _TRIAL, field)
            field = targets.field
        else:
            pairs = zip(past, decoded[step.future], strict=True)
            past = [predict_between(*pair, late=step.late) for pair in pairs]
            targets = fit_between(problem, past, step.depth, _TRIAL)
        total += _cost(problem, past, targets)
        decoded[step.display] = [
            _slots(slots, state, reborn, step.display)
            for slots, state, reborn in zip(past, targets.slots, targets.reborn, strict=True)
        ]
    return total


def _slots(predicted: Slots, state: SplatState, reborn: NDArray[np.bool_], display: int) -> Slots:
    births = np.full(len(state), display, np.int32)
    kept = ~reborn[: len(predicted.births)]
    births[: len(kept)][kept] = predicted.births[kept]
    return Slots(state, births)


def _cost(problem: InterProblem, predicted: Sequence[Slots], targets: InterTargets) -> float:
    """J of a frame; about as many bits as an adaptive coder would need."""
    layers = [splats_of(state, *problem.size, opponent=problem.opponent) for state in targets.slots]
    ends = [int(end) for end in np.cumsum([len(layer) for layer in layers])]
    shown = problem.objective.step(
        Splats.concatenate(layers), problem.background, ends, problem.level_weights, with_moments=False
    )
    error = problem.objective.loss(shown.squared_error, problem.level_weights) * problem.size[0] * problem.size[1]
    bits = [
        _bits(slots.state if targets.field is None else predict_inter(slots, targets.field).state, *layer)
        for slots, *layer in zip(predicted, targets.slots, targets.reborn, problem.steps, strict=True)
    ]
    return error + float(np.dot(problem.lambdas, bits))


def _bits(predicted: SplatState, state: SplatState, reborn: NDArray[np.bool_], step: int) -> float:
    count = len(predicted)
    kept = ~reborn[:count] & predicted.amplitudes.any(axis=1) & state.amplitudes[:count].any(axis=1)
    groups = changes(predicted[kept], state[:count][kept], step)
    flags = sum(group.any(axis=1).astype(np.int64) << bit for bit, group in enumerate(groups))
    bits = _WHOLE_BITS * float(np.count_nonzero(reborn)) + _entropy(flags)
    for group in groups:
        sizes = np.abs(group[group.any(axis=1)]).ravel()
        long = sizes[sizes > _MOST_COUNTED]
        bits += _entropy(np.minimum(sizes, _MOST_COUNTED)) + np.count_nonzero(sizes)
        bits += float(2 * np.log2(long / _MOST_COUNTED).sum())
    return bits


def _entropy(values: NDArray[np.integer]) -> float:
    """Bits of all values in their own statistics."""
    counts = np.bincount(values)
    counts = counts[counts > 0]
    return float((counts * np.log2(counts.sum() / counts)).sum()) if len(counts) else 0.0
