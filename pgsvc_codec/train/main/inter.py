"""The float fit of a P-frame: few changes of what the reference predicts, a motion field, and new splats.

Everything descends together on J = sum_k w_k SSE_k + sum_l lambda_l bits_l.  The bits of a change are about its length
in steps, group by group as flags are coded, so a proximal step takes small groups back to nothing (group lasso); the
bits of a field are about its roughness.  Because field and changes share one descent, the field moves what would
otherwise be many like changes, and a splat changes only where the field is wrong for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main.predict import SPACINGS, MotionField, Slots, field_shape, predict_inter
from pgsvc_codec.coding.main.state import AMPLITUDE_BITS
from pgsvc_codec.splats import Splats, SplatState
from pgsvc_codec.train.main.aim import CODED_STEP
from pgsvc_codec.train.main.changes import Changes, HostChanges, Pace
from pgsvc_codec.train.main.deltas import Deltas
from pgsvc_codec.train.main.fit import variation
from pgsvc_codec.train.main.motion_field import candidates, coded, in_pixels
from pgsvc_codec.train.main.problem import InterProblem
from pgsvc_codec.train.place import device_of
from pgsvc_codec.train.rates import betas_of
from pgsvc_codec.train.schedule import half_cosine
from pgsvc_codec.train.tuning import DEFAULTS

_RATE = 0.6  # learning rates in units of an I-frame's
_WARMUP = 5  # iterations
_FIELD_SHARE = 0.7  # of the iterations have a field that moves; then its vectors are rounded
_FIRST_BIRTHS, _LAST_BIRTHS = 0.2, 0.65  # of the iterations: mere motion should not be taken for something new
_TURNS = 3  # that each layer has, in longer fits
_LEAST_INTERVAL = 3  # iterations between births
_SEARCHED = 1.4  # a field that pixels propose is rough, and must be better by that factor than one that is not
_SPLATS = 0.007  # that an I-frame has, about, per unit of the picture's variation over D
_SPARE = 0.1  # slots that a frame may add, as a share of a layer's


class InterFit(NamedTuple):
    """A P-frame as far as floats go; one entry per layer in each list.

    The first slots of a layer are those of the reference, in its order; further ones are new.
    """

    field: MotionField
    predictions: list[Slots]  # of the reference's slots
    splats: list[Splats]
    reborn: list[NDArray[np.bool_]]  # slots that are to be coded whole


def fit_inter(
    problem: InterProblem,
    reference: Sequence[Slots],
    luma: NDArray[np.float32],
    spacing: int,
    iterations: int,
    before: MotionField | None = None,
) -> InterFit:
    """Fit a P-frame from a decoded anchor.

    Args:
        problem: the frame.
        reference: layers of the anchor as a decoder has them.
        luma: [H, W] of the anchor's source, unit values.
        spacing: pixels from node to node of the motion field.
        iterations: at least one.
        before: the field of the previous P-frame of as long a way, of the same spacing.
    """
    states = [slots.state for slots in reference]
    deltas = Deltas(states, problem.steps, _spare(problem, states), problem.size, opponent=problem.opponent)
    moving = math.ceil(_FIELD_SHARE * iterations)
    changes = _changes(problem, deltas, iterations, moving, spacing)
    turns = _turns(len(states), iterations)
    changes.follow(_first_field(problem, changes, luma, spacing, before))
    _run(changes, 0, moving, turns)
    vectors = coded(changes.fitted_field(), spacing)
    predictions = [predict_inter(slots, vectors) for slots in reference]
    changes.predict_again([slots.state for slots in predictions])
    _run(changes, moving, iterations, turns)
    return _result(deltas, changes.splats(), vectors, predictions)


def _spare(problem: InterProblem, states: Sequence[SplatState]) -> list[int]:
    """Slots that each layer may add: more where the frame holds much that the reference did not, as in a fade."""
    wanted = _SPLATS * variation(problem.objective) / (problem.steps[-1] / (1 << AMPLITUDE_BITS) / CODED_STEP)
    missing = max(wanted - sum(len(state) for state in states), 0.0) / len(states)
    return [math.ceil(_SPARE * len(state) + missing / 2) for state in states]


def fit_changes(problem: InterProblem, predictions: Sequence[Slots], iterations: int) -> list[Splats]:
    """Fit the slots of a B-frame: those of its prediction, with a few changes.

    Args:
        problem: the frame.
        predictions: of each layer, see `coding.main.predict.predict_between`.
        iterations: none leave the prediction as it is.
    """
    states = [slots.state for slots in predictions]
    deltas = Deltas(states, problem.steps, [0] * len(states), problem.size, opponent=problem.opponent)
    changes = _changes(problem, deltas, iterations, 0, SPACINGS[-1])
    changes.run(iterations)
    splats = changes.splats()
    return [splats[start:end] for start, end in pairwise([0, *deltas.ends])]


def _result(deltas: Deltas, splats: Splats, field: MotionField, predictions: list[Slots]) -> InterFit:
    layers, reborn = [], []
    for layer, slots in enumerate(predictions):
        start = deltas.ends[layer - 1] if layer else 0
        rows = np.arange(start, deltas.ends[layer])
        added = rows[len(slots.state) :]
        rows = np.concatenate([rows[: len(slots.state)], added[deltas.is_new[added]]])
        layers.append(splats[rows])
        reborn.append(deltas.is_new[rows])
    return InterFit(field, predictions, layers, reborn)


def _changes(problem: InterProblem, deltas: Deltas, iterations: int, moving: int, spacing: int) -> Changes:
    """What runs the iterations of a fit, of which the first, `moving`, have a field."""
    pixels = problem.size[0] * problem.size[1] / max(int((~deltas.is_idle).sum()), 1)
    rates = (DEFAULTS.offset_rate, DEFAULTS.shape_rate, DEFAULTS.amplitude_rate * math.sqrt(pixels))
    scale, field_scale = half_cosine(iterations, _WARMUP), half_cosine(moving, _WARMUP)
    pace = Pace(
        rates=(_RATE * rates[0], _RATE * rates[1], _RATE * rates[2]),
        scales=[scale(iteration) for iteration in range(iterations)],
        field_scales=[field_scale(iteration) for iteration in range(moving)],
        decay=betas_of(DEFAULTS, iterations)[0],
    )
    device = device_of(problem.objective.rasterizer)
    if device is None:
        return HostChanges(problem, deltas, pace, spacing)
    from pgsvc_codec.train.cuda.changes import CudaChanges

    return CudaChanges(problem, deltas, pace, spacing, device)


def _turns(num_layers: int, iterations: int) -> dict[int, int]:
    """The iterations after which splats are born, and in which layer."""
    first, last = math.ceil(_FIRST_BIRTHS * iterations), math.floor(_LAST_BIRTHS * iterations)
    interval = max((last - first) // (_TURNS * num_layers), _LEAST_INTERVAL)
    return {at: turn % num_layers for turn, at in enumerate(range(first, last + 1, interval))}


def _run(changes: Changes, done: int, until: int, turns: dict[int, int]) -> None:
    """The iterations from `done` to `until`, with the births that fall among them."""
    for at, layer in turns.items():
        if done <= at < until:
            changes.run(at + 1 - done)
            changes.bear(layer)
            done = at + 1
    changes.run(until - done)


def _first_field(
    problem: InterProblem,
    changes: Changes,
    luma: NDArray[np.float32],
    spacing: int,
    before: MotionField | None,
) -> NDArray[np.float64]:
    """The field to begin from, [rows, columns, 2] pixels."""
    still = np.zeros((*field_shape(*problem.size, spacing), 2))
    smooth = [still] if before is None else [still, in_pixels(before)]
    picture = problem.objective.targets[-1].picture
    searched = [*candidates(luma, picture[0], spacing, problem.objective.rasterizer)]
    errors = changes.errors(smooth + searched)
    errors[len(smooth) :] = [_SEARCHED * error for error in errors[len(smooth) :]]
    return (smooth + searched)[int(np.argmin(errors))]
