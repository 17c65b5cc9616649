"""Moving splats to where a P-frame needs them: rate-aware pruning and augmentation (paper, GSP and GSA).

The paper prunes by a learned weight and injects at random, a fixed share of the splats in every frame.  Here both
sides have a price in squared error, and a splat moves only where it pays:

    removal   what the loss rises by without splat n, exact for one splat: W |c|^2 pi l1 l3 - c . dloss/dc
    birth     what a new splat of the layer's usual size would take off: |sum g R|^2 / (W sum g^2), a matched filter

with R the layer's weighted residual, W the weights of the levels it is in.  A moved splat costs more bits than one
that stays, so the gain must exceed what those bits would buy elsewhere.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from pgsvc_codec.picture import UnitFrame
from pgsvc_codec.splats import Splats

_MOST_MOVED = (0.2, 0.4)  # share of the base layer, of an enhancement layer: the paper's N_prune
_BIRTH_YIELD = 0.7  # of the matched filter's gain is left once neighbours have found the error too
_BIRTH_COLOR = 0.6  # of the filter's amplitude: births in neighbouring cells overlap
_MOVE_BITS = 15.0  # what a moved splat costs beyond one that stays
SPLAT_BITS = 40.0  # a coded splat, all in; turns the error of a frame into a price per bit


def price_of_bits(squared_error: float, num_splats: int) -> float:
    """Squared error that one bit is worth: the slope of error over rate, which halves as the rate doubles."""
    return squared_error / (SPLAT_BITS * max(num_splats, 1))


class Births(NamedTuple):
    """Candidates for new splats of one layer, best first."""

    gains: NDArray[np.float64]  # [K] squared error
    splats: Splats


def birth_candidates(
    residual: UnitFrame,  # sum over the layer's levels of weight * (source - level), per plane
    weight: float,  # sum of those weights
    length: float,  # full-size pixels, standard deviation of the new splats
    full_width: int,  # of the frame; the residual's level may be smaller
) -> Births:
    """The best place in each cell of twice the splats' size, by a matched filter over the residual."""
    height, width = residual[0].shape
    pitch = full_width / width
    length /= pitch  # from here on in samples of the level
    filtered = []
    for plane in residual:
        scale = plane.shape[1] / width
        filtered.append(gaussian_filter(plane, max(length * scale, 0.3), mode="constant", truncate=3.0))
    # sum g R = 2 pi s^2 * filtered, sum g^2 = pi s^2; planes of the luma's size decide where
    score = sum(plane.astype(np.float64) ** 2 for plane in filtered if plane.shape == (height, width))
    gains = 4 * math.pi * (length * pitch) ** 2 / weight * score
    cell = max(2, round(2 * length))
    rows, columns = -(-height // cell), -(-width // cell)
    padded = np.full((rows * cell, columns * cell), -1.0)
    padded[:height, :width] = gains
    cells = padded.reshape(rows, cell, columns, cell).transpose(0, 2, 1, 3).reshape(rows * columns, cell * cell)
    inside = cells.argmax(axis=1)
    y = np.arange(rows * columns) // columns * cell + inside // cell
    x = np.arange(rows * columns) % columns * cell + inside % cell
    order = np.argsort(-gains[y, x], kind="stable")
    x, y = x[order], y[order]
    colors = [
        2 * _BIRTH_COLOR / weight * plane[y * plane.shape[0] // height, x * plane.shape[1] // width]
        for plane in filtered
    ]
    means = np.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], axis=1).astype(np.float32)
    cholesky = np.tile(np.array([length * pitch, 0.0, length * pitch], np.float32), (len(x), 1))
    return Births(gains[y, x], Splats(means, cholesky, np.stack(colors, axis=1).astype(np.float32)))


def choose_moves(costs: NDArray[np.float64], births: Births, price: float, *, base: bool) -> int:
    """How many of a layer's cheapest splats should go for as many of the best births."""
    most = min(int(_MOST_MOVED[0 if base else 1] * len(costs)), len(births.gains))
    profit = _BIRTH_YIELD * births.gains[:most] - np.sort(costs)[:most] - price * _MOVE_BITS
    # gains fall and costs rise, so profits end once and for all
    return int((profit > 0).sum())
