"""Splats as one plane of samples sees them: offsets and lengths in that plane's own samples.

A plane's samples lie on a regular grid over the full-size picture (`picture.PlaneGrid`), so going from picture to
plane is a shift and a scale per axis; both keep the Cholesky factor lower triangular (spec, "Rendering").  Where the
samples lie further apart than those that the splats were fitted to, splats are widened first, so that fine ones do
not flicker in and out between samples (spec, "Smaller outputs").
"""

from __future__ import annotations

import math
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.splats import Splats

if TYPE_CHECKING:
    from pgsvc_codec.picture import PlaneGrid

# A splat ends where its contribution falls below 1/16 of an 8-bit step (spec, "Rendering").
CUTOFF_AMPLITUDE = 4080.0  # 16 * 255


class PlaneSplats(NamedTuple):
    """N splats in the coordinates of one plane; float64, so that a backend rounds once."""

    means: NDArray[np.float64]  # [N, 2] in samples of the plane, x then y; sample i's centre is at i
    cholesky: NDArray[np.float64]  # [N, 3] l1, l2, l3 in samples of the plane
    gains: NDArray[np.float64]  # [N] factor on the colours; below 1 where smoothing spreads a splat
    cutoff: NDArray[np.float64]  # [N] largest q that contributes; negative where the splat never does


def project(splats: Splats, width: int, height: int, grid: PlaneGrid) -> PlaneSplats:
    """Express splats of a width × height picture in samples of `grid`."""
    # axis by axis: operations on rows of two or three numbers take several times as long
    l1, l2, l3 = splats.cholesky.T.astype(np.float64, order="C")
    gains = np.ones(len(splats))
    if grid.smoothing_x or grid.smoothing_y:
        (l1, l2, l3), gains = _smooth(l1, l2, l3, grid.smoothing_x, grid.smoothing_y)
    means = splats.means.T.astype(np.float64, order="C")
    for axis, size, first, step in ((means[0], width, grid.x0, grid.dx), (means[1], height, grid.y0, grid.dy)):
        axis *= size / 2.0 / step
        axis += (size / 2.0 - 0.5 - first) / step
    cholesky = np.empty((3, len(splats)))
    for row, length, step in zip(cholesky, (l1, l2, l3), (grid.dx, grid.dy, grid.dy), strict=True):
        np.multiply(length, 1.0 / step, out=row)
    cutoff = gains * reduce(np.maximum, np.abs(splats.colors.T, order="C"))
    np.maximum(cutoff, 1e-30, out=cutoff)
    cutoff *= CUTOFF_AMPLITUDE
    np.log(cutoff, out=cutoff)
    cutoff *= 2.0
    return PlaneSplats(means.T, cholesky.T, gains, cutoff)


Column = NDArray[np.float64]  # [N]


def _smooth(
    l1: Column, l2: Column, l3: Column, smoothing_x: float, smoothing_y: float
) -> tuple[tuple[Column, Column, Column], Column]:
    """Factors of L L^T + diag(smoothing), and what keeps each splat's integral the same."""
    wide1 = np.sqrt(l1 * l1 + smoothing_x)
    wide2 = l1 * l2 / wide1
    # l2² + l3² + smoothing - wide2², free of the difference of squares
    wide3 = np.sqrt(l3 * l3 + smoothing_y + smoothing_x * (l2 / wide1) ** 2)
    return (wide1, wide2, wide3), np.abs(l1 * l3) / (wide1 * wide3)


def half_extent(cholesky: NDArray[np.float64], q: float) -> tuple[float, float]:
    """Half width and half height of the ellipse |L^-1 d|^2 <= q of one splat; zero where q is negative."""
    radius = math.sqrt(max(q, 0.0))
    return radius * abs(float(cholesky[0])), radius * math.hypot(float(cholesky[1]), float(cholesky[2]))
