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

from pgsvc_codec.coding.main.predict import MotionField, Slots, field_shape, predict_inter
from pgsvc_codec.coding.main.state import AMPLITUDE_BITS, STEPS
from pgsvc_codec.splats import Splats, SplatState
from pgsvc_codec.train.main.aim import CODED_STEP
from pgsvc_codec.train.main.deltas import Deltas
from pgsvc_codec.train.main.fit import REFINED_PRICE, variation
from pgsvc_codec.train.main.motion_field import Nodes, candidates, coded, in_pixels, roughness
from pgsvc_codec.train.main.rebirth import find_rebirths
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.train.rates import betas_of
from pgsvc_codec.train.schedule import half_cosine, layer_weights
from pgsvc_codec.train.tuning import DEFAULTS

_RATE = 0.6  # learning rates in units of an I-frame's
_FIELD_RATE = 0.8  # pixels per step
_WARMUP = 5  # iterations
_FIELD_SHARE = 0.7  # of the iterations have a field that moves; then its vectors are rounded
_PRICE = REFINED_PRICE / CODED_STEP**2  # squared error that a bit of an I-frame is worth, in D^2
_CHANGE_BITS = 6.0  # for each step that a group changes by
_ROUGH_BITS = 2.0  # for each pixel between neighbouring vectors
_FIRST_BIRTHS, _LAST_BIRTHS = 0.2, 0.65  # of the iterations: mere motion should not be taken for something new
_TURNS = 3  # that each layer has, in longer fits
_LEAST_INTERVAL = 3  # iterations between births
_SEARCHED = 1.4  # a field that pixels propose is rough, and must be better by that factor than one that is not
_SPLATS = 0.007  # that an I-frame has, about, per unit of the picture's variation over D
_SPARE = 0.1  # slots that a frame may add, as a share of a layer's
_TINY = 1e-12


class InterFit(NamedTuple):
    """A P-frame as far as floats go; one entry per layer in each list.

    The first slots of a layer are those of the reference, in its order; further ones are new.
    """

    field: MotionField
    predictions: list[Slots]  # of the reference's slots
    splats: list[Splats]
    reborn: list[NDArray[np.bool_]]  # slots that are to be coded whole


class InterProblem(NamedTuple):
    """What a P- or B-frame is fitted to, and at what prices."""

    objective: Objective
    background: NDArray[np.float32]  # [C]
    step_indices: Sequence[int]  # of D in `coding.main.state.STEPS`, for each layer
    level_weights: Sequence[float]
    opponent: bool
    price: float = 1.0  # of a bit, over that of the I-frame whose steps these are

    @property
    def steps(self) -> list[int]:
        """D of each layer."""
        return [STEPS[index] for index in self.step_indices]

    @property
    def lambdas(self) -> list[float]:
        """Squared error, in unit values, that a bit is worth, for each layer.

        Steps alone say it, not the prices that I-frames came to: those also hold the layers to their shares of one
        frame's bits, and splats that are wanted at any price would never rest.
        """
        weights = layer_weights(self.level_weights)
        errors = np.square(np.array(self.steps) / (1 << AMPLITUDE_BITS)) * weights / weights[-1]
        return [float(self.price * _PRICE * error) for error in errors]

    @property
    def size(self) -> tuple[int, int]:
        """Full width and height of the frame."""
        return self.objective.width, self.objective.height


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
    field = _first_field(problem, deltas, luma, spacing, before)
    descent = _Descent(problem, deltas, iterations)
    field = descent.with_field(field, spacing, math.ceil(_FIELD_SHARE * iterations))
    vectors = coded(field, spacing)
    predictions = [predict_inter(slots, vectors) for slots in reference]
    deltas.predict_again([slots.state for slots in predictions])
    descent.run(iterations - descent.done)
    return _result(deltas, vectors, predictions)


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
    _Descent(problem, deltas, iterations, births=False).run(iterations)
    splats = deltas.splats()
    return [splats[start:end] for start, end in pairwise([0, *deltas.ends])]


def _result(deltas: Deltas, field: MotionField, predictions: list[Slots]) -> InterFit:
    splats, layers, reborn = deltas.splats(), [], []
    for layer, slots in enumerate(predictions):
        start = deltas.ends[layer - 1] if layer else 0
        rows = np.arange(start, deltas.ends[layer])
        added = rows[len(slots.state) :]
        rows = np.concatenate([rows[: len(slots.state)], added[deltas.is_new[added]]])
        layers.append(splats[rows])
        reborn.append(deltas.is_new[rows])
    return InterFit(field, predictions, layers, reborn)


def _first_field(
    problem: InterProblem,
    deltas: Deltas,
    luma: NDArray[np.float32],
    spacing: int,
    before: MotionField | None,
) -> NDArray[np.float64]:
    """The field to begin from, [rows, columns, 2] pixels."""
    still = np.zeros((*field_shape(*problem.size, spacing), 2))
    smooth = [still] if before is None else [still, in_pixels(before)]
    searched = [*candidates(luma, problem.objective.targets[-1].picture[0], spacing)]
    nodes = Nodes(deltas.places, spacing, problem.size)
    places = deltas.places
    errors = []
    for field in smooth + searched:
        deltas.places = places + nodes.shifts(field)
        shown = problem.objective.step(
            deltas.splats(), problem.background, deltas.ends, problem.level_weights, with_moments=False
        )
        errors.append(problem.objective.loss(shown.squared_error, problem.level_weights))
    deltas.places = places
    errors[len(smooth) :] = [_SEARCHED * error for error in errors[len(smooth) :]]
    return (smooth + searched)[int(np.argmin(errors))]


class _Descent:
    """Proximal Adam on changes, and plain Adam on a field; means of squares are shared by the numbers of a group."""

    def __init__(self, problem: InterProblem, deltas: Deltas, iterations: int, *, births: bool = True) -> None:
        self.done = 0
        self._problem = problem
        self._deltas = deltas
        self._decay = betas_of(DEFAULTS, iterations)[0]
        self._scale = half_cosine(iterations, _WARMUP)
        pixels = problem.size[0] * problem.size[1] / max(int((~deltas.is_idle).sum()), 1)
        rates = (DEFAULTS.offset_rate, DEFAULTS.shape_rate, DEFAULTS.amplitude_rate * math.sqrt(pixels))
        self._rates = [_RATE * rate for rate in rates]
        self._price = np.array(problem.lambdas)[deltas.layers]  # [N]
        self._first = np.zeros_like(deltas.changes)
        self._second = np.zeros((len(deltas), len(deltas.groups)))
        first, last = math.ceil(_FIRST_BIRTHS * iterations), math.floor(_LAST_BIRTHS * iterations)
        num_layers = len(deltas.ends)
        interval = max((last - first) // (_TURNS * num_layers), _LEAST_INTERVAL)
        turns = range(first, last + 1, interval) if births else ()
        self._turns = {at: turn % num_layers for turn, at in enumerate(turns)}

    def with_field(self, field: NDArray[np.float64], spacing: int, iterations: int) -> NDArray[np.float64]:
        """The next iterations, in which the predictions move with a field; the field that they end with."""
        deltas, problem = self._deltas, self._problem
        still = deltas.places
        nodes = Nodes(still, spacing, problem.size)
        first, second = np.zeros_like(field), np.zeros_like(field)
        price = _ROUGH_BITS * problem.lambdas[0]
        was_new = deltas.is_new.copy()
        scale = half_cosine(iterations, _WARMUP)
        for iteration in range(iterations):
            shifts = nodes.shifts(field)
            deltas.places = np.where(deltas.is_new[:, None], deltas.places, still + shifts)
            gradients = self._iterate()
            born = np.flatnonzero(deltas.is_new & ~was_new)
            nodes.let_go(born)
            was_new[born] = True
            slope = nodes.collect(deltas.to_pixels(gradients)) + price * roughness(field)
            first, second = self._average(first, slope), self._average(second, slope**2)
            bias = 1 - self._decay ** (iteration + 1)
            field = field - _FIELD_RATE * scale(iteration) * (first / bias) / (np.sqrt(second / bias) + _TINY)
        return field

    def run(self, iterations: int) -> None:
        """The next iterations."""
        for _ in range(iterations):
            self._iterate()

    def _average(self, mean: NDArray[np.float64], value: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._decay * mean + (1 - self._decay) * value

    def _iterate(self) -> NDArray[np.float64]:
        """One step of the changes; the gradients that it followed."""
        deltas, problem = self._deltas, self._problem
        splats = deltas.splats()
        step = problem.objective.step(splats, problem.background, deltas.ends, problem.level_weights)
        gradients = deltas.gradients(step.moments)
        self._first = self._average(self._first, gradients)
        bias = 1 - self._decay ** (self.done + 1)
        scale = self._scale(self.done)
        for index, (group, rate) in enumerate(zip(deltas.groups, self._rates, strict=True)):
            mean_square = np.square(gradients[:, group]).mean(axis=1)
            self._second[:, index] = self._average(self._second[:, index], mean_square)
            pace = scale * rate / (np.sqrt(self._second[:, index] / bias) + _TINY)
            changes = deltas.changes[:, group] - pace[:, None] * self._first[:, group] / bias
            units = deltas.units[:, group]
            sizes = np.sqrt(np.square(changes / units).sum(axis=1)) + _TINY
            pull = pace * _CHANGE_BITS * self._price / units.mean(axis=1) ** 2
            kept = np.where(deltas.is_new, 1.0, np.maximum(0.0, 1.0 - pull / sizes))
            deltas.changes[:, group] = kept[:, None] * changes
        deltas.settle()
        layer = self._turns.get(self.done)
        if layer is not None:
            price = problem.lambdas[layer]
            births = find_rebirths(
                deltas, problem.objective, problem.background, splats, step, problem.level_weights, layer, price
            )
            if len(births.rows):
                deltas.place(births.rows, births.splats)
                self._first[births.rows] = 0.0
                self._second[births.rows] = self._second.mean(axis=0)
        self.done += 1
        return gradients
