"""Pixels as codec and media both see them: unit values, sample grids and colour, with one rounding rule.

The codec works on *unit* values: code / max_code (255 or 1023), whatever the range tag says.  A range is a tag, so
a squared error in unit values is one in code values up to a constant.  Conversions between RGB, Y'CbCr and gray are
affine maps of unit values, built in float64 from the constants of ITU-T H.273 (section 8.3): the codec applies them
to splat colours, `to_rgb` to pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.errors import ConfigError, InputError
from pgsvc_codec.video import PIX_FMTS, Chroma, Matrix, Range, Siting, VideoInfo, guess_matrix

Plane = NDArray[np.uint8 | np.uint16]
Frame = tuple[Plane, ...]  # planes as VideoInfo describes them
UnitFrame = tuple[NDArray[np.float32], ...]  # planes of the same shapes, unit values

# Kr and Kb of each matrix (H.273 table 4); Kg = 1 - Kr - Kb.
_LUMA_WEIGHTS = {Matrix.BT709: (0.2126, 0.0722), Matrix.BT601: (0.299, 0.114), Matrix.BT2020NC: (0.2627, 0.0593)}

# Offset of chroma sample 0 from luma sample 0 along a subsampled axis, in luma samples: (x, y).
_SITING_OFFSETS = {Siting.LEFT: (0.0, 0.5), Siting.CENTER: (0.5, 0.5), Siting.TOP_LEFT: (0.0, 0.0)}


@dataclass(frozen=True)
class PlaneGrid:
    """Where the samples of a plane lie: sample (i, j) at full-size luma coordinate (x0 + i dx, y0 + j dy).

    The centre of full-size luma pixel i is at coordinate i.
    """

    width: int  # samples per row
    height: int  # rows
    x0: float  # full-size luma pixels
    y0: float
    dx: float
    dy: float
    smoothing_x: float = 0.0  # variance, full-size pixels squared, that every splat is widened by on this plane
    smoothing_y: float = 0.0


def plane_grids(
    info: VideoInfo, width: int | None = None, height: int | None = None, *, native: VideoInfo | None = None
) -> tuple[PlaneGrid, ...]:
    """The grid of each plane of ``info`` when it is rendered at width × height luma samples (default: full size).

    The output's luma samples divide the frame evenly; its chroma samples lie among its own luma samples as
    ``info.siting`` says.

    Args:
        native: what the splats were fitted to: the planes of the stream, at the size of their level; where a plane's
            samples lie further apart than those of the native plane, splats are smoothed by as much (spec, "Smaller
            outputs"). None: nowhere, as in the fit to this very size.

    Raises:
        ConfigError: the output size is out of range.
    """
    output = replace(
        info, width=info.width if width is None else width, height=info.height if height is None else height
    )
    dx, dy = info.width / output.width, info.height / output.height
    x0, y0 = (dx - 1) / 2, (dy - 1) / 2
    shift_x, shift_y = info.chroma.shift
    offset_x, offset_y = _SITING_OFFSETS[info.siting]
    chroma_x0 = x0 + dx * offset_x if shift_x else x0
    chroma_y0 = y0 + dy * offset_y if shift_y else y0
    same_planes = native is not None and (native.chroma is Chroma.RGB) == (info.chroma is Chroma.RGB)
    grids = []
    for index, (rows, columns) in enumerate(output.plane_shapes):
        step_x, step_y = (dx, dy) if index == 0 else (dx * (1 << shift_x), dy * (1 << shift_y))
        origin_x, origin_y = (x0, y0) if index == 0 else (chroma_x0, chroma_y0)
        grid = PlaneGrid(columns, rows, origin_x, origin_y, step_x, step_y)
        if native is not None:
            native_x, native_y = native.chroma.shift if same_planes and index else (0, 0)
            grid = replace(
                grid,
                smoothing_x=_smoothing(step_x, info.width / native.width * (1 << native_x)),
                smoothing_y=_smoothing(step_y, info.height / native.height * (1 << native_y)),
            )
        grids.append(grid)
    return tuple(grids)


def _smoothing(step: float, native_step: float) -> float:
    """Variance of a box `step` wide beyond that of one `native_step` wide: what averaging over a sample adds."""
    return max(0.0, step * step - native_step * native_step) / 12


def resample(planes: UnitFrame, source: Sequence[PlaneGrid], target: Sequence[PlaneGrid]) -> UnitFrame:
    """A frame on other grids over the same full-size picture, larger or smaller.

    Every sample stands for a cell, a box of dx × dy around it, over which a source plane is constant; beyond its
    outermost samples their value holds.  A target sample is the average over its own cell.  Sums are taken in float64
    and in one order, so that the result is the same on every machine; planes that stay on their grid stay as they are.

    Args:
        planes: one per grid of ``source``, unit values.
        source: see `plane_grids`.
        target: likewise, of the same picture, as many.

    Raises:
        InputError: the planes and the grids do not fit.
    """
    if not len(planes) == len(source) == len(target):
        raise InputError(f"frame: got {len(planes)} planes on {len(source)} grids, allowed {len(target)} of both")
    resampled = []
    for index, (plane, old, new) in enumerate(zip(planes, source, target, strict=True)):
        if plane.shape != (old.height, old.width):
            raise InputError(f"frame plane {index}: got {plane.shape}, allowed {(old.height, old.width)}")
        rows = _Cells(old.height, old.y0, old.dy), _Cells(new.height, new.y0, new.dy)
        columns = _Cells(old.width, old.x0, old.dx), _Cells(new.width, new.x0, new.dx)
        resampled.append(_average(_average(plane, 0, *rows), 1, *columns).astype(np.float32))
    return tuple(resampled)


class _Cells(NamedTuple):
    """The cells of a grid along one axis: as many as samples, ``step`` wide, the first one around ``start``."""

    samples: int
    start: float  # full-size luma pixels
    step: float

    @property
    def borders(self) -> NDArray[np.floating]:
        """[samples + 1], rising."""
        return self.start + (np.arange(self.samples + 1) - 0.5) * self.step


def _average(plane: NDArray[np.floating], axis: int, source: _Cells, target: _Cells) -> NDArray[np.floating]:
    """Averages of a plane over the target's cells along an axis, float64; the plane itself where cells are equal."""
    if source == target:
        return plane
    borders = source.borders
    borders[[0, -1]] = -np.inf, np.inf
    left, right = target.borders[:-1], target.borders[1:]
    first = np.searchsorted(borders, left, side="right") - 1  # source cells that a target cell begins
    last = np.searchsorted(borders, right, side="left") - 1  # and ends in
    shape = [1, 1]
    shape[axis] = target.samples
    total = np.zeros(())
    for tap in range(int((last - first).max()) + 1):
        cell = np.minimum(first + tap, last)
        overlap = np.minimum(right, borders[cell + 1]) - np.maximum(left, borders[cell])
        weight = np.where(first + tap <= last, overlap / (right - left), 0.0)
        total = total + weight.reshape(shape) * np.take(plane, cell, axis=axis)
    return total


class PlaneGroup(NamedTuple):
    """Consecutive planes on one grid, which a renderer paints in one pass."""

    grid: PlaneGrid
    channels: slice


def plane_groups(grids: Sequence[PlaneGrid]) -> list[PlaneGroup]:
    """All planes together where they share a grid; else luma alone, then both chroma planes."""
    if len(grids) == 1 or grids[0] == grids[1]:
        return [PlaneGroup(grids[0], slice(0, len(grids)))]
    return [PlaneGroup(grids[0], slice(0, 1)), PlaneGroup(grids[1], slice(1, 3))]


def sample_dtype(info: VideoInfo) -> np.dtype[np.uint8 | np.uint16]:
    """The type of the code values: uint8 at depth 8, uint16 at depth 10."""
    return np.dtype(np.uint8 if info.depth == 8 else np.uint16)


def check_frame(frame: Frame, info: VideoInfo) -> None:
    """Check planes against ``info``.

    Raises:
        InputError: the number, a shape or the type of the planes differs.
    """
    if len(frame) != info.chroma.num_planes:
        raise InputError(f"frame: got {len(frame)} planes, allowed {info.chroma.num_planes} for {info.pix_fmt}")
    dtype = sample_dtype(info)
    for index, (plane, shape) in enumerate(zip(frame, info.plane_shapes, strict=True)):
        if plane.shape != shape or plane.dtype != dtype:
            raise InputError(f"frame plane {index}: got {plane.dtype} {plane.shape}, allowed {dtype} {shape}")


def to_unit(frame: Frame, info: VideoInfo) -> UnitFrame:
    """Code values to unit values, plane by plane.

    Raises:
        InputError: the planes are not those of ``info``.
    """
    check_frame(frame, info)
    return tuple(plane.astype(np.float32) / np.float32(info.max_code) for plane in frame)


def from_unit(planes: UnitFrame, info: VideoInfo) -> Frame:
    """Unit values to code values: clip to [0, 1], then floor(v max_code + 1/2), the one rounding rule."""
    scale, half = np.float32(info.max_code), np.float32(0.5)
    return tuple((np.clip(plane, 0, 1) * scale + half).astype(sample_dtype(info)) for plane in planes)


def color_transform(source: VideoInfo, target: VideoInfo) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The affine map from unit values of ``source`` to unit values of ``target``.

    Returns:
        (matrix [C_target, C_source], offset [C_target]): ``target = matrix @ source + offset``, not clipped.
        Exactly the identity where both mean the same by their values; gray spreads to R = G = B.
    """
    channels = source.chroma.num_planes
    if _color_space(source) == _color_space(target):
        return np.eye(channels), np.zeros(channels)
    to_rgb_matrix, to_rgb_offset = _unit_to_rgb(source)
    from_rgb_matrix, from_rgb_offset = _rgb_to_unit(target)
    return from_rgb_matrix @ to_rgb_matrix, from_rgb_matrix @ to_rgb_offset + from_rgb_offset


def to_rgb(frame: Frame, info: VideoInfo) -> NDArray[np.uint8]:
    """A frame as 8-bit full-range RGB [height, width, 3], for metrics and for people.

    Subsampled chroma is interpolated bilinearly from where ``info.siting`` puts its samples; beyond the outermost
    samples their value holds.

    Raises:
        InputError: the planes are not those of ``info``.
    """
    target = matching_info(info, "rgb24")
    planes = to_unit(frame, info)
    luma, *chroma = planes
    if info.chroma.shift != (0, 0):
        grid = plane_grids(info)[1]
        chroma = [_upsample(plane, grid, luma.shape) for plane in chroma]
    matrix, offset = (part.astype(np.float32) for part in color_transform(info, target))
    channels = [luma, *chroma]
    rgb = (sum(matrix[c, k] * channel for k, channel in enumerate(channels)) + offset[c] for c in range(3))
    return np.stack(from_unit(tuple(rgb), target), axis=-1)


def luma_of(frame: Frame, info: VideoInfo) -> Plane:
    """The luma of a frame, at its depth; that of RGB in limited range, as `matching_info` makes gray of it.

    Raises:
        InputError: RGB planes are not those of ``info``.
    """
    if info.chroma is not Chroma.RGB:
        return frame[0]
    target = matching_info(info, "gray")
    matrix, offset = color_transform(info, target)
    # term by term: a matrix product may round otherwise elsewhere
    luma = sum((weight * plane for weight, plane in zip(matrix[0], to_unit(frame, info), strict=True)), offset[0])
    return from_unit((np.asarray(luma, np.float32),), target)[0]


def matching_info(info: VideoInfo, pix_fmt: str) -> VideoInfo:
    """The same video in another pixel format.

    From Y'CbCr or gray to RGB the matrix becomes RGB and the range full; from RGB the matrix is `guess_matrix` of
    the height and the range limited; otherwise both stay.

    Raises:
        ConfigError: the format is not one of `PIX_FMTS`.
    """
    if pix_fmt not in PIX_FMTS:
        raise ConfigError(f"pixel format: got {pix_fmt}, allowed {', '.join(PIX_FMTS)}")
    chroma, depth = PIX_FMTS[pix_fmt]
    if (chroma is Chroma.RGB) == (info.chroma is Chroma.RGB):
        return replace(info, chroma=chroma, depth=depth)
    if chroma is Chroma.RGB:
        return replace(info, chroma=chroma, depth=depth, matrix=Matrix.RGB, range=Range.FULL)
    return replace(info, chroma=chroma, depth=depth, matrix=guess_matrix(info.height), range=Range.LIMITED)


def _color_space(info: VideoInfo) -> tuple[object, ...]:
    """What the unit values mean, apart from where the samples lie."""
    matrix = None if info.chroma is Chroma.GRAY else info.matrix
    return (matrix, *(tuple(part) for part in _code_scales(info)))


def _code_scales(info: VideoInfo) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(scale [C], offset [C]): unit value = scale · nominal value + offset (H.273 equations 20 to 31).

    Nominal values are R, G, B, Y' in [0, 1] and Cb, Cr in [-1/2, 1/2].
    """
    if info.range is Range.LIMITED:
        step = 1 << (info.depth - 8)
        luma, chroma, luma_offset = 219 * step, 224 * step, 16 * step
    else:
        luma, chroma, luma_offset = info.max_code, info.max_code, 0
    scale, offset = [luma, luma, luma], [luma_offset, luma_offset, luma_offset]
    if info.chroma is not Chroma.RGB:
        scale[1:], offset[1:] = [chroma, chroma], [1 << (info.depth - 1)] * 2
    channels = info.chroma.num_planes
    return np.array(scale[:channels]) / info.max_code, np.array(offset[:channels]) / info.max_code


def _rgb_to_nominal(info: VideoInfo) -> NDArray[np.float64]:
    """Nominal R, G, B to the nominal values of ``info`` [3, 3] (H.273 equations 38 to 43); identity for RGB."""
    if info.matrix is Matrix.RGB:
        return np.eye(3)
    kr, kb = _LUMA_WEIGHTS[info.matrix]
    luma = np.array([kr, 1 - kr - kb, kb])
    blue, red = np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0])
    return np.stack([luma, (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))])


def _unit_to_rgb(info: VideoInfo) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Unit values of ``info`` to nominal RGB: (matrix [3, C], offset [3])."""
    scale, offset = _code_scales(info)
    nominal_to_rgb = np.ones((3, 1)) if info.chroma is Chroma.GRAY else np.linalg.inv(_rgb_to_nominal(info))
    matrix = nominal_to_rgb / scale
    return matrix, -matrix @ offset


def _rgb_to_unit(info: VideoInfo) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nominal RGB to unit values of ``info``: (matrix [C, 3], offset [C])."""
    scale, offset = _code_scales(info)
    return scale[:, None] * _rgb_to_nominal(info)[: info.chroma.num_planes], offset


def _upsample(plane: NDArray[np.float32], grid: PlaneGrid, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A chroma plane interpolated at the luma samples of a full-size frame."""
    rows, columns = shape
    low, high, weight = _taps(rows, grid.height, grid.y0, grid.dy)
    tall = plane[low] + weight[:, None] * (plane[high] - plane[low])
    low, high, weight = _taps(columns, grid.width, grid.x0, grid.dx)
    left = tall[:, low]
    return left + weight * (tall[:, high] - left)


def _taps(
    count: int, samples: int, start: float, step: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For each of ``count`` luma positions: the chroma samples on both sides, and the weight of the second."""
    position = np.clip((np.arange(count) - start) / step, 0, samples - 1)
    low = position.astype(np.intp)
    return low, np.minimum(low + 1, samples - 1), (position - low).astype(np.float32)
