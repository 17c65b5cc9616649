"""Splats as changes of what is predicted for them, in the natural coordinates of the predictions.

The coordinates are those of `train.model`, held still at the prediction: places along its own ellipse (2), log l1, t,
log l3, amplitudes.  There the steps of coded differences are plain powers of two times one another, and a change that
is zero is one that costs nothing, which is what a sparse fit needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main.state import (
    AMPLITUDE_BITS,
    MAX_SHEAR,
    MIN_LOG_LENGTH,
    OPPONENT,
    POSITION_BITS,
    SHAPE_BITS,
    classes_of,
)
from pgsvc_codec.splats import Splats, SplatState

_OCTAVE = math.log(2.0)
SHAPE_UNITS = np.array([_OCTAVE, 1.0, _OCTAVE]) / (1 << SHAPE_BITS)  # of states in natural coordinates
_LONGEST = 8.0  # distances between the splats of a frame
POSITION, SHAPE = slice(0, 2), slice(2, 5)  # columns of changes; amplitudes follow

Groups = tuple[slice, slice, slice]


class Deltas:
    """N slots in layers, each at its prediction plus a change.

    Args:
        predictions: of each layer; behind them come `spare` slots without a splat.
        steps: D of each layer.
        spare: of each layer.
        size: full width and height of the frame.
        opponent: amplitudes lie on opponent axes.

    Attributes:
        size: as given.
        ends: cumulative numbers of slots.
        layers: [N] index of each slot's layer.
        changes: [N, 5 + C].
        units: [N, 5 + C] steps of coded differences.
        is_new: [N] slots that hold a splat of their own, which nothing predicts.
        is_idle: [N] slots that hold none.
        places: [N, 2] where predictions lie, in pixels from the upper left corner.
        predicted: the slots of the predictions, which are not spare.
        longest: log length of a splat at most.
    """

    def __init__(
        self,
        predictions: Sequence[SplatState],
        steps: Sequence[int],
        spare: Sequence[int],
        size: tuple[int, int],
        *,
        opponent: bool,
    ) -> None:
        self.size = size
        self._opponent = opponent
        channels = predictions[0].channels
        sizes = [len(layer) + count for layer, count in zip(predictions, spare, strict=True)]
        self.ends = [int(end) for end in np.cumsum(sizes)]
        rows = self.predicted = np.concatenate(
            [np.arange(end - size, end - more) for end, size, more in zip(self.ends, sizes, spare, strict=True)]
        )
        count = self.ends[-1]
        self.places = np.zeros((count, 2))
        self._shapes = np.zeros((count, 3))
        self._amplitudes = np.zeros((count, channels))
        state = SplatState.concatenate(predictions)
        self.places[rows] = state.positions / (1 << POSITION_BITS)
        self._shapes[rows] = state.shapes * SHAPE_UNITS
        self._amplitudes[rows] = state.amplitudes / (1 << AMPLITUDE_BITS)
        classes = np.zeros(count)
        classes[rows] = np.concatenate(
            [classes_of(layer.amplitudes, step) for layer, step in zip(predictions, steps, strict=True)]
        )
        step = np.repeat(np.array(steps) / (1 << AMPLITUDE_BITS), sizes)
        fine = np.exp2(-classes)[:, None]
        self.units = np.asfortranarray(
            np.concatenate([fine * [1, 1, _OCTAVE, 1, _OCTAVE], np.repeat(step[:, None], channels, axis=1)], axis=1)
        )
        # columns lie together: there are few of them, and most work goes along them
        self.changes = np.zeros((count, 5 + channels), order="F")
        self.is_new = np.zeros(count, np.bool_)
        self.is_idle: NDArray[np.bool_] = np.all(self._amplitudes == 0, axis=1)
        self.layers = np.repeat(np.arange(len(sizes)), sizes)
        self.longest = math.log(_LONGEST * math.sqrt(size[0] * size[1] / max(len(rows), 1)))
        self._measure()

    def __len__(self) -> int:
        return self.ends[-1]

    @property
    def groups(self) -> Groups:
        """Columns of places, shapes and amplitudes: what one flag each is coded for."""
        return POSITION, SHAPE, slice(SHAPE.stop, self.changes.shape[1])

    def _measure(self) -> None:
        self._l1, self._l3 = np.exp(self._shapes[:, ::2]).T
        self._l2 = self._shapes[:, 1] * self._l3

    def place(self, rows: NDArray[np.intp], splats: Splats) -> None:
        """Put new splats into slots, one each."""
        l1, l2, l3 = splats.cholesky.T.astype(np.float64)
        l2, l1, l3 = l2 * np.sign(l1), np.abs(l1), np.abs(l3)  # a column of L may change sign
        self.places[rows] = (splats.means.astype(np.float64) + 1) * self.size / 2
        self._shapes[rows] = np.stack([np.log(l1), l2 / l3, np.log(l3)], axis=1)
        colors = splats.colors.astype(np.float64)
        axes = colors @ OPPONENT.T if self._opponent else colors
        self._amplitudes[rows] = axes * np.sqrt(math.pi * l1 * l3)[:, None]
        self.changes[rows] = 0.0
        self.is_new[rows] = True
        self.is_idle[rows] = False
        self._measure()

    def predictions(self, rows: NDArray[np.intp] | slice) -> NDArray[np.float64]:
        """[n, 5 + C] places in pixels, log l1, t, log l3, amplitudes of some slots before their changes."""
        return np.concatenate([self.places[rows], self._shapes[rows], self._amplitudes[rows]], axis=1)

    def _values(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Places, shapes, amplitudes after the changes."""
        along, across = self.changes[:, POSITION].T
        shifts = np.stack([self._l1 * along, self._l2 * along + self._l3 * across], axis=1)
        return (
            self.places + shifts,
            self._shapes + self.changes[:, SHAPE],
            self._amplitudes + self.changes[:, SHAPE.stop :],
        )

    def splats(self) -> Splats:
        """All slots as a renderer wants them; idle ones have no colour."""
        places, shapes, amplitudes = self._values()
        l1, shear, l3 = np.exp(shapes[:, 0]), shapes[:, 1], np.exp(shapes[:, 2])
        axes = amplitudes @ OPPONENT if self._opponent else amplitudes
        colors = axes / np.sqrt(math.pi * l1 * l3)[:, None]
        means = places / (np.array(self.size) / 2) - 1
        cholesky = np.stack([l1, shear * l3, l3], axis=1)
        return Splats(means.astype(np.float32), cholesky.astype(np.float32), colors.astype(np.float32))

    def gradients(self, moments: NDArray[np.float32]) -> NDArray[np.float64]:
        """[N, 5 + C] of `changes`, from the moments [N, C + 5] of `reference.StepResult`; see `train.model`."""
        _, shapes, amplitudes = self._values()
        channels = amplitudes.shape[1]
        l1, shear, l3 = np.exp(shapes[:, 0]), shapes[:, 1], np.exp(shapes[:, 2])
        columns = moments.astype(np.float64)
        colors = columns[:, :channels] @ OPPONENT.T if self._opponent else columns[:, :channels]
        along, across, m11, m12, m22 = columns[:, channels:].T
        energy = np.sqrt(math.pi * l1 * l3)
        down = across / l3
        right = (along - shear * l3 * down) / l1
        dilution = 0.5 * (colors * amplitudes).sum(axis=1) / energy
        coupled = shear * m12
        gradients = np.empty_like(self.changes)
        gradients[:, 0] = self._l1 * right + self._l2 * down
        gradients[:, 1] = self._l3 * down
        gradients[:, 2] = m11 - coupled - dilution
        gradients[:, 3] = m12
        gradients[:, 4] = coupled + m22 - dilution
        gradients[:, SHAPE.stop :] = colors / energy[:, None]
        gradients[self.is_idle] = 0.0
        return gradients

    def to_pixels(self, gradients: NDArray[np.float64]) -> NDArray[np.float64]:
        """[N, 2] gradients of places in pixels from those of `changes`."""
        down = gradients[:, 1] / self._l3
        return np.stack([(gradients[:, 0] - self._l2 * down) / self._l1, down], axis=1)

    def settle(self) -> None:
        """Bring shapes back to what states can be."""
        shapes = self._shapes + self.changes[:, SHAPE]
        lengths = np.clip(shapes[:, ::2], MIN_LOG_LENGTH * SHAPE_UNITS[0], self.longest)
        steepest = MAX_SHEAR * SHAPE_UNITS[1]
        bounded = np.stack([lengths[:, 0], np.clip(shapes[:, 1], -steepest, steepest), lengths[:, 1]], axis=1)
        moved = bounded != shapes
        self.changes[:, SHAPE][moved] = (bounded - self._shapes)[moved]

    def predict_again(self, predictions: Sequence[SplatState]) -> None:
        """Move predictions while splats that have moved by themselves, or are new, stay where they are.

        Args:
            predictions: of each layer, as those before but for their positions.
        """
        now, rows = self._values()[0], self.predicted[~self.is_new[self.predicted]]
        places = self.places.copy()
        places[self.predicted] = np.concatenate([layer.positions for layer in predictions]) / (1 << POSITION_BITS)
        self.places[rows] = places[rows]
        moved = rows[self.changes[rows, POSITION].any(axis=1)]
        x, y = (now[moved] - self.places[moved]).T
        along = x / self._l1[moved]
        across = (y - self._l2[moved] * along) / self._l3[moved]
        self.changes[moved, POSITION] = np.stack([along, across], axis=1)
