import io
import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgsvc_codec.errors import ConfigError, InputError
from pgsvc_codec.media.raw import (
    Y4M_FRAME_MAGIC,
    frame_pieces,
    frame_to_bytes,
    geometries_that_fit,
    locate_y4m_frame,
    parse_frame,
    raw_frames,
    read_fully,
    read_y4m_header,
    y4m_frames,
    y4m_header,
)
from pgsvc_codec.video import PIX_FMTS, Chroma, Matrix, Range, Siting, VideoInfo


class Trickle(io.BytesIO):
    """A pipe that gives one byte at a time."""

    def read(self, size=-1):
        return super().read(min(size, 1))


def info_of(pix_fmt, width=6, height=4, **options):
    chroma, depth = PIX_FMTS[pix_fmt]
    matrix = Matrix.RGB if chroma is Chroma.RGB else Matrix.BT601
    return VideoInfo(width, height, **{"chroma": chroma, "depth": depth, "matrix": matrix} | options)


def random_frame(info, seed=0):
    rng = np.random.default_rng(seed)
    dtype = np.uint8 if info.depth == 8 else np.uint16
    return tuple(rng.integers(0, info.max_code, shape, dtype, endpoint=True) for shape in info.plane_shapes)


def assert_frames_equal(a, b):
    assert len(a) == len(b)
    for plane_a, plane_b in zip(a, b, strict=True):
        assert plane_a.dtype == plane_b.dtype
        np.testing.assert_array_equal(plane_a, plane_b)


def refuse(message):
    raise AssertionError(f"unexpected warning: {message}")


def y4m_bytes(info, frames, parameters=b""):
    return y4m_header(info) + b"".join(
        Y4M_FRAME_MAGIC + parameters + b"\n" + frame_to_bytes(frame, info) for frame in frames
    )


@given(
    pix_fmt=st.sampled_from(sorted(PIX_FMTS)), width=st.integers(1, 9), height=st.integers(1, 9), seed=st.integers(0, 9)
)
def test_frames_survive_their_bytes(pix_fmt, width, height, seed):
    info = info_of(pix_fmt, width, height)
    frame = random_frame(info, seed)
    data = frame_to_bytes(frame, info)
    assert len(data) == info.frame_bytes
    assert_frames_equal(parse_frame(data, info), frame)


def test_byte_order_of_deep_samples_and_packing_of_rgb():
    assert frame_to_bytes((np.array([[0x0102]], np.uint16),), info_of("gray10le", 1, 1)) == b"\x02\x01"
    rgb = tuple(np.array([[10 * c, 10 * c + 1]], np.uint8) for c in range(3))
    assert frame_to_bytes(rgb, info_of("rgb24", 2, 1)) == bytes([0, 10, 20, 1, 11, 21])


@pytest.mark.skipif(sys.byteorder != "little", reason="files are little-endian")
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le"])
def test_planes_as_they_are_in_the_file_are_not_copied(pix_fmt):
    info = info_of(pix_fmt)
    frame = random_frame(info, 1)
    pieces = frame_pieces(frame, info)
    assert all(np.shares_memory(piece, plane) for piece, plane in zip(pieces, frame, strict=True))
    turned = tuple(np.asfortranarray(plane) for plane in frame)
    assert b"".join(frame_pieces(turned, info)) == b"".join(pieces)


def test_frames_of_another_shape_are_not_written():
    with pytest.raises(InputError, match=r"frame plane 0: got uint8 \(4, 5\), allowed uint8 \(4, 6\)"):
        frame_to_bytes((np.zeros((4, 5), np.uint8),), info_of("gray"))


@pytest.mark.parametrize("stream_type", [io.BytesIO, Trickle])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "gray10le", "rgb24"])
def test_raw_frames_from_any_stream(stream_type, pix_fmt):
    info = info_of(pix_fmt, 5, 3)
    frames = [random_frame(info, seed) for seed in range(3)]
    stream = stream_type(b"".join(frame_to_bytes(frame, info) for frame in frames))
    for got, expected in zip(raw_frames(stream, info, refuse), frames, strict=True):
        assert_frames_equal(got, expected)


def test_a_short_last_raw_frame_is_dropped_with_a_warning():
    info, warnings = info_of("gray", 4, 2), []
    frames = list(raw_frames(Trickle(bytes(8 + 7)), info, warnings.append))
    assert len(frames) == 1
    assert warnings == ["frame 1 dropped: the input ends after 7 of its 8 bytes"]


def test_read_fully_stops_at_the_end():
    assert read_fully(Trickle(b"abc"), 2) == b"ab"
    assert read_fully(Trickle(b"abc"), 9) == b"abc"


def test_geometries_that_fit_are_nearest_first():
    assert geometries_that_fit(6220800, info_of("yuv420p", 1280, 720))[:2] == [
        "8 frames of 960x540 yuv420p",
        "2 frames of 1920x1080 yuv420p",
    ]
    assert geometries_that_fit(101376 * 3 // 2, info_of("yuv420p", 352, 290))[0] == "1 frame of 352x288 yuv420p"
    assert geometries_that_fit(7, info_of("yuv420p")) == []


@pytest.mark.parametrize("stream_type", [io.BytesIO, Trickle])
@pytest.mark.parametrize("pix_fmt", sorted(set(PIX_FMTS) - {"rgb24"}))
@pytest.mark.parametrize("value_range", Range)
def test_y4m_round_trip(stream_type, pix_fmt, value_range):
    info = info_of(pix_fmt, 5, 3, rate=Fraction(30000, 1001), range=value_range)
    frames = [random_frame(info, seed) for seed in range(2)]
    stream = stream_type(y4m_bytes(info, frames))
    header = read_y4m_header(stream, "x.y4m")
    assert header.info == info
    assert header.size_bytes == len(y4m_header(info))
    assert list(header.assumed) == ([] if pix_fmt.startswith("gray") else ["matrix"])
    for got, expected in zip(y4m_frames(stream, info, "x.y4m", refuse), frames, strict=True):
        assert_frames_equal(got, expected)


@pytest.mark.parametrize(
    ("tag", "pix_fmt", "siting"),
    [
        ("420jpeg", "yuv420p", Siting.CENTER),
        ("420mpeg2", "yuv420p", Siting.LEFT),
        ("420paldv", "yuv420p", Siting.TOP_LEFT),
        ("420", "yuv420p", Siting.CENTER),
        (None, "yuv420p", Siting.CENTER),
        ("420p10", "yuv420p10le", Siting.LEFT),
        ("422", "yuv422p", Siting.LEFT),
        ("422p10", "yuv422p10le", Siting.LEFT),
        ("444", "yuv444p", Siting.LEFT),
        ("444p10", "yuv444p10le", Siting.LEFT),
        ("mono", "gray", Siting.LEFT),
        ("mono10", "gray10le", Siting.LEFT),
    ],
)
def test_y4m_colour_space_tags(tag, pix_fmt, siting):
    parameter = b"" if tag is None else f" C{tag}".encode()
    info = read_y4m_header(io.BytesIO(b"YUV4MPEG2 W64 H48 F25:1" + parameter + b"\n"), "x").info
    assert (info.pix_fmt, info.siting) == (pix_fmt, siting)


@pytest.mark.parametrize("siting", Siting)
def test_siting_survives_y4m(siting):
    info = info_of("yuv420p", siting=siting)
    assert read_y4m_header(io.BytesIO(y4m_header(info)), "x").info == info


def test_interlacing_aspect_and_unknown_extensions_are_ignored():
    line = b"YUV4MPEG2 H720 W1280 F0:0 It A10:11 C422 XWHATEVER=1 XCOLORRANGE=FULL\n"
    header = read_y4m_header(io.BytesIO(line), "x")
    assert header.info == VideoInfo(1280, 720, chroma=Chroma.YUV422, matrix=Matrix.BT709, range=Range.FULL)
    assert header.assumed == {"fps": "25 fps", "matrix": "matrix bt709"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"YUV4MPEG2 W64 H48 C420p12\n", "x: y4m colour space C420p12 is not supported, allowed C420jpeg, .*Cmono10"),
        (b"YUV4MPEG2 H48 C420\n", r"x: y4m parameter W: got nothing, allowed 1\.\.16384"),
        (b"YUV4MPEG2 W64 H-8\n", r"x: y4m parameter H: got -8, allowed 1\.\.16384"),
        (b"YUV4MPEG2 W64 H99999\n", r"x: video height: got 99999, allowed 1\.\.16384"),
        (b"YUV4MPEG2 W64 H48 F25\n", "x: y4m parameter F: got 25, allowed N:D"),
        (b"YUV4MPEG3 W64 H48\n", "x: not a y4m stream: starts with b'YUV4MPEG3 W64 H4"),
        (b"YUV4MPEG2" + b" X" * 600 + b"\n", "x: not a y4m stream"),
        (b"", "x: not a y4m stream: starts with b''"),
    ],
)
def test_bad_y4m_headers(line, message):
    with pytest.raises(InputError, match=message):
        read_y4m_header(io.BytesIO(line), "x")


def test_frame_lines_may_have_parameters():
    info = info_of("gray", 3, 2)
    frames = [random_frame(info, seed) for seed in range(3)]
    data = y4m_bytes(info, frames, b" Ip XY=2")
    stream = io.BytesIO(data)
    header = read_y4m_header(stream, "x")
    got = list(y4m_frames(stream, info, "x", refuse))
    assert_frames_equal(got[2], frames[2])
    count, offset = locate_y4m_frame(stream, header, len(data), 1, "x")
    assert count == 3
    assert offset == header.size_bytes + len(b"FRAME Ip XY=2\n") + info.frame_bytes


def test_every_cut_of_a_y4m_stream_gives_the_whole_frames_and_a_warning():
    info = info_of("gray", 3, 2)
    frames = [random_frame(info, seed) for seed in range(2)]
    data = y4m_bytes(info, frames)
    start, frame_bytes = len(y4m_header(info)), len(b"FRAME\n") + info.frame_bytes
    for cut in range(start, len(data) + 1):
        stream, warnings = io.BytesIO(data[:cut]), []
        header = read_y4m_header(stream, "x")
        got = list(y4m_frames(stream, info, "x", warnings.append))
        whole, rest = divmod(cut - start, frame_bytes)
        assert len(got) == whole
        assert len(warnings) == (rest > 0)
        assert locate_y4m_frame(stream, header, cut, 0, "x") == (whole, start if whole else None)


@pytest.mark.parametrize("junk", [b"FRAMES\n", b"frame\n", b"\0" * 20, b"FRAME" + b"x" * 2000])
def test_junk_instead_of_a_frame_line(junk):
    info = info_of("gray", 3, 2)
    stream = io.BytesIO(y4m_bytes(info, [random_frame(info)]) + junk)
    header = read_y4m_header(stream, "x")
    with pytest.raises(InputError, match=r"x: y4m frame 1: starts with b'.*allowed b'FRAME'"):
        list(y4m_frames(stream, info, "x", refuse))
    with pytest.raises(InputError, match="x: y4m frame 1: starts with"):
        locate_y4m_frame(stream, header, 10**6, 0, "x")


def test_y4m_has_no_rgb():
    with pytest.raises(ConfigError, match=r"y4m holds no rgb24, allowed gray, .*yuv444p10le"):
        y4m_header(info_of("rgb24"))


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "gray", "yuv420p10le", "yuv444p10le"])
def test_ffmpeg_reads_what_we_write_and_we_read_what_it_writes(ffmpeg, pix_fmt):
    info = info_of(pix_fmt, 35, 23, rate=Fraction(24000, 1001), range=Range.FULL)
    frames = [random_frame(info, seed) for seed in range(3)]
    ours = y4m_bytes(info, frames)
    raw = ffmpeg("-i", "-", "-f", "rawvideo", "-pix_fmt", pix_fmt, "-", stdin=ours)
    assert raw == b"".join(frame_to_bytes(frame, info) for frame in frames)
    stream = io.BytesIO(ffmpeg("-i", "-", "-strict", "-1", "-f", "yuv4mpegpipe", "-", stdin=ours))
    header = read_y4m_header(stream, "x")
    assert replace(header.info, siting=info.siting) == info
    for got, expected in zip(y4m_frames(stream, info, "x", refuse), frames, strict=True):
        assert_frames_equal(got, expected)
