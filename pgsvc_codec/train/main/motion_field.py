"""Motion fields: vectors at the nodes of a coarse grid, which carry the splats of an anchor to the next one.

What counts is not where pixels go but what a field does to the splats: large ones that cancel each other out must go
together.  So a field is fitted by the same descent as the splats' own changes (see `inter`), whose gradients it
collects at its nodes; pixels only propose where to begin.  Against vectors from block matching that saves a quarter
of a P-frame's bits.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main.predict import MAX_VECTOR, MotionField, field_shape
from pgsvc_codec.render.rasterizer import Rasterizer
from pgsvc_codec.train.motion_search import estimate_motion

_HALF_PIXELS = 2  # units of coded vectors in a pixel
KNEE = 0.25  # pixels between neighbours below which roughness is a parabola


class Nodes:
    """How places hang on the nodes of a field, see `coding.main.predict`.

    Args:
        places: [N, 2] full-size pixels from the frame's upper left corner.
        spacing: pixels from node to node.
        size: width and height of the frame.

    Attributes:
        shape: rows and columns of the nodes.
        index: [4, N] the nodes around each place.
        share: [4, N] what each of them counts there.
    """

    def __init__(self, places: NDArray[np.float64], spacing: int, size: tuple[int, int]) -> None:
        self.shape = field_shape(*size, spacing)
        most = np.array(self.shape[::-1]) - 1
        nodes = np.clip(places / spacing - 0.5, 0, most)
        low = np.minimum(nodes.astype(np.intp), np.maximum(most - 1, 0))
        high = np.minimum(low + 1, most)
        right, down = (nodes - low).T
        columns, rows = np.stack([low, high], axis=2).transpose(1, 2, 0)  # [2, N] each
        self.index = np.stack([rows[k // 2] * self.shape[1] + columns[k % 2] for k in range(4)])  # [4, N]
        self.share = np.stack([(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down])

    def let_go(self, rows: NDArray[np.intp]) -> None:
        """From here on these places stay where they are."""
        self.share[:, rows] = 0.0

    def shifts(self, field: NDArray[np.float64]) -> NDArray[np.float64]:
        """[N, 2] where a field [rows, columns, 2] takes the places."""
        shifts: NDArray[np.float64] = np.einsum("kn,knc->nc", self.share, field.reshape(-1, 2)[self.index])
        return shifts

    def collect(self, gradients: NDArray[np.float64]) -> NDArray[np.float64]:
        """[rows, columns, 2] gradient of the field from those [N, 2] of the places."""
        count = self.shape[0] * self.shape[1]
        index = self.index.ravel()
        sums = [np.bincount(index, (self.share * gradients[:, axis]).ravel(), minlength=count) for axis in range(2)]
        return np.stack(sums, axis=1, dtype=np.float64).reshape(*self.shape, 2)


def coded(field: NDArray[np.float64], spacing: int) -> MotionField:
    """A field [rows, columns, 2] of pixels with its vectors rounded."""
    vectors = np.clip(np.rint(field * _HALF_PIXELS), -MAX_VECTOR, MAX_VECTOR)
    return MotionField(spacing, vectors.astype(np.int16))


def in_pixels(field: MotionField) -> NDArray[np.float64]:
    """[rows, columns, 2] the vectors of a coded field."""
    return field.vectors / float(_HALF_PIXELS)


def field_bits(field: MotionField) -> float:
    """About what a field costs: the bits of its vectors' differences from those before, in their own statistics."""
    vectors = field.vectors.astype(np.int64)
    sizes = np.abs(np.diff(vectors, axis=1, prepend=np.roll(vectors[:, :1], 1, axis=0))).ravel()
    counts = np.bincount(sizes)
    counts = counts[counts > 0]
    return float((counts * np.log2(sizes.size / counts)).sum() + np.count_nonzero(sizes))


def roughness(field: NDArray[np.float64]) -> NDArray[np.float64]:
    """[rows, columns, 2] gradient of the sum of the distances between neighbouring vectors, in pixels."""
    slope = np.zeros_like(field)
    for axis in range(2):
        steps = np.tanh(np.diff(field, axis=axis) / KNEE)
        ahead, behind = [slice(None)] * 2, [slice(None)] * 2
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        slope[tuple(ahead)] += steps
        slope[tuple(behind)] -= steps
    return slope


def candidates(
    old: NDArray[np.float32], new: NDArray[np.float32], spacing: int, rasterizer: Rasterizer
) -> Iterator[NDArray[np.float64]]:
    """Fields that a fit may begin from, in pixels: one vector for all, and one for each node.

    Args:
        old: [H, W] luma of the reference's source, unit values.
        new: likewise of the frame to come.
        spacing: pixels from node to node.
        rasterizer: where vectors are searched for.
    """
    height, width = old.shape
    rows, columns = field_shape(width, height, spacing)
    # searched for blocks of the reference, since that is where the splats are
    blocks = -estimate_motion(new, old, rasterizer).vectors.astype(np.float64)
    yield np.broadcast_to(np.median(blocks, axis=(0, 1)), (rows, columns, 2)).copy()
    down, across = (
        np.minimum((np.arange(count) + 0.5) * spacing / side * found, found - 1).astype(np.intp)
        for count, side, found in zip((rows, columns), (height, width), blocks.shape[:2], strict=True)
    )
    around = np.lib.stride_tricks.sliding_window_view(np.pad(blocks, ((1, 1), (1, 1), (0, 0)), "edge"), (3, 3), (0, 1))
    yield np.median(around[np.ix_(down, across)], axis=(3, 4))
