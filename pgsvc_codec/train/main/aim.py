"""What the fit of an I-frame of the `main` profile is to reach: how fine, and how levels and layers share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main.state import AMPLITUDE_BITS, STEPS
from pgsvc_codec.train.schedule import layer_weights

CODED_STEP = 2.5  # of a fit's D: neighbours absorb each other's errors when splats are rounded one by one

_STEP_60, _STEP_20_FURTHER = 0.165, 0.587  # D of quality 60, and by how much it falls with 20 more: twice the rate
_LESS = 0.5  # weight of a level over that of the next: whoever gets all layers matters most
_LEAST_WEIGHT = 0.125
# Squared errors fall about as rate^-0.7, so at its own rate a level gains rate^-1.7 from a bit.
_SLOPE = 1.7


class Aim(NamedTuple):
    """What a fit is to reach.

    Attributes:
        step: D of the top layer in unit values, before it is widened for coding; with `splats`, where to begin.
        shares: of the bits, per layer; their sum is 1.
        level_weights: of squared errors, per level.
        splats: how many there shall be, D following; None = as many as are worth their bits at this D.
    """

    step: float
    shares: Sequence[float]
    level_weights: Sequence[float]
    splats: int | None = None

    @property
    def weights(self) -> NDArray[np.float64]:
        """[layers] of all levels that a layer is in."""
        return layer_weights(self.level_weights)

    @property
    def ratios(self) -> NDArray[np.float64]:
        """[layers] price of a layer's bits over the top layer's, before shares are looked at."""
        slopes = np.asarray(self.level_weights) * np.cumsum(self.shares) ** -_SLOPE
        prices = layer_weights(slopes)
        return prices / prices[-1]

    @property
    def step_ratios(self) -> NDArray[np.float64]:
        """[layers] D over the top layer's: what a bit costs over what an error does is the same everywhere."""
        ratios: NDArray[np.float64] = np.sqrt(self.ratios * self.weights[-1] / self.weights)
        return ratios


def step_of_quality(quality: float) -> float:
    """D in unit values for a quality of 0..100: twice the rate from one to 20 more, 0.3 bits a pixel at 60."""
    return _STEP_60 * float(_STEP_20_FURTHER ** ((quality - 60) / 20))


def level_weights(num_layers: int, emphasis: Sequence[float] | None = None) -> list[float]:
    """Weights of squared errors, per level, the last being 1 before emphasis."""
    weights = [max(_LESS**above, _LEAST_WEIGHT) for above in range(num_layers - 1, -1, -1)]
    return weights if emphasis is None else [a * b for a, b in zip(weights, emphasis, strict=True)]


def coded_step(step: float) -> int:
    """The index in `STEPS` for splats of a fit with step D in unit values."""
    wanted = math.log2(CODED_STEP * step * (1 << AMPLITUDE_BITS) / STEPS[0])
    return min(max(round(8 * wanted), 0), len(STEPS) - 1)
