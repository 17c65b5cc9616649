"""In which order the frames of a GOP are coded, and what each of them refers to (spec §7.5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

ANCHOR_DISTANCES = (1, 2, 4, 8, 16)


class FrameStep(NamedTuple):
    """One frame; numbers count frames of the GOP in display order, from 0."""

    display: int
    past: int | None  # reference before it; None in an I-frame
    future: int | None  # reference behind it; None but in B-frames
    late: bool  # nearer to the anchor behind it than to the anchor before
    depth: int  # B-frames between it and its anchors: 0 for I and P, 1 for the middle of two anchors, and so on


INTRA = FrameStep(0, None, None, late=False, depth=0)  # with which every GOP begins


def coding_order(frames: int, anchor_distance: int) -> list[FrameStep]:
    """The frames of a GOP as they are coded.

    Anchors are the multiples of the distance and the last frame.  Each anchor is followed by the frames between it
    and the anchor before: the middle one, then those before it, then those behind it, likewise.

    Args:
        frames: of the GOP, 1 or more.
        anchor_distance: one of `ANCHOR_DISTANCES`.
    """
    steps = [INTRA]
    past = 0
    while past < frames - 1:
        anchor = min(past + anchor_distance, frames - 1)
        steps.append(FrameStep(anchor, past, None, False, 0))
        steps.extend(_between(past, anchor, past + anchor, 1))
        past = anchor
    return steps


def _between(past: int, future: int, anchors: int, depth: int) -> Iterator[FrameStep]:
    middle = (past + future) // 2
    if middle > past:
        yield FrameStep(middle, past, future, 2 * middle > anchors, depth)
        yield from _between(past, middle, anchors, depth + 1)
        yield from _between(middle, future, anchors, depth + 1)
