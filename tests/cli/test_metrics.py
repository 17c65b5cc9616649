"""pgsvc-metrics: its figures against those known otherwise, what it aligns, and what it refuses."""

from __future__ import annotations

import json
import math
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import CLIP, CLIP_FRAMES, Encoded, Outcome, clip_frame, y4m_of
from level_sizes import with_level_sizes

from pgsvc_codec import __version__
from pgsvc_codec.cli.common import execute
from pgsvc_codec.cli.metrics import METRICS, metrics
from pgsvc_codec.decoder import Decoder
from pgsvc_codec.media.raw import frame_to_bytes
from pgsvc_codec.media.sinks import open_sink
from pgsvc_codec.metrics.psnr import MAX_PSNR, PsnrMeter
from pgsvc_codec.picture import Frame, from_unit, plane_grids, resample, to_rgb, to_unit
from pgsvc_codec.video import Chroma, Matrix, Range, VideoInfo

Compare = Callable[..., Outcome]
Documented = Callable[..., dict[str, Any]]
Run = Callable[..., Outcome]

RGB = replace(CLIP, chroma=Chroma.RGB, matrix=Matrix.RGB, range=Range.FULL)
TOO_SMALL = "MS-SSIM: got 64x48, allowed sides of 161 and more; left out"


@pytest.fixture
def compare(capsys: pytest.CaptureFixture[str]) -> Compare:
    """A function that runs the command in this process."""

    def run(*arguments: object) -> Outcome:
        code = execute(metrics, list(map(str, arguments)))
        captured = capsys.readouterr()
        return Outcome(code, captured.out.encode(), captured.err)

    return run


@pytest.fixture
def document(compare: Compare) -> Documented:
    """A function that runs the command with --json, expects nothing to fail, and returns what it says."""

    def run(*arguments: object) -> dict[str, Any]:
        done = compare(*arguments, "--json", "-q")
        assert done.code == 0, done.err
        found: dict[str, Any] = json.loads(done.out)
        assert [line.removeprefix("pgsvc-metrics: ") for line in done.lines] == found["warnings"]
        return found

    return run


def shifted(frame: Frame, *steps: int) -> Frame:
    """Planes with so many code values more."""
    return tuple((plane + step).astype(plane.dtype) for plane, step in zip(frame, steps, strict=True))


def write(path: Path, frames: list[Frame], info: VideoInfo = CLIP) -> Path:
    path.write_bytes(y4m_of(frames, info))
    return path


# Levels of a stream


def test_levels_are_those_that_the_encoder_reports(stream: Encoded, clip: Path, document: Documented) -> None:
    found = document(clip, stream.path)
    names = ["psnr", "psnr_yuv", "psnr_y", "psnr_u", "psnr_v"]
    for measured, reported in zip(found["levels"], stream.report["levels"], strict=True):
        assert [measured["layers"], measured["width"], measured["height"]] == [reported["layers"], 64, 48]
        assert [measured[name] for name in names] == pytest.approx([reported[name] for name in names], abs=2e-4)
    for key in ("psnr", "psnr_rgb", "ssim", "vmaf"):
        figures = [level[key] for level in found["levels"]]
        assert figures == sorted(figures)
        assert figures[0] < figures[-1]


def test_the_document_holds_what_scripts_read(stream: Encoded, clip: Path, document: Documented) -> None:
    found = document(clip, stream.path)
    assert list(found) == (
        ["tool", "version", "command", "reference", "distorted", "frames", "ssim_planes", "levels", "warnings"]
    )
    assert (found["tool"], found["version"], found["frames"]) == ("pgsvc-metrics", __version__, CLIP_FRAMES)
    assert found["reference"] == {
        **{"file": str(clip), "w": 64, "h": 48, "frames": 6, "fps": 25, "pix_fmt": "yuv420p"},
        **{"range": "limited", "matrix": "bt601"},
    }
    assert found["distorted"] == found["reference"] | {"file": str(stream.path)}
    assert found["ssim_planes"] == "y"
    psnr = ["psnr", "psnr_yuv", "psnr_y", "psnr_u", "psnr_v", "psnr_rgb"]
    for level in found["levels"]:
        assert list(level) == ["layers", "width", "height", *psnr, "ssim", "ms_ssim", "vmaf", "per_frame"]
        assert {key: len(values) for key, values in level["per_frame"].items()} == dict.fromkeys(
            ["frame", "psnr", "psnr_rgb", "ssim", "vmaf"], CLIP_FRAMES
        )
        for key in ("ssim", "vmaf"):
            assert level[key] == pytest.approx(np.mean(level["per_frame"][key]), abs=1e-5)
        assert level["ms_ssim"] is None
    assert found["warnings"] == [TOO_SMALL]


def test_the_table_is_for_people(stream: Encoded, clip: Path, compare: Compare) -> None:
    done = compare(clip, stream.path, "--device", "cpu")
    heading, *rows = [line.split() for line in done.out.decode().splitlines()]
    assert " ".join(heading) == "level size PSNR-YUV PSNR-Y PSNR-U PSNR-V PSNR-RGB SSIM-Y MS-SSIM-Y VMAF"
    assert [row[:2] for row in rows] == [["1", "64x48"], ["2", "64x48"], ["3", "64x48"]]
    assert [row[8] for row in rows] == ["-"] * 3
    assert [float(row[2]) for row in rows] == pytest.approx(
        [level["psnr"] for level in stream.report["levels"]], abs=0.006
    )
    assert done.lines[0] == f"pgsvc-metrics: {TOO_SMALL}"
    assert done.lines[-1].startswith("compared 6 frames in ")
    assert compare(clip, stream.path, "-q", "--metrics", "psnr").err == ""


def test_one_level(stream: Encoded, clip: Path, document: Documented) -> None:
    every, second = (document(clip, stream.path, "--metrics", "psnr", "-l", which) for which in ("all", 2))
    assert second["levels"] == every["levels"][1:2]


def test_a_level_as_a_file_of_pixels(
    stream: Encoded, clip: Path, here: Run, document: Documented, tmp_path: Path
) -> None:
    pixels = tmp_path / "level.y4m"
    assert here("decode", stream.path, "-l", 2, "-o", pixels).code == 0
    shown, decoded = document(clip, pixels), document(clip, stream.path, "-l", 2)
    assert shown["levels"] == [decoded["levels"][0] | {"layers": None}]


def test_small_levels_are_compared_with_a_small_source(
    stream: Encoded, clip: Path, clip_frames: list[Frame], document: Documented, tmp_path: Path
) -> None:
    path = tmp_path / "growing.pgs"
    path.write_bytes(with_level_sizes(stream.data, [(36, 28), (52, 40), (64, 48)]))
    found = document(clip, path, "--metrics", "psnr,ssim")
    assert [(level["width"], level["height"]) for level in found["levels"]] == [(36, 28), (52, 40), (64, 48)]
    small = replace(CLIP, width=36, height=28)
    meter = PsnrMeter(255, is_rgb=False)
    with Decoder(path) as decoder:
        for source, shown in zip(clip_frames, decoder.frames(layers=1, size=(36, 28)), strict=True):
            grids = plane_grids(CLIP), plane_grids(CLIP, 36, 28)
            meter.add(from_unit(resample(to_unit(source, CLIP), *grids), small), shown.planes)
    assert found["levels"][0]["psnr"] == pytest.approx(meter.combined, abs=1e-5)
    assert meter.combined > 20


def test_streams_of_other_planes_are_decoded_to_those_of_the_source(
    stream: Encoded, clip_frames: list[Frame], document: Documented, tmp_path: Path
) -> None:
    gray = write(tmp_path / "gray.y4m", [frame[:1] for frame in clip_frames], replace(CLIP, chroma=Chroma.GRAY))
    level = document(gray, stream.path, "-l", 3, "--metrics", "psnr")["levels"][0]
    assert level["psnr"] == level["psnr_y"] == pytest.approx(stream.report["levels"][2]["psnr_y"], abs=0.02)
    assert {"psnr_u", "psnr_rgb"} & set(level) == set()


# Pixels


def test_psnr_by_hand(clip: Path, clip_frames: list[Frame], document: Documented, tmp_path: Path) -> None:
    shown = write(tmp_path / "a.y4m", [shifted(frame, 5 * (n % 2), 2, 0) for n, frame in enumerate(clip_frames)])
    (level,) = document(clip, shown, "--metrics", "psnr")["levels"]
    step_of_5, step_of_2 = (20 * math.log10(255 / step) for step in (5, 2))
    luma = step_of_5 + 10 * math.log10(2)  # in every other frame only
    assert (level["psnr_y"], level["psnr_u"], level["psnr_v"]) == pytest.approx((luma, step_of_2, MAX_PSNR), abs=1e-5)
    assert level["psnr"] == level["psnr_yuv"] == pytest.approx((6 * luma + step_of_2 + MAX_PSNR) / 8, abs=1e-5)
    still, moved = ((6 * y + step_of_2 + MAX_PSNR) / 8 for y in (MAX_PSNR, step_of_5))
    assert level["per_frame"]["psnr"] == pytest.approx([still, moved] * 3, abs=1e-5)
    assert level["layers"] is None


def test_equal_pixels(document: Documented, tmp_path: Path) -> None:
    info = replace(CLIP, width=176, height=162)
    path = write(tmp_path / "a.y4m", [clip_frame(index, info) for index in range(2)], info)
    found = document(path, path)
    (level,) = found["levels"]
    assert {level[key] for key in ("psnr_yuv", "psnr_y", "psnr_u", "psnr_v", "psnr_rgb")} == {MAX_PSNR}
    assert (level["ssim"], level["ms_ssim"]) == (pytest.approx(1, abs=1e-5),) * 2
    assert level["vmaf"] > 95
    assert found["warnings"] == []


def test_rgb(document: Documented, compare: Compare, tmp_path: Path) -> None:
    source = clip_frame(0, RGB)
    for name, frame in (("ref.png", source), ("dist.png", shifted(source, 8, 2, 0))):
        with open_sink("png", str(tmp_path / name), RGB) as sink:
            sink.write(frame)
    found = document(tmp_path / "ref.png", tmp_path / "dist.png")
    (level,) = found["levels"]
    assert found["ssim_planes"] == "rgb"
    assert level["psnr"] == level["psnr_rgb"] == pytest.approx(10 * math.log10(255**2 * 3 / (64 + 4)), abs=1e-5)
    assert level["psnr_r"] == pytest.approx(20 * math.log10(255 / 8), abs=1e-5)
    assert 0.9 < level["ssim"] < 1
    assert level["vmaf"] > 80
    table = compare(tmp_path / "ref.png", tmp_path / "dist.png").out.decode()
    assert table.split("\n")[0].split()[2:] == (
        ["PSNR-RGB", "PSNR-R", "PSNR-G", "PSNR-B", "SSIM-RGB", "MS-SSIM-RGB", "VMAF"]
    )


def test_yuv_is_measured_as_rgb_too(clip: Path, clip_frames: list[Frame], document: Documented, tmp_path: Path) -> None:
    shown = [shifted(frame, 0, 9, 4) for frame in clip_frames]
    (level,) = document(clip, write(tmp_path / "a.y4m", shown), "--metrics", "psnr")["levels"]
    errors = [
        (to_rgb(source, CLIP).astype(float) - to_rgb(frame, CLIP)) ** 2
        for source, frame in zip(clip_frames, shown, strict=True)
    ]
    assert level["psnr_rgb"] == pytest.approx(10 * math.log10(255**2 / np.mean(errors)), abs=1e-5)
    of_frames = [10 * math.log10(255**2 / error.mean()) for error in errors]
    assert level["per_frame"]["psnr_rgb"] == pytest.approx(of_frames, abs=1e-5)


def test_vmaf_of_rgb_is_that_of_its_luma(document: Documented, tmp_path: Path) -> None:
    """Of a colourless picture: 16 + 219 v / 255, rounded."""
    noise = np.random.default_rng(1).integers(-20, 21, RGB.plane_shapes[0])
    source = clip_frame(0, RGB)[0]
    pictures = {"ref": source, "dist": np.clip(source + noise, 0, 255).astype(np.uint8)}
    gray = replace(CLIP, chroma=Chroma.GRAY)
    for name, values in pictures.items():
        with open_sink("png", str(tmp_path / f"{name}.png"), RGB) as sink:
            sink.write((values,) * 3)
        write(tmp_path / f"{name}.y4m", [(np.floor(16 + values * (219 / 255) + 0.5).astype(np.uint8),)], gray)
    of_rgb, of_gray = (
        document(tmp_path / f"ref.{kind}", tmp_path / f"dist.{kind}", "--metrics", "vmaf")["levels"][0]["vmaf"]
        for kind in ("png", "y4m")
    )
    assert of_rgb == pytest.approx(of_gray, abs=0.01)
    assert of_rgb < 90


def test_raw_video_is_described_once(clip_frames: list[Frame], document: Documented, tmp_path: Path) -> None:
    for name, step in (("ref.yuv", 0), ("dist.yuv", 3)):
        frames = (shifted(frame, step, 0, 0) for frame in clip_frames)
        (tmp_path / name).write_bytes(b"".join(frame_to_bytes(frame, CLIP) for frame in frames))
    options = ["-s", "64x48", "--pix-fmt", "yuv420p", "--fps", "30", "--range", "full", "--colormatrix", "bt709"]
    found = document(tmp_path / "ref.yuv", tmp_path / "dist.yuv", *options, "--metrics", "psnr")
    assert found["levels"][0]["psnr_y"] == pytest.approx(20 * math.log10(255 / 3), abs=1e-5)
    described = {"w": 64, "h": 48, "fps": 30, "pix_fmt": "yuv420p", "range": "full", "matrix": "bt709"}
    for role in ("reference", "distorted"):
        assert described.items() <= found[role].items()
    assert found["warnings"] == []


@pytest.mark.parametrize("kind", ["stream", "pixels"])
def test_standard_input(kind: str, stream: Encoded, clip: Path, apart: Run) -> None:
    data = stream.data if kind == "stream" else clip.read_bytes()
    done = apart("metrics", clip, "-", "--metrics", "psnr", "--json", "-q", stdin=data)
    assert (done.code, done.err) == (0, "")
    top = json.loads(done.out)["levels"][-1]["psnr"]
    assert top == (pytest.approx(stream.report["levels"][-1]["psnr"], abs=2e-4) if kind == "stream" else MAX_PSNR)


# Alignment


@pytest.mark.parametrize(
    ("first", "count", "options", "compared", "warning"),
    [
        (2, 4, ["--seek", 2], 4, None),
        (0, 6, ["-f", 3], 3, None),
        (1, 3, ["--seek", 1, "--limit", 3], 3, None),
        (0, 4, [], 4, "frames: DIST ends after 4, REF goes on"),
        (2, 4, ["--seek", 2, "-f", 5], 4, "REF: frames 5: the input has only 4"),
    ],
)
def test_frames_are_those_of_the_source_that_are_left(
    first: int,
    count: int,
    options: list[object],
    compared: int,
    warning: str | None,
    clip: Path,
    clip_frames: list[Frame],
    document: Documented,
    tmp_path: Path,
) -> None:
    part = write(tmp_path / "part.y4m", clip_frames[first : first + count])
    found = document(clip, part, *options, "--metrics", "psnr")
    assert found["frames"] == compared
    assert found["levels"][0]["psnr"] == MAX_PSNR
    assert found["levels"][0]["per_frame"]["frame"] == list(range(compared))
    assert found["warnings"][:1] == ([warning] if warning else [])


def test_a_source_that_ends_first(
    stream: Encoded, clip_frames: list[Frame], document: Documented, tmp_path: Path
) -> None:
    part = write(tmp_path / "part.y4m", clip_frames[:2])
    found = document(part, stream.path, "--metrics", "psnr")
    assert (found["frames"], found["warnings"]) == (2, ["frames: REF ends after 2, DIST goes on"])


def test_frames_that_a_stream_has_lost_are_left_out(
    stream: Encoded, clip: Path, document: Documented, tmp_path: Path
) -> None:
    damaged = bytearray(stream.data)
    with Decoder(stream.data) as decoder:
        base = decoder.reader.gops[0].segments[0]
    assert base is not None
    damaged[base.offset + base.length // 2] ^= 255
    path = tmp_path / "damaged.pgs"
    path.write_bytes(damaged)
    found, whole = (document(clip, name, "--metrics", "psnr") for name in (path, stream.path))
    assert found["frames"] == 3
    assert found["levels"][0]["per_frame"]["frame"] == [3, 4, 5]
    assert found["levels"][2]["per_frame"]["psnr"] == whole["levels"][2]["per_frame"]["psnr"][3:]
    assert found["warnings"][0].startswith("DIST: GOP 0 is left out: ")


def test_memory_does_not_grow_with_the_clip(compare: Compare, tmp_path: Path) -> None:
    info = replace(CLIP, width=256, height=256)
    peaks = []
    for count in (4, 40):
        path = write(tmp_path / f"{count}.y4m", [clip_frame(index % 4, info) for index in range(count)], info)
        tracemalloc.start()
        assert compare(path, path, "--metrics", "psnr,vmaf").code == 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 2 * info.frame_bytes


# What cannot be done


@pytest.mark.parametrize(
    ("info", "code", "message"),
    [
        (replace(CLIP, width=32), 3, "DIST: size: got 32x48, allowed 64x48 as REF has"),
        (replace(CLIP, chroma=Chroma.YUV444), 3, "DIST: pixel format: got yuv444p, allowed yuv420p as REF has"),
        (replace(CLIP, depth=10), 3, "DIST: pixel format: got yuv420p10le, allowed yuv420p as REF has"),
    ],
)
def test_what_does_not_compare(
    info: VideoInfo, code: int, message: str, clip: Path, compare: Compare, tmp_path: Path
) -> None:
    done = compare(clip, write(tmp_path / "a.y4m", [clip_frame(0, info)], info))
    assert done == Outcome(code, b"", f"pgsvc-metrics: error: {message}\n")


def test_a_stream_of_another_size(stream: Encoded, compare: Compare, tmp_path: Path) -> None:
    info = replace(CLIP, height=50)
    done = compare(write(tmp_path / "a.y4m", [clip_frame(0, info)], info), stream.path)
    assert done == Outcome(3, b"", "pgsvc-metrics: error: DIST: size: got 64x48, allowed 64x50 as REF has\n")


def test_another_range_is_said(clip: Path, clip_frames: list[Frame], document: Documented, tmp_path: Path) -> None:
    shown = write(tmp_path / "a.y4m", clip_frames, replace(CLIP, range=Range.FULL))
    found = document(clip, shown, "--metrics", "psnr")
    assert found["warnings"] == ["range: REF is limited and DIST full; code values are compared as they are"]
    assert found["levels"][0]["psnr"] == MAX_PSNR


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["CLIP", "PGS", "-l", "4"], 2, "layers: got 4, allowed 1..3"),
        (["CLIP", "PGS", "-l", "0"], 2, "layers: got 0, allowed 1..3"),
        (["CLIP", "PGS", "-l", "two"], 2, "got 'two', allowed all or a number of layers"),
        (["CLIP", "CLIP", "-l", "1"], 2, "--layers does not apply to"),
        (["CLIP", "CLIP", "--device", "cpu"], 2, "--device does not apply to"),
        (["CLIP", "PGS", "--metrics", "psnr,lpips"], 2, "got 'lpips', allowed psnr, ssim, ms-ssim, vmaf"),
        (["CLIP", "PGS", "-f", "0"], 2, "frames: got 0, allowed 1 and more"),
        (["CLIP", "PGS", "--seek", "6"], 3, "seek 6 is beyond its end, allowed 0..5"),
        (["CLIP", "PGS", "-s", "64x48"], 2, "size does not apply to"),
        (["CLIP", "PGS", "--device", "abacus"], 2, "device"),
        (["CLIP", "PGS", "-q", "-v"], 2, "got -q and -v"),
        (["PGS", "PGS"], 3, "is a .pgs stream, allowed pixels"),
        (["CLIP", "no.pgs"], 3, "no.pgs: cannot be read: No such file or directory"),
        (["no.y4m", "PGS"], 3, "no.y4m: cannot be read: No such file or directory"),
        (["-", "-"], 2, "got standard input as REF and as DIST, allowed once"),
        (["CLIP"], 2, "Missing argument 'DIST'"),
    ],
)
def test_unusable_arguments(
    arguments: list[str], code: int, message: str, stream: Encoded, clip: Path, compare: Compare
) -> None:
    names = {"CLIP": clip, "PGS": stream.path}
    done = compare(*(names.get(argument, argument) for argument in arguments))
    assert (done.code, done.out, len(done.lines)) == (code, b"", 1)
    assert message in done.err


@pytest.mark.parametrize(
    ("name", "message"),
    [("ssim", "SSIM: got no pytorch-msssim"), ("ms-ssim", "MS-SSIM: got no"), ("vmaf", "VMAF: needs an ffmpeg")],
)
def test_a_metric_that_is_asked_for_must_be_there(
    name: str, message: str, compare: Compare, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    info = replace(CLIP, width=176, height=176)
    path = write(tmp_path / "a.y4m", [clip_frame(0, info)], info)
    take_tools_away(monkeypatch)
    done = compare(path, path, "--metrics", name)
    assert (done.code, done.out, len(done.lines)) == (7, b"", 1)
    assert done.err.startswith(f"pgsvc-metrics: error: {message}")


def test_metrics_that_nobody_asked_for_may_be_missing(
    clip: Path, document: Documented, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_tools_away(monkeypatch)
    found = document(clip, clip)
    assert found["levels"][0]["psnr"] == MAX_PSNR
    assert {"ssim", "ms_ssim", "vmaf"} & set(found["levels"][0]) == set()
    assert [warning.split(":")[0] for warning in found["warnings"]] == ["SSIM", "VMAF"]


def take_tools_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without the extra."""
    monkeypatch.setenv("PATH", "")
    for module in ("pytorch_msssim", "imageio_ffmpeg"):
        monkeypatch.setitem(sys.modules, module, None)


def test_metrics_are_listed_in_one_order(clip: Path, document: Documented) -> None:
    (level,) = document(clip, clip, "--metrics", ",".join(reversed(METRICS)))["levels"]
    assert list(level)[-4:-1] == ["ssim", "ms_ssim", "vmaf"]
