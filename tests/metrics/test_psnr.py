"""PSNR: by hand, by plane, over a sequence."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgsvc_codec.metrics.psnr import MAX_PSNR, PsnrMeter, psnr_of


def planes(*values, dtype=np.uint8):
    return tuple(np.full((4, 6), value, dtype) for value in values)


def test_one_plane_by_hand():
    meter = PsnrMeter(255, is_rgb=False)
    meter.add(planes(100), planes(95))
    assert meter.combined == pytest.approx(20 * math.log10(255 / 5))


def test_equal_pictures_have_the_cap_and_tiny_errors_stay_below_it():
    meter = PsnrMeter(1023, is_rgb=True)
    meter.add(planes(7, 8, 9, dtype=np.uint16), planes(7, 8, 9, dtype=np.uint16))
    assert meter.combined == MAX_PSNR
    assert meter.planes == (MAX_PSNR,) * 3
    assert psnr_of(1e-9, 1, 255) == MAX_PSNR


def test_rgb_weighs_samples_and_yuv_weighs_decibels():
    source, shown = planes(10, 10, 10), planes(11, 12, 14)
    rgb, yuv = PsnrMeter(255, is_rgb=True), PsnrMeter(255, is_rgb=False)
    for meter in (rgb, yuv):
        meter.add(source, shown)
    assert rgb.combined == pytest.approx(10 * math.log10(255**2 / ((1 + 4 + 16) / 3)))
    y, u, v = (20 * math.log10(255 / error) for error in (1, 2, 4))
    assert yuv.planes == pytest.approx((y, u, v))
    assert yuv.combined == pytest.approx((6 * y + u + v) / 8)


def test_a_sequence_is_measured_by_its_error_not_its_decibels():
    meter = PsnrMeter(255, is_rgb=False)
    meter.add(planes(0), planes(0))
    meter.add(planes(0), planes(10))
    assert meter.combined == pytest.approx(10 * math.log10(255**2 / 50))


def test_differences_do_not_wrap():
    meter = PsnrMeter(255, is_rgb=False)
    meter.add(planes(0), planes(255))
    assert meter.combined == pytest.approx(0)


@given(st.lists(st.integers(1, 155), min_size=1, max_size=5), st.booleans())
def test_a_frame_is_told_as_if_it_were_alone(steps, is_rgb):
    meter = PsnrMeter(255, is_rgb=is_rgb)
    frames = [planes(*(min(100 + step + plane, 255) for plane in range(3))) for step in steps]
    told = [meter.add(planes(100, 100, 100), frame) for frame in frames]
    for figure, frame in zip(told, frames, strict=True):
        alone = PsnrMeter(255, is_rgb=is_rgb)
        alone.add(planes(100, 100, 100), frame)
        assert figure == alone.combined
    assert min(told) - 1e-9 <= meter.combined <= max(told) + 1e-9


def test_the_largest_errors_of_a_large_picture_add_up():
    meter = PsnrMeter(1023, is_rgb=False)
    bright = np.full((61, 83), 1023, np.uint16)
    meter.add((bright,), (np.zeros_like(bright),))
    assert meter.squared_errors == [61 * 83 * 1023.0**2]


def test_planes_of_other_shapes_are_refused():
    frame = (np.zeros((4, 6), np.uint8), np.zeros((2, 3), np.uint8))
    for other in ((frame[0], np.zeros((3, 2), np.uint8)), frame[:1]):
        with pytest.raises(ValueError, match=r"got planes of .*allowed those of the reference, \[\(4, 6\), \(2, 3\)\]"):
            PsnrMeter(255, is_rgb=False).add(frame, other)
