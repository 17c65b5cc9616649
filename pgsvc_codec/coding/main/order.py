"""In which order the frames of a GOP are coded, and from which others (spec §7, "Order of frames").

Anchors lie `distance` frames apart, from the I-frame on; the last frame of a GOP is one too.  Between two anchors
every frame is predicted from two others, halving the way: first the one in the middle, then those before it, then
those behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

ANCHOR_DISTANCES = (1, 2, 4, 8, 16)


class CodedFrame(NamedTuple):
    """One frame of a GOP, by numbers in display order within it."""

    number: int
    past: int | None = None  # reference before it; None in the I-frame
    future: int | None = None  # reference behind it; None in anchors
    depth: int = 0  # 0 for anchors, 1 for the frame in the middle between two of them, and so on
    late: bool = False  # nearer to the anchor behind than to the anchor before


def coding_order(frames: int, distance: int) -> list[CodedFrame]:
    """All frames of a GOP in coding order.

    Args:
        frames: of the GOP, at least 1.
        distance: from one anchor to the next.
    """
    order = [CodedFrame(0)]
    for past in range(0, frames - 1, distance):
        future = min(past + distance, frames - 1)
        order.append(CodedFrame(future, past))
        order += _between(past, future, 1, (past, future))
    return order


def _between(past: int, future: int, depth: int, anchors: tuple[int, int]) -> Iterator[CodedFrame]:
    """The frames between two references."""
    middle = (past + future) // 2
    if middle == past:
        return
    late = anchors[1] - middle < middle - anchors[0]
    yield CodedFrame(middle, past, future, depth, late)
    yield from _between(past, middle, depth + 1, anchors)
    yield from _between(middle, future, depth + 1, anchors)
