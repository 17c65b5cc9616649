"""Splats: the 2D Gaussians that a picture is the sum of.

A splat is a mean (2), the Cholesky factor of its covariance (3) and a signed colour with the opacity folded in.
`Splats` are what is rendered; `SplatState` is what the `main` profile decodes, integers on fixed-point grids.
The value of a picture at a point is ``background + sum_n colors[n] * exp(-q_n / 2)`` with
``q_n = |L_n^-1 d_n|^2`` (paper, Eq. 2), where d_n is the offset from the mean in full-size pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]

MIN_LENGTH = np.float32(1 / 64)  # pixels: least |l1|, |l3| that a decoder hands to a renderer (spec, "Splats")


@dataclass(frozen=True, eq=False)
class Splats:
    """N splats; a value, never changed in place.

    Raises:
        ValueError: shapes or dtypes do not fit.
    """

    means: FloatArray  # [N, 2] x then y; the frame spans [-1, 1], pixel centre i of n lies at (2 i + 1) / n - 1
    cholesky: FloatArray  # [N, 3] l1, l2, l3 of L = [[l1, 0], [l2, l3]], in full-size pixels
    colors: FloatArray  # [N, C] signed amplitudes, C planes of the stream's colour space; 1 = the largest code value

    def __post_init__(self) -> None:
        count = len(self.means)
        channels = self.colors.shape[1] if self.colors.ndim == 2 else 0
        for name, width in (("means", 2), ("cholesky", 3), ("colors", channels)):
            array = getattr(self, name)
            if array.shape != (count, width) or array.dtype != np.float32:
                raise ValueError(f"Splats.{name}: got {array.dtype} {array.shape}, allowed float32 ({count}, {width})")
        if channels not in (1, 3):
            raise ValueError(f"Splats.colors: got shape {self.colors.shape}, allowed (N, 1) or (N, 3)")

    def __len__(self) -> int:
        return len(self.means)

    def __repr__(self) -> str:
        return f"Splats({len(self)}, channels={self.channels})"

    @property
    def channels(self) -> int:
        """C: 1 for gray, else 3."""
        return int(self.colors.shape[1])

    def __getitem__(self, rows: slice | NDArray[np.integer] | NDArray[np.bool_]) -> Splats:
        """The splats of a slice, an index array or a mask, in that order."""
        return type(self)(self.means[rows], self.cholesky[rows], self.colors[rows])

    @staticmethod
    def empty(channels: int) -> Splats:
        """No splats at all."""
        return Splats(*(np.zeros((0, width), np.float32) for width in (2, 3, channels)))

    @staticmethod
    def concatenate(parts: Sequence[Splats]) -> Splats:
        """All splats of the (one or more) parts, in order."""
        return Splats(
            np.concatenate([part.means for part in parts]),
            np.concatenate([part.cholesky for part in parts]),
            np.concatenate([part.colors for part in parts]),
        )


@dataclass(frozen=True, eq=False)
class SplatState:
    """N splats of the `main` profile as integers (spec, "State"); a value, never changed in place.

    What the numbers mean is said in `coding.main.state`, which also makes `Splats` of them.

    Raises:
        ValueError: shapes or dtypes do not fit.
    """

    positions: IntArray  # [N, 2] x then y, in 1/64 of a full-size pixel from the frame's upper left corner
    shapes: IntArray  # [N, 3] log2 l1, t = l2 / l3, log2 l3, in 1/256
    amplitudes: IntArray  # [N, C] colour times sqrt(pi l1 l3), in 1/4096

    def __post_init__(self) -> None:
        count = len(self.positions)
        channels = self.amplitudes.shape[1] if self.amplitudes.ndim == 2 else 0
        for name, width in (("positions", 2), ("shapes", 3), ("amplitudes", channels)):
            array = getattr(self, name)
            if array.shape != (count, width) or array.dtype != np.int32:
                raise ValueError(
                    f"SplatState.{name}: got {array.dtype} {array.shape}, allowed int32 ({count}, {width})"
                )
        if channels not in (1, 3):
            raise ValueError(f"SplatState.amplitudes: got shape {self.amplitudes.shape}, allowed (N, 1) or (N, 3)")

    def __len__(self) -> int:
        return len(self.positions)

    def __repr__(self) -> str:
        return f"SplatState({len(self)}, channels={self.channels})"

    @property
    def channels(self) -> int:
        """C: 1 for gray, else 3."""
        return int(self.amplitudes.shape[1])

    def __getitem__(self, rows: slice | NDArray[np.integer] | NDArray[np.bool_]) -> SplatState:
        """The splats of a slice, an index array or a mask, in that order."""
        return type(self)(self.positions[rows], self.shapes[rows], self.amplitudes[rows])

    def equals(self, other: SplatState) -> bool:
        """Whether both are the same splats in the same order."""
        names = ("positions", "shapes", "amplitudes")
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in names)

    @staticmethod
    def empty(channels: int) -> SplatState:
        """No splats at all."""
        return SplatState(*(np.zeros((0, width), np.int32) for width in (2, 3, channels)))

    @staticmethod
    def concatenate(parts: Sequence[SplatState]) -> SplatState:
        """All splats of the (one or more) parts, in order."""
        return SplatState(
            np.concatenate([part.positions for part in parts]),
            np.concatenate([part.shapes for part in parts]),
            np.concatenate([part.amplitudes for part in parts]),
        )
