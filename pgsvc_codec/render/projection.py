"""Splats as one plane of samples sees them: offsets and lengths in that plane's own samples.

A plane's samples lie on a regular grid over the full-size picture (`picture.PlaneGrid`), so going from picture to
plane is a shift and a scale per axis; both keep the Cholesky factor lower triangular (spec, "Rendering").
"""

from __future__ import annotations

import math
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
    cutoff: NDArray[np.float64]  # [N] largest q that contributes; negative where the splat never does


def cutoff(colors: NDArray[np.floating]) -> NDArray[np.float64]:
    """[N] largest q = |L^-1 d|^2 at which a splat of these colours [N, C] still counts: 2 ln(4080 max|c|)."""
    peak = np.max(np.abs(colors.astype(np.float64)), axis=1, initial=0.0)
    return 2.0 * np.log(np.maximum(peak, 1e-30) * CUTOFF_AMPLITUDE)


def project(splats: Splats, width: int, height: int, grid: PlaneGrid) -> PlaneSplats:
    """Express splats of a width × height picture in samples of `grid`."""
    size = np.array([width, height], np.float64)
    origin = np.array([grid.x0, grid.y0])
    step = np.array([grid.dx, grid.dy])
    pixels = (splats.means.astype(np.float64) + 1.0) * (size / 2.0) - 0.5
    return PlaneSplats(
        means=(pixels - origin) / step,
        cholesky=splats.cholesky.astype(np.float64) / np.array([grid.dx, grid.dy, grid.dy]),
        cutoff=cutoff(splats.colors),
    )


def half_extent(cholesky: NDArray[np.float64], q: float) -> tuple[float, float]:
    """Half width and half height of the ellipse |L^-1 d|^2 <= q of one splat; zero where q is negative."""
    radius = math.sqrt(max(q, 0.0))
    return radius * abs(float(cholesky[0])), radius * math.hypot(float(cholesky[1]), float(cholesky[2]))
