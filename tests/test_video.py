from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgsvc_codec.errors import ConfigError
from pgsvc_codec.video import MAX_SIDE, PIX_FMTS, Chroma, Matrix, Range, VideoInfo, guess_matrix


def info_of(pix_fmt, width=16, height=8):
    chroma, depth = PIX_FMTS[pix_fmt]
    matrix = Matrix.RGB if chroma is Chroma.RGB else Matrix.BT709
    return VideoInfo(width, height, chroma=chroma, depth=depth, matrix=matrix)


@pytest.mark.parametrize("pix_fmt", PIX_FMTS)
def test_pix_fmt_names_chroma_and_depth(pix_fmt):
    info = info_of(pix_fmt)
    assert info.pix_fmt == pix_fmt
    assert info.max_code == (1023 if pix_fmt.endswith("10le") else 255)


@pytest.mark.parametrize(
    ("pix_fmt", "size", "shapes", "size_bytes"),
    [
        ("yuv420p", (1920, 1080), ((1080, 1920), (540, 960), (540, 960)), 3110400),
        ("yuv420p", (65, 49), ((49, 65), (25, 33), (25, 33)), 49 * 65 + 2 * 25 * 33),
        ("yuv420p10le", (576, 324), ((324, 576), (162, 288), (162, 288)), 559872),
        ("yuv422p", (65, 49), ((49, 65), (49, 33), (49, 33)), 49 * (65 + 66)),
        ("yuv444p", (3, 1), ((1, 3),) * 3, 9),
        ("rgb24", (3, 1), ((1, 3),) * 3, 9),
        ("gray", (1, 1), ((1, 1),), 1),
        ("gray10le", (1, 1), ((1, 1),), 2),
    ],
)
def test_plane_shapes_and_frame_bytes(pix_fmt, size, shapes, size_bytes):
    info = info_of(pix_fmt, *size)
    assert info.plane_shapes == shapes
    assert info.frame_bytes == size_bytes


@given(width=st.integers(1, MAX_SIDE), height=st.integers(1, MAX_SIDE), pix_fmt=st.sampled_from(sorted(PIX_FMTS)))
def test_every_luma_sample_has_a_chroma_sample(width, height, pix_fmt):
    info = info_of(pix_fmt, width, height)
    shift_x, shift_y = info.chroma.shift
    assert len(info.plane_shapes) == info.chroma.num_planes
    rows, columns = info.plane_shapes[-1]
    assert (height - 1) >> shift_y == rows - 1
    assert (width - 1) >> shift_x == columns - 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, r"video width: got 0, allowed 1\.\.16384"),
        ({"height": MAX_SIDE + 1}, r"video height: got 16385, allowed 1\.\.16384"),
        ({"rate": Fraction(0)}, "video rate: got 0, allowed > 0"),
        ({"depth": 12}, "video format: YUV420 at 12 bits is not supported, allowed gray, .*yuv420p10le"),
        ({"chroma": Chroma.RGB, "matrix": Matrix.RGB, "depth": 10}, "video format: RGB at 10 bits"),
        ({"chroma": Chroma.RGB}, "video matrix: BT709 does not go with RGB planes"),
        ({"matrix": Matrix.RGB}, "video matrix: RGB does not go with YUV420 planes"),
    ],
)
def test_contradictions_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        VideoInfo(**{"width": 16, "height": 8} | options)


def test_untagged_material_is_bt709_from_720_rows_on():
    assert guess_matrix(719) is Matrix.BT601
    assert guess_matrix(720) is Matrix.BT709


def test_defaults_are_those_of_untagged_video():
    info = VideoInfo(2, 2)
    assert (info.rate, info.pix_fmt, info.range) == (25, "yuv420p", Range.LIMITED)
