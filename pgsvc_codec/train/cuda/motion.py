"""`train.motion` on a GPU: the same vectors from the same searches, all of a block's at once.

Every lane of a program tries one vector, and sums along rows as the CPU does, so both find the same ones.
"""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray

from pgsvc_codec.render.cuda.device import use
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.motion import (
    BLOCK,
    COARSE_BLOCK,
    FINE_RANGE,
    RANGE,
    SHRINK,
    SMOOTHNESS,
    STEPS,
    Motion,
    moved_by,
    windows_of,
)

_WINDOW_PENALTY = SMOOTHNESS / BLOCK
_COARSE_PENALTY = SMOOTHNESS / BLOCK * SHRINK  # a shift of one sample is one of several pixels


@triton.jit
def _differences(old, new, dx, dy, valid, top, bottom, left, right, width):
    """[lanes] sum over a block of |new - old moved by dx, dy|, infinite where that is not valid."""
    total = tl.where(valid, 0.0, float("inf")).to(tl.float64)
    shift = dy * width + dx
    for y in range(top, bottom):
        line = tl.where(valid, 0.0, 0.0)
        for x in range(left, right):
            at = y * width + x
            line += tl.abs(tl.load(new + at) - tl.load(old + (at - shift), mask=valid, other=0.0))
        total += line
    return total


@triton.jit(do_not_specialize=["width", "height", "columns", "start_rows", "start_columns"])
def _search(
    old, new, starts, found, width, height, columns, start_rows, start_columns,
    block: tl.constexpr, start_block: tl.constexpr, reach: tl.constexpr, smoothness: tl.constexpr,
    lanes: tl.constexpr, samples: tl.constexpr,
):  # fmt: skip
    """The best vector of a block, among zero and what is within `reach` of the best of `starts` around it.

    Args:
        starts: [start_rows, start_columns, 2] vectors of blocks of `start_block` samples.
        found: [blocks, 4] the vector, what it leaves, and what the block's mean leaves.
        smoothness: for each sample of the block, for each sample that the vector is long.
        lanes: at least the vectors within reach.
        samples: at least those of a block.
    """
    program = tl.program_id(0)
    top, left = program // columns * block, program % columns * block
    bottom, right = tl.minimum(top + block, height), tl.minimum(left + block, width)
    area = ((bottom - top) * (right - left)).to(tl.float64)

    at = tl.arange(0, samples)
    y, x = top + at // block, left + at % block
    inside = (y < bottom) & (x < right) & (at < block * block)
    value = tl.load(new + y * width + x, mask=inside, other=0.0)
    mean = tl.sum(value, 0) / area.to(tl.float32)
    texture = tl.sum(tl.where(inside, tl.abs(value - mean), 0.0), 0)

    lane = tl.arange(0, 16)
    around = lane - 1
    row = tl.minimum((top + bottom) // 2 // start_block, start_rows - 1) + around // 3 - 1
    column = tl.minimum((left + right) // 2 // start_block, start_columns - 1) + around % 3 - 1
    beside = (lane > 0) & (lane < 10) & (row >= 0) & (row < start_rows) & (column >= 0) & (column < start_columns)
    place = 2 * (row * start_columns + column)
    dx = tl.load(starts + place, mask=beside, other=0)
    dy = tl.load(starts + place + 1, mask=beside, other=0)
    valid = (
        (beside | (lane == 0)) & (top - dy >= 0) & (bottom - dy <= height) & (left - dx >= 0) & (right - dx <= width)
    )
    costs = _differences(old, new, dx, dy, valid, top, bottom, left, right, width)
    penalties = tl.sqrt((dx * dx + dy * dy).to(tl.float64)) * area * smoothness
    chosen = lane == tl.argmin(costs + penalties, 0)
    best_x, best_y = tl.sum(tl.where(chosen, dx, 0), 0), tl.sum(tl.where(chosen, dy, 0), 0)
    best = tl.sum(tl.where(chosen, costs, 0.0), 0)
    penalized = tl.min(costs + penalties, 0)

    side: tl.constexpr = 2 * reach + 1
    lane = tl.arange(0, lanes)
    dx, dy = best_x + lane % side - reach, best_y + lane // side - reach
    valid = (lane < side * side) & (top - dy >= 0) & (bottom - dy <= height) & (left - dx >= 0) & (right - dx <= width)
    costs = _differences(old, new, dx, dy, valid, top, bottom, left, right, width)
    penalties = tl.sqrt((dx * dx + dy * dy).to(tl.float64)) * area * smoothness
    better = tl.min(costs + penalties, 0) < penalized
    chosen = lane == tl.argmin(costs + penalties, 0)
    found += 4 * program
    tl.store(found, tl.where(better, tl.sum(tl.where(chosen, dx, 0), 0), best_x).to(tl.float64))
    tl.store(found + 1, tl.where(better, tl.sum(tl.where(chosen, dy, 0), 0), best_y).to(tl.float64))
    tl.store(found + 2, tl.where(better, tl.sum(tl.where(chosen, costs, 0.0), 0), best))
    tl.store(found + 3, texture.to(tl.float64))


def _searched(
    old: torch.Tensor, new: torch.Tensor, block: int, starts: torch.Tensor, start_block: int, reach: int,
    smoothness: float,
) -> torch.Tensor:  # fmt: skip
    """[rows, columns, 4] of the kernel's, of planes [H, W]."""
    height, width = new.shape
    rows, columns = triton.cdiv(height, block), triton.cdiv(width, block)
    found = torch.empty(rows, columns, 4, dtype=torch.float64, device=new.device)
    lanes = triton.next_power_of_2((2 * reach + 1) ** 2)
    _search[rows * columns,](
        old, new, starts, found, width, height, columns, starts.shape[0], starts.shape[1], block=block,
        start_block=start_block, reach=reach, smoothness=smoothness, lanes=lanes,
        samples=triton.next_power_of_2(block * block), num_warps=max(1, min(lanes // 128, 8)),
    )  # fmt: skip
    return found


def _shrunk(plane: torch.Tensor) -> torch.Tensor:
    """Means of squares of `SHRINK` samples; what is left over at the far ends is left out."""
    window = [min(SHRINK, side) for side in plane.shape]
    return torch.nn.functional.avg_pool2d(plane[None, None], window, SHRINK)[0, 0]


def estimate_motion(old: NDArray[np.float32], new: NDArray[np.float32], device: torch.device) -> Motion:
    """As `train.motion.estimate_motion`."""
    before, after = (torch.from_numpy(plane).to(device) for plane in (old, new))
    still = torch.zeros(1, 1, 2, dtype=torch.int32, device=device)
    with use(device):
        coarse = _searched(_shrunk(before), _shrunk(after), COARSE_BLOCK, still, 1, RANGE, _COARSE_PENALTY)
        starts = (coarse[:, :, :2] * SHRINK).to(torch.int32)
        fine = _searched(before, after, BLOCK, starts, COARSE_BLOCK * SHRINK, FINE_RANGE, _WINDOW_PENALTY)
    found = fine.cpu().numpy()
    residual, texture = found[:, :, 2:].sum(axis=(0, 1)) / new.size
    return Motion(found[:, :, :2].astype(np.float32), float(residual), float(texture), old, new)


@triton.jit
def _mismatches(old, new, x, y, dx, dy, valid, reach, width, height):
    """[lanes] mean |new - old| between windows around (x, y) of the old frame and (x + dx, y + dy) of the new one."""
    left, right = tl.maximum(x - reach, tl.maximum(-dx, 0)), tl.minimum(x + reach + 1, tl.minimum(width, width - dx))
    top, bottom = tl.maximum(y - reach, tl.maximum(-dy, 0)), tl.minimum(y + reach + 1, tl.minimum(height, height - dy))
    valid = valid & (right - left > reach) & (bottom - top > reach)  # else less than half of it is in both
    total = tl.where(valid, 0.0, float("inf")).to(tl.float64)
    shift = dy * width + dx
    for row in range(tl.maximum(y - reach, 0), tl.minimum(y + reach + 1, height)):
        line = tl.where(valid, 0.0, 0.0)
        in_row = valid & (row >= top) & (row < bottom)
        for column in range(tl.maximum(x - reach, 0), tl.minimum(x + reach + 1, width)):
            at = row * width + column
            inside = in_row & (column >= left) & (column < right)
            there = tl.load(new + (at + shift), mask=inside, other=0.0)
            line += tl.where(inside, tl.abs(there - tl.load(old + at)), 0.0)
        total += line
    return total / tl.maximum((right - left) * (bottom - top), 1).to(tl.float64)


@triton.jit
def _vertex(before, here, after):
    """Where the minimum of a V-shaped valley through three equidistant points lies, from the middle one."""
    slope = tl.maximum(before, after) - here
    bent = (slope > 0.0) & (slope < float("inf"))
    return tl.where(bent, 0.5 * (before - after) / tl.where(bent, slope, 1.0), 0.0)


@triton.jit(do_not_specialize=["width", "height", "rows", "columns"])
def _follow(
    old, new, places, vectors, shifts, width, height, rows, columns,
    block: tl.constexpr, smoothness: tl.constexpr, steps: tl.constexpr,
):  # fmt: skip
    """Where one splat goes.

    Args:
        places: [N, 3] x, y and reach in pixels.
        vectors: [rows, columns, 2] of blocks.
        shifts: [N, 2] float64 pixels.
    """
    n = tl.program_id(0)
    x, y, reach = tl.load(places + 3 * n), tl.load(places + 3 * n + 1), tl.load(places + 3 * n + 2)
    lane = tl.arange(0, 16)
    around = lane - 1
    row = tl.minimum(y // block, rows - 1) + around // 3 - 1
    column = tl.minimum(x // block, columns - 1) + around % 3 - 1
    valid = (lane > 0) & (lane < 10) & (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    dx = tl.load(vectors + 2 * (row * columns + column), mask=valid, other=0)
    dy = tl.load(vectors + 2 * (row * columns + column) + 1, mask=valid, other=0)
    costs = _mismatches(old, new, x, y, dx, dy, valid | (lane == 0), reach, width, height)
    penalized = costs + tl.sqrt((dx * dx + dy * dy).to(tl.float64)) * smoothness
    chosen = lane == tl.argmin(penalized, 0)
    start_x, start_y = tl.sum(tl.where(chosen, dx, 0), 0), tl.sum(tl.where(chosen, dy, 0), 0)
    best = tl.sum(tl.where(chosen, costs, 0.0), 0)
    best_x, best_y = start_x, start_y

    side = tl.arange(0, 8)  # right, left, below, above, here
    right = tl.where(side == 0, 1, tl.where(side == 1, -1, 0))
    down = tl.where(side == 2, 1, tl.where(side == 3, -1, 0))
    for _ in range(steps):
        to_x, to_y = best_x + right, best_y + down
        away = tl.sqrt(((to_x - start_x) * (to_x - start_x) + (to_y - start_y) * (to_y - start_y)).to(tl.float64))
        nearby = _mismatches(old, new, x, y, to_x, to_y, side < 4, reach, width, height) + away * smoothness
        least = tl.min(nearby, 0)
        nearest = side == tl.argmin(nearby, 0)
        moves = tl.where(least < best, 1, 0)
        best = tl.minimum(least, best)
        best_x += moves * tl.sum(tl.where(nearest, right, 0), 0)
        best_y += moves * tl.sum(tl.where(nearest, down, 0), 0)

    last = _mismatches(old, new, x, y, best_x + right, best_y + down, side < 5, reach, width, height)
    here = tl.sum(tl.where(side == 4, last, 0.0), 0)
    after_x, before_x = tl.sum(tl.where(side == 0, last, 0.0), 0), tl.sum(tl.where(side == 1, last, 0.0), 0)
    after_y, before_y = tl.sum(tl.where(side == 2, last, 0.0), 0), tl.sum(tl.where(side == 3, last, 0.0), 0)
    tl.store(shifts + 2 * n, best_x + _vertex(before_x, here, after_x))
    tl.store(shifts + 2 * n + 1, best_y + _vertex(before_y, here, after_y))


def follow(splats: Splats, motion: Motion, device: torch.device) -> NDArray[np.float32]:
    """As `train.motion.follow`."""
    before, after = (torch.from_numpy(plane).to(device) for plane in (motion.old, motion.new))
    places = torch.from_numpy(windows_of(splats, motion.size)).to(device)
    vectors = torch.from_numpy(motion.vectors.astype(np.int32)).to(device)
    shifts = torch.empty(len(splats), 2, dtype=torch.float64, device=device)
    if len(splats):
        with use(device):
            _follow[len(splats),](
                before, after, places, vectors, shifts, *motion.size, vectors.shape[0], vectors.shape[1], block=BLOCK,
                smoothness=_WINDOW_PENALTY, steps=STEPS, num_warps=1,
            )  # fmt: skip
    return moved_by(splats, shifts.cpu().numpy(), motion.size)
