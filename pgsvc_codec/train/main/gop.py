"""The P- and B-frames of a GOP: their fits, and how far apart its anchors are.

An anchor is fitted from the anchor before it, a B-frame from the mean of its two references.  How far anchors may lie
apart is decided for each GOP by coding its first frames both ways with short fits and comparing J.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main.gop import coding_order
from pgsvc_codec.coding.main.predict import MotionField, Slots, births_of, predict_between
from pgsvc_codec.splats import Splats, SplatState
from pgsvc_codec.train.main.inter import fit_changes, fit_inter
from pgsvc_codec.train.main.motion_field import field_bits
from pgsvc_codec.train.main.problem import InterProblem
from pgsvc_codec.train.main.refine import RefinedInter, refine_inter

# Prices of bits over those of the I-frame, which all others build on; in B-frames by depth: what few frames or none
# refer to need not be as good.
_ANCHOR_PRICE = 1.0
_BETWEEN_PRICES = (4.0, 6.0, 8.0, 8.0)
_HOLD = 6.0  # power by which prices fall as errors rise; at 10, quality swings from frame to frame
_LEAST_HELD = 0.4
_TINY = 1e-12
_TRIAL_PRICE = 2.0  # of all frames
# Trials are too short for B-frames to show what they are worth.
_HANDICAPS = {1: 1.0, 2: 0.95, 4: 0.9, 8: 0.9}
_LOST = 1.03  # times the J of the best distance
TRIAL_FRAMES = 8  # behind the I-frame, by which `choose_distance` decides
_LARGE, _HUGE = 480 * 320, 1600 * 900  # pixels from which on fields are coarser


class Effort(NamedTuple):
    """How long frames are fitted for."""

    anchor: int  # iterations of a P-frame
    between: int  # of a B-frame
    passes: int = 3  # of the refinement


_TRIAL = Effort(20, 10, 1)


class InterTargets(NamedTuple):
    """What the coder needs of a P- or B-frame; one entry per layer in each list."""

    slots: list[SplatState]
    reborn: list[NDArray[np.bool_]] | None  # slots coded whole; none in a B-frame
    field: MotionField | None  # none in a B-frame
    squared_error: NDArray[np.float64]  # [levels] H W times the mean squared error, summed over planes
    bits: list[float]  # estimate


def held_price(error: float, first: float) -> float:
    """Price of bits in the frames to come, so that quality neither sinks nor rises far from that of the I-frame.

    Args:
        error: squared error of the last anchor's top level.
        first: likewise of the I-frame.
    """
    return min(max((first / max(error, _TINY)) ** _HOLD, _LEAST_HELD), 2.0) if first > 0 else 1.0


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
        problem: the frame.
        reference: layers of the anchor before, as decoded.
        luma: [H, W] of that anchor's source, unit values.
        effort: iterations.
        before: the field of that anchor, if it is a P-frame.
    """
    return _anchor(problem._replace(price=_ANCHOR_PRICE * problem.price), reference, luma, effort, before)


def _anchor(
    problem: InterProblem,
    reference: Sequence[Slots],
    luma: NDArray[np.float32],
    effort: Effort,
    before: MotionField | None,
) -> InterTargets:
    fit = fit_inter(problem, reference, luma, field_spacing(problem.size), effort.anchor, before)
    settled = _refined(problem, fit.predictions, fit.splats, fit.reborn, effort.passes)
    bits = [settled.bits[0] + field_bits(fit.field), *settled.bits[1:]]
    return InterTargets(settled.layers, settled.reborn, fit.field, settled.squared_error, bits)


def fit_between(problem: InterProblem, predicted: Sequence[Slots], depth: int, effort: Effort) -> InterTargets:
    """Fit a B-frame.

    Args:
        problem: the frame.
        predicted: layers, see `coding.main.predict.predict_between`.
        depth: see `coding.main.gop.FrameStep`.
        effort: iterations.
    """
    price = _BETWEEN_PRICES[min(depth, len(_BETWEEN_PRICES)) - 1]
    return _between(problem._replace(price=price * problem.price), predicted, effort)


def _between(problem: InterProblem, predicted: Sequence[Slots], effort: Effort) -> InterTargets:
    splats = fit_changes(problem, predicted, effort.between)
    settled = _refined(problem, predicted, splats, None, effort.passes)
    return InterTargets(settled.layers, None, None, settled.squared_error, settled.bits)


def _refined(
    problem: InterProblem,
    predicted: Sequence[Slots],
    splats: Sequence[Splats],
    reborn: Sequence[NDArray[np.bool_]] | None,
    passes: int,
) -> RefinedInter:
    return refine_inter(
        problem.objective,
        problem.background,
        [slots.state for slots in predicted],
        splats,
        reborn,
        problem.step_indices,
        problem.lambdas,
        problem.level_weights,
        opponent=problem.opponent,
        passes=passes,
    )


def choose_distance(problems: Sequence[InterProblem], first: Sequence[Slots]) -> int:
    """From one anchor of a GOP to the next: 1, 2, 4 or 8 frames, by the J of coding its first frames.

    Args:
        problems: frames from the I-frame on, as many as are known; the first few count.
        first: layers of the I-frame as decoded.
    """
    problems = problems[: TRIAL_FRAMES + 1]
    trials: dict[int, _Trial] = {}
    # from the middle outwards: one of the ends is not worth a trial; B-frames are the cheaper ones to try
    for distance in (4, 1, 8, 2):
        ruled_out = distance in (2, 8) and 4 in trials and (trials[4].cost < trials[1].cost) == (distance == 2)
        if distance == 1 or (distance < len(problems) and not ruled_out):
            best = min(trials.values(), key=lambda trial: trial.cost, default=None)
            trials[distance] = _trial(problems, first, distance, best)
    return min(trials, key=lambda distance: trials[distance].cost)


class _Trial(NamedTuple):
    """What frames have come to at one price for all, less the handicap."""

    distance: int
    costs: NDArray[np.float64]  # [frames] J of each, that of the first left out; infinite where it was not tried

    @property
    def cost(self) -> float:
        """J of all frames."""
        return float(self.costs.sum())

    def is_lost(self, best: _Trial) -> bool:
        """Whether it need not be tried any further: it costs more already, or would, were the rest as cheap as there.

        Frames are compared where both have an anchor: what one has paid for, the other has then, too.
        """
        tried = np.isfinite(self.costs)
        count = int(tried.sum())
        if self.costs[tried].sum() > best.cost:
            return True
        side_by_side = tried[:count].all() and (count - 1) % max(self.distance, best.distance) == 0
        return bool(side_by_side and self.costs[:count].sum() + best.costs[count:].sum() > _LOST * best.cost)


def _trial(problems: Sequence[InterProblem], first: Sequence[Slots], distance: int, best: _Trial | None) -> _Trial:
    """Code frames with a distance, as far as it may still be better than the best one so far."""
    decoded: dict[int, Sequence[Slots]] = {0: first}
    trial = _Trial(distance, np.full(len(problems), np.inf))
    trial.costs[0] = 0.0
    field = None
    for step in coding_order(len(problems), distance)[1:]:
        assert step.past is not None
        problem, past = problems[step.display], decoded[step.past]
        problem = problem._replace(price=_TRIAL_PRICE * problem.price)
        if step.future is None:
            luma = problems[step.past].objective.targets[-1].picture[0]
            targets = _anchor(problem, past, luma, _TRIAL, field)
            field = targets.field
        else:
            pairs = zip(past, decoded[step.future], strict=True)
            past = [predict_between(*pair, late=step.late) for pair in pairs]
            targets = _between(problem, past, _TRIAL)
        cost = np.dot(problem.level_weights, targets.squared_error) + np.dot(problem.lambdas, targets.bits)
        trial.costs[step.display] = _HANDICAPS[distance] * float(cost)
        if best is not None and trial.is_lost(best):
            break
        new = targets.reborn or [np.zeros(len(state), np.bool_) for state in targets.slots]
        decoded[step.display] = [
            Slots(state, births_of(slots, reborn[: len(slots.births)], len(state), step.display))
            for slots, state, reborn in zip(past, targets.slots, new, strict=True)
        ]
    return trial
