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
from numpy.typing import NDArray

from pgsvc_codec.jit import kernel
from pgsvc_codec.picture import UnitFrame
from pgsvc_codec.splats import Splats

_LARGEST = 0.18  # distances between splats of the layer; more is better shown by splats that are there already
_CLEARANCE = 2.0  # standard deviations around a taken place in which no other splat is put
_CELL = 2  # samples; how finely taken places are remembered
_COLOR = 0.6  # of the filter's amplitude: births side by side, and neighbours, go for the same error
REACH = 3.0  # standard deviations over which colours are summed
_SIZE = 0.7  # of the filter's deviation: splats that start small find their shape faster
_SHORTEST = 0.6  # sample
_SPARE = 8  # candidates for each place wanted, to choose from


class Births(NamedTuple):
    """Candidates for new splats of one layer, best first."""

    gains: NDArray[np.float64]  # [K] squared error, in full-size pixels
    splats: Splats


class Octave(NamedTuple):
    """Two sizes of the pyramid, sampled alike."""

    size: tuple[int, int]  # width and height in its own samples
    step: int  # samples of the residual from one of them to the next
    deviations: tuple[float, float]  # of the two filters, in samples of the residual

    @property
    def gains(self) -> tuple[np.float32, np.float32]:
        """Factors from |filtered residual|^2 to what a splat of that size takes off."""
        once, twice = (np.float32(4 * math.pi * deviation**2) for deviation in self.deviations)
        return once, twice


def octaves(width: int, height: int, layer_size: int) -> list[Octave]:
    """Those in which births are looked for: up to a share of the distances between a layer's splats."""
    largest = _LARGEST * math.sqrt(width * height / max(layer_size, 1))
    found: list[Octave] = []
    variance, step = 0.0, 1  # of the filters so far, in samples; between samples of this octave
    while min(width, height) >= 2:
        once, twice = (math.sqrt(variance + passes * step * step) for passes in (1, 2))
        found.append(Octave((width, height), step, (once, twice)))
        if twice >= largest:
            break
        variance += step * step
        step *= 2
        width, height = (width + 1) // 2, (height + 1) // 2
    return found


def most_candidates(most: int) -> int:
    """Among how many candidates births are chosen."""
    return _SPARE * most


class Places(NamedTuple):
    """Where K round splats should be, in samples of the residual's first plane, best first."""

    gains: NDArray[np.float64]  # [K] of the weighted squared error in samples
    x: NDArray[np.float64]  # [K] columns
    y: NDArray[np.float64]  # [K] rows
    deviations: NDArray[np.float64]  # [K] of the splats

    def on(self, plane: tuple[int, int], first: tuple[int, int]) -> NDArray[np.float64]:
        """[4, K] x, y and the deviations across and down in samples of another plane of the same picture.

        Args:
            plane: height and width.
            first: likewise of the first plane.
        """
        down, across = plane[0] / first[0], plane[1] / first[1]
        return np.stack(
            [
                (self.x + 0.5) * across - 0.5,
                (self.y + 0.5) * down - 0.5,
                self.deviations * across,
                self.deviations * down,
            ]
        )

    def births(
        self, colors: NDArray[np.float32], weight: float, first: tuple[int, int], full_size: tuple[int, int]
    ) -> Births:
        """The splats.

        Args:
            colors: [K, C] sum g R / sum g^2 of each over each plane.
            weight: see `find_births`; likewise full_size.
            first: height and width of the residual's first plane.
        """
        height, width = first
        pitch = np.array([full_size[0] / width, full_size[1] / height])
        lengths = self.deviations[:, None] * pitch
        cholesky = np.stack([lengths[:, 0], np.zeros(len(self.x)), lengths[:, 1]], axis=1).astype(np.float32)
        means = np.stack([(2 * self.x + 1) / width - 1, (2 * self.y + 1) / height - 1], axis=1).astype(np.float32)
        gains = self.gains * pitch.prod() / weight
        return Births(gains, Splats(means, cholesky, colors * np.float32(_COLOR / weight)))


def choose_places(candidates: NDArray[np.float64], most: int, width: int, height: int) -> Places:
    """At most `most` of the candidates, taken greedily.

    Args:
        candidates: [K, 4] gain, x, y, deviation of the filter, in samples, best first.
        most: as that of `find_births`.
        width: samples per row of the residual's first plane.
        height: its rows.
    """
    gains, x, y, deviations = candidates[_choose(candidates, most, width, height)].T
    return Places(gains, x, y, np.maximum(_SIZE * deviations, _SHORTEST))


def find_births(residual: UnitFrame, weight: float, full_size: tuple[int, int], layer_size: int, most: int) -> Births:
    """The best places for at most `most` new splats of one layer.

    Args:
        residual: sum over the layer's levels of level weight * (source - level), per plane.
        weight: sum of those level weights.
        full_size: width and height of the frame; the residual's level may be smaller.
        layer_size: splats of the layer.
        most: K is at most that.
    """
    first = height, width = residual[0].shape
    level = np.stack([plane for plane in residual if plane.shape == first])
    found: list[NDArray[np.float64]] = []  # rows of gain, x, y, deviation in samples
    for octave in octaves(width, height, layer_size):
        once = _binomial(level)
        peaks = _peaks(once, _binomial(once), *octave.gains)
        sizes = np.where(peaks[:, 3] > 0, octave.deviations[1], octave.deviations[0])
        found.append(np.column_stack([peaks[:, 0], peaks[:, 1:3] * octave.step, sizes]))
        level = np.ascontiguousarray(once[:, ::2, ::2])
    candidates = np.concatenate(found) if found else np.empty((0, 4))
    if len(candidates) > most_candidates(most):
        candidates = candidates[np.argpartition(-candidates[:, 0], most_candidates(most))[: most_candidates(most)]]
    candidates = candidates[np.argsort(-candidates[:, 0], kind="stable")]
    places = choose_places(candidates, most, width, height)
    colors = np.empty((len(places.x), len(residual)), np.float32)
    for channel, plane in enumerate(residual):
        x, y, across, down = places.on(plane.shape, first)
        _colors(np.ascontiguousarray(plane), x, y, across, down, colors[:, channel])
    return places.births(colors, weight, first, full_size)


@kernel()
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


@kernel()
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


@kernel()
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


@kernel()
def _colors(plane, xs, ys, across, down, colors):
    """sum g R / sum g^2 of round splats on one plane, into colors [K]."""
    height, width = plane.shape
    for k in range(len(xs)):
        x, y = xs[k], ys[k]
        x_reach, y_reach = REACH * across[k], REACH * down[k]
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
