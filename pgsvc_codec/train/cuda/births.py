"""`train.births` where the residual lies on a GPU: filters, peaks and sums there, the greedy choice on the host.

Every peak of the pyramid becomes one integer, its gain's bits above its place, so that the best are those of the
largest integers and ties are broken by place, whatever order threads run in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray

from pgsvc_codec.render.cuda.device import use
from pgsvc_codec.train.births import REACH, Births, Octave, choose_places, most_candidates, octaves

_BLOCK = 256  # samples of a program
_LARGE_BLOCK = 4096  # of an interpreted one, which costs the same whatever its size
_COLUMNS = 32  # samples of a row that a program sums at a time
_PLACE_BITS = 30  # of a sample of the pyramid


@triton.jit
def _column(row, x, y, width, height, row_stride, column_stride):
    """A column of five samples around (x, y), filtered; zero beyond the borders."""
    inside = (x >= 0) & (x < width)
    total = tl.load(row + x * column_stride, mask=inside, other=0.0) * 0.375
    up1 = tl.load(row + x * column_stride - row_stride, mask=inside & (y >= 1), other=0.0)
    up2 = tl.load(row + x * column_stride - 2 * row_stride, mask=inside & (y >= 2), other=0.0)
    down1 = tl.load(row + x * column_stride + row_stride, mask=inside & (y + 1 < height), other=0.0)
    down2 = tl.load(row + x * column_stride + 2 * row_stride, mask=inside & (y + 2 < height), other=0.0)
    return total + 0.25 * (up1 + down1) + 0.0625 * (up2 + down2)


@triton.jit
def _filtered(plane, x, y, width, height, row_stride, column_stride):
    """1 4 6 4 1 over 16 both ways, at (x, y) of one plane."""
    row = plane + y * row_stride
    outer = _column(row, x - 2, y, width, height, row_stride, column_stride)
    outer += _column(row, x + 2, y, width, height, row_stride, column_stride)
    inner = _column(row, x - 1, y, width, height, row_stride, column_stride)
    inner += _column(row, x + 1, y, width, height, row_stride, column_stride)
    return 0.0625 * outer + 0.25 * inner + 0.375 * _column(row, x, y, width, height, row_stride, column_stride)


@triton.jit(do_not_specialize=["width", "height", "plane_stride", "row_stride"])
def _binomial(level, once, width, height, plane_stride, row_stride, column_stride, block: tl.constexpr):
    """Filter planes of width × height samples, which lie strides apart, into planes without gaps."""
    at = tl.program_id(0) * block + tl.arange(0, block)
    x, y = at % width, at // width
    x = tl.where(at < width * height, x, -8)  # reads nothing
    value = _filtered(level + tl.program_id(1) * plane_stride, x, y, width, height, row_stride, column_stride)
    tl.store(once + tl.program_id(1) * width * height + at, value, mask=at < width * height)


@triton.jit(do_not_specialize=["width", "height"])
def _energies(
    once, best, width, height, once_gain, twice_gain, planes: tl.constexpr, block: tl.constexpr
):  # fmt: skip
    """What the better of two filters takes off at each sample, negative where that is the second."""
    at = tl.program_id(0) * block + tl.arange(0, block)
    x, y = at % width, at // width
    inside = at < width * height
    x = tl.where(inside, x, -8)
    energy = tl.full([block], 0, tl.float32)
    other = tl.full([block], 0, tl.float32)
    for plane in tl.static_range(planes):
        samples = once + plane * width * height
        value = tl.load(samples + at, mask=inside, other=0.0)
        energy += value * value
        value = _filtered(samples, x, y, width, height, width, 1)
        other += value * value
    energy *= once_gain
    other *= twice_gain
    tl.store(best + at, tl.where(other > energy, -other, energy), mask=inside)


@triton.jit
def _size_at(best, x, y, width, height):
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return tl.load(best + y * width + x, mask=inside, other=0.0)


@triton.jit(do_not_specialize=["width", "height", "blocks", "first"])
def _peaks(best, keys, width, height, blocks, first, lowest: tl.constexpr, block: tl.constexpr):
    """The strict local maximum of each block of 2 × 2 samples, of which there is at most one, or 0."""
    at = tl.program_id(0) * block + tl.arange(0, block)
    across = (width + 1) // 2
    left, top = at % across * 2, at // across * 2
    left = tl.where(at < blocks, left, -8)
    key = tl.full([block], 0, tl.int64)
    for corner in tl.static_range(4):
        x, y = left + corner % 2, top + corner // 2
        value = _size_at(best, x, y, width, height)
        gain = tl.abs(value)
        around = tl.full([block], 0, tl.float32)
        for near in tl.static_range(9):
            if near != 4:
                beside = _size_at(best, x + near % 3 - 1, y + near // 3 - 1, width, height)
                around = tl.maximum(around, tl.abs(beside))
        bits = gain.to(tl.int32, bitcast=True).to(tl.int64) << 32
        place = (lowest - (first + y * width + x)).to(tl.int64) * 2 + (value < 0).to(tl.int64)
        key = tl.where(gain > around, bits + place, key)
    tl.store(keys + at, key, mask=at < blocks)


@triton.jit(do_not_specialize=["width", "height", "count"])
def _colors(plane, places, colors, width, height, count, stride, reach: tl.constexpr, columns: tl.constexpr):
    """sum g R / sum g^2 of one round splat over one plane."""
    k = tl.program_id(0)
    x, y = tl.load(places + k), tl.load(places + count + k)
    across, down = tl.load(places + 2 * count + k), tl.load(places + 3 * count + k)
    left = tl.maximum(tl.ceil(x - reach * across).to(tl.int32), 0)
    right = tl.minimum(tl.floor(x + reach * across).to(tl.int32), width - 1)
    top = tl.maximum(tl.ceil(y - reach * down).to(tl.int32), 0)
    bottom = tl.minimum(tl.floor(y + reach * down).to(tl.int32), height - 1)
    pulled = tl.full([columns], 0, tl.float32)
    energy = tl.full([columns], 0, tl.float32)
    for row in range(top, bottom + 1):
        dy = (row - y) / down
        for begin in range(left, right + 1, columns):
            column = begin + tl.arange(0, columns)
            dx = (column - x) / across
            g = tl.where(column <= right, tl.exp(-0.5 * (dx * dx + dy * dy)), 0.0)
            pulled += g * tl.load(plane + row * width + column, mask=column <= right, other=0.0)
            energy += g * g
    total = tl.sum(energy, 0)
    tl.store(colors + k * stride, tl.where(total > 0, tl.sum(pulled, 0) / total, 0.0))


def find_births(
    residual: Sequence[torch.Tensor], weight: float, full_size: tuple[int, int], layer_size: int, most: int
) -> Births:
    """As `train.births.find_births`, of planes on a GPU; waits for it twice."""
    height, width = first = _shape(residual[0])
    pyramid = octaves(width, height, layer_size)
    candidates = _candidates(residual, pyramid, most_candidates(most))
    places = choose_places(candidates, most, width, height)
    device, count = residual[0].device, len(places.x)
    on = {_shape(plane): places.on(_shape(plane), first).astype(np.float32) for plane in residual}
    on_device = {shape: torch.from_numpy(values).to(device) for shape, values in on.items()}
    colors = torch.empty(count, len(residual), device=device)
    with use(device):
        for channel, plane in enumerate(residual if count else ()):
            _colors[count,](
                plane.contiguous(), on_device[_shape(plane)], colors[:, channel], plane.shape[1], plane.shape[0],
                count, len(residual), reach=REACH, columns=_COLUMNS, num_warps=1,
            )  # fmt: skip
    return places.births(colors.cpu().numpy(), weight, first, full_size)


def _candidates(residual: Sequence[torch.Tensor], pyramid: Sequence[Octave], most: int) -> NDArray[np.float64]:
    """[K, 4] gain, x, y and deviation of the filter, in samples of the first plane; the best, best first."""
    level = torch.stack([plane for plane in residual if plane.shape == residual[0].shape])
    block = _BLOCK if level.is_cuda else _LARGE_BLOCK
    blocks = [-(-octave.size[0] // 2) * -(-octave.size[1] // 2) for octave in pyramid]
    keys = torch.empty(sum(blocks), dtype=torch.int64, device=level.device)
    lowest = (1 << _PLACE_BITS) - 1
    begins, begin = [], 0  # number of each octave's first sample
    with use(level.device):
        for octave, some in zip(pyramid, keys.split(blocks), strict=True):
            width, height = octave.size
            programs = triton.cdiv(width * height, block)
            once = torch.empty(len(level), height, width, device=level.device)
            best = torch.empty(height, width, device=level.device)
            _binomial[programs, len(level)](level, once, width, height, *level.stride(), block=block)
            _energies[programs,](
                once, best, width, height, *map(float, octave.gains), planes=len(level), block=block
            )  # fmt: skip
            _peaks[triton.cdiv(len(some), block),](
                best, some, width, height, len(some), begin, lowest=lowest, block=block
            )  # fmt: skip
            level = once[:, ::2, ::2]
            begins.append(begin)
            begin += width * height
    found = keys.topk(min(most, len(keys))).values.cpu().numpy()
    found = found[found > 0]
    place, second = lowest - ((found & 0xFFFFFFFF) >> 1), found & 1
    candidates = np.empty((len(found), 4))
    candidates[:, 0] = (found >> 32).astype(np.int32).view(np.float32)
    for begin, octave in zip(begins, pyramid, strict=True):
        rows = place >= begin
        y, x = divmod(place[rows] - begin, octave.size[0])
        candidates[rows, 1] = x * octave.step
        candidates[rows, 2] = y * octave.step
        candidates[rows, 3] = np.array(octave.deviations)[second[rows]]
    return candidates


def _shape(plane: torch.Tensor) -> tuple[int, int]:
    """Rows and columns."""
    return plane.shape[0], plane.shape[1]
