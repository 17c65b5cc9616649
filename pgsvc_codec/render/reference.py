"""The renderer that defines the result: slow, obvious, float64 (paper, Eq. 2; spec, "Rendering").

Every other backend is held to it: pixels within one code value, gradients within float32 rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.render.projection import half_extent, project
from pgsvc_codec.splats import Splats

if TYPE_CHECKING:
    from pgsvc_codec.picture import PlaneGrid

NUM_SHAPE_MOMENTS = 5  # of w = g * sum_c colour_c * residual_c: u1, u2, u1 u1, u1 u2, u2 u2


class StepResult(NamedTuple):
    """What one forward and backward pass over one group of planes yields."""

    squared_error: NDArray[np.float64]  # [levels, C] sum over samples, per level and plane
    moments: NDArray[np.floating]  # [N, C + 5] d loss / d colour, then moments of w in whitened offsets u = L^-1 d


def _window(plane: NDArray[np.float64], cholesky: NDArray[np.float64], q: float, grid: PlaneGrid):
    """Rows and columns of the samples that a splat can reach, clipped to the plane."""
    reach_x, reach_y = half_extent(cholesky, q)
    columns = np.arange(
        max(0, int(np.ceil(plane[0] - reach_x))), min(grid.width, int(np.floor(plane[0] + reach_x)) + 1)
    )
    rows = np.arange(max(0, int(np.ceil(plane[1] - reach_y))), min(grid.height, int(np.floor(plane[1] + reach_y)) + 1))
    return rows, columns


def _gaussians(splats: Splats, width: int, height: int, grid: PlaneGrid):
    """Yield for each splat its rows and columns and, over that window, gain * g and the whitened offsets u1, u2."""
    plane = project(splats, width, height, grid)
    for mean, (l1, l2, l3), gain, q_max in zip(*plane, strict=True):
        rows, columns = _window(mean, np.array([l1, l2, l3]), q_max, grid)
        u1 = np.broadcast_to((columns - mean[0]) / l1, (len(rows), len(columns)))
        u2 = ((rows - mean[1])[:, None] - l2 * u1) / l3
        q = u1 * u1 + u2 * u2
        yield np.ix_(rows, columns), np.where(q <= q_max, gain * np.exp(-0.5 * q), 0.0), u1, u2


def render(
    splats: Splats,
    width: int,
    height: int,
    grid: PlaneGrid,
    channels: slice,
    background: NDArray[np.floating],
    ends: Sequence[int],
) -> NDArray[np.float64]:
    """Sum splats on one grid.

    Args:
        splats: all splats of the picture, layer after layer.
        width: full-size luma samples per row, in which lengths are measured.
        height: full-size rows.
        grid: where the samples lie.
        channels: which of the splats' colours the planes are.
        background: [C] value under the splats, C = planes in `channels`.
        ends: for each picture wanted, how many of the first splats it sums (cumulative layer sizes).

    Returns:
        [len(ends), C, grid.height, grid.width], neither clipped nor rounded.
    """
    colors = splats.colors[:, channels].astype(np.float64)
    canvas = np.empty((colors.shape[1], grid.height, grid.width))
    canvas[:] = np.asarray(background, np.float64)[:, None, None]
    pictures = np.empty((len(ends), *canvas.shape))
    done = 0
    for picture, end in enumerate(ends):
        for color, (window, g, _, _) in zip(
            colors[done:end], _gaussians(splats[done:end], width, height, grid), strict=True
        ):
            canvas[(slice(None), *window)] += color[:, None, None] * g
        done = end
        pictures[picture] = canvas
    return pictures


def fit_step(
    splats: Splats,
    width: int,
    height: int,
    grid: PlaneGrid,
    channels: slice,
    target: NDArray[np.floating],
    ends: Sequence[int],
    level_weights: Sequence[float],
    channel_weights: Sequence[float],
    *,
    with_moments: bool = True,
) -> StepResult:
    """Loss and gradients of all levels at once: every level for one render.

    The loss is sum_k level_weights[k] sum_c channel_weights[c] |picture_k,c - target_c|^2.  A splat of layer l is in
    every level from l on, so its gradient comes from R_l = sum_{k >= l} level_weights[k] * residual_k.

    Args:
        grid: one that does not smooth; the moments are those of the splats as they are.
        target: [C, h, w] minus the background.
        ends: cumulative layer sizes, one per level; the last is len(splats).
        level_weights: [levels], zero skips a level.
        channel_weights: [C].
        with_moments: False leaves the backward pass out, and the moments are those of no splats, [0, C + 5].
    """
    colors = splats.colors[:, channels].astype(np.float64)
    count, planes = colors.shape
    zero = np.zeros(planes)
    residuals = render(splats, width, height, grid, channels, zero, ends) - np.asarray(target, np.float64)[None]
    squared_error = (residuals**2).sum(axis=(2, 3))
    if not with_moments:
        return StepResult(squared_error, np.zeros((0, planes + NUM_SHAPE_MOMENTS)))
    scale = 2.0 * np.asarray(level_weights, np.float64)[:, None] * np.asarray(channel_weights, np.float64)[None]
    weighted = residuals * scale[:, :, None, None]
    accumulated = np.cumsum(weighted[::-1], axis=0)[::-1]
    layer_of = np.searchsorted(np.asarray(ends), np.arange(count), side="right")
    moments = np.zeros((count, planes + NUM_SHAPE_MOMENTS))
    for n, (window, g, u1, u2) in enumerate(_gaussians(splats, width, height, grid)):
        pulled = accumulated[layer_of[n]][(slice(None), *window)] * g
        w = np.tensordot(colors[n], pulled, axes=1)
        shape = [(w * u).sum() for u in (u1, u2, u1 * u1, u1 * u2, u2 * u2)]
        moments[n] = np.concatenate([pulled.sum(axis=(1, 2)), shape])
    return StepResult(squared_error, moments)
