"""Where new splats would take off most error: a matched filter over the residual, at many sizes.

A round splat g of standard deviation s, put over a residual R with the best colour, takes

    |sum g R|^2 / (W sum g^2)

off the weighted squared error, W the weight of the levels it is in.  Sums g R at all places and sizes are low-passed
residuals: a pyramid of binomial filters has them at two sizes an octave, each sampled as densely as it needs.  What
the pyramid proposes is taken greedily, best first, at places that are not taken already; colours come from exact
sums over the chosen places.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pgsvc_codec.picture import UnitFrame
from pgsvc_codec.splats import Splats

_OCTAVES = 3  # from 1 to 6 samples; what is larger is better shown by splats that are there already
_CLEARANCE = 2.0  # standard deviations around a taken place in which no other splat is put
_CELL = 2  # samples; how finely taken places are remembered
_COLOR = 0.6  # of the filter's amplitude: births side by side, and neighbours, go for the same error
_REACH = 3.0  # standard deviations over which colours are summed
_SHORTEST = 1.0  # sample


class Births(NamedTuple):
    """Candidates for new splats of one layer, best first."""

    gains: NDArray[np.float64]  # [K] squared error, in full-size pixels
    splats: Splats


def find_births(residual: UnitFrame, weight: float, full_size: tuple[int, int], most: int) -> Births:
    """The best places for at most `most` new splats of one layer.

    Args:
        residual: sum over the layer's levels of level weight * (source - level), per plane.
        weight: sum of those level weights.
        full_size: width and height of the frame; the residual's level may be smaller.
        most: K is at most that.
    """
    height, width = residual[0].shape
    guide = np.stack([plane for plane in residual if plane.shape == (height, width)])
    places: list[NDArray[np.float64]] = []  # rows of gain, x, y, s in samples
    octave = guide
    variance, step = 0.0, 1  # of the filters so far, in samples; between samples of this octave
    for _ in range(_OCTAVES):
        if min(octave.shape[1:]) < 2:
            break
        once = _binomial(octave)
        twice = _binomial(once)
        for filtered, passes in ((once, 1), (twice, 2)):
            deviation = math.sqrt(variance + passes * step * step)
            peaks = _peaks(filtered)
            peaks[:, 0] *= 4 * math.pi * deviation**2
            peaks[:, 1:] = peaks[:, 1:] * step
            places.append(np.column_stack([peaks, np.full(len(peaks), deviation)]))
        variance += step * step
        step *= 2
        octave = np.ascontiguousarray(once[:, ::2, ::2])
    candidates = np.concatenate(places) if places else np.empty((0, 4))
    candidates = candidates[np.argsort(-candidates[:, 0], kind="stable")]
    chosen = candidates[_choose(candidates, most, width, height, _CLEARANCE)]

    pitch = np.array([full_size[0] / width, full_size[1] / height])
    x, y, deviation = chosen[:, 1], chosen[:, 2], np.maximum(chosen[:, 3], _SHORTEST)
    colors = np.empty((len(chosen), len(residual)), np.float32)
    for channel, plane in enumerate(residual):
        scale = np.array([plane.shape[1] / width, plane.shape[0] / height])
        _colors(np.ascontiguousarray(plane), (x + 0.5) * scale[0] - 0.5, (y + 0.5) * scale[1] - 0.5,
                deviation * scale[0], deviation * scale[1], colors[:, channel])  # fmt: skip
    lengths = deviation[:, None] * pitch
    cholesky = np.stack([lengths[:, 0], np.zeros(len(chosen)), lengths[:, 1]], axis=1).astype(np.float32)
    means = np.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], axis=1).astype(np.float32)
    gains = chosen[:, 0] * pitch.prod() / weight
    return Births(gains, Splats(means, cholesky, colors * np.float32(_COLOR / weight)))


@njit(cache=True)
def _binomial(planes):
    """[C, h, w] filtered by 1 4 6 4 1 over 16 both ways: variance 1 sample^2; zero beyond the borders."""
    channels, height, width = planes.shape
    out = np.empty_like(planes)
    line = np.zeros(width + 4, np.float32)
    for c in range(channels):
        plane = planes[c]
        for y in range(height):
            up2, up1 = plane[max(y - 2, 0)], plane[max(y - 1, 0)]
            down1, down2 = plane[min(y + 1, height - 1)], plane[min(y + 2, height - 1)]
            a2, a1 = np.float32(y >= 2) / np.float32(16), np.float32(y >= 1) / np.float32(4)
            b1, b2 = np.float32(y + 1 < height) / np.float32(4), np.float32(y + 2 < height) / np.float32(16)
            middle = plane[y]
            for x in range(width):
                line[x + 2] = a2 * up2[x] + a1 * up1[x] + np.float32(0.375) * middle[x] + b1 * down1[x] + b2 * down2[x]
            for x in range(width):
                out[c, y, x] = (
                    np.float32(0.0625) * (line[x] + line[x + 4])
                    + np.float32(0.25) * (line[x + 1] + line[x + 3])
                    + np.float32(0.375) * line[x + 2]
                )
    return out


@njit(cache=True)
def _peaks(planes):
    """[K, 3] energy over the channels, x and y of its local maxima."""
    channels, height, width = planes.shape
    energy = np.zeros((height + 2, width + 2), np.float32)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                energy[y + 1, x + 1] += planes[c, y, x] * planes[c, y, x]
    found = np.empty((height * width, 3), np.float64)
    count = 0
    for y in range(1, height + 1):
        for x in range(1, width + 1):
            here = energy[y, x]
            # of equal neighbours the first in raster order is the peak
            if (
                here > energy[y, x - 1] and here >= energy[y, x + 1]
                and here > energy[y - 1, x - 1] and here > energy[y - 1, x] and here > energy[y - 1, x + 1]
                and here >= energy[y + 1, x - 1] and here >= energy[y + 1, x] and here >= energy[y + 1, x + 1]
            ):  # fmt: skip
                found[count, 0] = here
                found[count, 1] = x - 1
                found[count, 2] = y - 1
                count += 1
    return found[:count].copy()


@njit(cache=True)
def _choose(candidates, most, width, height, clearance):
    """Indices of the candidates, best first, that keep clear of better ones."""
    taken = np.zeros((height // _CELL + 1, width // _CELL + 1), np.bool_)
    chosen = np.empty(most, np.int64)
    count = 0
    for k in range(len(candidates)):
        if count == most:
            break
        x, y = int(candidates[k, 1]) // _CELL, int(candidates[k, 2]) // _CELL
        if taken[y, x]:
            continue
        reach = int(clearance * candidates[k, 3] / _CELL)
        taken[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1] = True
        chosen[count] = k
        count += 1
    return chosen[:count]


@njit(cache=True)
def _colors(plane, xs, ys, across, down, colors):
    """sum g R / sum g^2 of round splats on one plane, into colors [K]."""
    height, width = plane.shape
    for k in range(len(xs)):
        x, y = xs[k], ys[k]
        x_reach, y_reach = _REACH * across[k], _REACH * down[k]
        x0, x1 = max(math.ceil(x - x_reach), 0), min(math.floor(x + x_reach), width - 1)
        y0, y1 = max(math.ceil(y - y_reach), 0), min(math.floor(y + y_reach), height - 1)
        pulled, energy = 0.0, 0.0
        for row in range(y0, y1 + 1):
            dy = (row - y) / down[k]
            for column in range(x0, x1 + 1):
                dx = (column - x) / across[k]
                g = math.exp(-0.5 * (dx * dx + dy * dy))
                pulled += g * plane[row, column]
                energy += g * g
        colors[k] = pulled / energy if energy > 0.0 else 0.0
