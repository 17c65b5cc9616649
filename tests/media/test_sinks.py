import hashlib
import io
import os
import sys
from fractions import Fraction

import numpy as np
import pytest

from pgsvc_codec.errors import ConfigError, InputError, OutputError
from pgsvc_codec.media.sinks import FORMATS, format_for, open_sink, sink_info
from pgsvc_codec.media.source import open_source
from pgsvc_codec.video import PIX_FMTS, Chroma, Matrix, Range, VideoInfo

RAW_FORMATS = ["yuv", "md5", "framemd5", "null"]


def info_of(pix_fmt, width=35, height=23, **options):
    chroma, depth = PIX_FMTS[pix_fmt]
    defaults = {"chroma": chroma, "depth": depth, "matrix": Matrix.BT601, "rate": Fraction(30000, 1001)}
    if chroma is Chroma.RGB:
        defaults |= {"matrix": Matrix.RGB, "range": Range.FULL}
    return VideoInfo(width, height, **defaults | options)


def random_frames(info, count=3):
    rng = np.random.default_rng(7)
    dtype = np.uint8 if info.depth == 8 else np.uint16
    return [
        tuple(rng.integers(0, info.max_code, shape, dtype, endpoint=True) for shape in info.plane_shapes)
        for _ in range(count)
    ]


def written(format, output, info, frames, **options):
    with open_sink(format, str(output), info, **options) as sink:
        assert sink.info == info
        for frame in frames:
            sink.write(frame)
    return output


def assert_frames_equal(got, expected):
    for a, b in zip(got, expected, strict=True):
        for plane_a, plane_b in zip(a, b, strict=True):
            np.testing.assert_array_equal(plane_a, plane_b)


@pytest.mark.parametrize("pix_fmt", sorted(set(PIX_FMTS) - {"rgb24"}))
def test_y4m_is_read_back(tmp_path, pix_fmt):
    info = info_of(pix_fmt)
    frames = random_frames(info)
    with open_source(str(written("y4m", tmp_path / "x.y4m", info, frames))) as source:
        assert source.info == info
        assert_frames_equal(source, frames)


@pytest.mark.parametrize("pix_fmt", PIX_FMTS)
def test_yuv_is_read_back_by_its_name(tmp_path, pix_fmt):
    info = info_of(pix_fmt)
    frames = random_frames(info)
    path = written("yuv", tmp_path / f"x_35x23_29.97_{pix_fmt}.yuv", info, frames)
    with open_source(str(path), matrix=None if pix_fmt == "rgb24" else Matrix.BT601) as source:
        assert source.info == info
        assert_frames_equal(source, frames)


@pytest.mark.parametrize("pix_fmt", ["rgb24", "gray"])
@pytest.mark.parametrize("format", ["png", "ppm"])
def test_images_are_read_back_by_pyav_and_ffmpeg(tmp_path, ffmpeg, format, pix_fmt):
    info = info_of(pix_fmt, range=Range.FULL)
    (frame,) = random_frames(info, 1)
    path = written(format, tmp_path / f"x.{format}", info, [frame])
    with open_source(str(path)) as source:
        assert source.info.pix_fmt == pix_fmt
        assert source.still
        assert_frames_equal(source, [frame])
    assert ffmpeg("-i", path, "-f", "rawvideo", "-pix_fmt", pix_fmt, "-") == np.stack(frame, axis=-1).tobytes()


def test_png_of_a_ramp_is_small(tmp_path):
    info = info_of("gray", 256, 256, range=Range.FULL)
    ramp = np.add.outer(np.arange(256), np.arange(256)).astype(np.uint8)
    assert written("png", tmp_path / "ramp.png", info, [(ramp,)]).stat().st_size < 2000


@pytest.mark.parametrize("pix_fmt", ["rgb24", "gray", "yuv444p10le"])
def test_npy_is_one_array(tmp_path, pix_fmt):
    info = info_of(pix_fmt)
    frames = random_frames(info, 12)
    array = np.load(written("npy", tmp_path / "x.npy", info, frames))
    expected = np.stack([np.stack(frame, axis=-1) for frame in frames])
    np.testing.assert_array_equal(array, expected[..., 0] if pix_fmt == "gray" else expected)
    assert array.dtype == frames[0][0].dtype


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le", "gray", "rgb24"])
def test_hashes_agree_with_ffmpeg(tmp_path, ffmpeg, pix_fmt):
    info = info_of(pix_fmt)
    frames = random_frames(info)
    raw = written("yuv", tmp_path / "x.yuv", info, frames)
    source = ("-f", "rawvideo", "-pix_fmt", pix_fmt, "-s", "35x23", "-r", "30000/1001", "-i", raw)
    ours = written("framemd5", tmp_path / "x.framemd5", info, frames).read_text().splitlines()
    theirs = ffmpeg(*source, "-f", "framemd5", "-").decode().splitlines()
    differing = ("#software", "#sar")  # raw video has no aspect ratio, our frames have square samples
    assert [line for line in ours if not line.startswith(differing)] == [
        line for line in theirs if not line.startswith(differing)
    ]
    md5 = written("md5", tmp_path / "x.md5", info, frames).read_text()
    assert md5 == hashlib.md5(raw.read_bytes()).hexdigest() + "\n"
    assert f"MD5={md5}" == ffmpeg(*source, "-f", "md5", "-").decode()


def test_hashes_go_to_standard_output(monkeypatch):
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer))
    info = info_of("gray", 2, 1)
    written("md5", "-", info, [(np.zeros((1, 2), np.uint8),)])
    assert buffer.getvalue() == hashlib.md5(bytes(2)).hexdigest().encode() + b"\n"


def test_null_writes_nothing(monkeypatch):
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer))
    info = info_of("yuv420p")
    written("null", "-", info, random_frames(info))
    assert buffer.getvalue() == b""
    with pytest.raises(ConfigError, match=r"null writes nothing: got output x\.y4m, allowed -"):
        open_sink("null", "x.y4m", info)


@pytest.mark.parametrize(
    ("pattern", "first", "names"),
    [
        ("f_%03d.png", 0, ["f_000.png", "f_001.png", "f_002.png"]),
        ("f_%n.png", 9, ["f_10.png", "f_11.png", "f_9.png"]),
        ("%d.png", 1, ["1.png", "2.png", "3.png"]),
    ],
)
def test_numbered_images(tmp_path, pattern, first, names):
    info = info_of("rgb24", 4, 3)
    frames = random_frames(info)
    written("png", tmp_path / pattern, info, frames, first=first)
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    with open_source(str(tmp_path)) as source:
        assert_frames_equal(source, frames)


def test_a_second_frame_needs_a_number_and_leaves_nothing(tmp_path):
    info = info_of("rgb24", 4, 3)
    frames = random_frames(info, 2)
    with pytest.raises(ConfigError, match=r"x\.png: a png file holds one frame; number more, as in frame_%04d\.png"):
        written("png", tmp_path / "x.png", info, frames)
    assert list(tmp_path.iterdir()) == []


def test_no_frame_makes_no_image(tmp_path):
    written("png", tmp_path / "%d.png", info_of("rgb24"), [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["y4m", "yuv", "npy", "md5", "framemd5", "png", "ppm"])
def test_existing_files_are_refused_and_interrupted_ones_dropped(tmp_path, format):
    info = sink_info(format, info_of("yuv444p"))
    (frame,) = random_frames(info, 1)
    target = tmp_path / "x"
    target.write_bytes(b"old")
    with pytest.raises(ConfigError, match="x exists; use -y"):
        open_sink(format, str(target), info)
    sink = open_sink(format, str(target), info, overwrite=True)
    sink.write(frame)
    sink.abort()
    sink.abort()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert target.read_bytes() == b"old"
    written(format, target, info, [frame], overwrite=True)
    assert target.read_bytes() != b"old"


@pytest.mark.parametrize("format", FORMATS)
def test_frames_of_another_shape_are_refused(tmp_path, format):
    info = sink_info(format, info_of("yuv420p"))
    frame = random_frames(info_of(info.pix_fmt, 35, 22), 1)[0]
    output = "-" if format == "null" else str(tmp_path / "x")
    with pytest.raises(InputError, match=r"frame plane 0: got uint8 \(22, 35\), allowed uint8 \(23, 35\)"):
        written(format, output, info, [frame])
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_found_before_the_first_frame(tmp_path):
    with pytest.raises(OutputError, match="cannot be written: No such file or directory"):
        open_sink("png", str(tmp_path / "no" / "%d.png"), info_of("rgb24"))


def test_what_a_format_takes():
    yuv, deep, rgb = info_of("yuv420p"), info_of("yuv422p10le"), info_of("rgb24")
    for format in RAW_FORMATS:
        assert [sink_info(format, info) for info in (yuv, deep, rgb)] == [yuv, deep, rgb]
    assert sink_info("y4m", deep) == deep
    assert sink_info("y4m", rgb) == info_of("yuv444p", range=Range.LIMITED)
    for format in ("png", "ppm"):
        assert sink_info(format, yuv) == rgb
        assert sink_info(format, info_of("gray10le")) == info_of("gray", range=Range.FULL)
    assert sink_info("npy", yuv).pix_fmt == "yuv444p"
    assert sink_info("npy", deep).pix_fmt == "yuv444p10le"
    assert sink_info("npy", rgb) == rgb


def test_frames_that_a_format_does_not_take_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="png: got yuv420p limited range, allowed rgb24 full range"):
        open_sink("png", str(tmp_path / "x.png"), info_of("yuv420p"))
    with pytest.raises(ConfigError, match="y4m: got rgb24 full range, allowed yuv444p limited range"):
        open_sink("y4m", str(tmp_path / "x.y4m"), info_of("rgb24"))
    with pytest.raises(
        ConfigError, match="output format: got bmp, allowed y4m, yuv, npy, md5, framemd5, null, png, ppm"
    ):
        sink_info("bmp", info_of("rgb24"))


def test_npy_needs_a_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for output in ("-", "/dev/null", str(tmp_path / "fifo")):
        with pytest.raises(ConfigError, match="npy needs a file"):
            open_sink("npy", output, info_of("gray"))


@pytest.mark.parametrize(
    ("output", "still", "format"),
    [
        ("-", False, "y4m"),
        ("-", True, "y4m"),
        ("/dev/null", True, "y4m"),
        ("x.Y4M", False, "y4m"),
        ("x.yuv", True, "yuv"),
        ("f_%04d.png", False, "png"),
        ("x.pgm", True, "ppm"),
        ("x.npy", True, "npy"),
        ("x.md5", True, "md5"),
        ("x.framemd5", True, "framemd5"),
        ("picture", True, "png"),
    ],
)
def test_format_by_name(output, still, format):
    assert format_for(output, still) == format


@pytest.mark.parametrize(("output", "still"), [("x.mp4", False), ("x.jpg", True), ("video", False)])
def test_names_that_tell_no_format(output, still):
    with pytest.raises(ConfigError, match=rf"{output}: its name does not tell the output format, allowed \.y4m, "):
        format_for(output, still)
