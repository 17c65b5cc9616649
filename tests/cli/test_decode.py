"""pgsvc-decode: any level, part, size and format of a stream, and what it says about streams that are not whole."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import CLIP, CLIP_FRAMES, QUICK, Encoded, Outcome, command_line, y4m_of
from level_sizes import with_level_sizes

import pgsvc_codec
from pgsvc_codec.decoder import Decoder
from pgsvc_codec.format.container import StreamReader
from pgsvc_codec.media.raw import frame_to_bytes
from pgsvc_codec.picture import Frame
from pgsvc_codec.video import Chroma

Run = Callable[..., Outcome]


def frames_of(data: bytes | Path, level: int | None = None) -> list[Frame]:
    with Decoder(data) as decoder:
        return [frame.planes for frame in decoder.frames(layers=level)]


def raw(frames: list[Frame]) -> bytes:
    return b"".join(frame_to_bytes(frame, CLIP) for frame in frames)


@pytest.fixture(scope="module")
def levels(stream: Encoded) -> dict[int, list[Frame]]:
    """The frames of each level."""
    return {level: frames_of(stream.path, level) for level in (1, 2, 3)}


def test_y4m_goes_to_pipes(stream: Encoded, levels: dict[int, list[Frame]], here: Run) -> None:
    for arguments in ([], ["-o", "-"], ["--y4m"], ["-F", "auto"], ["-l", "3"]):
        done = here("decode", stream.path, *arguments)
        assert (done.code, done.out) == (0, y4m_of(levels[3]))
    assert done.lines[-1].startswith("decoded 6 frames in ")
    assert here("decode", stream.path, "--layers", 2, "-q") == Outcome(0, y4m_of(levels[2]), "")


@pytest.mark.parametrize("arguments", [["--rawvideo"], ["-F", "yuv"], ["-o", "x.yuv"]])
def test_raw_frames(
    arguments: list[str],
    stream: Encoded,
    levels: dict[int, list[Frame]],
    here: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = here("decode", stream.path, *arguments)
    data = Path("x.yuv").read_bytes() if "-o" in arguments else done.out
    assert (done.code, data) == (0, raw(levels[3]))


def test_md5_is_that_of_the_raw_frames(stream: Encoded, levels: dict[int, list[Frame]], here: Run) -> None:
    digest = hashlib.md5(raw(levels[1]), usedforsecurity=False).hexdigest()
    assert here("decode", stream.path, "-l", 1, "--md5").out == f"{digest}\n".encode()
    done = here("decode", stream.path, "-l", 1, "--verify-md5", digest.upper())
    assert (done.code, done.out) == (0, b"")
    done = here("decode", stream.path, "-l", 2, "--verify-md5", digest)
    assert (done.code, done.out) == (5, b"")
    assert f", not {digest}" in done.err


def test_a_mismatch_leaves_no_output(stream: Encoded, here: Run, tmp_path: Path) -> None:
    done = here("decode", stream.path, "-o", tmp_path / "x.y4m", "--verify-md5", "0" * 32)
    assert done.code == 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--seek", 2], slice(2, 6)),
        (["--skip", 1, "-f", 3], slice(1, 4)),
        (["--limit", 1], slice(0, 1)),
        (["--gops", "1-1"], slice(3, 6)),
        (["--gops", "0"], slice(0, 3)),
        (["--gops", "0-1"], slice(0, 6)),
    ],
)
def test_parts(
    arguments: list[object], wanted: slice, stream: Encoded, levels: dict[int, list[Frame]], here: Run
) -> None:
    done = here("decode", stream.path, "-l", 2, *arguments, "--y4m")
    assert (done.code, done.out) == (0, y4m_of(levels[2][wanted]))


def test_more_frames_than_there_are(stream: Encoded, levels: dict[int, list[Frame]], here: Run) -> None:
    done = here("decode", stream.path, "--seek", 4, "-f", 9)
    assert (done.code, done.out) == (0, y4m_of(levels[3][4:]))
    assert done.lines[0] == "pgsvc-decode: --frames: got 9, the stream has 2 from frame 4 on"
    assert here("decode", stream.path, "--seek", 4, "-f", 9, "--strict").code == 2


def test_more_layers_than_there_are(stream: Encoded, levels: dict[int, list[Frame]], here: Run) -> None:
    done = here("decode", stream.path, "-l", 4)
    assert (done.code, done.out) == (0, y4m_of(levels[3]))
    assert done.lines[0] == "pgsvc-decode: --layers: got 4, the stream has 3; all are decoded"
    done = here("decode", stream.path, "-l", 4, "--strict")
    assert done == Outcome(2, b"", "pgsvc-decode: error: --layers: got 4, the stream has 3; all are decoded\n")


def test_all_layers(stream: Encoded, levels: dict[int, list[Frame]], here: Run, tmp_path: Path) -> None:
    done = here("decode", stream.path, "--all-layers", "-o", tmp_path / "l%l_%wx%h.y4m", "--json", "-")
    assert done.code == 0
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {f"l{level}_64x48.y4m": y4m_of(frames) for level, frames in levels.items()}
    outputs = json.loads(done.out)["outputs"]
    assert [(output["layers"], output["frames"]) for output in outputs] == [(1, 6), (2, 6), (3, 6)]
    assert [output["frames_from_layers"] for output in outputs] == [{"1": 6}, {"2": 6}, {"3": 6}]


def test_all_layers_or_none(stream: Encoded, here: Run, tmp_path: Path) -> None:
    (tmp_path / "l2.y4m").write_bytes(b"mine")
    done = here("decode", stream.path, "--all-layers", "-o", tmp_path / "l%l.y4m")
    assert (done.code, done.lines) == (2, [f"pgsvc-decode: error: {tmp_path}/l2.y4m exists; use -y to overwrite it"])
    assert [path.name for path in tmp_path.iterdir()] == ["l2.y4m"]
    assert here("decode", stream.path, "--all-layers", "-o", tmp_path / "l%l.y4m", "-y").code == 0
    assert (tmp_path / "l2.y4m").read_bytes() != b"mine"


@pytest.mark.parametrize(
    ("arguments", "width", "height"),
    [
        (["--size", "33x17"], 33, 17),
        (["--size", "native"], 64, 48),
        (["--size", "full"], 64, 48),
        (["--scale", "0.5"], 32, 24),
        (["--scale", "1.5"], 96, 72),
        (["--scale", "1e-9"], 1, 1),
    ],
)
def test_sizes(arguments: list[str], width: int, height: int, stream: Encoded, here: Run) -> None:
    done = here("decode", stream.path, *arguments)
    assert done.code == 0
    assert done.out.startswith(f"YUV4MPEG2 W{width} H{height} ".encode())


LEVEL_SIZES = [(36, 28), (52, 40), (64, 48)]


@pytest.fixture(scope="module")
def growing(stream: Encoded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stream, in levels that grow."""
    path = tmp_path_factory.mktemp("growing") / "growing.pgs"
    path.write_bytes(with_level_sizes(stream.data, LEVEL_SIZES))
    return path


@pytest.mark.parametrize(
    ("arguments", "width", "height"),
    [
        ([], 36, 28),
        (["--size", "native"], 36, 28),
        (["--size", "full"], 64, 48),
        (["--size", "18x14"], 18, 14),
        (["--scale", "0.5"], 18, 14),
        (["--scale", "2"], 72, 56),
    ],
)
def test_sizes_of_a_small_level(arguments: list[str], width: int, height: int, growing: Path, here: Run) -> None:
    done = here("decode", growing, "-l", 1, *arguments)
    with Decoder(growing) as decoder:
        frames = [frame.planes for frame in decoder.frames(layers=1, size=(width, height))]
    assert (done.code, done.out) == (0, y4m_of(frames, replace(CLIP, width=width, height=height)))


def test_all_layers_at_their_own_sizes(growing: Path, here: Run, tmp_path: Path) -> None:
    done = here("decode", growing, "--all-layers", "-o", tmp_path / "l%l_%wx%h.y4m", "--json", "-")
    assert done.code == 0
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {
        f"l{level}_{width}x{height}.y4m": y4m_of(frames_of(growing, level), replace(CLIP, width=width, height=height))
        for level, (width, height) in enumerate(LEVEL_SIZES, start=1)
    }
    assert [(output["w"], output["h"]) for output in json.loads(done.out)["outputs"]] == LEVEL_SIZES


def test_all_layers_at_one_size(growing: Path, here: Run, tmp_path: Path) -> None:
    assert here("decode", growing, "--all-layers", "--size", "full", "-o", tmp_path / "l%l_%wx%h.y4m").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"l{level}_64x48.y4m" for level in (1, 2, 3)]


def test_a_gap_keeps_its_size(growing: Path, here: Run, tmp_path: Path) -> None:
    path = tmp_path / "cut.pgs"
    data = growing.read_bytes()
    segment = StreamReader(data).gops[1].segments[1]
    assert segment is not None
    path.write_bytes(data[: segment.offset])
    done = here("decode", path, "-l", 2)
    frames = frames_of(path, 2)
    assert (done.code, done.out) == (0, y4m_of(frames, replace(CLIP, width=52, height=40)))
    assert done.lines[0] == "pgsvc-decode: truncated: GOP 1 has 1 of 3 layers"


def test_images(stream: Encoded, here: Run, tmp_path: Path) -> None:
    done = here("decode", stream.path, "--seek", 2, "-o", tmp_path / "f%03d.png")
    assert done.code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f002.png", "f003.png", "f004.png", "f005.png"]
    assert (tmp_path / "f002.png").read_bytes().startswith(b"\x89PNG")
    done = here("decode", stream.path, "-o", tmp_path / "all.png")
    assert done.code == 2
    assert "a png file holds one frame" in done.err
    assert here("decode", stream.path, "-f", 1, "-o", tmp_path / "one").code == 0
    assert (tmp_path / "one").read_bytes().startswith(b"\x89PNG")


def test_gray_images_span_the_full_range(
    stream: Encoded, levels: dict[int, list[Frame]], clip_frames: list[Frame], here: Run, tmp_path: Path
) -> None:
    # of a colour stream
    assert here("decode", stream.path, "-f", 1, "--pix-fmt", "gray", "-o", tmp_path / "a.pgm").code == 0
    luma = levels[3][0][0]
    expected = np.clip((luma.astype(int) - 16) * (255 / 219), 0, 255)
    assert np.abs(read_pgm(tmp_path / "a.pgm") - expected).max() < 1.3  # luma is rounded, too
    # and of a gray one
    gray = replace(CLIP, chroma=Chroma.GRAY)
    (tmp_path / "gray.y4m").write_bytes(y4m_of([clip_frames[0][:1]], gray))
    assert here("encode", tmp_path / "gray.y4m", tmp_path / "gray.pgs", *QUICK).code == 0
    assert here("decode", tmp_path / "gray.pgs", "-o", tmp_path / "b.pgm").code == 0
    luma = frames_of(tmp_path / "gray.pgs")[0][0]
    assert np.abs(read_pgm(tmp_path / "b.pgm") - np.clip((luma.astype(int) - 16) * (255 / 219), 0, 255)).max() < 1.3


def read_pgm(path: Path) -> np.ndarray:
    header = f"P5\n{CLIP.width} {CLIP.height}\n255\n".encode()
    data = path.read_bytes()
    assert data.startswith(header)
    return np.frombuffer(data[len(header) :], np.uint8).reshape(CLIP.height, CLIP.width).astype(int)


def test_numpy_arrays(stream: Encoded, here: Run, tmp_path: Path) -> None:
    assert here("decode", stream.path, "--pix-fmt", "rgb24", "-o", tmp_path / "a.npy").code == 0
    pixels = np.load(tmp_path / "a.npy")
    assert (pixels.shape, pixels.dtype) == ((6, 48, 64, 3), np.uint8)
    assert here("decode", stream.path, "-o", tmp_path / "b.npy").code == 0
    assert np.load(tmp_path / "b.npy").shape == (6, 48, 64, 3)


@pytest.mark.parametrize("pix_fmt", ["gray", "yuv444p", "yuv420p10le"])
def test_other_planes(pix_fmt: str, stream: Encoded, here: Run) -> None:
    done = here("decode", stream.path, "--pix-fmt", pix_fmt)
    tag = {"gray": b" Cmono ", "yuv444p": b" C444 ", "yuv420p10le": b" C420p10 "}[pix_fmt]
    assert done.code == 0
    assert tag in done.out.split(b"\n")[0]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--size", "32x24", "--scale", "2"], 2, "--size does not go with --scale"),
        (["--gops", "0", "--seek", "1"], 2, "--gops does not go with --seek"),
        (["--gops", "0", "-f", "1"], 2, "--gops does not go with --frames"),
        (["--strict", "--allow-partial"], 2, "--strict does not go with --allow-partial"),
        (["--md5", "-F", "y4m"], 2, "output format: got md5 and y4m, allowed one"),
        (["--gops", "1-2"], 2, "--gops: got 1-2, allowed 0-1"),
        (["--gops", "1-0"], 2, "got '1-0', allowed A-B with A <= B"),
        (["--seek", "6"], 2, "--seek: got 6, allowed 0..5"),
        (["--seek", "-1"], 2, "--seek: got -1, allowed 0..5"),
        (["-f", "0"], 2, "--frames: got 0, allowed 1 and more"),
        (["-l", "0"], 2, "--layers: got 0, allowed 1..3"),
        (["--size", "0x9"], 2, "video width: got 0, allowed 1..16384"),
        (["--size", "big"], 2, "got 'big', allowed WxH or native or full"),
        (["--scale", "nan"], 2, "--scale: got nan, allowed > 0"),
        (["--all-layers"], 2, "--all-layers: got output -, allowed a name with %l"),
        (["--verify-md5", "12"], 2, "got '12', allowed 32 hexadecimal digits"),
        (["-F", "webm"], 2, "'webm' is not one of"),
        (["--y4m", "--pix-fmt", "rgb24"], 2, "y4m: got rgb24 full range, allowed yuv444p"),
        (["-F", "npy"], 2, "npy needs a file"),
        (["-F", "null", "-o", "x"], 2, "null writes nothing"),
        (["-o", "x.webm"], 2, "its name does not tell the output format"),
        (["-o", "x.y4m", "--json", "x.y4m"], 2, "got as output and as json"),
        (["--json", "-"], 2, "-: got as output and as json"),
        (["--device", "cuda:99"], 7, "device cuda:99: "),
        (["--device", "abacus"], 2, "device: got abacus"),
        (["-q", "-v"], 2, "got -q and -v"),
    ],
)
def test_unusable_options(
    arguments: list[str],
    code: int,
    message: str,
    stream: Encoded,
    here: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = here("decode", stream.path, *arguments)
    assert (done.code, done.out, len(done.lines)) == (code, b"", 1)
    assert message in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "file header at byte 0x0: needs 32 bytes, got 0"),
        (b"garbage" * 50, "not a PGS stream"),
        (None, "No such file or directory"),
        ("directory", "Is a directory"),
    ],
)
def test_bad_inputs(content: bytes | str | None, message: str, here: Run, tmp_path: Path) -> None:
    path = tmp_path / "bad.pgs"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        path.mkdir()
    target = tmp_path / "out.y4m"
    target.write_bytes(b"mine")
    done = here("decode", path, "-o", target, "-y")
    assert (done.code, done.out, len(done.lines)) == (3, b"", 1)
    assert message in done.err
    assert target.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("name", "message"), [("", "is a directory"), ("no/such.y4m", "No such file"), ("here.y4m", "exists; use -y")]
)
def test_outputs_that_cannot_be(name: str, message: str, stream: Encoded, here: Run, tmp_path: Path) -> None:
    (tmp_path / "here.y4m").write_bytes(b"mine")
    done = here("decode", stream.path, "-o", tmp_path / name, "-F", "y4m")
    assert (done.code, len(done.lines)) == (2, 1)
    assert message in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["here.y4m"]
    assert (tmp_path / "here.y4m").read_bytes() == b"mine"


def test_the_input_is_not_overwritten(stream: Encoded, here: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.pgs"
    path.write_bytes(stream.data)
    done = here("decode", path, "-F", "y4m", "-o", tmp_path / "." / "a.pgs", "-y")
    assert (done.code, len(done.lines)) == (2, 1)
    assert "got as input and as output" in done.err
    assert path.read_bytes() == stream.data


def cut_points(data: bytes) -> list[int]:
    """Around every end of a segment."""
    ends = {segment.end for gop in StreamReader(data).gops for segment in gop.segments if segment}
    return sorted({end + step for end in ends for step in (-1, 0, 1) if end + step <= len(data)})


def test_streams_cut_anywhere(stream: Encoded, levels: dict[int, list[Frame]], here: Run, tmp_path: Path) -> None:
    reader = StreamReader(stream.data)
    path = tmp_path / "cut.pgs"
    for size in cut_points(stream.data):
        path.write_bytes(stream.data[:size])
        kept = [sum(segment.end <= size for segment in gop.segments if segment) for gop in reader.gops]
        done = here("decode", path)
        strict = here("decode", path, "--strict")
        whole = here("decode", path, "--no-allow-partial")
        if kept == [3, 3]:
            assert done.out == strict.out == whole.out == y4m_of(levels[3])
            assert "truncated" not in done.err
        elif kept == [0, 0]:
            assert {done.code, strict.code, whole.code} == {3}
            assert "no base segment is complete" in done.err
        else:
            expected = [levels[count][3 * gop + i] for gop, count in enumerate(kept) if count for i in range(3)]
            assert (done.code, done.out) == (0, y4m_of(expected))
            lost = [
                f"GOP {gop} has {count} of 3 layers" if count else f"GOP {gop} missing"
                for gop, count in enumerate(kept)
                if count < 3
            ]
            assert done.lines[0] == f"pgsvc-decode: truncated: {', '.join(lost)}"
            for refused in (strict, whole):
                message = f"pgsvc-decode: error: truncated: {', '.join(lost)}\n"
                assert refused == Outcome(4, b"", message)


def test_what_is_asked_for_may_be_whole_in_a_cut_stream(
    stream: Encoded, levels: dict[int, list[Frame]], here: Run, tmp_path: Path
) -> None:
    path = tmp_path / "cut.pgs"
    path.write_bytes(stream.data[: StreamReader(stream.data).level_end(1)])
    done = here("decode", path, "-l", 1, "--no-allow-partial")
    assert (done.code, done.out) == (0, y4m_of(levels[1]))
    assert here("decode", path, "-l", 1, "--strict").code == 4
    assert here("decode", path, "-l", 2, "--gops", 0, "--no-allow-partial").code == 0
    assert here("decode", path, "-l", 2, "--gops", 1, "--no-allow-partial").code == 4


def test_none_of_the_frames(stream: Encoded, here: Run, tmp_path: Path) -> None:
    path = tmp_path / "cut.pgs"
    segment = StreamReader(stream.data).gops[1].segments[0]
    assert segment is not None
    path.write_bytes(stream.data[: segment.offset])
    target = tmp_path / "out.y4m"
    done = here("decode", path, "--gops", 1, "-o", target)
    assert done.code == 3
    assert done.lines[-1] == "pgsvc-decode: error: frames 3..5: none of them is in the stream"
    assert not target.exists()


def test_a_damaged_segment(stream: Encoded, levels: dict[int, list[Frame]], here: Run, tmp_path: Path) -> None:
    data = bytearray(stream.data)
    segment = StreamReader(stream.data).gops[1].segments[1]
    assert segment is not None
    data[segment.end - 1] ^= 1
    path = tmp_path / "damaged.pgs"
    path.write_bytes(data)
    done = here("decode", path, "--json", tmp_path / "report.json", "--device", "cpu")
    assert (done.code, done.out) == (0, y4m_of(levels[3][:3] + levels[1][3:]))
    assert "GOP 1 layer 1 at byte 0x" in done.lines[0]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["outputs"][0]["frames_from_layers"] == {"1": 3, "3": 3}
    assert [f"pgsvc-decode: {warning}" for warning in report["warnings"]] == done.lines[:1]
    assert here("decode", path, "-l", 1, "--strict").code == 0
    for option, code in (("--strict", 3), ("--no-allow-partial", 3), ("--verify", 5)):
        done = here("decode", path, option, "--device", "cpu", "-o", tmp_path / "out.y4m")
        assert (done.code, len(done.lines)) == (code, 1)
        assert "GOP 1 layer 1 at byte 0x" in done.err
        assert not (tmp_path / "out.y4m").exists()


def test_verify_passes_a_good_stream(stream: Encoded, here: Run) -> None:
    assert here("decode", stream.path, "--verify", "-F", "null", "-q") == Outcome(0, b"", "")


def test_progress_for_scripts(stream: Encoded, here: Run) -> None:
    done = here("decode", stream.path, "-q", "--progress", "json", "-F", "null")
    events = [json.loads(line) for line in done.lines]
    assert [(event["event"], event["n"], event["of"]) for event in events] == [("frame", n, 6) for n in range(1, 7)]
    assert events[-1]["eta_s"] == 0
    done = here("decode", stream.path, "-q", "--progress", "on", "-F", "null")
    assert done.lines[2].startswith("[50.0%] 3/6 frames  ")
    assert len(here("decode", stream.path, "-F", "null", "--device", "cpu").lines) == 1  # too short a time for a line


def test_details_on_request(stream: Encoded, here: Run) -> None:
    done = here("decode", stream.path, "-v", "-F", "null")
    assert done.lines[0] == "input    64x48 yuv420p, 6 frames in 2 GOPs, 3 layers, 25 fps, index front"


def test_no_video_on_a_terminal(stream: Encoded) -> None:
    master, slave = pty.openpty()
    try:
        refused = subprocess.run(
            command_line("decode", stream.path), stdout=slave, stderr=subprocess.PIPE, text=True, check=False
        )
        text = subprocess.run(
            command_line("decode", stream.path, "--md5", "-q"), stdout=slave, stderr=subprocess.PIPE, check=False
        )
        shown = os.read(master, 1000)
    finally:
        os.close(slave)
        os.close(master)
    assert refused.returncode == 2
    assert refused.stderr == ("pgsvc-decode: error: refusing to write video to a terminal; use -o FILE or a pipe\n")
    assert (text.returncode, text.stderr, len(shown.strip())) == (0, b"", 32)


def test_a_reader_that_leaves_is_no_error(stream: Encoded) -> None:
    line = command_line("decode", stream.path, "--size", "640x480", "-q")
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(9) == b"YUV4MPEG2"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == -13  # a shell says 141


@pytest.mark.parametrize("number", [1, 2])
def test_closed_streams_of_the_caller(number: int, stream: Encoded) -> None:
    line = command_line("decode", stream.path, "-l", "9")
    done = subprocess.run(["sh", "-c", f'exec "$@" {number}>&-', "sh", *line], capture_output=True, check=False)
    if number == 1:
        assert done.returncode == 2
        assert b"cannot be written: Bad file descriptor" in done.stderr
    else:
        assert done.returncode == 0
        assert len(done.stdout) == len(y4m_of([])) + CLIP_FRAMES * (len(b"FRAME\n") + CLIP.frame_bytes)


@pytest.mark.skipif(sys.platform != "linux", reason="pipes have one size elsewhere")
def test_a_pipe_is_made_to_hold_whole_frames(stream: Encoded) -> None:
    with subprocess.Popen(command_line("decode", stream.path, "-q"), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        narrow = fcntl.fcntl(process.stdout, fcntl.F_GETPIPE_SZ)
        assert process.stdout.read(1) == b"Y"
        assert fcntl.fcntl(process.stdout, fcntl.F_GETPIPE_SZ) == max(narrow, 1 << 20)
        process.stdout.read()


def test_decoding_loads_no_torch(stream: Encoded) -> None:
    program = (
        "import sys\nfrom pgsvc_codec.cli.decode import main\n"
        f"sys.argv = ['pgsvc-decode', {str(stream.path)!r}, '-F', 'null', '-q']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "assert not {'torch', 'triton', 'gsplat', 'sklearn', 'av', 'scipy.linalg'} & set(sys.modules), 'loaded'\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def installed_read_only(tmp_path: Path) -> Path:
    """Where the package lies so that no kernels can be kept beside it, not even by root, who may write everywhere."""
    folder = tmp_path / "site-packages"
    shutil.copytree(
        Path(pgsvc_codec.__file__).parent, folder / "pgsvc_codec", ignore=shutil.ignore_patterns("__pycache__")
    )
    for module in [folder / "pgsvc_codec", *(folder / "pgsvc_codec").rglob("*/")]:
        (module / "__pycache__").touch()
    return folder


def where(package: Path, home: str, **more: str) -> dict[str, Any]:
    """Options for a process that has the package from there, and a home."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR")}
    return {"cwd": package, "env": {**inherited, "PYTHONPATH": str(package), "HOME": home, **more}}


def test_the_first_use_on_a_machine_says_what_takes_so_long(
    stream: Encoded, apart: Run, installed_read_only: Path, tmp_path: Path
) -> None:
    place = where(installed_read_only, home=str(tmp_path))
    first = apart("decode", stream.path, "-F", "null", "--device", "cpu", **place)
    second = apart("decode", stream.path, "-F", "null", "--device", "cpu", **place)
    assert first.lines[0] == "compiling kernels for this processor, once: up to a minute"
    assert [line.split()[0] for line in first.lines[1:]] == ["decoded"]
    assert [line.split()[0] for line in second.lines] == ["decoded"], "kernels are kept in the user's cache"


def test_kernels_that_nothing_can_keep_are_compiled_each_time(
    stream: Encoded, apart: Run, installed_read_only: Path, tmp_path: Path
) -> None:
    passing = tmp_path / "tmp"
    passing.mkdir()
    place = where(installed_read_only, home=os.devnull, TMPDIR=str(passing))
    done = apart("decode", stream.path, "-F", "null", "--device", "cpu", **place)
    assert done.lines[0].startswith("compiling kernels for this processor, each time, for no folder can keep it")
    assert [line.split()[0] for line in done.lines[1:]] == ["decoded"]
    assert list(passing.iterdir()) == [], "nothing stays behind"
