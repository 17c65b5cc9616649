"""What a P- or B-frame of the `main` profile is fitted to, and at what prices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main.state import AMPLITUDE_BITS, STEPS
from pgsvc_codec.train.main.aim import CODED_STEP
from pgsvc_codec.train.main.fit import REFINED_PRICE
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.train.schedule import layer_weights

_PRICE = REFINED_PRICE / CODED_STEP**2  # squared error that a bit of an I-frame is worth, in D^2


class InterProblem(NamedTuple):
    """A frame."""

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
