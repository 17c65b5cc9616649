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

_LARGEST = 0.18  # distances between splats of the layer; more is better shown by splats that are there already
_CLEARANCE = 2.0  # standard deviations around a taken place in which no other splat is put
_CELL = 2  # samples; how finely taken places are remembered
_COLOR = 0.6  # of the filter's amplitude: births side by side, and neighbours, go for the same error
_REACH = 3.0  # standard deviations over which colours are summed
_SIZE = 0.7  # of the filter's deviation: splats that start small find their shape faster
_SHORTEST = 0.6  # sample
_SPARE = 8  # candidates for each place wanted, to choose from


class Births(NamedTuple):
    """Candidates for new splats of one layer, best first."""

    gains: NDArray[np.float64]  # [K] squared error, in full-size pixels
    splats: Splats


def find_births(residual: UnitFrame, weight: float, full_size: tuple[int, int], layer_size: int, most: int) -> Births:
    """The best places for at most `most` new splats of one layer.

    Args:
        residual: sum over the layer's levels of level weight * (source - level), per plane.
        weight: sum of those level weights.
        full_size: width and height of the frame; the residual's level may be smaller.
        layer_size: splats of the layer.
        most: K is at most that.
    """
    height, width = residual[0].shape
    guide = np.stack([plane for plane in residual if plane.shape == (height, width)])
    largest = _LARGEST * math.sqrt(width * height / max(layer_size, 1))
    places: list[NDArray[np.float64]] = []  # rows of gain, x, y, s in samples
    octave = guide
    variance, step = 0.0, 1  # of the filters so far, in samples; between samples of this octave
    while min(octave.shape[1:]) >= 2:
        once = _binomial(octave)
        twice = _binomial(once)
        deviations = [math.sqrt(variance + passes * step * step) for passes in (1, 2)]
        gains = [4 * math.pi * deviation**2 for deviation in deviations]
        peaks = _peaks(once, twice, np.float32(gains[0]), np.float32(gains[1]))
        sizes = np.where(peaks[:, 3] > 0, deviations[1], deviations[0])
        places.append(np.column_stack([peaks[:, 0], peaks[:, 1:3] * step, sizes]))
        variance += step * step
        step *= 2
        if deviations[1] >= largest:
            break
        octave = np.ascontiguousarray(once[:, ::2, ::2])
    candidates = np.concatenate(places) if places else np.empty((0, 4))
    if len(candidates) > _SPARE * most:
        candidates = candidates[np.argpartition(-candidates[:, 0], _SPARE * most)[: _SPARE * most]]
    candidates = candidates[np.argsort(-candidates[:, 0], kind="stable")]
    chosen = candidates[_choose(candidates, most, width, height)]

    pitch = np.array([full_size[0] / width, full_size[1] / height])
    x, y, deviation = chosen[:, 1], chosen[:, 2], np.maximum(_SIZE * chosen[:, 3], _SHORTEST)
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
def _peaks(once, twice, once_gain, twice_gain):
    """[K, 4] local maxima of the better of two filters: gain, x, y and which it is, 0 or 1."""
    channels, height, width = once.shape
    best = np.zeros((3, width + 2), np.float32)  # three rows, in turn
    second = np.zeros((3, width + 2), np.bool_)
    around = np.empty(width, np.float32)
    found = np.empty((height * width, 4), np.float64)
    count = 0
    for y in range(height + 1):
        new, new_is_second = best[y % 3], second[y % 3]
        for x in range(width):
            new[x + 1] = np.float32(0)
        if y < height:
            for x in range(width):
                energy, other = np.float32(0), np.float32(0)
                for c in range(channels):
                    energy += once[c, y, x] * once[c, y, x]
                    other += twice[c, y, x] * twice[c, y, x]
                energy, other = once_gain * energy, twice_gain * other
                new_is_second[x + 1] = other > energy
                new[x + 1] = other if other > energy else energy
        if y == 0:
            continue
        above, row = best[(y - 2) % 3], best[(y - 1) % 3]
        for x in range(width):
            most = row[x] if row[x] > row[x + 2] else row[x + 2]
            for near in (above, new):
                most = near[x] if near[x] > most else most
                most = near[x + 1] if near[x + 1] > most else most
                most = near[x + 2] if near[x + 2] > most else most
            around[x] = most
        for x in range(width):
            if row[x + 1] > around[x]:
                found[count, 0] = row[x + 1]
                found[count, 1] = x
                found[count, 2] = y - 1
                found[count, 3] = second[(y - 1) % 3, x + 1]
                count += 1
    return found[:count].copy()


@njit(cache=True)
def _choose(candidates, most, width, height):
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
        reach = int(_CLEARANCE * candidates[k, 3] / _CELL)
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
