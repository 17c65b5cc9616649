"""Iterations of the fit of a P- or B-frame: proximal Adam on changes, and plain Adam on a field that they ride on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.splats import Splats, SplatState
from pgsvc_codec.train.main.deltas import Deltas
from pgsvc_codec.train.main.motion_field import Nodes, roughness
from pgsvc_codec.train.main.problem import InterProblem
from pgsvc_codec.train.main.rebirth import find_rebirths

CHANGE_BITS = 6.0  # for each step that a group changes by
TINY = 1e-12
FIELD_RATE = 0.8  # pixels per step
ROUGH_BITS = 2.0  # for each pixel between neighbouring vectors


class Pace(NamedTuple):
    """How fast a fit goes."""

    rates: tuple[float, float, float]  # learning rates of places, shapes and amplitudes
    scales: Sequence[float]  # factor on them in each iteration
    field_scales: Sequence[float]  # likewise of the field's, in those that have one
    decay: float  # of the means of gradients and of their squares


class Changes(Protocol):
    """The slots of one frame while they are fitted, wherever that is."""

    def errors(self, fields: Sequence[NDArray[np.float64]]) -> list[float]:
        """The loss of the predictions as each of the fields [rows, columns, 2], in pixels, carries them."""
        ...

    def follow(self, field: NDArray[np.float64]) -> None:
        """From here on predictions move with a field, which is fitted too."""
        ...

    def fitted_field(self) -> NDArray[np.float64]:
        """The field as it is now; predictions stay where it has carried them."""
        ...

    def predict_again(self, predictions: Sequence[SplatState]) -> None:
        """As `Deltas.predict_again`."""
        ...

    def run(self, iterations: int) -> None:
        """The next iterations."""
        ...

    def bear(self, layer: int) -> None:
        """Put new splats into slots of a layer where that pays, see `rebirth`."""
        ...

    def splats(self) -> Splats:
        """All slots."""
        ...


class HostChanges:
    """`Changes` in NumPy, on the rasteriser of the problem's objective.

    Args:
        problem: the frame.
        deltas: its slots, changed in place.
        pace: of the fit.
        spacing: pixels from node to node of a field.
    """

    def __init__(self, problem: InterProblem, deltas: Deltas, pace: Pace, spacing: int) -> None:
        self._problem = problem
        self._deltas = deltas
        self._pace = pace
        self._nodes = Nodes(deltas.places, spacing, problem.size)
        self._still = deltas.places
        self._field: _Field | None = None
        self._price = np.array(problem.lambdas)[deltas.layers]  # [N]
        self._first = np.zeros_like(deltas.changes)
        self._second = np.zeros((len(deltas), len(deltas.groups)))
        self._done = 0

    def errors(self, fields: Sequence[NDArray[np.float64]]) -> list[float]:
        """As `Changes.errors`."""
        deltas, problem = self._deltas, self._problem
        errors = []
        for field in fields:
            deltas.places = self._still + self._nodes.shifts(field)
            shown = problem.objective.step(
                deltas.splats(), problem.background, deltas.ends, problem.level_weights, with_moments=False
            )
            errors.append(problem.objective.loss(shown.squared_error, problem.level_weights))
        deltas.places = self._still
        return errors

    def follow(self, field: NDArray[np.float64]) -> None:
        """As `Changes.follow`."""
        self._field = _Field(field, self._pace, field_price(self._problem))

    def fitted_field(self) -> NDArray[np.float64]:
        """As `Changes.fitted_field`."""
        assert self._field is not None
        self._move(self._field)
        field, self._field = self._field.vectors, None
        return field

    def predict_again(self, predictions: Sequence[SplatState]) -> None:
        """As `Changes.predict_again`."""
        self._deltas.predict_again(predictions)

    def run(self, iterations: int) -> None:
        """As `Changes.run`."""
        deltas, problem = self._deltas, self._problem
        for _ in range(iterations):
            if self._field is not None:
                self._move(self._field)
                carried = self._still + self._nodes.shifts(self._field.vectors)
                deltas.places = np.where(deltas.is_new[:, None], deltas.places, carried)
            self._splats = deltas.splats()
            self._step = problem.objective.step(self._splats, problem.background, deltas.ends, problem.level_weights)
            self._descend(deltas.gradients(self._step.moments))
            self._done += 1

    def bear(self, layer: int) -> None:
        """As `Changes.bear`."""
        births = find_rebirths(self._deltas, self._problem, self._splats, self._step, layer)
        if len(births.rows):
            self._deltas.place(births.rows, births.splats)
            self._nodes.let_go(births.rows)
            self._first[births.rows] = 0.0
            self._second[births.rows] = self._second.mean(axis=0)

    def splats(self) -> Splats:
        """As `Changes.splats`."""
        return self._deltas.splats()

    def _move(self, field: _Field) -> None:
        """Let the field follow the gradients of the last iteration, which is when births have been let go."""
        if self._done:
            field.descend(self._nodes.collect(self._deltas.to_pixels(self._gradients)), self._done)

    def _descend(self, gradients: NDArray[np.float64]) -> None:
        """One step of the changes."""
        deltas, pace = self._deltas, self._pace
        self._gradients = gradients
        self._first = _average(self._first, gradients, pace.decay)
        bias = 1 - pace.decay ** (self._done + 1)
        scale = pace.scales[self._done]
        for index, (group, rate) in enumerate(zip(deltas.groups, pace.rates, strict=True)):
            mean_square = np.square(gradients[:, group]).mean(axis=1)
            self._second[:, index] = _average(self._second[:, index], mean_square, pace.decay)
            length = scale * rate / (np.sqrt(self._second[:, index] / bias) + TINY)
            changes = deltas.changes[:, group] - length[:, None] * self._first[:, group] / bias
            units = deltas.units[:, group]
            sizes = np.sqrt(np.square(changes / units).sum(axis=1)) + TINY
            pull = length * CHANGE_BITS * self._price / units.mean(axis=1) ** 2
            kept = np.where(deltas.is_new, 1.0, np.maximum(0.0, 1.0 - pull / sizes))
            deltas.changes[:, group] = kept[:, None] * changes
        deltas.settle()


def field_price(problem: InterProblem) -> float:
    """Squared error that a pixel between neighbouring vectors is worth."""
    return ROUGH_BITS * problem.lambdas[0]


class _Field:
    """A field in pixels that a fit moves.

    Attributes:
        vectors: [rows, columns, 2].
    """

    def __init__(self, vectors: NDArray[np.float64], pace: Pace, price: float) -> None:
        self.vectors = vectors
        self._pace = pace
        self._price = price
        self._first, self._second = np.zeros_like(vectors), np.zeros_like(vectors)

    def descend(self, pulled: NDArray[np.float64], done: int) -> None:
        """One step, after so many iterations, by what places pull at its nodes and by what it costs itself."""
        decay = self._pace.decay
        slope = pulled + self._price * roughness(self.vectors)
        self._first = _average(self._first, slope, decay)
        self._second = _average(self._second, slope**2, decay)
        bias = 1 - decay**done
        length = FIELD_RATE * self._pace.field_scales[done - 1]
        self.vectors = self.vectors - length * (self._first / bias) / (np.sqrt(self._second / bias) + TINY)


def _average(mean: NDArray[np.float64], value: NDArray[np.float64], decay: float) -> NDArray[np.float64]:
    return decay * mean + (1 - decay) * value
