"""Block motion between two frames of the source, carried onto splats: where a P-frame's fit starts.

Whole-pixel full search on luma, blocks of 32 pixels in the picture's own size; the fit does the fine part.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

_BLOCK = 32  # pixels
_RANGE = 16  # pixels each way
_SMOOTHNESS = 0.5 / 255  # unit values per pixel of the block that a longer vector must save, per pixel of length


class Motion(NamedTuple):
    """How one frame came out of the one before it."""

    vectors: NDArray[np.float32]  # [rows, columns, 2] pixels right and down, for each block of the new frame
    residual: float  # mean |new - moved old| per pixel, unit values
    texture: float  # mean |new - mean of its block| per pixel: what coding without a reference would face


@njit(parallel=True, cache=True)
def _search(old, new, block, reach, smoothness):
    height, width = new.shape
    rows, columns = (height + block - 1) // block, (width + block - 1) // block
    vectors = np.zeros((rows, columns, 2), np.float32)
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
        best, best_penalized = np.inf, np.inf
        for dy in range(-reach, reach + 1):
            if top - dy < 0 or bottom - dy > height:
                continue
            for dx in range(-reach, reach + 1):
                if left - dx < 0 or right - dx > width:
                    continue
                penalty = smoothness * (right - left) * (bottom - top) * np.sqrt(np.float64(dx * dx + dy * dy))
                cost = 0.0
                for y in range(top, bottom):
                    line = np.float32(0)
                    for x in range(left, right):
                        line += abs(new[y, x] - old[y - dy, x - dx])
                    cost += line
                    if cost + penalty >= best_penalized:
                        break
                if cost + penalty < best_penalized:
                    best, best_penalized = cost, cost + penalty
                    vectors[row, column, 0] = dx
                    vectors[row, column, 1] = dy
        costs[row, column] = best
    return vectors, costs, textures


def estimate_motion(old: NDArray[np.float32], new: NDArray[np.float32]) -> Motion:
    """Motion from luma plane `old` to luma plane `new`, both [H, W] unit values."""
    vectors, costs, textures = _search(old, new, _BLOCK, _RANGE, _SMOOTHNESS / _BLOCK)
    return Motion(vectors, costs.sum() / new.size, textures.sum() / new.size)


def move(means: NDArray[np.float32], motion: Motion, width: int, height: int) -> NDArray[np.float32]:
    """Normalised means [N, 2] carried along the field, bilinear between the centres of the blocks."""
    size = np.array([width, height], np.float64)
    pixels = (means + 1) * size / 2 - 0.5
    rows, columns = motion.vectors.shape[:2]
    # a block's vector belongs to where it lands, close enough to where the splat is
    at = (pixels + 0.5) / _BLOCK - 0.5
    x = np.clip(at[:, 0], 0, columns - 1)
    y = np.clip(at[:, 1], 0, rows - 1)
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    x1, y1 = np.minimum(x0 + 1, columns - 1), np.minimum(y0 + 1, rows - 1)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    field = motion.vectors.astype(np.float64)
    upper = field[y0, x0] * (1 - fx) + field[y0, x1] * fx
    lower = field[y1, x0] * (1 - fx) + field[y1, x1] * fx
    shift = upper * (1 - fy) + lower * fy
    return (means + shift * 2 / size).astype(np.float32)
