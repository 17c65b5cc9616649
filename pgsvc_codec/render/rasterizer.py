"""What every rasteriser offers: the interface that painting and fitting are written against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.splats import Splats

if TYPE_CHECKING:
    from pgsvc_codec.picture import PlaneGrid
    from pgsvc_codec.render.reference import StepResult


class Rasterizer(Protocol):
    """Sums splats into planes; NumPy in, NumPy out.  `render.cpu` is one, as a module; see `backend.load`."""

    def render(
        self,
        splats: Splats,
        width: int,
        height: int,
        grid: PlaneGrid,
        channels: slice,
        background: NDArray[np.floating],
        ends: Sequence[int],
        max_code: int = 0,
    ) -> NDArray[np.floating | np.unsignedinteger]:
        """As `reference.render`, in float32; or, with `max_code`, clipped and rounded to code values.

        Returns:
            [len(ends), C, grid.height, grid.width] float32, uint8 (max_code 255) or uint16 (1023).
        """
        ...

    def fit_step(
        self,
        splats: Splats,
        width: int,
        height: int,
        grid: PlaneGrid,
        channels: slice,
        target: NDArray[np.float32],
        ends: Sequence[int],
        level_weights: Sequence[float],
        channel_weights: Sequence[float],
        *,
        with_moments: bool = True,
    ) -> StepResult:
        """As `reference.fit_step`, in float32: all levels for one render and one backward pass.

        Without `with_moments` there is no backward pass, and the moments are those of no splats, [0, C + 5].
        """
        ...
