"""pgsvc-info: stdout is the answer, stderr is for people, exit codes are those that scripts rely on."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner
from level_sizes import with_level_sizes

from pgsvc_codec import __version__
from pgsvc_codec.cli.info import info
from pgsvc_codec.describe import describe_file
from pgsvc_codec.errors import ConfigError
from pgsvc_codec.format.container import Gop, LayerSegment, StreamReader, StreamWriter
from pgsvc_codec.format.header import LayersRecord, LevelRecord, StreamHeader, VideoRecord


@pytest.fixture
def stream() -> bytes:
    video = VideoRecord(
        width=64, height=48, rate=Fraction(25), chroma=1, depth=8,
        matrix=1, primaries=2, transfer=2, color_range=0, siting=0,
    )  # fmt: skip
    levels = tuple(LevelRecord(width=64, height=48, splats=5 * level) for level in (1, 2, 3))
    header = StreamHeader(video=video, layers=LayersRecord(scalability=0, levels=levels))
    sink = io.BytesIO()
    with StreamWriter(sink, header, progression="gop", seekable=True) as writer:
        for number in range(4):
            writer.write_gop(Gop(2 * number, [LayerSegment([b"abc", b""], 10, 30.0 + layer) for layer in range(3)]))
    return sink.getvalue()


@pytest.fixture
def path(stream: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "a.pgs"
    path.write_bytes(stream)
    return path


def run_info(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "pgsvc_codec.cli.info", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, check=False)


def test_text_names_what_matters(path: Path) -> None:
    done = CliRunner().invoke(info, [str(path)], catch_exceptions=False)
    assert "video    64x48, 8 frames, 25 fps, yuv420p, bt709, limited range" in done.stdout
    assert "layers   3, quality scalability" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["3", "64x48", "15", str(path.stat().st_size)] in [row[:4] for row in rows]
    assert done.stderr == ""


def test_levels_of_several_sizes(stream: bytes, tmp_path: Path) -> None:
    path = tmp_path / "growing.pgs"
    path.write_bytes(with_level_sizes(stream, [(32, 24), (48, 32), (64, 48)]))
    done = CliRunner().invoke(info, [str(path)], catch_exceptions=False)
    assert "layers   3, resolution scalability" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    table = rows[rows.index(["level", "size", "splats", "bytes", "kb/s", "bpp", "PSNR", "dB"]) + 1 :]
    assert [row[1] for row in table[:3]] == ["32x24", "48x32", "64x48"]
    for row in table[:3]:
        width, height = map(int, row[1].split("x"))
        assert row[5] == f"{int(row[3]) * 8 / (width * height * 8):.4f}", "bits per pixel of the level's own size"


def test_json_is_the_description(path: Path, stream: bytes) -> None:
    done = CliRunner().invoke(info, [str(path), "--json"], catch_exceptions=False)
    document = json.loads(done.stdout)
    assert (document.pop("tool"), document.pop("version")) == ("pgsvc-info", __version__)
    assert document == describe_file(io.BytesIO(stream))


def test_layers_shortens_everything(path: Path) -> None:
    document = json.loads(CliRunner().invoke(info, [str(path), "--json", "-l", "2"]).stdout)
    assert [level["layers"] for level in document["levels"]] == [1, 2]
    assert {len(gop["layers"]) for gop in document["gops"]} == {2}
    assert len(document["truncation_points"]) == 2
    done = run_info(path, "--layers", 4)
    assert (done.returncode, done.stderr) == (2, b"pgsvc-info: error: --layers: got 4, allowed 1..3\n")


def test_ranges_and_truncation_points(path: Path, stream: bytes) -> None:
    done = CliRunner().invoke(info, [str(path), "--ranges", "--truncation-points"], catch_exceptions=False)
    entry = StreamReader(stream).gops[3].segments[2]
    assert entry is not None
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["3", "6-7", "2", str(entry.offset), str(entry.end - 1), str(entry.length), "10", "32.00"] in rows
    assert ["3", "head", "-c", str(len(stream))] in rows


def test_standard_input(stream: bytes) -> None:
    done = run_info("-", "--json", stdin=stream)
    assert done.returncode == 0
    assert json.loads(done.stdout)["file"]["bytes"] == len(stream)


def test_a_cut_file_is_described_with_a_warning(path: Path, stream: bytes) -> None:
    path.write_bytes(stream[:-1])
    done = run_info(path)
    assert done.returncode == 0
    assert done.stderr == b"pgsvc-info: truncated: GOP 3 has 2 of 3 layers\n"
    assert f"{len(stream) - 1} of {len(stream)} bytes".encode() in done.stdout


def test_verify(path: Path, stream: bytes) -> None:
    assert run_info(path, "--verify").returncode == 0
    path.write_bytes(stream[:-1] + bytes([stream[-1] ^ 1]))
    assert run_info(path).returncode == 0
    done = run_info(path, "--verify")
    assert done.returncode == 5
    assert b"GOP 3 layer 2 at byte 0x" in done.stderr
    assert done.stderr.endswith(b"pgsvc-info: error: 1 of 12 segments fail their check\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", b"file header at byte 0x0: needs 32 bytes, got 0"),
        (b"garbage" * 50, b"not a PGS stream: magic at byte 0x0: got 67 61 72"),
        (None, b"No such file or directory"),
    ],
)
def test_bad_inputs_give_one_line(content: bytes | None, message: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.pgs"
    if content is not None:
        path.write_bytes(content)
    done = run_info(path)
    assert done.returncode == 3
    assert done.stderr.startswith(b"pgsvc-info: error: ")
    assert message in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert done.stdout == b""


def test_a_directory_is_no_stream(tmp_path: Path) -> None:
    done = run_info(tmp_path)
    assert (done.returncode, done.stderr.count(b"\n")) == (3, 1)
    assert b"Is a directory" in done.stderr


def test_neither_numpy_nor_torch_is_loaded(path: Path) -> None:
    program = (
        "import sys\nfrom pgsvc_codec.cli.info import main\n"
        f"sys.argv = ['pgsvc-info', {str(path)!r}, '--verify', '--json']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "assert not {'numpy', 'torch', 'constriction', 'numba', 'av'} & set(sys.modules), 'loaded'\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def doctor(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """The doctor on a machine whose GPU is hidden and whose kernels are not interpreted, but for what is said."""
    said = "TRITON_INTERPRET", "PGSVC_DEVICE"
    environment = {name: value for name, value in os.environ.items() if name not in said}
    command = [sys.executable, "-m", "pgsvc_codec.cli.info", "--doctor", *map(str, arguments)]
    hidden = {**environment, "CUDA_VISIBLE_DEVICES": "", **variables}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=hidden)


def test_doctor_says_why_cuda_does_not_work() -> None:
    done = doctor()
    assert (done.returncode, done.stderr) == (0, "")
    assert "backend cpu works\n" in done.stdout
    assert "backend cuda does not work\n" in done.stdout
    assert re.search(r"auto +cpu, because .*NVIDIA driver", done.stdout)
    assert re.search(r"rasteriser  yes  paints as the reference does", done.stdout)
    assert re.search(r"driver +no +.*NVIDIA driver", done.stdout)


def test_doctor_in_json_knows_cuda_kernels_that_are_interpreted() -> None:
    done = doctor("--json", TRITON_INTERPRET="1")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert (document["tool"], document["auto"]["device"]) == ("pgsvc-info", "cpu")
    cpu, cuda = document["backends"]
    assert (cpu["name"], cpu["works"], cuda["name"], cuda["works"]) == ("cpu", True, "cuda", True)
    parts = {part["name"]: part for part in cuda["parts"]}
    assert (parts["driver"]["works"], parts["driver"]["needed"]) == (False, False)
    assert parts["Triton"]["detail"].endswith("interprets kernels")
    assert parts["gsplat"]["needed"] is False
    assert document["versions"]["numba"] == version("numba")


@pytest.mark.parametrize("arguments", [["x.pgs"], ["--verify"], ["-l", "2"]])
def test_doctor_takes_nothing_else(arguments: list[str]) -> None:
    done = CliRunner().invoke(info, ["--doctor", *arguments])
    assert isinstance(done.exception, ConfigError)


def test_file_is_needed_without_doctor() -> None:
    done = run_info()
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"FILE is missing" in done.stderr
