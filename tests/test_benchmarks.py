"""The benchmarks: every command from end to end on small made material, and what they compute."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pgsvc_codec.config import EncodeConfig
from pgsvc_codec.errors import InputError
from pgsvc_codec.media.sinks import open_sink
from pgsvc_codec.media.source import open_source
from pgsvc_codec.train.descent import Iteration
from pgsvc_codec.video import Chroma, Matrix, Range, VideoInfo

pytest.importorskip("matplotlib")
pytest.importorskip("pytorch_msssim")
pytest.importorskip("imageio_ffmpeg")

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SIDES = (176, 168)  # just enough for MS-SSIM
PICTURE_INFO = VideoInfo(*SIDES, chroma=Chroma.RGB, matrix=Matrix.RGB, range=Range.FULL)
CLIP_INFO = VideoInfo(*SIDES, Fraction(25))
METADATA = ["command", "commit", "machine"]
QUICK = ("--splats", "60", "--preset", "paper", "--iterations", "12")


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the benchmarks write; their modules can be imported as their scripts do it."""
    place = tmp_path_factory.mktemp("benchmarks")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # pictures are small: threads would only wait for each other
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGSVC_BENCHMARKS", str(place))
        patch.setenv("PGSVC_DATA", str(place / "none"))
        patch.syspath_prepend(str(BENCHMARKS))
        yield place
    torch.set_num_threads(threads)
    for name in {path.stem for path in BENCHMARKS.glob("*.py")} & set(sys.modules):
        del sys.modules[name]


@pytest.fixture(scope="module")
def run() -> Callable[..., None]:
    """A function that runs a script of the benchmarks with arguments."""

    def run_script(name: str, *arguments: object) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [str(BENCHMARKS / f"{name}.py"), *map(str, arguments)])
            runpy.run_path(sys.argv[0], run_name="__main__")

    return run_script


def made(shape: tuple[int, int], shift: float) -> np.ndarray:
    """Slopes with a square of fine stripes."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    plane = 90 + 60 * np.sin((columns + shift) / 23) + 40 * np.cos(rows / 31)
    stripes = (rows > shape[0] // 2) & (columns > shape[1] // 2)
    return (plane + stripes * 50 * (columns % 4 < 2)).astype(np.uint8)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "made.png"
    with open_sink("png", str(path), PICTURE_INFO) as sink:
        sink.write(tuple(made(shape, 9.0 * plane) for plane, shape in enumerate(PICTURE_INFO.plane_shapes)))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "moving.y4m"
    with open_sink("y4m", str(path), CLIP_INFO) as sink:
        for number in range(3):
            sink.write(tuple(made(shape, 3.0 * number) for shape in CLIP_INFO.plane_shapes))
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    assert header.split("\t")[-3:] == METADATA
    rows = [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]
    assert all(row[name] for row in rows for name in METADATA)
    return rows


def assert_plotted(path: Path) -> None:
    """A picture with some ink and several colours."""
    with open_source(str(path)) as source:
        planes = np.stack(next(iter(source))[:3])
    assert (planes != planes[:, :1, :1]).any(axis=0).mean() > 0.01
    assert len(np.unique(planes.reshape(3, -1), axis=1).T) > 50


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    """What must stay when nothing is measured again: fits and streams, and rows."""
    work = {str(path): (path.stat().st_mtime_ns, b"") for path in (folder / "work").rglob("*") if path.is_file()}
    return work | {str(path): (0, path.read_bytes()) for path in (folder / "results").glob("*.tsv")}


def floats(row: dict[str, str], *names: str) -> list[float]:
    return [float(row[name]) for name in names]


# Commands


def test_table1(run: Callable[..., None], folder: Path, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("table1", picture.parent, *QUICK, "--strategy", "joint")
    run(*arguments)
    (row,) = rows_of(folder / "results" / "table1.tsv")
    assert [row[key] for key in ("picture", "strategy", "splats", "iterations")] == ["made.png", "joint", "60", "12"]
    assert row["lpips"] == ""
    assert all(5 < psnr < 60 for psnr in floats(row, "psnr_1", "psnr_2", "psnr_3"))
    assert "1 pictures" in capsys.readouterr().out
    assert_plotted(folder / "results" / "table1.png")
    before = state(folder)
    run(*arguments)
    assert state(folder) == before


def test_figures_2_and_5(run: Callable[..., None], folder: Path, picture: Path) -> None:
    arguments = ("fig2_fig5", picture, *QUICK)
    run(*arguments)
    rows = rows_of(folder / "results" / "fig2-fig5.tsv")
    assert [row["strategy"] for row in rows] == ["monolithic", "sequential", "joint-random", "joint"]
    assert {row["iterations_spent"] for row in rows} == {"12"}
    points = rows_of(folder / "results" / "fig2-fig5-made.tsv")
    assert len(points) == 4 * 12
    starts = [
        int(point["iteration"])
        for before, point in pairwise(points)
        if before["strategy"] == point["strategy"] and before["layer"] != point["layer"]
    ]
    assert starts == [4, 8]  # of the layers of the sequential fit
    for point in points:
        least, mean, most = floats(point, "loss_min", "loss", "loss_max")
        assert 0 < least <= mean <= most
    assert_plotted(folder / "results" / "fig2-fig5-made.png")
    before = state(folder)
    run(*arguments)
    assert state(folder) == before


def test_figure_6(run: Callable[..., None], folder: Path, picture: Path) -> None:
    arguments = ("fig6", picture, *QUICK, "--crop-size", "64")
    run(*arguments)
    rows = rows_of(folder / "results" / "fig6.tsv")
    strategies = ["pruning", "monolithic", "sequential", "joint"]
    assert [(row["scalability"], row["strategy"]) for row in rows] == [
        (scalability, strategy) for scalability in ("quality", "resolution") for strategy in strategies
    ]
    assert {row["width_1"] for row in rows[:4]} == {"176"}
    assert {row["width_1"] for row in rows[4:]} == {"102"}  # an even number near 176 / sqrt(3)
    for scalability in ("quality", "resolution"):
        assert_plotted(folder / "results" / f"fig6-{scalability}-made.png")
    before = state(folder)
    run(*arguments, "--crop", "3", "5")
    assert state(folder) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--crop", "120", "0", "--crop-size", "64"), r"crop: got 120 0, allowed 0\.\.112 0\.\.104"),
        (("--crop-size", "400"), r"crop size: got 400, allowed 1\.\.168"),
    ],
)
def test_figure_6_refuses_a_crop_outside(
    run: Callable[..., None], picture: Path, options: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        run("fig6", picture, *QUICK, *options)


def test_figure_7(run: Callable[..., None], folder: Path, picture: Path, clip: Path) -> None:
    quick = ("--preset", "fast", "--iterations", "4", "--frames", "2")
    arguments = ("fig7", picture, clip, "--splats", "60", *quick, "--strategy", "monolithic", "joint")
    run(*arguments)
    rows = rows_of(folder / "results" / "fig7.tsv")
    assert len(rows) == 2 * 2 * 2  # files, scalabilities, strategies
    assert {(row["file"], row["frames"]) for row in rows} == {("made.png", "1"), ("moving.y4m", "2")}
    for row in rows:
        assert all(5 < psnr < 60 for psnr in floats(row, "psnr_1", "psnr_2", "psnr_3"))
        assert 0 <= float(row["vmaf_3"]) <= 100
        assert 0 < float(row["ms_ssim_3"]) < 1
        assert (row["ms_ssim_1"] == "") == (row["scalability"] == "resolution")  # too small
        assert floats(row, "splats_1", "splats_3") == [int(row["splats"]) / 3, int(row["splats"])]
    averages = rows_of(folder / "results" / "fig7-averages.tsv")
    assert len(averages) == 3 * len(rows)
    groups: dict[tuple[str, ...], list[float]] = {}
    for row in averages:
        groups.setdefault((row["kind"], row["scalability"], row["level"]), []).append(float(row["psnr_normalised"]))
    assert len(groups) == 12
    assert all((min(values), max(values)) == (0, 1) for values in groups.values())
    for kind in ("stills", "clips"):
        assert_plotted(folder / "results" / f"fig7-{kind}.png")
    before = state(folder)
    run(*arguments)
    assert state(folder) == before


def test_figure_8(run: Callable[..., None], folder: Path, picture: Path, clip: Path) -> None:
    quick = ("--preset", "fast", "--iterations", "4", "--frames", "2")
    arguments = ("fig8", picture, clip, "--splats", "60", *quick)
    run(*arguments)
    rows = rows_of(folder / "results" / "fig8.tsv")
    assert len(rows) == 2 * 3  # files, strategies
    for row in rows:
        sizes = floats(row, "bytes_1", "bytes_2", "bytes_3")
        assert sizes == sorted(set(sizes))
        frames = int(row["frames"])
        rate = 8 * sizes[2] / (frames * SIDES[0] * SIDES[1])
        assert float(row["bpp_3"]) == pytest.approx(rate, abs=1e-4)
        assert float(row["kbps_3"]) == pytest.approx(rate * SIDES[0] * SIDES[1] * 25 / 1000, rel=1e-3)
    streams = {path.stat().st_size for path in (folder / "work" / "streams").rglob("*.pgs")}
    assert {int(row["bytes_3"]) for row in rows} <= streams
    assert {int(row["bytes_1"]) for row in rows if row["strategy"] == "monolithic"} <= streams
    assert_plotted(folder / "results" / "fig8-quality.png")
    before = state(folder)
    run(*arguments)
    assert state(folder) == before


def test_quantised(run: Callable[..., None], folder: Path, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("quantised", picture, *QUICK, "--strategy", "joint", "sequential", "--tuning", "0.5")
    run(*arguments)
    rows = rows_of(folder / "results" / "quantised.tsv")
    assert [(row["strategy"], row["tuning"]) for row in rows] == [("joint", "0.5"), ("sequential", "0.5")]
    for row in rows:
        assert float(row["loss"]) == pytest.approx(float(row["float_3"]) - float(row["psnr_3"]), abs=2e-4)
        assert float(row["bits_per_splat"]) == pytest.approx(int(row["size_bytes"]) * 8 / 60, abs=1e-3)
        assert all(abs(before - after) < 3 for before, after in zip(*levels_of(row), strict=True))
    assert "largest loss" in capsys.readouterr().out
    before = state(folder)
    run(*arguments)
    assert state(folder) == before


def levels_of(row: dict[str, str]) -> tuple[list[float], list[float]]:
    return floats(row, "float_1", "float_2", "float_3"), floats(row, "psnr_1", "psnr_2", "psnr_3")


def test_decoding(run: Callable[..., None], folder: Path, clip: Path) -> None:
    arguments = (clip, "--splats", 60, "--levels", 3, "--threads", 1, "--frames", 3, "--rounds", 1)
    run("decoding", *arguments)
    rows = rows_of(folder / "results" / "decoding.tsv")
    assert [row["profile"] for row in rows] == ["main", "baseline"]
    for row in rows:
        assert (row["clip"], row["frames"], row["level"]) == ("moving.y4m", "3", "3")
        assert float(row["fps"]) == pytest.approx(1000 / float(row["ms_per_frame"]), rel=1e-2)
        assert 1 / float(row["fps"]) < float(row["first_frame_s"]) < float(row["first_use_s"]), "kernels are cached"
        assert 30 < float(row["peak_mib"]) < 1000
    before = state(folder)
    run("decoding", *arguments)
    assert state(folder) == before


def test_a_view_that_moves_over_a_picture(folder: Path, tmp_path: Path) -> None:
    from decoding import STEP, panned

    still = tmp_path / "still_176x168_yuv420p.yuv"
    with open_sink("yuv", str(still), CLIP_INFO) as sink:
        sink.write(tuple(made(shape, 0.0) for shape in CLIP_INFO.plane_shapes))
    with open_source(str(panned(still, 4))) as source:
        frames = list(source)
    assert len(frames) == 4
    for before, after in pairwise(frames):
        for plane, (old, new) in enumerate(zip(before, after, strict=True)):
            right, down = (step // (2 if plane else 1) for step in STEP)
            assert np.array_equal(new[:-down, :-right], old[down:, right:])
    assert not np.array_equal(frames[0][0], frames[3][0])


def test_p_frames(run: Callable[..., None], folder: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("pframes", clip, "--splats", "60", "--preset", "ultrafast")
    run(*arguments)
    rows = rows_of(folder / "results" / "pframes.tsv")
    kinds = [(row["frame"], row["alone"], row["iterations"]) for row in rows]
    gop = [("0", "False", "60"), ("1", "False", "18"), ("2", "False", "18")]
    assert kinds == [*gop, ("1", "True", "60"), ("2", "True", "60")]
    for row in rows:
        assert all(5 < psnr < 60 for psnr in floats(row, "psnr_1", "psnr_2", "psnr_3"))
        assert all(value > 0 for value in floats(row, "size_bytes", "seconds"))
    assert int(rows[1]["size_bytes"]) < int(rows[0]["size_bytes"])
    assert "frame 2 against an I-frame:" in capsys.readouterr().out
    assert_plotted(folder / "results" / "pframes.png")
    before = state(folder)
    run(*arguments)
    assert state(folder) == before


def test_ablation(run: Callable[..., None], folder: Path, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("default", "iterations x0.5", "iterations x2", "relocations 0", "growth from 0.5", "one layer")
    arguments = ("ablation", picture, "--splats", 60, "--iterations", 12, "--variants", *names)
    run(*arguments)
    rows = {row["variant"]: row for row in rows_of(folder / "results" / "ablation.tsv")}
    assert list(rows) == list(names)
    assert [int(rows[name]["steps"]) for name in names] == [12, 6, 24, 12, 12, 12]
    assert rows["relocations 0"]["renders"] == "0"
    assert int(rows["default"]["renders"]) > 0
    assert rows["one layer"]["psnr_1"] == "", "its splats are in no order"
    told = {row["variant"]: row for row in rows_of(folder / "results" / "ablation-gains.tsv")}
    assert list(told) == list(names)
    for name, row in told.items():
        gain = float(rows[name]["psnr_3"]) - float(rows[row["against"]]["psnr_3"])
        assert float(row["gain_3"]) == pytest.approx(gain, abs=2e-4)
    assert told["growth from 0.5"]["against"] == "relocations 0"
    assert [told["default"][column] for column in ("gain_1", "cost_ratio", "gain_3_at_equal_cost")] == ["0", "1", "0"]
    assert "at equal cost" in capsys.readouterr().out
    before = state(folder)
    run(*arguments)
    assert state(folder) == before


def test_frontier(run: Callable[..., None], folder: Path, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("frontier", "--pictures", picture, "--preset", "ultrafast", "superfast", "--splats", 60)
    run(*arguments, "--threads", 1)
    rows = rows_of(folder / "results" / "frontier.tsv")
    assert [(row["preset"], row["kind"]) for row in rows] == [
        (preset, kind) for preset in ("ultrafast", "superfast") for kind in ("float", "coded")
    ]
    for row in rows:
        assert all(5 < psnr < 60 for psnr in floats(row, "psnr_1", "psnr_2", "psnr_3"))
        pace = float(row["wall_s"]) / (SIDES[0] * SIDES[1] / 1e6)
        assert float(row["s_per_megapixel"]) == pytest.approx(pace, rel=1e-2)
        assert (row["size_bytes"] == "") == (row["kind"] == "float")
        if row["kind"] == "coded":
            assert float(row["bits_per_splat"]) == pytest.approx(int(row["size_bytes"]) * 8 / 60, abs=1e-3)
    assert "2 pictures" not in capsys.readouterr().out
    assert_plotted(folder / "results" / "frontier.png")
    before = state(folder)
    run(*arguments, "--threads", 1)
    assert state(folder) == before


def test_against_paper(run: Callable[..., None], folder: Path, picture: Path, clip: Path) -> None:
    arguments = ("--stills", picture, "--clip", clip, "--limit", 1, "--iterations", 40, "--threads", 1)
    run("against_paper", *arguments)
    still, moving = rows_of(folder / "results" / "against-paper.tsv")
    assert [(row["source"], row["frames"]) for row in (still, moving)] == [("made.png", "1"), ("moving.y4m", "2")]
    splats = round(5000 * SIDES[0] * SIDES[1] / (768 * 512))
    for row in (still, moving):
        assert int(row["splats"]) == splats
        assert row["is_converged"] == "False"
        assert float(row["factor_end"]) == pytest.approx(float(row["paper_s"]) / float(row["medium_s"]), rel=1e-2)
        assert float(row["factor"]) == pytest.approx(float(row["paper_s"]) / float(row["medium_passing_s"]), rel=1e-2)
        assert 0 <= int(row["medium_passing_iterations"]) <= int(row["medium_iterations"])
    before = state(folder)
    run("against_paper", *arguments)
    assert state(folder) == before


@pytest.mark.parametrize("name", ["table1", "quantised", "fig2_fig5", "fig6", "fig7", "fig8", "decoding", "pframes"])
def test_commands_say_what_is_not_there(
    run: Callable[..., None], capsys: pytest.CaptureFixture[str], folder: Path, name: str
) -> None:
    before = state(folder)
    run(name)
    assert f"skipped: nothing to measure at {folder / 'none'}" in capsys.readouterr().err
    after = state(folder)
    assert {path: after[path] for path in before if "averages" not in path} == {
        path: value for path, value in before.items() if "averages" not in path
    }


def test_a_refusal_of_the_codec_is_one_line(picture: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "table1.py"), str(picture), "--splats", "2", "--iterations", "1"]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "splats: got 2, allowed 3..1048576\n"


# Results


def test_results_of_an_interrupted_run_lose_their_cut_line(folder: Path) -> None:
    from results_file import ResultsFile

    columns, keys = ["name", "value"], ["name"]
    with ResultsFile("cut", columns, keys) as results:
        results.add(name="a", value=0.25)
        results.add(name="b", value=1 / 3)
    path = folder / "results" / "cut.tsv"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with ResultsFile("cut", columns, keys) as results:
        assert results.has(name="a")
        assert not results.has(name="b")
        results.add(name="b", value=1 / 3)
    assert path.read_bytes() == whole
    assert [row["value"] for row in rows_of(path)] == ["0.25", "0.3333"]


def test_results_with_other_columns_are_left_alone(folder: Path) -> None:
    from results_file import ResultsFile

    with ResultsFile("other", ["name", "value"], ["name"]) as results:
        results.add(name="a", value=1)
    with pytest.raises(SystemExit, match=r"got columns name, value, .*allowed name, size, "):
        ResultsFile("other", ["name", "size"], ["name"])
    assert len(rows_of(folder / "results" / "other.tsv")) == 1


def test_results_do_not_tell_where_the_project_lies(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from results_file import ROOT, ResultsFile

    monkeypatch.setattr(sys, "argv", [str(ROOT / "benchmarks" / "x.py"), str(ROOT / "some" / "a.png"), "--seed", "1"])
    with ResultsFile("portable", ["name"]) as results:
        results.add(name="a")
    (row,) = rows_of(folder / "results" / "portable.tsv")
    assert row["command"] == "python benchmarks/x.py some/a.png --seed 1"


# Parts


def test_windows_of_a_curve_keep_extremes_and_do_not_reach_over_layers() -> None:
    from fig2_fig5 import WINDOWS, Curve

    curve = Curve()
    for number in range(2 * WINDOWS + 1):  # windows of three iterations at most
        curve.observe(int(number >= 100), Iteration(loss=1.0 + number, gradient_norm=10.0 if number == 50 else 1.0))
    windows = curve.windows()
    assert sum(window["count"] for window in windows) == 2 * WINDOWS + 1
    assert {window["count"] for window in windows} <= {1, 2, 3}
    assert [window["iteration"] for window in windows[:35]] == [*range(0, 100, 3), 100]
    assert [window["layer"] for window in windows[33:35]] == [0, 1]
    spike = windows[50 // 3]
    assert (spike["gradient_min"], spike["gradient"], spike["gradient_max"]) == ("1", "4", "10")
    assert float(windows[0]["loss"]) == 2.0


def test_summary_of_a_curve_leaves_out_its_first_third() -> None:
    from fig2_fig5 import Curve

    curve = Curve()
    for number in range(300):
        wild = 10.0 ** (number % 7)
        curve.observe(0, Iteration(loss=0.5, gradient_norm=wild if number < 100 else 10.0 ** (number % 2)))
    summary = curve.summary()
    assert summary["log10_gradient_std"] == pytest.approx(0.5)
    assert summary["log10_gradient_jump"] == pytest.approx(1.0)
    assert summary["loss_end"] == "0.5"


def test_most_detail_is_where_the_stripes_are(picture: Path) -> None:
    from fig6 import find_detail
    from fits import read_picture

    crop = find_detail(read_picture(picture), 40)
    assert crop.x >= SIDES[0] // 2 - 20
    assert crop.y >= SIDES[1] // 2 - 20


def test_crop_shows_the_same_part_at_every_size() -> None:
    from fig6 import Crop

    full = tuple(np.zeros(shape, np.uint8) for shape in PICTURE_INFO.plane_shapes)
    half = tuple(np.zeros((rows // 2, columns // 2), np.uint8) for rows, columns in PICTURE_INFO.plane_shapes)
    for plane, small in zip(full, half, strict=True):
        plane[40:80, 60:100] = 200
        small[20:40, 30:50] = 200
    crop = Crop(60, 40, 40)
    assert crop.of(full, PICTURE_INFO).shape == (40, 40, 3)
    assert crop.of(half, PICTURE_INFO).shape == (20, 20, 3)
    assert {int(crop.of(frame, PICTURE_INFO).min()) for frame in (full, half)} == {200}


def test_normalised_values_are_within_a_level_and_scalability() -> None:
    from fig7 import normalise

    values = [("quality", 1, 10.0), ("quality", 1, 30.0), ("quality", 1, 15.0), ("quality", 2, 7.0)]
    values += [("resolution", 1, None), ("resolution", 1, 2.0), ("resolution", 1, 4.0)]
    means: list[dict[str, Any]] = [{"scalability": s, "level": k, "psnr": v} for s, k, v in values]
    normalise(means, "psnr")
    assert [mean["psnr_normalised"] for mean in means] == [0, 1, 0.25, None, None, 0, 1]


def test_quality_of_a_level() -> None:
    from quality import LevelMeter

    frame = tuple(made(shape, 9.0 * plane) for plane, shape in enumerate(PICTURE_INFO.plane_shapes))
    noise = np.random.default_rng(1).normal(size=(3, *frame[0].shape))
    found = []
    for amplitude in (0, 6, 30):
        with LevelMeter(PICTURE_INFO) as meter:
            meter.add(frame, tuple(np.clip(np.stack(frame) + amplitude * noise, 0, 255).astype(np.uint8)))
            found.append(meter.finish())
    same, near, far = found
    assert (same.psnr, same.ms_ssim) == (100, 1)
    assert same.vmaf > 95
    assert near.psnr == pytest.approx(10 * np.log10(255**2 / 6**2), abs=0.3)
    assert all(0 <= less < more for less, more in zip(far, near, strict=True))


def test_quality_of_a_level_that_is_too_small_for_some_metrics() -> None:
    from quality import LevelMeter

    for side, has_vmaf in ((17, True), (16, False)):
        info = VideoInfo(side, side, chroma=Chroma.GRAY)
        frame = (made((side, side), 0.0),)
        with LevelMeter(info) as meter:
            meter.add(frame, frame)
            quality = meter.finish()
        assert quality.ms_ssim is None
        assert (quality.vmaf is not None) == has_vmaf


def test_a_stream_of_another_source_or_config_is_not_taken(clip: Path, tmp_path: Path) -> None:
    from streams import encode_levels

    config = EncodeConfig(profile="baseline", splats=30, preset="fast", iterations=2)
    first = encode_levels(clip, 1, config)
    assert encode_levels(clip, 1, config) == first
    other = tmp_path / clip.name
    other.write_bytes(clip.read_bytes() + clip.read_bytes()[-CLIP_INFO.frame_bytes - 6 :])
    paths = {first.levels[0].path}
    for source, frames, settings in ((clip, 2, config), (other, 1, config), (clip, 1, EncodeConfig(splats=31))):
        if settings.splats == 31:
            settings = EncodeConfig(splats=31, preset="fast", iterations=2)
        paths.add(encode_levels(source, frames, settings).levels[0].path)
    assert len(paths) == 4


def course(psnrs: list[float], seconds: float, *, is_whole: bool = True) -> Any:
    from against_paper import Course, Moment

    moments = [Moment(seconds * (n + 1), 0.5 * seconds * (n + 1), psnr) for n, psnr in enumerate(psnrs)]
    return Course(moments, is_whole=is_whole)


def test_factors_are_between_the_end_of_one_fit_and_the_passing_of_another() -> None:
    from against_paper import compare

    paper = course([20.0, 29.95, 30.0, 29.99, 30.0], 10.0, is_whole=False)
    row = compare(paper, [course([25.0, 29.95, 31.0], 1.0), course([25.0, 29.95, 31.0], 3.0)])
    assert (row["paper_s"], row["medium_s"], row["medium_passing_iterations"]) == (50, 6, 2)
    assert (row["factor"], row["factor_cpu"], row["factor_near"]) == (50 / 6, 50 / 6, 20 / 4)
    assert not row["is_converged"]
    row = compare(paper, [course([25.0, 29.0], 1.0)])
    assert [row[name] for name in ("medium_passing_s", "factor", "factor_near")] == [None] * 3


def test_a_gain_at_equal_cost_is_one_over_fits_that_take_as_long() -> None:
    from ablation import cost, gain_at_cost

    def row(cpu_s: float, psnr: float) -> dict[str, str]:
        return {"cpu_s": str(cpu_s), "pace_ms": "4", "psnr_3": str(psnr)}

    curve = [row(4.0, 31.0), row(1.0, 30.0)]
    assert cost(curve[1]) == 250
    assert gain_at_cost(row(2.0, 30.7), curve) == pytest.approx(0.2)
    assert gain_at_cost(row(8.0, 33.0), curve) is None


@pytest.fixture(scope="module")
def case(picture: Path) -> Any:
    """A picture and how the package would fit it: three layers of 30 splats."""
    from fits import read_picture
    from ideas import Case

    from pgsvc_codec.render.backend import load
    from pgsvc_codec.train import natural
    from pgsvc_codec.train.levels import LevelSizes
    from pgsvc_codec.train.schedule import all_levels
    from pgsvc_codec.train.stack import Stack

    read = read_picture(picture)
    objective = LevelSizes(read.info, [SIDES] * 3, load("cpu")).read(read.frame).objective
    rng = np.random.default_rng(1)
    stack = Stack(objective, 0, [30] * 3, all_levels(3, 0), 30, rng)
    return Case(read, stack, natural.background(objective))


def loss_of(case: Any, splats: Any) -> float:
    stack = case.stack
    weights = stack.level_weights(0)
    step = stack.objective.step(splats, case.background, stack.ends, weights)
    return stack.objective.loss(step.squared_error, weights)


def test_least_squares_colors_are_those_of_the_normal_equations(case: Any) -> None:
    """Against the matrix of all splats' pictures, written down."""
    from ideas import least_squares_colors

    from pgsvc_codec.picture import plane_grids
    from pgsvc_codec.render.backend import load
    from pgsvc_codec.splats import Splats

    splats = case.start()
    grid = plane_grids(PICTURE_INFO)[0]

    nothing = np.zeros(1, np.float32)
    shown = []
    for n in range(len(splats)):
        white = Splats(splats.means[n : n + 1], splats.cholesky[n : n + 1], np.ones((1, 3), np.float32))
        shown.append(load("cpu").render(white, *SIDES, grid, slice(0, 1), nothing, [1])[0, 0].ravel())
    every = np.stack(shown, axis=1).astype(np.float64)
    picture = case.stack.objective.targets[-1].picture
    wanted = np.stack([plane.ravel() - under for plane, under in zip(picture, case.background, strict=True)], axis=1)
    levels = [every * (np.arange(len(splats)) < end) for end in case.stack.ends]
    weighted = list(zip(levels, case.stack.level_weights(0), strict=True))
    normal = sum(weight * level.T @ level for level, weight in weighted)
    best = np.linalg.solve(normal, sum(weight * level.T for level, weight in weighted) @ wanted)
    solved = least_squares_colors(case, splats, 60)
    exact = Splats(splats.means, splats.cholesky, best.astype(np.float32))
    assert loss_of(case, solved) == pytest.approx(loss_of(case, exact), rel=1e-2)
    assert loss_of(case, solved) < 0.9 * loss_of(case, splats)


def test_a_chart_has_the_gradient_of_its_loss(case: Any) -> None:
    from ideas import Chart, fit

    chart = Chart(case, fit(case))
    rng = np.random.default_rng(3)
    x = rng.normal(size=chart.size)
    x *= 0.02 / np.sqrt(np.mean(chart.natural(x) ** 2))
    _, gradient = chart.value(x)
    for _ in range(5):
        direction = rng.normal(size=chart.size)
        direction *= 1e-2 / np.sqrt(np.mean(chart.natural(direction) ** 2))
        ahead, behind = chart.value(x + direction)[0], chart.value(x - direction)[0]
        assert (ahead - behind) / 2 == pytest.approx(gradient @ direction, rel=0.03, abs=1e-3 * abs(ahead))


@pytest.mark.parametrize("name", ["lbfgs", "newton", "gauss_newton"])
def test_second_order_goes_on_from_a_fit(case: Any, name: str) -> None:
    from ideas import fit, lbfgs, newton

    refine = {
        "lbfgs": lbfgs,
        "newton": lambda *arguments: newton(*arguments, gauss=False),
        "gauss_newton": lambda *arguments: newton(*arguments, gauss=True),
    }[name]
    splats = fit(case)
    assert loss_of(case, refine(case, splats, 60)) < 0.95 * loss_of(case, splats)


def test_widened_splats_have_the_gradient_of_their_loss(case: Any) -> None:
    from ideas import FlooredModel, fit

    stack = case.stack
    model = FlooredModel(fit(case), stack.ends, *stack.size)  # faint splats would end too soon for differences
    lengths = model.splats().cholesky
    assert np.hypot(lengths[:, 1], lengths[:, 2]).min() >= np.sqrt(0.5)
    weights = stack.level_weights(0)
    model.set_gradients(stack.objective.step(model.splats(), case.background, stack.ends, weights).moments)
    for parameter, gradient in ((model.shapes, model.shapes.grad), (model.amplitudes, model.amplitudes.grad)):
        direction = gradient * (3e-3 * parameter.abs().mean() / gradient.abs().mean())
        kept = parameter.clone()
        losses = []
        for sign in (1, -1):
            parameter.copy_(kept + sign * direction)
            losses.append(loss_of(case, model.splats()))
        parameter.copy_(kept)
        assert (losses[0] - losses[1]) / 2 == pytest.approx(float((gradient * direction).sum()), rel=0.03)


def test_twins_are_merged_into_what_they_show(case: Any) -> None:
    from ideas import twins

    from pgsvc_codec.splats import Splats

    one = np.array([[0.1, 0.2]], np.float32)
    far = np.array([[-0.5, -0.4], [-0.3, -0.4]], np.float32)
    splats = Splats(
        np.concatenate([one, one, far]),
        np.tile(np.array([4.0, 1.0, 3.0], np.float32), (4, 1)),
        np.array([[0.5, 0.1, 0], [0.3, 0, 0.2], [1, 0, 0], [0, 1, 0]], np.float32),
    )
    pairs, merged, rises = twins(splats, SIDES)
    assert pairs.tolist() == [[0, 1], [2, 3]]
    assert merged.colors[0] == pytest.approx([0.8, 0.1, 0.2], abs=1e-5)
    assert merged.cholesky[0] == pytest.approx([4, 1, 3], abs=1e-4)
    assert rises[0] == pytest.approx(0, abs=1e-3)
    alone = 2 * np.pi * 4 * 3  # two splats that nothing shows any more would cost this
    assert 0.3 * alone < rises[1] < alone


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_growth_ends_with_all_splats(case: Any, share: float) -> None:
    from ideas import growing

    splats = growing(case.spending(120), share)
    assert len(splats) == 90
    assert (splats.colors != 0).any(axis=1).mean() > 0.9


def test_every_variant_of_the_ablation_gives_all_splats(case: Any) -> None:
    from ablation import VARIANTS

    short = case.spending(24)
    for name, variant in VARIANTS.items():
        assert variant.against in VARIANTS, name
        if variant.group in ("default", "one layer"):
            continue
        single = short._replace(stack=short.stack.as_one_layer())
        splats = variant.fit(single if variant.is_single else short)
        assert len(splats) == 90, name
        assert np.isfinite(splats.colors).all(), name


# LPIPS


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """As a file of the package lpips has them, but random."""
    from lpips import weight_shapes

    generator = torch.Generator().manual_seed(1)
    held = {}
    for name, shape in weight_shapes().items():
        values = torch.randn(shape, generator=generator)
        # the linear layers weigh squares: theirs are not negative
        held[name] = values.abs() / shape[1] if name.startswith("lin") else values / max(1, values[0].numel()) ** 0.5
    return held


@pytest.fixture
def gray(picture: Path) -> tuple[np.ndarray, ...]:
    with open_source(str(picture)) as source:
        return next(iter(source))


def test_lpips_is_zero_for_equal_pictures_and_grows_with_noise(
    tmp_path: Path, weights: dict[str, torch.Tensor], gray: tuple[np.ndarray, ...]
) -> None:
    from lpips import Lpips

    path = tmp_path / "weights.pt"
    torch.save({**weights, "scaling_layer.shift": torch.zeros(1)}, path)
    meter = Lpips(path)
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(3, *gray[0].shape))

    def noisy(amplitude: float) -> tuple[np.ndarray, ...]:
        return tuple(np.clip(np.stack(gray) + amplitude * noise, 0, 255).astype(np.uint8))

    distances = [meter.distance(gray, noisy(amplitude), PICTURE_INFO) for amplitude in (0, 5, 20, 80)]
    assert distances[0] == 0
    assert distances == sorted(set(distances))
    assert meter.distance(noisy(20), gray, PICTURE_INFO) == pytest.approx(distances[2], rel=1e-5)


def test_lpips_is_that_of_its_paper(
    tmp_path: Path, weights: dict[str, torch.Tensor], gray: tuple[np.ndarray, ...]
) -> None:
    """Written once more with modules in the order of AlexNet's features, as torchvision numbers them."""
    from lpips import Lpips

    path = tmp_path / "weights.pt"
    torch.save(weights, path)
    nn = torch.nn
    convolutions = {
        0: nn.Conv2d(3, 64, 11, 4, 2),
        3: nn.Conv2d(64, 192, 5, 1, 2),
        6: nn.Conv2d(192, 384, 3, 1, 1),
        8: nn.Conv2d(384, 256, 3, 1, 1),
        10: nn.Conv2d(256, 256, 3, 1, 1),
    }
    for (number, module), part in zip(convolutions.items(), range(1, 6), strict=True):
        names = {kind: weights[f"net.slice{part}.{number}.{kind}"] for kind in ("weight", "bias")}
        module.load_state_dict(names)
    features = [convolutions.get(n, nn.MaxPool2d(3, 2) if n in (2, 5) else nn.ReLU()) for n in range(12)]

    def taps(frame: tuple[np.ndarray, ...]) -> list[torch.Tensor]:
        signal = torch.from_numpy(np.stack(frame)[None].astype(np.float32)) / 255 * 2 - 1
        signal = (signal - torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)) / torch.tensor(
            [0.458, 0.448, 0.450]
        ).view(1, 3, 1, 1)
        outputs = []
        for number, module in enumerate(features):
            signal = module(signal)
            if number in (1, 4, 7, 9, 11):
                outputs.append(signal / (signal.norm(dim=1, keepdim=True) + 1e-10))
        return outputs

    other = tuple(255 - plane for plane in gray)
    with torch.no_grad():
        expected = sum(
            float(((a - b) ** 2 * weights[f"lin{index}.model.1.weight"].view(1, -1, 1, 1)).sum(dim=1).mean())
            for index, (a, b) in enumerate(zip(taps(gray), taps(other), strict=True))
        )
    assert Lpips(path).distance(gray, other, PICTURE_INFO) == pytest.approx(expected, rel=1e-4)


def test_lpips_refuses_weights_that_are_not_its_own(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    from lpips import Lpips

    path = tmp_path / "weights.pt"
    torch.save({name: value for name, value in weights.items() if name != "lin2.model.1.weight"}, path)
    with pytest.raises(SystemExit, match=r"lin2\.model\.1\.weight: got nothing, allowed \(1, 384, 1, 1\)"):
        Lpips(path)
    torch.save({**weights, "net.slice1.0.bias": torch.zeros(3)}, path)
    with pytest.raises(SystemExit, match=r"net\.slice1\.0\.bias: got \(3,\), allowed \(64,\)"):
        Lpips(path)
    path.write_bytes(b"no weights at all")
    with pytest.raises(SystemExit, match="cannot be read as weights of LPIPS"):
        Lpips(path)
    with pytest.raises(SystemExit, match=r"none\.pt: cannot be read as weights of LPIPS"):
        Lpips(tmp_path / "none.pt")


def test_lpips_refuses_pictures_without_a_sample_left(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    from lpips import Lpips

    torch.save(weights, tmp_path / "weights.pt")
    meter = Lpips(tmp_path / "weights.pt")
    for side in (31, 30):
        info = VideoInfo(40, side, chroma=Chroma.RGB, matrix=Matrix.RGB, range=Range.FULL)
        frame = tuple(np.zeros(shape, np.uint8) for shape in info.plane_shapes)
        if side == 31:
            assert meter.distance(frame, frame, info) == 0
        else:
            with pytest.raises(InputError, match="LPIPS: got 40x30, allowed sides of 31 and more"):
                meter.distance(frame, frame, info)


def test_lpips_and_table1_as_commands(
    run: Callable[..., None],
    folder: Path,
    tmp_path: Path,
    weights: dict[str, torch.Tensor],
    picture: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "weights.pt"
    torch.save(weights, path)
    run("lpips", path, picture, picture)
    assert capsys.readouterr().out == "0.0000\n"
    run("table1", picture, *QUICK, "--seed", "1", "--strategy", "joint", "--lpips", path)
    assert float(rows_of(folder / "results" / "table1.tsv")[-1]["lpips"]) > 0
