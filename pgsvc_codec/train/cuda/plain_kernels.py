"""Kernels of `plain`: the splats of a `train.plain.PlainModel`, a step of Adan on its parameters, the loss.

Numbers of splats lie column by column, [9, rows]: means, l1, l2, l3, contribution weights, three colours, of which
the missing ones are zero.  Adan's four memories of them follow, see `Adan.memory`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pgsvc_codec.splats import MIN_LENGTH
from pgsvc_codec.train.adan import BETAS, EPSILON
from pgsvc_codec.train.cuda.change_kernels import put_rows
from pgsvc_codec.train.plain import LAST_MEAN

COLUMNS = 9
MEMORIES = 4
PACES = 4  # numbers of an iteration: see `moved`
_GRADIENT_DECAY, _DIFFERENCE_DECAY, _SQUARE_DECAY = (tl.constexpr(beta) for beta in BETAS)
_EPSILON = tl.constexpr(EPSILON)
_LAST_MEAN = tl.constexpr(LAST_MEAN)
_MIN_LENGTH = tl.constexpr(float(MIN_LENGTH))


@triton.jit
def moved(number, memory, stride, valid, gradient, paces):
    """A number after a step of Adan.

    Args:
        memory: where the first of its memories of the number is; the others follow, `stride` from each other.
        paces: [4] of the iteration: factors on the mean gradient and on the mean difference, bias of the root of the
            mean square, 0 in the first step and 1 in others.
    """
    mean = tl.load(memory, mask=valid, other=0.0)
    mean += (1.0 - _GRADIENT_DECAY) * (gradient - mean)
    difference = (gradient + tl.load(memory + 3 * stride, mask=valid, other=0.0)) * tl.load(paces + 3)
    mean_difference = tl.load(memory + stride, mask=valid, other=0.0)
    mean_difference += (1.0 - _DIFFERENCE_DECAY) * (difference - mean_difference)
    ahead = gradient + _DIFFERENCE_DECAY * difference
    square = _SQUARE_DECAY * tl.load(memory + 2 * stride, mask=valid, other=0.0) + (1.0 - _SQUARE_DECAY) * ahead * ahead
    tl.store(memory, mean, mask=valid)
    tl.store(memory + stride, mean_difference, mask=valid)
    tl.store(memory + 2 * stride, square, mask=valid)
    tl.store(memory + 3 * stride, -gradient, mask=valid)
    spread = tl.sqrt(square) / tl.load(paces + 2) + _EPSILON
    return number - (tl.load(paces) * mean + tl.load(paces + 1) * mean_difference) / spread


@triton.jit
def at_least(length):
    """A length that a decoder allows; it keeps its sign."""
    long_enough = tl.maximum(tl.abs(length), _MIN_LENGTH)
    return tl.where(length < 0.0, -long_enough, long_enough)


@triton.jit
def put_plain(
    means, cholesky, colors, moments, done, n, valid, x, y, l1, l2, l3, c0, c1, c2, half_width, half_height,
    channels: tl.constexpr,
):  # fmt: skip
    """As `put_rows`, with normalised means."""
    put_rows(
        means, cholesky, colors, moments, done, n, valid, (x + 1.0) * half_width - 0.5, (y + 1.0) * half_height - 0.5,
        l1, l2, l3, c0, c1, c2, channels,
    )  # fmt: skip


@triton.jit
def values(
    state, means, cholesky, colors, moments, done, rows, half_width, half_height,
    channels: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """The splats of a state, with no moments yet.

    Args:
        state: [9, rows].
        means: [rows, 2] pixels, cholesky [rows, 3], colors [rows, channels] of the splats.
        moments: [rows, channels + 5].
        done: [1] iterations that have begun, one more from here on.
        half_width: of the frame, pixels; likewise half_height.
    """
    n = tl.program_id(0) * block + tl.arange(0, block)
    valid = n < rows
    x = tl.load(state + n, mask=valid, other=0.0)
    y = tl.load(state + rows + n, mask=valid, other=0.0)
    l1 = tl.load(state + 2 * rows + n, mask=valid, other=1.0)
    l2 = tl.load(state + 3 * rows + n, mask=valid, other=0.0)
    l3 = tl.load(state + 4 * rows + n, mask=valid, other=1.0)
    weight = tl.load(state + 5 * rows + n, mask=valid, other=0.0)
    c0 = weight * tl.load(state + 6 * rows + n, mask=valid, other=0.0)
    c1 = weight * tl.load(state + 7 * rows + n, mask=valid, other=0.0)
    c2 = weight * tl.load(state + 8 * rows + n, mask=valid, other=0.0)
    put_plain(
        means, cholesky, colors, moments, done, n, valid, x, y, l1, l2, l3, c0, c1, c2, half_width, half_height,
        channels,
    )  # fmt: skip


@triton.jit
def gradients_of(cholesky, moments, n, valid, half_width, half_height, per_pixel, channels: tl.constexpr):
    """See `train.plain.plain_gradients`: by means, Cholesky vectors and three shown colours."""
    l1 = tl.load(cholesky + 3 * n, mask=valid, other=1.0)
    l2 = tl.load(cholesky + 3 * n + 1, mask=valid, other=0.0)
    l3 = tl.load(cholesky + 3 * n + 2, mask=valid, other=1.0)
    row = moments + (channels + 5) * n
    g0 = per_pixel * tl.load(row, mask=valid, other=0.0)
    g1 = per_pixel * tl.load(row + 1, mask=valid & (channels == 3), other=0.0)
    g2 = per_pixel * tl.load(row + 2, mask=valid & (channels == 3), other=0.0)
    row += channels
    m1 = per_pixel * tl.load(row, mask=valid, other=0.0)
    down = per_pixel * tl.load(row + 1, mask=valid, other=0.0) / l3
    m11 = per_pixel * tl.load(row + 2, mask=valid, other=0.0)
    slant = per_pixel * tl.load(row + 3, mask=valid, other=0.0) / l3
    m22 = per_pixel * tl.load(row + 4, mask=valid, other=0.0)
    right = (m1 - l2 * down) / l1
    return right * half_width, down * half_height, (m11 - l2 * slant) / l1, slant, m22 / l3, g0, g1, g2


@triton.jit
def move_geometry(state, memory, rows, n, valid, gx, gy, g1, g2, g3, paces):
    """One step of Adan of means and Cholesky vectors, and back to where they may be."""
    stride = 9 * rows
    x = moved(tl.load(state + n, mask=valid, other=0.0), memory + n, stride, valid, gx, paces)
    tl.store(state + n, tl.minimum(tl.maximum(x, -1.0), _LAST_MEAN), mask=valid)
    state += rows
    memory += rows
    y = moved(tl.load(state + n, mask=valid, other=0.0), memory + n, stride, valid, gy, paces)
    tl.store(state + n, tl.minimum(tl.maximum(y, -1.0), _LAST_MEAN), mask=valid)
    state += rows
    memory += rows
    l1 = moved(tl.load(state + n, mask=valid, other=1.0), memory + n, stride, valid, g1, paces)
    tl.store(state + n, at_least(l1), mask=valid)
    state += rows
    memory += rows
    l2 = moved(tl.load(state + n, mask=valid, other=0.0), memory + n, stride, valid, g2, paces)
    tl.store(state + n, l2, mask=valid)
    state += rows
    memory += rows
    l3 = moved(tl.load(state + n, mask=valid, other=1.0), memory + n, stride, valid, g3, paces)
    tl.store(state + n, at_least(l3), mask=valid)


@triton.jit
def move_colors(state, memory, rows, n, valid, c0, c1, c2, g0, g1, g2, paces):
    """One step of Adan of the colours c."""
    stride = 9 * rows
    state += 6 * rows + n
    memory += 6 * rows + n
    tl.store(state, moved(c0, memory, stride, valid, g0, paces), mask=valid)
    tl.store(state + rows, moved(c1, memory + rows, stride, valid, g1, paces), mask=valid)
    tl.store(state + 2 * rows, moved(c2, memory + 2 * rows, stride, valid, g2, paces), mask=valid)


@triton.jit
def step(
    state, memory, cholesky, moments, schedule, done, rows, half_width, half_height, per_pixel,
    channels: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """One step of Adan by the moments of the splats, and back to where they may be.

    Args:
        state: as that of `values`; likewise cholesky, moments, half_width.
        memory: [4, 9, rows].
        schedule: [iterations, 4] paces, see `moved`.
        done: [1] number of this iteration, from 1.
        per_pixel: 1 / pixels of the frame.
    """
    n = tl.program_id(0) * block + tl.arange(0, block)
    valid = n < rows
    paces = schedule + 4 * (tl.load(done) - 1)
    gx, gy, gl1, gl2, gl3, g0, g1, g2 = gradients_of(
        cholesky, moments, n, valid, half_width, half_height, per_pixel, channels
    )  # fmt: skip
    move_geometry(state, memory, rows, n, valid, gx, gy, gl1, gl2, gl3, paces)
    weight = tl.load(state + 5 * rows + n, mask=valid, other=0.0)
    c0 = tl.load(state + 6 * rows + n, mask=valid, other=0.0)
    c1 = tl.load(state + 7 * rows + n, mask=valid, other=0.0)
    c2 = tl.load(state + 8 * rows + n, mask=valid, other=0.0)
    by_weight = g0 * c0 + g1 * c1 + g2 * c2
    heavier = moved(weight, memory + 5 * rows + n, 9 * rows, valid, by_weight, paces)
    tl.store(state + 5 * rows + n, heavier, mask=valid)
    move_colors(state, memory, rows, n, valid, c0, c1, c2, g0 * weight, g1 * weight, g2 * weight, paces)


@triton.jit(do_not_specialize=["count"])
def add_loss(squared_error, weights, losses, done, count, per_pixel, block: tl.constexpr):
    """Add what one pass shows to the loss of an iteration, whose squared errors are forgotten.

    Args:
        squared_error: [count] float64 sums.
        weights: [count] level weight * channel weight.
        losses: [iterations] float64.
        done: as that of `step`; likewise per_pixel.
    """
    at = tl.arange(0, block)
    error = tl.load(squared_error + at, mask=at < count, other=0.0)
    loss = tl.sum(error * tl.load(weights + at, mask=at < count, other=0.0), 0) * per_pixel
    here = losses + tl.load(done) - 1
    tl.store(here, tl.load(here) + loss)
    tl.store(squared_error + at, tl.zeros_like(error), mask=at < count)
