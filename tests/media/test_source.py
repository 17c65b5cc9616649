import io
import os
import subprocess
import sys
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pgsvc_codec.errors import ConfigError, InputError
from pgsvc_codec.media.raw import frame_to_bytes, y4m_header
from pgsvc_codec.media.source import open_source
from pgsvc_codec.video import PIX_FMTS, Chroma, Matrix, Range, Siting, VideoInfo


def info_of(pix_fmt, width=34, height=22, **options):
    chroma, depth = PIX_FMTS[pix_fmt]
    defaults = {"chroma": chroma, "depth": depth, "matrix": Matrix.BT601}
    if chroma is Chroma.RGB:
        defaults |= {"matrix": Matrix.RGB, "range": Range.FULL}
    return VideoInfo(width, height, **defaults | options)


def random_frames(info, count=3):
    rng = np.random.default_rng(3)
    dtype = np.uint8 if info.depth == 8 else np.uint16
    return [
        tuple(rng.integers(0, info.max_code, shape, dtype, endpoint=True) for shape in info.plane_shapes)
        for _ in range(count)
    ]


def raw_bytes(info, frames):
    return b"".join(frame_to_bytes(frame, info) for frame in frames)


def y4m_bytes(info, frames):
    return y4m_header(info) + b"".join(b"FRAME\n" + frame_to_bytes(frame, info) for frame in frames)


def assert_frames_equal(got, expected):
    got = list(got)
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        for plane_a, plane_b in zip(a, b, strict=True):
            assert plane_a.dtype == plane_b.dtype
            np.testing.assert_array_equal(plane_a, plane_b)


class Trickle(io.BytesIO):
    def read(self, size=-1):
        return super().read(min(size, 1)) if size > 0 else super().read(size)

    def seekable(self):
        return False


@pytest.fixture
def pipe(monkeypatch):
    """A function that makes bytes standard input, one at a time unless told otherwise."""

    def feed(data, stream_type=Trickle):
        class Stdin:
            buffer = stream_type(data)

            def isatty(self):
                return False

        monkeypatch.setattr(sys, "stdin", Stdin())

    return feed


@pytest.fixture
def encoded(tmp_path, ffmpeg):
    """A function that encodes frames with ffmpeg arguments to a file of that name."""

    def encode(name, info, frames, *arguments):
        raw = tmp_path / "encoded.raw"
        raw.write_bytes(raw_bytes(info, frames))
        size = f"{info.width}x{info.height}"
        path = tmp_path / name
        ffmpeg("-f", "rawvideo", "-pix_fmt", info.pix_fmt, "-s", size, "-r", info.rate, "-i", raw, *arguments, path)
        return str(path)

    return encode


# y4m


def test_y4m_under_any_name(tmp_path):
    info = info_of("yuv422p10le", rate=Fraction(50))
    frames = random_frames(info)
    path = tmp_path / "clip.video"
    path.write_bytes(y4m_bytes(info, frames))
    with open_source(str(path)) as source:
        assert (source.info, source.frame_count, source.still) == (info, 3, False)
        assert source.assumed == ["matrix bt601"]
        assert source.warnings == []
        assert_frames_equal(source, frames)


@pytest.mark.parametrize(("seek", "frames", "left"), [(0, None, 5), (2, None, 3), (1, 2, 2), (4, 1, 1), (0, 5, 5)])
@pytest.mark.parametrize("suffix", ["y4m", "yuv", "mkv", "folder", "-"])
def test_seek_and_frames(tmp_path, encoded, pipe, suffix, seek, frames, left):
    info = info_of("rgb24" if suffix == "folder" else "yuv420p")
    clip = random_frames(info, 5)
    location = str(tmp_path / f"x_34x22.{suffix}")
    if suffix == "-":
        pipe(y4m_bytes(info, clip))
        location = "-"
    elif suffix == "mkv":
        encoded("x_34x22.mkv", info, clip, "-c:v", "ffv1")
    elif suffix == "folder":
        os.mkdir(location)
        encoded("x_34x22.folder/%d.png", info, clip)
    else:
        (tmp_path / f"x_34x22.{suffix}").write_bytes((y4m_bytes if suffix == "y4m" else raw_bytes)(info, clip))
    with open_source(location, seek=seek, frames=frames) as source:
        known = frames if suffix in ("mkv", "-") else left
        assert source.frame_count == known
        assert_frames_equal(source, clip[seek : seek + left])
        assert source.warnings == []


@pytest.mark.parametrize("suffix", ["y4m", "yuv", "mkv", "-"])
def test_seek_beyond_the_end_is_an_error_and_frames_beyond_it_a_warning(tmp_path, encoded, pipe, suffix):
    info = info_of("yuv420p")
    clip = random_frames(info, 3)
    location = str(tmp_path / f"x_34x22.{suffix}")
    if suffix == "mkv":
        encoded("x_34x22.mkv", info, clip, "-c:v", "ffv1")
    elif suffix == "-":
        location = "-"
        pipe(y4m_bytes(info, clip))
    else:
        (tmp_path / f"x_34x22.{suffix}").write_bytes((y4m_bytes if suffix == "y4m" else raw_bytes)(info, clip))
    with pytest.raises(InputError, match=r"seek 3 is beyond its end, allowed 0\.\.2"):
        open_source(location, seek=3)
    if suffix == "-":
        pipe(y4m_bytes(info, clip))
    with open_source(location, seek=1, frames=9) as source:
        assert_frames_equal(source, clip[1:])
        assert source.warnings == ["frames 9: the input has only 2"]


def test_a_source_is_iterated_once(tmp_path):
    info = info_of("gray")
    (tmp_path / "x.y4m").write_bytes(y4m_bytes(info, random_frames(info)))
    with open_source(str(tmp_path / "x.y4m")) as source:
        list(source)
        with pytest.raises(ValueError, match="iterated once"):
            next(iter(source))


def test_options_overrule_what_y4m_says(tmp_path):
    info = info_of("yuv420p", range=Range.FULL)
    (tmp_path / "x.y4m").write_bytes(y4m_bytes(info, random_frames(info)))
    with open_source(str(tmp_path / "x.y4m"), fps=Fraction(50), range=Range.LIMITED, matrix=Matrix.BT2020NC) as source:
        assert source.info == replace(info, rate=Fraction(50), range=Range.LIMITED, matrix=Matrix.BT2020NC)
        assert source.assumed == []
        assert source.warnings == [
            "fps: 50 overrules 25 of the input",
            "range: limited overrules full of the input",
        ]


def test_cut_y4m_warns(tmp_path):
    info = info_of("yuv420p")
    clip = random_frames(info, 2)
    (tmp_path / "x.y4m").write_bytes(y4m_bytes(info, clip)[:-1])
    with open_source(str(tmp_path / "x.y4m")) as source:
        assert source.frame_count == 1
        assert_frames_equal(source, clip[:1])
        assert source.warnings == [f"frame 1 dropped: the input ends after 1121 of its {info.frame_bytes} bytes"]
    (tmp_path / "x.y4m").write_bytes(y4m_header(info))
    with pytest.raises(InputError, match=r"x\.y4m: holds no whole frame"):
        open_source(str(tmp_path / "x.y4m"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (34, 22)}, "size does not apply to .*, which is y4m"),
        ({"pix_fmt": "yuv420p"}, "pix_fmt does not apply to .*, which is y4m"),
        ({"seek": -1}, "seek: got -1, allowed 0 and more"),
        ({"frames": 0}, "frames: got 0, allowed 1 and more"),
        ({"fps": Fraction(0)}, "fps: got 0, allowed > 0"),
    ],
)
def test_options_that_cannot_apply(tmp_path, options, message):
    info = info_of("yuv420p")
    (tmp_path / "x.y4m").write_bytes(y4m_bytes(info, random_frames(info)))
    with pytest.raises(ConfigError, match=message):
        open_source(str(tmp_path / "x.y4m"), **options)


# raw video


@pytest.mark.parametrize("pix_fmt", PIX_FMTS)
def test_raw_with_everything_said(tmp_path, pix_fmt):
    info = info_of(pix_fmt, rate=Fraction(50), range=Range.FULL)
    frames = random_frames(info)
    path = tmp_path / "clip.bin"
    path.write_bytes(raw_bytes(info, frames))
    matrix = None if pix_fmt == "rgb24" else info.matrix
    with open_source(
        str(path), size=(34, 22), pix_fmt=pix_fmt, fps=info.rate, range=info.range, matrix=matrix
    ) as source:
        assert (source.info, source.frame_count, source.assumed, source.warnings) == (info, 3, [], [])
        assert_frames_equal(source, frames)


def test_raw_by_name_says_what_it_assumed(tmp_path):
    info = info_of("yuv420p")
    folder = tmp_path / "clips_34x22"
    folder.mkdir()
    (folder / "a.yuv").write_bytes(raw_bytes(info, random_frames(info)))
    with open_source(str(folder / "a.yuv")) as source:
        assert source.info == info
        assert source.assumed == ["yuv420p", "25 fps", "matrix bt601", "range limited"]


def test_options_beat_the_name_with_a_warning(tmp_path):
    info = info_of("yuv444p", 20, 10, rate=Fraction(30))
    path = tmp_path / "x_34x22_50fps_420.yuv"
    path.write_bytes(raw_bytes(info, random_frames(info)))
    with open_source(str(path), size=(20, 10), pix_fmt="yuv444p", fps=Fraction(30)) as source:
        assert source.info == info
        assert source.warnings == [
            f"size: 20x10 overrules 34x22 in the name {path}",
            f"pix_fmt: yuv444p overrules yuv420p in the name {path}",
            f"fps: 30 overrules 50 in the name {path}",
        ]


def test_raw_that_is_no_whole_number_of_frames(tmp_path):
    path = tmp_path / "x_1280x720.yuv"
    path.write_bytes(bytes(6220800))
    message = (
        r"x_1280x720\.yuv: 6220800 bytes are no whole frames of 1280x720 yuv420p, which have 1382400; "
        r"they are 8 frames of 960x540 yuv420p or 2 frames of 1920x1080 yuv420p"
    )
    with pytest.raises(InputError, match=message):
        open_source(str(path))
    path.write_bytes(bytes(7))
    with pytest.raises(InputError, match="no usual size fits"):
        open_source(str(path))


def test_raw_without_a_size_is_refused(tmp_path):
    (tmp_path / "clip.yuv").write_bytes(bytes(600))
    with pytest.raises(ConfigError, match=r"clip\.yuv: the size of raw video is unknown; give it"):
        open_source(str(tmp_path / "clip.yuv"))


@pytest.mark.parametrize("pix_fmt", ["yuv420p12le", "yuv420p10be", "nv12"])
def test_raw_formats_that_are_not_supported(tmp_path, pix_fmt):
    (tmp_path / "clip.yuv").write_bytes(bytes(600))
    with pytest.raises(InputError, match=f"pixel format {pix_fmt} is not supported, allowed gray, gray10le, yuv420p"):
        open_source(str(tmp_path / "clip.yuv"), size=(20, 10), pix_fmt=pix_fmt)


def test_deep_samples_that_exceed_their_depth_are_refused(tmp_path):
    (tmp_path / "x_40x20_gray10le.yuv").write_bytes(np.full(800, 1024, "<u2").tobytes())
    message = r"frame 0: code value 1024 is no gray10le, allowed 0\.\.1023"
    with open_source(str(tmp_path / "x_40x20_gray10le.yuv")) as source, pytest.raises(InputError, match=message):
        next(iter(source))


def test_matrix_has_no_use_for_rgb(tmp_path):
    (tmp_path / "x_20x10.rgb").write_bytes(bytes(600))
    with pytest.raises(ConfigError, match=r"matrix does not apply to .*x_20x10\.rgb, which is RGB"):
        open_source(str(tmp_path / "x_20x10.rgb"), matrix=Matrix.BT709)
    with open_source(str(tmp_path / "x_20x10.rgb")) as source:
        assert (source.info.pix_fmt, source.info.range) == ("rgb24", Range.FULL)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"YUV4MPEG2 W20 H10\nFRAME\n", "y4m"),
        (b"\0\0\0\x18ftypisom", "MP4"),
        (b"\x1a\x45\xdf\xa3", "Matroska"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"RIFF\0\0\0\0AVI LIST", "AVI"),
    ],
)
def test_a_raw_name_on_something_else_is_refused(tmp_path, start, kind):
    path = tmp_path / "x_20x10.yuv"
    path.write_bytes(start + bytes(300 - len(start)))
    with pytest.raises(InputError, match=rf"x_20x10\.yuv: starts like {kind}, allowed raw video in a \.yuv file"):
        open_source(str(path))


def test_y4m_can_be_insisted_on(tmp_path):
    info = info_of("gray")
    path = tmp_path / "x.yuv"
    path.write_bytes(y4m_bytes(info, random_frames(info)))
    with open_source(str(path), y4m=True) as source:
        assert source.info == info
    path.write_bytes(b"something else than that")
    with pytest.raises(InputError, match=r"x\.yuv: is not y4m: starts with b'something else t', allowed b'YUV4MPEG2'"):
        open_source(str(path), y4m=True)


# pipes


@pytest.mark.parametrize("stream_type", [Trickle, io.BytesIO])
def test_y4m_and_raw_from_standard_input(pipe, stream_type):
    info = info_of("yuv420p10le")
    frames = random_frames(info)
    pipe(y4m_bytes(info, frames), stream_type)
    with open_source("-", frames=2) as source:
        assert (source.info, source.frame_count) == (replace(info, siting=Siting.LEFT), 2)
        assert_frames_equal(source, frames[:2])
    pipe(raw_bytes(info, frames) + b"short", stream_type)
    with open_source("-", size=(34, 22), pix_fmt="yuv420p10le", seek=1) as source:
        assert source.frame_count is None
        assert_frames_equal(source, frames[1:])
        assert source.warnings == [f"frame 3 dropped: the input ends after 5 of its {info.frame_bytes} bytes"]


def test_a_container_from_standard_input(pipe, encoded):
    info = info_of("yuv420p")
    frames = random_frames(info)
    pipe(Path(encoded("x.mkv", info, frames, "-c:v", "ffv1")).read_bytes())
    with open_source("-") as source:
        assert_frames_equal(source, frames)


def test_a_png_from_standard_input(pipe, encoded):
    info = info_of("rgb24")
    frames = random_frames(info, 1)
    pipe(Path(encoded("x.png", info, frames)).read_bytes())
    with open_source("-") as source:
        assert source.still
        assert_frames_equal(source, frames)


@pytest.mark.parametrize("options", [{}, {"movflags": "+faststart"}])
def test_an_mp4_from_standard_input_needs_its_index_in_front(tmp_path, pipe, options):
    path = tmp_path / "x.mp4"
    rng = np.random.default_rng(0)
    with av.open(path, "w", options=options) as container:
        video = container.add_stream("mpeg4", rate=25, width=256, height=192, pix_fmt="yuv420p")
        video.bit_rate = 20_000_000
        for _ in range(8):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (288, 256), np.uint8), format="yuv420p")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    with open_source(str(path)) as source:
        frames = list(source)
    pipe(path.read_bytes())
    if options:
        with open_source("-") as source:
            assert_frames_equal(source, frames)
    else:
        said = r"input: an MP4 whose index \(moov\) comes last cannot be read from a pipe, allowed the file itself"
        with pytest.raises(InputError, match=said):
            open_source("-")


def test_standard_input_that_is_empty_or_noise(pipe):
    pipe(b"")
    with pytest.raises(InputError, match="standard input: is empty"):
        open_source("-")
    pipe(b"noise, and no geometry" * 100)
    with pytest.raises(InputError, match="standard input: is not readable as video or image"):
        open_source("-")
    pipe(b"noise")
    with pytest.raises(InputError, match="standard input: holds no whole frame"):
        open_source("-", size=(20, 10))


def test_a_terminal_is_no_input(monkeypatch):
    class Terminal:
        def isatty(self):
            return True

    for stdin in (None, Terminal()):
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(InputError, match="standard input is closed or a terminal, allowed a pipe or a file"):
            open_source("-")


def test_a_named_pipe(tmp_path):
    info = info_of("yuv420p")
    frames = random_frames(info)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(y4m_bytes(info, frames)))
    writer.start()
    with open_source(str(fifo)) as source:
        assert source.frame_count is None
        assert_frames_equal(source, frames)
    writer.join()


# containers


@pytest.mark.parametrize("pix_fmt", sorted(set(PIX_FMTS) - {"rgb24"}))
def test_native_planes_of_containers(encoded, pix_fmt):
    info = info_of(pix_fmt, 35, 23, rate=Fraction(30000, 1001))
    frames = random_frames(info)
    with open_source(encoded("x.mkv", info, frames, "-c:v", "ffv1")) as source:
        assert replace(source.info, range=info.range, rate=info.rate) == info
        assert abs(source.info.rate - info.rate) < Fraction(1, 100)
        assert_frames_equal(source, frames)


@pytest.mark.parametrize("target", ["bgr0", "gbrp", "rgb24", "bgra", "rgba"])
def test_kinds_of_rgb_become_planes(encoded, target):
    info = info_of("rgb24", 35, 23)
    frames = random_frames(info)
    codec = {"gbrp": "libx264rgb", "rgb24": "png", "rgba": "png"}.get(target, "ffv1")
    options = ["-qp", "0"] if codec == "libx264rgb" else []
    path = encoded("x.mkv", info, frames, "-c:v", codec, "-pix_fmt", "rgb24" if options else target, *options)
    with open_source(path) as source:
        assert (source.info.pix_fmt, source.info.range) == ("rgb24", Range.FULL)
        assert source.assumed == []
        assert_frames_equal(source, frames)


def test_colour_tags_of_containers(encoded):
    info = info_of("yuv420p", 64, 48)
    tags = "setparams=colorspace=bt2020nc:range=full:color_primaries=bt2020:color_trc=smpte2084"
    path = encoded("x.mp4", info, random_frames(info), "-vf", tags, "-c:v", "libx264", "-qp", "0")
    with open_source(path) as source:
        assert (source.info.matrix, source.info.range) == (Matrix.BT2020NC, Range.FULL)
        assert (source.info.primaries, source.info.transfer) == (9, 16)
        assert (source.frame_count, source.assumed) == (3, [])


def test_matrices_that_are_not_supported_need_a_word(encoded):
    info = info_of("yuv420p", 64, 48)
    path = encoded("x.mp4", info, random_frames(info), "-c:v", "libx264", "-colorspace", "smpte240m")
    with pytest.raises(InputError, match=r"matrix coefficients 7 \(CICP\) are not supported, allowed bt709, bt601"):
        open_source(path)
    with open_source(path, matrix=Matrix.BT709) as source:
        assert source.info.matrix is Matrix.BT709


@pytest.mark.parametrize("pix_fmt", ["yuv420p12le", "yuv410p", "yuv440p"])
def test_pixel_formats_that_are_not_supported(encoded, pix_fmt):
    info = info_of("yuv420p")
    path = encoded("x.mkv", info, random_frames(info), "-c:v", "ffv1", "-pix_fmt", pix_fmt)
    with pytest.raises(InputError, match=f"pixel format {pix_fmt} is not supported, allowed gray, gray10le, yuv420p"):
        open_source(path)


def test_raw_options_have_no_use_for_containers(encoded):
    info = info_of("yuv420p")
    path = encoded("x.mkv", info, random_frames(info), "-c:v", "ffv1")
    with pytest.raises(ConfigError, match=r"size does not apply to .*, which is not raw video"):
        open_source(path, size=(34, 22))


def test_a_size_that_changes_is_refused(tmp_path):
    path = tmp_path / "x.mjpeg"
    with path.open("wb") as file:
        for width in (32, 32, 48):
            codec = av.CodecContext.create("mjpeg", "w")
            codec.width, codec.height, codec.pix_fmt, codec.time_base = width, 32, "yuvj420p", Fraction(1, 25)
            for packet in (*codec.encode(av.VideoFrame(width, 32, "yuvj420p")), *codec.encode(None)):
                file.write(bytes(packet))
    with open_source(str(path)) as source:
        frames = iter(source)
        next(frames)
        next(frames)
        with pytest.raises(InputError, match="frame 2 is 48x32 yuvj420p, allowed 32x32 yuvj420p as the first"):
            next(frames)


def test_a_damaged_container_is_one_clear_error(encoded, tmp_path, capfd):
    info = info_of("yuv420p", 64, 48)
    path = encoded("x.mkv", info, random_frames(info, 20), "-c:v", "ffv1", "-slicecrc", "1")
    data = bytearray(Path(path).read_bytes())
    for offset in range(len(data) // 2, len(data) // 2 + 4000):
        data[offset] ^= 0x5A
    (tmp_path / "bad.mkv").write_bytes(data)
    message = r"bad\.mkv: frame [0-9]+ (is damaged|cannot be decoded)"
    with open_source(str(tmp_path / "bad.mkv")) as source, pytest.raises(InputError, match=message):
        list(source)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_cut_container_is_never_silent(encoded, tmp_path, capfd, part):
    info = info_of("yuv420p", 64, 48)
    path = encoded("x.mp4", info, random_frames(info, 20), "-c:v", "libx264", "-qp", "0", "-movflags", "+faststart")
    data = Path(path).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: int(part * len(data))])
    with open_source(str(tmp_path / "cut.mp4")) as source:
        count = sum(1 for _ in source)
        assert 0 < count < 20
        assert source.warnings == [f"the input ends after {count} of the 20 frames that it announces"]
    assert capfd.readouterr() == ("", "")


def test_a_container_that_announces_more_than_it_holds(encoded, tmp_path):
    info = info_of("yuv420p", 64, 48)
    path = encoded("x.avi", info, random_frames(info, 20), "-c:v", "mjpeg", "-q:v", "9")
    data = Path(path).read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: data.rindex(b"00dc", 0, data.index(b"idx1"))])
    with open_source(str(tmp_path / "cut.avi")) as source:
        assert source.frame_count == 20
        assert sum(1 for _ in source) == 19
        assert source.warnings == ["the input ends after 19 of the 20 frames that it announces"]


def test_a_container_without_its_index(encoded, tmp_path):
    info = info_of("yuv420p", 64, 48)
    path = encoded("x.mp4", info, random_frames(info), "-c:v", "libx264")
    (tmp_path / "cut.mp4").write_bytes(Path(path).read_bytes()[:400])
    with pytest.raises(InputError, match=r"cut\.mp4: (is not readable as video or image|holds no video)"):
        open_source(str(tmp_path / "cut.mp4"))


def test_sound_alone_is_no_video(tmp_path, ffmpeg):
    ffmpeg("-f", "lavfi", "-i", "sine=d=0.1", tmp_path / "x.wav")
    with pytest.raises(InputError, match=r"x\.wav: holds no video and no picture"):
        open_source(str(tmp_path / "x.wav"))


# images


def test_png_keeps_rgb_and_gray(encoded):
    for pix_fmt in ("rgb24", "gray"):
        info = info_of(pix_fmt, 35, 23, range=Range.FULL)
        frames = random_frames(info, 1)
        with open_source(encoded("x.png", info, frames)) as source:
            assert replace(source.info, primaries=2, transfer=2) == info
            assert (source.still, source.frame_count, source.assumed) == (True, 1, [])
            assert_frames_equal(source, frames)


@pytest.mark.parametrize("name", ["x.bmp", "x.ppm", "x.tif", "x%d.png"])
def test_other_images(encoded, tmp_path, name):
    info = info_of("rgb24", 35, 23)
    frames = random_frames(info, 1)
    path = encoded(name, info, frames)
    if "%" in name:
        os.rename(path.replace("%d", "1"), path)  # a file that is really named like a pattern
    with open_source(path) as source:
        assert (source.info.pix_fmt, source.info.range, source.still) == ("rgb24", Range.FULL, True)
        assert_frames_equal(source, frames)


def test_palettes_and_bitmaps(encoded, ffmpeg):
    info = info_of("gray", 35, 23, range=Range.FULL)
    (plane,) = random_frames(info, 1)[0]
    bitmap = np.where(plane > 127, 255, 0).astype(np.uint8)
    with open_source(encoded("mono.png", info, [(bitmap,)], "-pix_fmt", "monob", "-sws_dither", "none")) as source:
        assert source.info.pix_fmt == "gray"
        assert_frames_equal(source, [(bitmap,)])
    path = encoded("palette.png", info, [(plane,)], "-pix_fmt", "pal8")
    pixels = np.frombuffer(ffmpeg("-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"), np.uint8)
    with open_source(path) as source:
        assert_frames_equal(source, [tuple(np.moveaxis(pixels.reshape(23, 35, 3), -1, 0))])


@pytest.mark.parametrize(("pix_fmt", "target"), [("rgb24", "rgba"), ("gray", "ya8")])
@pytest.mark.parametrize("opaque", [True, False])
def test_alpha_is_dropped_with_a_warning(encoded, pix_fmt, target, opaque):
    info = info_of(pix_fmt, 35, 23)
    frames = random_frames(info, 1)
    transparent = () if opaque else ("-vf", f"format={target},colorchannelmixer=aa=0.5")
    if pix_fmt == "gray" and not opaque:
        transparent = ("-vf", "format=gray,split[a][b];[a][b]alphamerge")
    with open_source(encoded("x.png", info, frames, *transparent, "-pix_fmt", target)) as source:
        assert_frames_equal(source, frames)
        assert source.warnings == ([] if opaque else ["the alpha channel is dropped"])


def test_deep_png_is_refused(encoded):
    info = info_of("rgb24")
    path = encoded("x.png", info, random_frames(info, 1), "-pix_fmt", "rgb48be")
    with pytest.raises(InputError, match="pixel format rgb48be is not supported, allowed gray, "):
        open_source(path)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p"])
def test_jpeg_keeps_its_planes(encoded, ffmpeg, pix_fmt):
    info = info_of(pix_fmt, 35, 23, range=Range.FULL)
    path = encoded("x.jpg", info, random_frames(info, 1), "-pix_fmt", f"yuvj{pix_fmt[3:]}")
    with open_source(path) as source:
        assert source.info == replace(info, siting=Siting.CENTER)
        expected = ffmpeg("-i", path, "-f", "rawvideo", "-")
        assert raw_bytes(source.info, source) == expected


def test_folders_are_read_in_natural_order(encoded, tmp_path):
    info = info_of("rgb24")
    frames = random_frames(info, 12)
    (tmp_path / "pictures").mkdir()
    encoded("pictures/f%d.png", info, frames)
    (tmp_path / "pictures" / "notes.txt").write_text("no image")
    with open_source(str(tmp_path / "pictures"), fps=Fraction(10)) as source:
        assert (source.frame_count, source.still, source.info.rate, source.assumed) == (12, False, 10, [])
        assert_frames_equal(source, frames)
    with open_source(str(tmp_path / "pictures"), frames=1, seek=11) as source:
        assert (source.still, source.assumed) == (True, ["25 fps"])
        assert_frames_equal(source, frames[11:])


def test_patterns_and_their_gaps(encoded, tmp_path):
    info = info_of("rgb24")
    frames = random_frames(info, 4)
    encoded("f_%03d.png", info, frames)
    pattern = str(tmp_path / "f_%03d.png")
    with open_source(pattern) as source:
        assert source.frame_count == 4
        assert_frames_equal(source, frames)
    (tmp_path / "f_002.png").unlink()
    (tmp_path / "f_2.png").write_bytes(b"too few digits for the pattern")
    with open_source(pattern) as source:
        assert_frames_equal(source, [frames[0], *frames[2:]])
        assert source.warnings == ["f_%03d.png: 1 of the numbers 1..4 have no file"]
    with pytest.raises(InputError, match=r"g_%d\.png: no file is named like this"):
        open_source(str(tmp_path / "g_%d.png"))
    with pytest.raises(ConfigError, match=r"f_%s\.png: allowed one %d or %04d in the name"):
        open_source(str(tmp_path / "f_%s.png"))
    with pytest.raises(ConfigError, match=r"%d_%d\.png: allowed one %d or %04d in the name"):
        open_source(str(tmp_path / "%d_%d.png"))


def test_images_of_a_series_must_agree(encoded, tmp_path):
    (tmp_path / "pictures").mkdir()
    for name, info in {"a.png": info_of("rgb24"), "b.png": info_of("rgb24", 30, 20)}.items():
        encoded(f"pictures/{name}", info, random_frames(info, 1))
    with open_source(str(tmp_path / "pictures")) as source:
        frames = iter(source)
        next(frames)
        with pytest.raises(InputError, match=r"b\.png: is 30x20 rgb24 full rgb, allowed 34x22 rgb24 full rgb as in a"):
            next(frames)


@pytest.mark.parametrize("suffix", ["png", "jpg", "ppm", "tif", "webp", "bmp"])
def test_cut_images_are_refused(encoded, tmp_path, suffix, capfd):
    info = info_of("rgb24", 64, 48)
    data = Path(encoded(f"x.{suffix}", info, random_frames(info, 1))).read_bytes()
    for size in (9, len(data) // 3, len(data) // 2):
        (tmp_path / f"cut.{suffix}").write_bytes(data[:size])
        with pytest.raises(InputError, match=rf"cut\.{suffix}: "):
            list(open_source(str(tmp_path / f"cut.{suffix}")))
    assert capfd.readouterr() == ("", "")


# what is no input


def test_inputs_that_are_none(tmp_path):
    with pytest.raises(InputError, match=r"none\.y4m: cannot be read: No such file or directory"):
        open_source(str(tmp_path / "none.y4m"))
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"empty\.mp4: is empty"):
        open_source(str(tmp_path / "empty.mp4"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: is a folder without images, allowed \.png, \.jpg"):
        open_source(str(tmp_path / "empty"))
    (tmp_path / "text.mp4").write_bytes(b"no video at all\n" * 99)
    with pytest.raises(InputError, match=r"text\.mp4: is not readable as video or image: Invalid data"):
        open_source(str(tmp_path / "text.mp4"))
    (tmp_path / "x.pgs").write_bytes(b"\x89PGS\r\n\x1a\n" + bytes(99))
    with pytest.raises(InputError, match=r"x\.pgs: is a \.pgs stream, allowed pixels"):
        open_source(str(tmp_path / "x.pgs"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path):
    (tmp_path / "x.y4m").write_bytes(b"YUV4MPEG2 W2 H2\n")
    (tmp_path / "x.y4m").chmod(0)
    with pytest.raises(InputError, match=r"x\.y4m: cannot be read: Permission denied"):
        open_source(str(tmp_path / "x.y4m"))


# real material


def test_real_containers_match_ffmpeg(data_path, ffmpeg):
    path = data_path("bikes.mp4")
    with open_source(str(path), seek=100, frames=5) as source:
        assert (source.info.width, source.info.height, source.info.rate) == (640, 272, 25)
        assert source.frame_count == 5
        assert source.assumed == ["matrix bt601", "range limited"]
        ours = raw_bytes(source.info, source)
    assert ours == ffmpeg("-i", path, "-vf", "trim=start_frame=100:end_frame=105", "-f", "rawvideo", "-")


def test_real_lossless_video_matches_ffmpeg(data_path, ffmpeg):
    path = data_path("bunny_1280x720_32f.mkv")
    with open_source(str(path), frames=4) as source:
        assert (source.info.matrix, source.info.rate) == (Matrix.BT709, 24)
        assert raw_bytes(source.info, source) == ffmpeg("-i", path, "-frames:v", "4", "-f", "rawvideo", "-")


def test_real_y4m(data_path, ffmpeg):
    path = data_path("park_joy_480x270_10f.y4m")
    with open_source(str(path)) as source:
        assert (source.info.rate, source.info.siting, source.frame_count) == (50, Siting.CENTER, 10)
        assert raw_bytes(source.info, source) == ffmpeg("-i", path, "-f", "rawvideo", "-")


@pytest.mark.parametrize(
    ("name", "pix_fmt", "size", "count"),
    [
        ("archer_1920x1080_1f_420_8bit.yuv", "yuv420p", (1920, 1080), 1),
        ("src01_576x324_3f_420_10le.yuv", "yuv420p10le", (576, 324), 3),
    ],
)
def test_real_raw_video(data_path, name, pix_fmt, size, count):
    path = data_path(name)
    with open_source(str(path)) as source:
        assert (source.info.pix_fmt, (source.info.width, source.info.height)) == (pix_fmt, size)
        assert source.frame_count == count
        assert raw_bytes(source.info, source) == path.read_bytes()


def test_real_png(data_path, ffmpeg):
    path = data_path("kodak/kodim23.png")
    with open_source(str(path)) as source:
        assert (source.info.width, source.info.height, source.still) == (768, 512, True)
        assert raw_bytes(source.info, source) == ffmpeg("-i", path, "-f", "rawvideo", "-")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_clip(tmp_path):
    script = """
import re, sys
from pgsvc_codec.media.source import open_source
with open_source(sys.argv[1]) as source:
    count = sum(1 for _ in source)
print(count, re.search(r"VmHWM:\\s*([0-9]+)", open("/proc/self/status").read())[1])
"""
    info = info_of("yuv420p", 640, 480)
    (frame,) = random_frames(info, 1)
    peaks = {}
    for count in (5, 200):
        path = tmp_path / f"{count}.y4m"
        path.write_bytes(y4m_bytes(info, [frame] * count))
        output = subprocess.run([sys.executable, "-c", script, path], check=True, capture_output=True, text=True).stdout
        got, peaks[count] = map(int, output.split())
        assert got == count
        path.unlink()
    assert peaks[200] < 1.1 * peaks[5]


def test_the_package_does_not_load_pyav_before_it_is_needed():
    script = "import sys, pgsvc_codec.media.source, pgsvc_codec.media.sinks; print('av' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout == "False\n"
    )
