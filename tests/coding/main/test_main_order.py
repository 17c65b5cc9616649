"""Coding order of the frames of a GOP."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgsvc_codec.coding.main.gop import ANCHOR_DISTANCES, coding_order


@given(frames=st.integers(1, 200), distance=st.sampled_from(ANCHOR_DISTANCES))
def test_every_frame_comes_once_and_behind_its_references(frames, distance):
    seen = []
    for frame in coding_order(frames, distance):
        for reference in (frame.past, frame.future):
            assert reference is None or reference in seen
        if frame.future is not None:
            assert frame.past < frame.display < frame.future
        seen.append(frame.display)
    assert sorted(seen) == list(range(frames))


@given(frames=st.integers(1, 200), distance=st.sampled_from(ANCHOR_DISTANCES))
def test_a_prefix_in_display_order_waits_for_at_most_one_distance(frames, distance):
    done = set()
    for coded, frame in enumerate(coding_order(frames, distance)):
        done.add(frame.display)
        ready = next(number for number in range(frames + 1) if number not in done)
        assert coded + 1 - ready <= distance


def test_an_interval_of_four():
    rows = [tuple(frame) for frame in coding_order(6, 4)]
    assert rows == [
        (0, None, None, False, 0),
        (4, 0, None, False, 0),
        (2, 0, 4, False, 1),
        (1, 0, 2, False, 2),
        (3, 2, 4, True, 2),
        (5, 4, None, False, 0),
    ]


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_distance_one_is_a_chain(frames):
    assert [(frame.display, frame.past) for frame in coding_order(frames, 1)][1:] == [
        (number, number - 1) for number in range(1, frames)
    ]
