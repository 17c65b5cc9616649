"""The GPU benchmark: every part at a few pixels, where no GPU is at hand interpreted, and what holds parts together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
WHAT_ROWS_HAVE = {"part", "device", "name", "value", "unit", "target", "ratio", "note"}
PARTS = ("card", "raster", "fit", "still", "clip", "stills", "decode", "compare")


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the benchmark writes; its modules can be imported as its script does it."""
    place = tmp_path_factory.mktemp("gpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGSVC_BENCHMARKS", str(place))
        patch.setenv("GPU_DATA", str(place / "none"))
        patch.delenv("PGSVC_REQUIRE_CUDA", raising=False)
        patch.syspath_prepend(str(BENCHMARKS))
        yield place
    own = {path.stem for path in BENCHMARKS.glob("*.py")} | {"gpu_parts"}
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        del sys.modules[name]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("part", PARTS)
def test_every_part_has_figures(part: str, tmp_path: Path, one_thread: None) -> None:
    from gpu import run_here

    path = tmp_path / "rows.jsonl"
    run_here(part, path, tiny=True)
    rows = rows_of(path)
    assert rows
    assert all(row.keys() == WHAT_ROWS_HAVE and row["part"] == part for row in rows)
    failed = [row for row in rows if row["note"].startswith(("failed", "skipped"))]
    assert failed == []
    assert any(row["value"] is not None for row in rows)


@pytest.mark.parametrize(("part", "preset", "splats"), [("still", "paper", 12000), ("stills", "slow", 5000)])
@pytest.mark.parametrize(("psnr", "is_reached"), [(5.0, True), (90.0, False)])
def test_qualities_of_a_cpu_are_reached_or_not(
    part: str, preset: str, splats: int, psnr: float, is_reached: bool, folder: Path, tmp_path: Path, one_thread: None
) -> None:
    from gpu import run_here
    from gpu_parts.codec import material
    from gpu_reference import COLUMNS, NAME

    facts = {"source": material(tiny=True).stills[0].name, "preset": preset, "splats": splats, "size_bytes": 10**6}
    row = {name: facts.get(name, psnr if name == "psnr_3" else 0) for name in COLUMNS}
    (folder / "results").mkdir(exist_ok=True)
    path = folder / "results" / f"{NAME}.tsv"
    path.write_text("\t".join(COLUMNS) + "\n" + "\t".join(map(str, row.values())) + "\n", encoding="utf-8")
    run_here(part, tmp_path / "rows.jsonl", tiny=True)
    path.unlink()
    held = [row for row in rows_of(tmp_path / "rows.jsonl") if row["target"] is not None]
    assert held
    assert {row["value"] is not None for row in held} == {is_reached}
    assert all(f"{psnr:.2f} dB" in row["note"] for row in held)


def test_all_parts_are_tested() -> None:
    from gpu import PARTS as ALL

    assert {name for name, part in ALL.items() if part.module} == set(PARTS)


def test_the_command_writes_a_table_and_copies_it(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--tiny", "--parts", "card"]
    environment = os.environ | {"OUT": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (tsv,) = (folder / "results").glob("gpu-interpreter-*.tsv")
    told = json.loads(tsv.with_suffix(".json").read_text(encoding="utf-8"))
    assert told["facts"]["card"] == "interpreter"
    assert [part["ending"] for part in told["parts"]] == ["done"]
    assert len(tsv.read_text(encoding="utf-8").splitlines()) == 1 + len(told["rows"])
    assert {path.name for path in tmp_path.iterdir()} == {tsv.name, tsv.with_suffix(".json").name, "gpu.log"}
    assert f"{len(told['rows'])} more rows are in the files" in done.stdout


def test_without_a_gpu_the_command_says_so_in_one_line() -> None:
    command = [sys.executable, str(BENCHMARKS / "gpu.py")]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "make gpu: no NVIDIA GPU that this torch can use\n"
    assert done.stdout == ""


def test_parts_that_crash_or_hang_cost_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu

    programs = {
        "card": "import sys; open(sys.argv[1], 'a').write('{\"part\": 1}\\n{\"part\": 2')",
        "decode": "import os; os.abort()",
        "still": "import time; time.sleep(60)",
        "clip": "import sys; open(sys.argv[1], 'a').write('{\"part\": 3}\\n')",
    }
    monkeypatch.setattr(gpu, "PARTS", {name: gpu.Part("none", 20, 1) for name in programs})
    monkeypatch.setitem(gpu.PARTS, "still", gpu.Part("none", 1, 1))
    monkeypatch.setattr(gpu, "LEAST_SECONDS", 0.5)
    monkeypatch.setattr(gpu, "command_of", lambda name, rows, tiny: [sys.executable, "-c", programs[name], str(rows)])
    kept = []
    rows, outcomes = gpu.run_all(
        list(programs), 1.0, tiny=True, keep=lambda rows, outcomes: kept.append((len(rows), len(outcomes)))
    )
    assert [row["part"] for row in rows] == [1, 3]  # a line that was cut short is left out
    endings = ["done", "failed: exit code -6", "stopped after 1 s", "done"]
    assert [outcome.ending for outcome in outcomes] == endings
    assert kept == [(1, 1), (1, 2), (1, 3), (2, 4)]
    assert gpu.run_all(["clip"], 0.0, tiny=True)[1][0].ending == "left out: no time"


@pytest.mark.parametrize(
    ("before", "grace", "end"),
    [("", (60.0, 60.0), "KeyboardInterrupt"), ("signal(SIGINT, SIG_IGN)", (0.1, 60.0), "Fatal Python error: Aborted")],
    ids=["waits", "hangs"],
)
def test_parts_that_are_stopped_say_where_they_are(
    monkeypatch: pytest.MonkeyPatch, before: str, grace: tuple[float, float], end: str
) -> None:
    import gpu

    program = f"from signal import *\n{before}\ndef ponder():\n    print('ready', flush=True)\n    pause()\nponder()"
    monkeypatch.setattr(gpu, "_GRACE", grace)
    process = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        gpu._stop(process)
        said = process.stdout.read().decode()
    assert end in said
    assert "in ponder" in said


def test_the_end_of_what_is_printed_is_short_and_says_what_failed() -> None:
    import gpu

    printed = [f"tests/test_{n}.py::test PASSED" for n in range(900)]
    printed += ["E   ValueError: of a kernel", "E   ", "FAILED tests/test_7.py::test - ValueError", "=== 1 failed ==="]
    trouble = gpu.trouble_of(printed)
    assert trouble == ("FAILED tests/test_7.py::test - ValueError", "E   ValueError: of a kernel")
    outcomes = [gpu.Outcome(name, 1.0, "failed: exit code 1", "", trouble * 200) for name in gpu.PARTS]
    row = {"part": "fit", "value": 1.0, "unit": "s", "target": 2.0, "ratio": 2.0, "note": "n" * 300, "device": "none"}
    text = gpu.table([{**row, "name": f"row {number}"} for number in range(300)], outcomes)
    assert len(text) < 11_500
    assert text.count("--- ") == len(gpu.PARTS)
    assert text.count("E   ValueError: of a kernel") >= len(gpu.PARTS)
    assert "row 0 " in text
    assert "lines more" in text


def test_all_parts_have_their_time() -> None:
    import gpu

    assert sum(part.reserved for part in gpu.PARTS.values()) <= 7.5 * 60
    assert all(gpu.LEAST_SECONDS < part.reserved <= part.seconds for part in gpu.PARTS.values())


def test_what_fails_inside_a_part_is_a_row(tmp_path: Path) -> None:
    from gpu_parts.timing import Rows, at_least, at_most, device

    path = tmp_path / "rows.jsonl"
    rows = Rows(path, "card", device())
    with rows.trying("one"):
        raise ValueError("of\nmany lines")
    rows.add("two", 4.0, "ms", at_most(2.0))
    rows.add("three", 4.0, "frames/s", at_least(2.0))
    one, two, three = rows_of(path)
    assert (one["value"], one["note"]) == (None, "failed: ValueError: of many lines")
    assert (two["ratio"], three["ratio"]) == (0.5, 2.0)


def test_tests_for_a_gpu_are_found() -> None:
    from gpu import cuda_tests

    found = cuda_tests()
    assert "tests/test_marker_cuda.py" in found
    assert "tests/test_picture.py" not in found


def test_a_panned_picture_moves_by_whole_pixels() -> None:
    from gpu_material import STEP, panned
    from gpu_parts.codec import material

    still = material(tiny=True).clip.first(1)
    frames = panned(still, 3).frames
    assert [plane.shape for plane in frames[2]] == list(still.info.plane_shapes)
    assert (frames[1][0][: -STEP[1], : -STEP[0]] == frames[0][0][STEP[1] :, STEP[0] :]).all()
    assert (frames[1][1][: -STEP[1] // 2, : -STEP[0] // 2] == frames[0][1][STEP[1] // 2 :, STEP[0] // 2 :]).all()
