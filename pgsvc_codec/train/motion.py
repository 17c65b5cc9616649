"""Motion between two frames of the source, carried onto splats: where a P-frame's fit starts.

A field of blocks, searched coarsely at a quarter of the size and then finely, is what key frames are decided by; every
splat then chooses among the vectors around it by what its own surroundings do, and refines the best to a fraction of
a pixel.  Luma only; the fit does the rest.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from pgsvc_codec.jit import kernel
from pgsvc_codec.splats import Splats

BLOCK = 16  # pixels
SHRINK = 4  # pixels of a sample of the coarse search
COARSE_BLOCK = 8  # samples
RANGE = 16  # samples of the coarse search each way
FINE_RANGE = 3  # pixels each way, around what the coarse search found
SMOOTHNESS = 0.5 / 255  # unit values per pixel of the block that a longer vector must save, per pixel of length

_WINDOW = 2.5  # standard deviations of a splat that take part in its own search
_LEAST_WINDOW, _MOST_WINDOW = 4, 16  # pixels each way
STEPS = 4  # whole pixels that a splat may leave the vectors around it by


class Motion(NamedTuple):
    """How one frame came out of the one before it."""

    vectors: NDArray[np.float32]  # [rows, columns, 2] pixels right and down, for each block of the new frame
    residual: float  # mean |new - moved old| per pixel, unit values
    texture: float  # mean |new - mean of its block| per pixel: what coding without a reference would face
    old: NDArray[np.float32]  # [H, W] luma, unit values
    new: NDArray[np.float32]  # [H, W]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.new.shape[1], self.new.shape[0]


@kernel(inline="always")
def _difference(old, new, top, bottom, left, right, dx, dy):
    """Sum of |new - old moved by dx, dy|; both lie inside."""
    total = 0.0
    for y in range(top, bottom):
        line = np.float32(0)
        for x in range(left, right):
            line += abs(new[y, x] - old[y - dy, x - dx])
        total += line
    return total


@kernel(inline="always")
def _around(field, row, column):
    """The vectors of a field at a block and at its neighbours."""
    rows, columns = field.shape[:2]
    row, column = min(row, rows - 1), min(column, columns - 1)
    return [
        (field[r, c, 0], field[r, c, 1])
        for r in range(max(row - 1, 0), min(row + 2, rows))
        for c in range(max(column - 1, 0), min(column + 2, columns))
    ]


@kernel(parallel=True)
def _search(old, new, block, starts, start_block, reach, smoothness):
    """Best vectors of all blocks, among zero and what is within `reach` of the best vector of `starts` around."""
    height, width = new.shape
    rows, columns = (height + block - 1) // block, (width + block - 1) // block
    vectors = np.zeros((rows, columns, 2), np.int32)
    costs = np.zeros((rows, columns), np.float64)
    textures = np.zeros((rows, columns), np.float64)
    for index in prange(rows * columns):
        row, column = index // columns, index % columns
        top, left = row * block, column * block
        bottom, right = min(top + block, height), min(left + block, width)
        mean = new[top:bottom, left:right].mean()
        texture = 0.0
        for y in range(top, bottom):
            for x in range(left, right):
                texture += abs(new[y, x] - mean)
        textures[row, column] = texture
        best = _difference(old, new, top, bottom, left, right, 0, 0)
        best_penalized = best
        r, c = (top + bottom) // 2 // start_block, (left + right) // 2 // start_block
        around_x, around_y = 0, 0
        for dx, dy in _around(starts, r, c):
            if top - dy < 0 or bottom - dy > height or left - dx < 0 or right - dx > width:
                continue
            cost = _difference(old, new, top, bottom, left, right, dx, dy)
            penalty = smoothness * (right - left) * (bottom - top) * math.sqrt(dx * dx + dy * dy)
            if cost + penalty < best_penalized:
                best, best_penalized = cost, cost + penalty
                around_x, around_y = dx, dy
        vectors[row, column, 0] = around_x
        vectors[row, column, 1] = around_y
        for dy in range(around_y - reach, around_y + reach + 1):
            if top - dy < 0 or bottom - dy > height:
                continue
            for dx in range(around_x - reach, around_x + reach + 1):
                if left - dx < 0 or right - dx > width:
                    continue
                penalty = smoothness * (right - left) * (bottom - top) * math.sqrt(dx * dx + dy * dy)
                if penalty >= best_penalized:
                    continue
                cost = _difference(old, new, top, bottom, left, right, dx, dy)
                if cost + penalty < best_penalized:
                    best, best_penalized = cost, cost + penalty
                    vectors[row, column, 0] = dx
                    vectors[row, column, 1] = dy
        costs[row, column] = best
    return vectors, costs, textures


def _shrink(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means of squares of `SHRINK` pixels; what is left over at the far ends is left out."""
    height, width = (max(side // SHRINK, 1) for side in plane.shape)
    rows, columns = (min(SHRINK, side) for side in plane.shape)
    whole = plane[: height * rows, : width * columns]
    return np.ascontiguousarray(whole.reshape(height, rows, width, columns).mean(axis=(1, 3)))


def estimate_motion(old: NDArray[np.float32], new: NDArray[np.float32]) -> Motion:
    """Motion from luma plane `old` to luma plane `new`, both [H, W] unit values."""
    still = np.zeros((1, 1, 2), np.int32)
    # a shift of one sample is one of several pixels
    coarse, _, _ = _search(_shrink(old), _shrink(new), COARSE_BLOCK, still, 1, RANGE, SMOOTHNESS / BLOCK * SHRINK)
    vectors, costs, textures = _search(
        old, new, BLOCK, coarse * SHRINK, COARSE_BLOCK * SHRINK, FINE_RANGE, SMOOTHNESS / BLOCK
    )
    return Motion(vectors.astype(np.float32), costs.sum() / new.size, textures.sum() / new.size, old, new)


@kernel()
def _mismatch(old, new, x, y, dx, dy, reach):
    """Mean |new - old| between windows around (x, y) of the old frame and (x + dx, y + dy) of the new one."""
    height, width = new.shape
    x0, x1 = max(x - reach, 0, -dx), min(x + reach + 1, width, width - dx)
    y0, y1 = max(y - reach, 0, -dy), min(y + reach + 1, height, height - dy)
    if x1 - x0 <= reach or y1 - y0 <= reach:  # less than half of it is in both
        return np.inf
    return _difference(old, new, y0 + dy, y1 + dy, x0 + dx, x1 + dx, dx, dy) / ((x1 - x0) * (y1 - y0))


@kernel(inline="always")
def _vertex(before, here, after):
    """Where the minimum of a V-shaped valley through three equidistant points lies, from the middle one."""
    slope = max(before, after) - here
    return 0.5 * (before - after) / slope if 0.0 < slope < np.inf else 0.0


@kernel(parallel=True)
def _follow(old, new, windows, vectors, block, smoothness, steps, shifts):
    for n in prange(len(windows)):
        x, y, reach = int(windows[n, 0]), int(windows[n, 1]), int(windows[n, 2])
        best_dx, best_dy = 0, 0
        best = _mismatch(old, new, x, y, 0, 0, reach)
        for dx, dy in _around(vectors, y // block, x // block):
            cost = _mismatch(old, new, x, y, dx, dy, reach) + smoothness * math.sqrt(dx * dx + dy * dy)
            if cost < best:
                best, best_dx, best_dy = cost, dx, dy
        start_dx, start_dy = best_dx, best_dy
        best = _mismatch(old, new, x, y, best_dx, best_dy, reach)
        for _ in range(steps):
            from_dx, from_dy = best_dx, best_dy
            for k in range(4):
                dx, dy = from_dx + (1, -1, 0, 0)[k], from_dy + (0, 0, 1, -1)[k]
                away = math.sqrt((dx - start_dx) ** 2 + (dy - start_dy) ** 2)
                cost = _mismatch(old, new, x, y, dx, dy, reach) + smoothness * away
                if cost < best:
                    best, best_dx, best_dy = cost, dx, dy
            if best_dx == from_dx and best_dy == from_dy:
                break
        here = _mismatch(old, new, x, y, best_dx, best_dy, reach)
        left = _mismatch(old, new, x, y, best_dx - 1, best_dy, reach)
        right = _mismatch(old, new, x, y, best_dx + 1, best_dy, reach)
        above = _mismatch(old, new, x, y, best_dx, best_dy - 1, reach)
        below = _mismatch(old, new, x, y, best_dx, best_dy + 1, reach)
        shifts[n, 0] = best_dx + _vertex(left, here, right)
        shifts[n, 1] = best_dy + _vertex(above, here, below)


def windows_of(splats: Splats, size: tuple[int, int]) -> NDArray[np.int32]:
    """[N, 3] the pixel in the middle of each splat, x and y, and how far its surroundings reach each way.

    Args:
        size: width and height of the frame.
    """
    middles = np.rint((splats.means + 1) * np.array(size, np.float64) / 2 - 0.5)
    lengths = np.abs(splats.cholesky[:, 0] * splats.cholesky[:, 2]) ** 0.5
    reaches = np.rint(_WINDOW * lengths).clip(_LEAST_WINDOW, _MOST_WINDOW)
    inside = np.clip(middles, 0, np.array(size) - 1)
    return np.column_stack([inside, reaches]).astype(np.int32)


def moved_by(splats: Splats, shifts: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float32]:
    """Normalised means [N, 2] of splats that move by so many pixels."""
    return (splats.means + shifts * 2 / np.array(size, np.float64)).astype(np.float32)


def follow(splats: Splats, motion: Motion) -> NDArray[np.float32]:
    """Normalised means [N, 2] of splats that each go where their surroundings in the source have gone."""
    shifts = np.zeros((len(splats), 2))
    windows = windows_of(splats, motion.size)
    vectors = motion.vectors.astype(np.int64)
    _follow(motion.old, motion.new, windows, vectors, BLOCK, SMOOTHNESS / BLOCK, STEPS, shifts)
    return moved_by(splats, shifts, motion.size)
