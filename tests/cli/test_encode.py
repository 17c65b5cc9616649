"""pgsvc-encode: what it takes, what it says, what it refuses, and that it leaves no half files."""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import CLIP, CLIP_FRAMES, QUICK, STREAM_OPTIONS, Encoded, Outcome, clip_frame, command_line, y4m_of

from pgsvc_codec.decoder import Decoder
from pgsvc_codec.describe import describe_file
from pgsvc_codec.media.sinks import open_sink
from pgsvc_codec.render.backend import choose
from pgsvc_codec.video import Chroma, Matrix, Range, VideoInfo

Run = Callable[..., Outcome]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is also the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "arguments", [["{}", "o.pgs"], ["-i", "{}", "o.pgs"], ["{}", "-o", "o.pgs"], ["--output", "o.pgs", "--input", "{}"]]
)
def test_two_names_in_any_way(arguments: list[str], clip: Path, here: Run, folder: Path) -> None:
    done = here("encode", *(argument.format(clip) for argument in arguments), *QUICK, "-f", 1)
    assert (done.code, done.out) == (0, b"")
    assert names_in(folder) == ["o.pgs"]


def test_what_it_says(clip: Path, here: Run, folder: Path) -> None:
    options = ["-n", "60", "--preset", "ultrafast", "--profile", "baseline", "--device", "cpu"]
    done = here("encode", clip, "o.pgs", *options, "-f", 2)
    assert done.lines[:3] == [
        "input    64x48 yuv420p, bt601, limited range, 2 frames, 25 fps",
        "assumed  matrix bt601",
        "fit      preset ultrafast, profile baseline, 60 splats in 3 layers, 60 iterations (18 for P-frames), GOPs of "
        "25 frames at most",
    ]
    lines = [line for line in done.lines if not line.startswith("compiling")]  # on a machine's first use
    assert lines[3].split() == ["level", "size", "splats", "bytes", "kb/s", "bpp", "PSNR", "dB"]
    assert [line.split()[:3] for line in lines[4:7]] == [[str(k), "64x48", str(20 * k)] for k in (1, 2, 3)]
    assert re.fullmatch(r"encoded 2 frames in [0-9.]+ s \([0-9.]+ fps\) on cpu, [0-9.]+ k?B", lines[7])
    assert here("encode", clip, "o.pgs", *QUICK, "-f", 1, "-y", "-q") == Outcome(0, b"", "")
    done = here("encode", clip, "o.pgs", *QUICK, "-f", 1, "-y", "-v", "--layer-split", "2,1,1.5")
    assert done.lines[3].startswith(
        "plan     shares of the layers 0.44,0.22,0.33, strategy joint, levels trained: all, scene"
    )


def test_what_it_says_of_the_main_profile(clip: Path, here: Run, folder: Path) -> None:
    done = here("encode", clip, "o.pgs", "--quality", "35", "--preset", "ultrafast", "-f", 2)
    assert done.lines[2] == (
        "fit      preset ultrafast, profile main, quality 35 in 3 layers, 60 iterations (12 for P-frames), GOPs of "
        "25 frames at most"
    )
    # a line about compiling may come before the table
    assert [line.split()[:2] for line in done.lines[-4:-1]] == [[str(k), "64x48"] for k in (1, 2, 3)]
    assert describe_file(folder / "o.pgs")["profile"] == "main"
    assert "quality 50" in here("encode", clip, "o.pgs", "--iterations", 5, "-f", 1, "-y").err


def test_the_report_is_that_of_the_file(stream: Encoded) -> None:
    report, described = stream.report, describe_file(stream.path)
    assert [level["bytes"] for level in report["levels"]] == [level["bytes"] for level in described["levels"]]
    assert report["levels"][-1]["bytes"] == len(stream.data)
    assert [level["splats"] for level in report["levels"]] == [level["splats"] for level in described["levels"]]
    for ours, theirs in zip(report["levels"], described["levels"], strict=True):
        assert ours["kbps"] == pytest.approx(theirs["kbps"], abs=1e-3)
        assert ours["bpp"] == pytest.approx(theirs["bpp"], abs=1e-6)
    assert report["gops"] == described["gops"]
    assert report["input"] == {
        "w": 64,
        "h": 48,
        "frames": CLIP_FRAMES,
        "fps": 25.0,
        "pix_fmt": "yuv420p",
        "range": "limited",
        "matrix": "bt601",
        "assumed": ["matrix bt601"],
    }
    assert report["time"]["device"] == "cpu"
    assert report["warnings"] == []


def test_the_report_on_standard_output(clip: Path, here: Run, folder: Path) -> None:
    done = here("encode", clip, "o.pgs", *QUICK, "-f", 1, "--json", "-")
    report = json.loads(done.out)
    assert (report["tool"], report["input"]["frames"]) == ("pgsvc-encode", 1)
    assert report["levels"][-1]["bytes"] == (folder / "o.pgs").stat().st_size


@pytest.mark.parametrize("strategy", ["joint-random", "sequential", "pruning"])
def test_strategies_give_streams(strategy: str, clip: Path, here: Run, folder: Path) -> None:
    done = here("encode", clip, "o.pgs", *QUICK, "-f", 3, "--strategy", strategy, "--json", "-", "-v")
    assert f"strategy {strategy}," in done.err
    stated = [level["psnr"] for level in json.loads(done.out)["levels"]]
    measured = json.loads(here("metrics", clip, "o.pgs", "-f", 3, "--metrics", "psnr", "--json").out)
    assert stated == pytest.approx([level["psnr"] for level in measured["levels"]], abs=1e-3)


def test_monolithic_is_a_stream_for_every_level(clip: Path, here: Run, folder: Path) -> None:
    options = [*QUICK, "-f", 2, "--scalability", "resolution"]
    report = json.loads(here("encode", clip, "o.pgs", *options, "--strategy", "monolithic", "--json", "-").out)
    assert names_in(folder) == ["o.1.pgs", "o.2.pgs", "o.3.pgs", "o.pgs"]
    assert Path("o.3.pgs").read_bytes() == Path("o.pgs").read_bytes()
    sizes = [(level["width"], level["height"], level["splats"]) for level in report["levels"]]
    assert sizes == [(36, 28, 20), (52, 40, 40), (64, 48, 60)]
    for level, (width, height, splats) in enumerate(sizes, start=1):
        described = describe_file(f"o.{level}.pgs")
        only = described["levels"]
        assert [(entry["width"], entry["height"], entry["splats"]) for entry in only] == [(width, height, splats)]
        assert only[0]["bytes"] == report["levels"][level - 1]["bytes"]
    alone = here("encode", clip, "alone.pgs", *QUICK, "-f", 2, "-L", 1)
    assert alone.code == 0
    assert Path("alone.pgs").read_bytes() == Path("o.pgs").read_bytes(), "the top level is the whole of one layer"


def test_levels_of_several_sizes(clip: Path, here: Run, folder: Path) -> None:
    options = ["--scalability", "resolution", "--layer-res", "16x12,32x24,64x48"]
    done = here("encode", clip, "o.pgs", *QUICK, "-f", 2, *options, "--json", "-")
    assert "levels of 16x12 32x24 64x48" in done.err
    levels = json.loads(done.out)["levels"]
    assert [(level["width"], level["height"]) for level in levels] == [(16, 12), (32, 24), (64, 48)]
    assert levels[0]["bpp"] == pytest.approx(levels[0]["bytes"] * 8 / (16 * 12 * 2), abs=1e-6)
    with Decoder("o.pgs") as decoder:
        assert [frame.planes[0].shape for frame in decoder.frames(layers=2)] == [(24, 32)] * 2


def test_the_papers_preset(clip: Path, here: Run, folder: Path) -> None:
    done = here("encode", clip, "o.pgs", *QUICK, "-f", 2, "--preset", "paper", "-v")
    assert "fit      preset paper, profile baseline, 60 splats in 3 layers, 60 iterations" in done.err
    assert "levels trained: cyclic" in done.err
    assert here("decode", "o.pgs", "-o", "o.y4m").code == 0


def test_progress_for_scripts(clip: Path, here: Run, folder: Path) -> None:
    done = here("encode", clip, "o.pgs", *QUICK, "-f", 3, "-q", "--progress", "json")
    events = [json.loads(line) for line in done.lines]
    assert [(event["n"], event["of"]) for event in events] == [(1, 3), (2, 3), (3, 3)]
    assert set(events[0]) == {"event", "n", "of", "fps", "bytes", "psnr", "eta_s"}
    assert 0 < events[0]["bytes"] < events[2]["bytes"] < (folder / "o.pgs").stat().st_size


def test_progress_on_a_terminal(clip: Path, here: Run, folder: Path) -> None:
    shown = here("encode", clip, "o.pgs", *QUICK, "-f", 2, on_terminal=True).err
    line = r"\r\[50.0%\] 1/2 frames  [0-9.]+ fps  [0-9.]+ kb/s  est [0-9.]+ k?B  PSNR [0-9.]+  eta 0:00:[0-9]{2}"
    assert re.search(line, shown)
    assert "\r\rlevel   size  splats" in re.sub(" {20,}", "", shown)  # the line has gone before the summary comes
    assert "\r" not in here("encode", clip, "o.pgs", *QUICK, "-f", 2, "-y").err


def test_an_error_has_a_line_of_its_own_on_a_terminal(here: Run, folder: Path) -> None:
    frames = y4m_of([clip_frame(0)]) + b"FRAME\n" + bytes(CLIP.frame_bytes) + b"JUNK\n"
    shown = here("encode", "-", "o.pgs", *QUICK, stdin=frames, on_terminal=True)
    assert shown.code == 3
    assert re.search(r"\r[12] frames  .*\npgsvc-encode: error: standard input: y4m frame 2", shown.err)


def test_warnings_of_the_input(clip: Path, here: Run, folder: Path) -> None:
    done = here("encode", clip, "o.pgs", *QUICK, "--seek", 4, "-f", 9, "--json", "r.json", "-q")
    assert (done.code, done.lines) == (0, ["pgsvc-encode: frames 9: the input has only 2"])
    assert json.loads((folder / "r.json").read_text())["warnings"] == ["frames 9: the input has only 2"]
    assert describe_file(folder / "o.pgs")["input"]["frames"] == 2


@pytest.mark.parametrize(
    ("info", "names"),
    [
        (replace(CLIP, chroma=Chroma.GRAY, width=33, height=17), {"psnr_y"}),
        (replace(CLIP, chroma=Chroma.YUV444, depth=10), {"psnr_y", "psnr_u", "psnr_v", "psnr_yuv"}),
        (
            VideoInfo(64, 48, chroma=Chroma.RGB, matrix=Matrix.RGB, range=Range.FULL),
            {"psnr_r", "psnr_g", "psnr_b", "psnr_rgb"},
        ),
    ],
    ids=["gray", "444p10", "rgb"],
)
def test_other_planes(info: VideoInfo, names: set[str], here: Run, folder: Path) -> None:
    name = f"in_{info.width}x{info.height}_{info.pix_fmt}.yuv"
    with open_sink("yuv", name, info) as sink:
        sink.write(clip_frame(0, info))
    done = here("encode", name, "o.pgs", *QUICK, "--json", "-", "--range", info.range.value)
    assert done.code == 0, done.err
    level = json.loads(done.out)["levels"][-1]
    assert {key for key in level if key.startswith("psnr_")} == names
    with Decoder(folder / "o.pgs") as decoder:
        assert (decoder.info.pix_fmt, decoder.info.range) == (info.pix_fmt, info.range)
    done = here("decode", "o.pgs", "-o", "o.png", "-q")  # which takes neither limited range nor 10 bits
    assert done == Outcome(0, b"", "")


def test_what_options_say_of_the_input(clip: Path, here: Run, folder: Path) -> None:
    arguments = ["--fps", "30000/1001", "--range", "full", "--colormatrix", "bt2020nc", "--y4m"]
    done = here("encode", clip, "o.pgs", *QUICK, "-f", 1, *arguments)
    assert done.code == 0
    assert "pgsvc-encode: range: full overrules limited of the input" in done.lines
    with Decoder(folder / "o.pgs") as decoder:
        info = decoder.info
    assert (info.rate, info.range, info.matrix) == (Fraction(30000, 1001), Range.FULL, Matrix.BT2020NC)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{}"], 2, "OUTPUT is missing"),
        ([], 2, "INPUT is missing"),
        (["{}", "o.pgs", "p.pgs"], 2, "got one argument too many: p.pgs"),
        (["-i", "{}", "-o", "o.pgs", "p.pgs"], 2, "got one argument too many: p.pgs"),
        (["{}", "o.pgs", "--json", "o.pgs"], 2, "got as output and as json"),
        (["{}", "-", "--json", "-"], 2, "-: got as output and as json"),
        (["{}", "o.pgs", "-s", "64x48"], 2, "size does not apply to"),
        (["{}", "o.pgs", "--pix-fmt", "yuv420p"], 2, "pix_fmt does not apply to"),
        (["{}", "o.pgs", "--scenecut", "3", "--no-scenecut"], 2, "--scenecut does not go with --no-scenecut"),
        (["{}", "o.pgs", "--min-keyint", "3", "--no-scenecut"], 2, "--min-keyint does not go with --no-scenecut"),
        (["{}", "o.pgs", "-g", "4", "--min-keyint", "5"], 2, "min-keyint: got 5, allowed 1..4 (keyint)"),
        (["{}", "o.pgs", "-L", "9"], 2, "layers: got 9, allowed 1..8"),
        (["{}", "o.pgs", "-L", "2", "--layer-split", "1,1,1"], 2, "layer split: got 3 shares, allowed 2"),
        (["{}", "o.pgs", "--layer-split", "a"], 2, "got 'a', allowed numbers such as 1,1,2.5"),
        (["{}", "o.pgs", "--layer-res", "9x9"], 2, "level sizes: got some, allowed scalability resolution"),
        (
            ["{}", "o.pgs", "--scalability", "resolution", "--layer-res", "9x9,64x48"],
            2,
            "level sizes: got 2, allowed 3",
        ),
        (
            ["{}", "o.pgs", "--scalability", "resolution", "--layer-res", "9x9,8x9,64x48"],
            2,
            "size of level 1: got 9x9, allowed 1x1..8x9",
        ),
        (
            ["{}", "o.pgs", "--scalability", "resolution", "--layer-res", "9x9,9x9,60x48"],
            2,
            "size of level 3: got 60x48, allowed 64x48",
        ),
        (["{}", "o.pgs", "--scalability", "resolution", "--layer-res", "9x9,9"], 2, "got '9', allowed WxH"),
        (["{}", "o.pgs", "--strategy", "sequential", "--level-schedule", "all"], 2, "allowed strategy joint"),
        (["{}", "-", "--strategy", "monolithic"], 2, "allowed the name of a file"),
        (["{}", "o.pgs", "-n", "12m"], 2, "got '12m', allowed a number such as 12000 or 12k"),
        (["{}", "o.pgs", "-n", "2"], 2, "splats: got 2, allowed 3..1048576"),
        (["{}", "o.pgs", "--fps", "1/0"], 2, "got '1/0', allowed N or N/D"),
        (["{}", "o.pgs", "--fps", "0"], 2, "fps: got 0, allowed > 0"),
        (["{}", "o.pgs", "--preset", "warp"], 2, "'warp' is not one of"),
        (["{}", "o.pgs", "--iterations", "0"], 2, "iterations: got 0"),
        (["{}", "o.pgs", "--profile", "high"], 2, "'high' is not"),
        (["{}", "o.pgs", "--quality", "101"], 2, "quality: got 101"),
        (["{}", "o.pgs", "--quality", "20", "-n", "100"], 2, "quality: got 20 beside a number of splats"),
        (["{}", "o.pgs", "--quality", "20", "--profile", "baseline"], 2, "quality: got 20 with profile baseline"),
        (["{}", "o.pgs", "--seed", "-1"], 2, "seed: got -1"),
        (["{}", "o.pgs", "--seek", "6"], 3, "seek 6 is beyond its end, allowed 0..5"),
        (["{}", "o.pgs", "-f", "0"], 2, "frames: got 0, allowed 1 and more"),
        (["{}", "-", "--progression", "layer"], 2, "layer order cannot be streamed"),
        (["{}", "o.pgs", "--device", "cuda:99"], 7, "device cuda:99: "),
        (["{}", "o.pgs", "--device", "abacus"], 2, "device: got abacus, allowed auto, cpu, cuda, cuda:N"),
        (["{}", "o.pgs", "-q", "-v"], 2, "got -q and -v"),
        (["{}", "no/such/o.pgs"], 2, "No such file or directory"),
        (["{}", "."], 2, "is a directory"),
        (["no.y4m", "o.pgs"], 3, "no.y4m: cannot be read: No such file or directory"),
    ],
)
def test_unusable_options(arguments: list[str], code: int, message: str, clip: Path, here: Run, folder: Path) -> None:
    done = here("encode", *(argument.format(clip) for argument in arguments), "-q")
    assert (done.code, done.out, len(done.lines)) == (code, b"", 1)
    assert message in done.err
    assert names_in(folder) == []


@pytest.mark.parametrize(
    ("name", "content", "code", "message"),
    [
        ("empty.y4m", b"", 3, "is empty"),
        ("garbage.mp4", b"garbage " * 100, 3, "garbage.mp4"),
        ("garbage", bytes(range(256)) * 8, 3, "garbage"),
        ("a.pgs", b"\x89PGS\r\n\x1a\n" + bytes(90), 3, "is a .pgs stream, allowed pixels"),
        ("deep.y4m", b"YUV4MPEG2 W8 H8 F25:1 C420p12\nFRAME\n" + bytes(192), 3, "C420p12 is not supported"),
        ("x_64x48.yuv", bytes(5000), 3, "5000 bytes are no whole frames of 64x48 yuv420p, which have 4608"),
        ("x.yuv", bytes(4608), 2, "the size of raw video is unknown"),
        ("x_64x48_yuv420p12le.yuv", bytes(9216), 3, "pixel format yuv420p12le is not supported"),
        ("films", None, 3, "is a folder without images"),
    ],
)
def test_bad_inputs(name: str, content: bytes | None, code: int, message: str, here: Run, folder: Path) -> None:
    if content is None:
        (folder / name).mkdir()
    else:
        (folder / name).write_bytes(content)
    (folder / "o.pgs").write_bytes(b"mine")
    done = here("encode", name, "o.pgs", "-y")
    assert (done.code, done.out, len(done.lines)) == (code, b"", 1)
    assert message in done.err
    assert names_in(folder) == sorted([name, "o.pgs"])
    assert (folder / "o.pgs").read_bytes() == b"mine"


@pytest.mark.parametrize("option", [["-g", "3"], ["--min-keyint", "3"], ["--scenecut", "3"], ["--fps", "3"]])
def test_options_that_one_image_has_no_use_for(option: list[str], here: Run, folder: Path) -> None:
    info = VideoInfo(16, 16, chroma=Chroma.RGB, matrix=Matrix.RGB, range=Range.FULL)
    with open_sink("png", "a.png", info) as sink:
        sink.write(tuple(np.full((16, 16), value, np.uint8) for value in (10, 20, 30)))
    done = here("encode", "a.png", "o.pgs", *option)
    assert (done.code, len(done.lines)) == (2, 1)
    assert "does not apply to a single image" in done.err
    assert names_in(folder) == ["a.png"]


def test_an_existing_output_is_refused_before_any_work(here: Run, folder: Path) -> None:
    (folder / "o.pgs").write_bytes(b"mine")
    done = here("encode", "no_such_input.y4m", "o.pgs")
    assert done == Outcome(2, b"", "pgsvc-encode: error: o.pgs exists; use -y to overwrite it\n")
    assert (folder / "o.pgs").read_bytes() == b"mine"
    done = here("encode", "no_such_input.y4m", "p.pgs", "--json", "o.pgs")
    assert (done.code, names_in(folder)) == (2, ["o.pgs"])


def test_the_input_is_not_overwritten(clip: Path, here: Run) -> None:
    before = clip.read_bytes()
    done = here("encode", clip, clip.parent / "." / clip.name, "-y")
    assert (done.code, len(done.lines)) == (2, 1)
    assert "got as input and as output" in done.err
    assert clip.read_bytes() == before


def test_an_input_that_breaks_leaves_the_output_alone(here: Run, folder: Path) -> None:
    (folder / "a.y4m").write_bytes(y4m_of([clip_frame(0)]) + b"FRAME\n" + bytes(CLIP.frame_bytes) + b"JUNK\n")
    (folder / "o.pgs").write_bytes(b"mine")
    done = here("encode", "a.y4m", "o.pgs", *QUICK, "-y")
    assert (done.code, names_in(folder)) == (3, ["a.y4m", "o.pgs"])
    assert (folder / "o.pgs").read_bytes() == b"mine"


def test_a_stream_that_finds_no_room_leaves_the_output_alone(clip: Path, apart: Run, folder: Path) -> None:
    (folder / "o.pgs").write_bytes(b"mine")

    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (256, 256))  # as a disk that fills up

    done = apart("encode", clip, "o.pgs", *QUICK, "-y", "-q", "-f", 1, preexec_fn=small_files_only)
    assert done.code == 2
    assert done.err == f"pgsvc-encode: error: temporary file in {folder}: cannot be written: File too large\n"
    assert names_in(folder) == ["o.pgs"]
    assert (folder / "o.pgs").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("number", "code", "options"),
    [
        (signal.SIGINT, 130, ["-n", "2k", "--profile", "baseline"]),
        (signal.SIGTERM, 143, ["--quality", "90"]),
    ],
)
def test_interruption_leaves_the_output_alone(
    number: signal.Signals, code: int, options: list[str], clip: Path, folder: Path
) -> None:
    (folder / "o.pgs").write_bytes(b"mine")
    line = command_line("encode", clip, "o.pgs", "-y", "--iterations", "200000", *options, "-q")
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 30
        while len(names_in(folder)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert names_in(folder) == ["o.pgs", f"o.pgs.tmp-{process.pid}"]
        time.sleep(2)  # into the fit
        process.send_signal(number)
        assert process.stderr is not None
        said = process.stderr.read()
    # Python dies of the SIGINT itself where that came during an exec, as in imports; to a shell both are 130.
    assert process.returncode in (code, -number), said
    assert said.count("\n") == 1
    assert names_in(folder) == ["o.pgs"]
    assert (folder / "o.pgs").read_bytes() == b"mine"


def test_no_stream_on_a_terminal(clip: Path) -> None:
    master, slave = pty.openpty()
    try:
        line = command_line("encode", clip, "-")
        done = subprocess.run(line, stdout=slave, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(slave)
        os.close(master)
    assert done.returncode == 2
    assert done.stderr == "pgsvc-encode: error: refusing to write a stream to a terminal; use a file or a pipe\n"


def test_the_same_seed_gives_the_same_bytes(clip: Path, piped: bytes, apart: Run, here: Run) -> None:
    arguments = ["encode", clip, "-", *STREAM_OPTIONS, "-q"]
    alone = apart(*arguments, "--seed", 0, env={**os.environ, "NUMBA_NUM_THREADS": "1"})
    assert (alone.code, alone.err) == (0, "")
    assert alone.out == piped
    assert here(*arguments, "--seed", 1).out != piped


@pytest.mark.parametrize(("text", "count"), [("60", 60), ("0.06k", 60), ("1K", 1000), ("1.5k", 1500)])
def test_counts_in_thousands(text: str, count: int, clip: Path, here: Run, folder: Path) -> None:
    done = here("encode", clip, "o.pgs", "-n", text, "--iterations", 1, "-f", 1)
    assert f" {count} splats in 3 layers" in done.err


def test_one_line_says_why_auto_is_not_cuda(clip: Path, here: Run, folder: Path) -> None:
    pytest.importorskip("constriction")  # which machines that only run CUDA code may lack
    because = choose("auto").because
    expected = [] if because is None else [f"device auto: cpu, because {because}"]
    options = ["encode", clip, "o.pgs", *QUICK, "-f", 1, "-y"]
    assert [line for line in here(*options).lines if line.startswith("device")] == expected
    assert here(*options, "-q").err == ""
    assert not any(line.startswith("device") for line in here(*options, "--device", "cpu").lines)


def test_workers_write_the_same_stream(clip: Path, stream: Encoded, apart: Run, folder: Path) -> None:
    done = apart("encode", clip, "o.pgs", *STREAM_OPTIONS, "-j", 2, "--json", "o.json", "--progress", "on")
    assert done.code == 0, done.err
    assert (folder / "o.pgs").read_bytes() == stream.data
    assert json.loads((folder / "o.json").read_text())["levels"] == stream.report["levels"]
    assert [line.split()[1] for line in done.lines if " fps " in line and line.startswith("[")] == ["3/6", "6/6"]


def test_a_single_image_needs_no_workers(here: Run, folder: Path) -> None:
    info = VideoInfo(16, 16, chroma=Chroma.RGB, matrix=Matrix.RGB, range=Range.FULL)
    with open_sink("png", "a.png", info) as sink:
        sink.write(tuple(np.full((16, 16), value, np.uint8) for value in (10, 20, 30)))
    assert here("encode", "a.png", "o.pgs", *QUICK, "-j", 2, "-q") == Outcome(0, b"", "")
    assert here("encode", "a.png", "o.pgs", *QUICK, "-j", 0, "-q", "-y").code == 2
