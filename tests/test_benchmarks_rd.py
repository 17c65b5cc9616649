"""The rate-distortion benchmark: other codecs, curves and their comparison, and the command from end to end."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_benchmarks import CLIP_INFO, PICTURE_INFO, SIDES, assert_plotted, clip, folder, made, picture, rows_of, run

from pgsvc_codec.config import EncodeConfig
from pgsvc_codec.media.source import open_source
from pgsvc_codec.metrics.psnr import PsnrMeter
from pgsvc_codec.picture import to_rgb
from pgsvc_codec.video import Chroma, Matrix, Range, VideoInfo

pytest.importorskip("bjontegaard")
pytest.importorskip("PIL")

__all__ = ["clip", "folder", "picture", "run"]  # fixtures of these tests too

STILLS = (
    "jpeg",
    "jpeg 4:4:4",
    "jpeg2000",
    "webp",
    "avif",
    "avif psnr",
    "jpegxl",
    "x265 intra",
    "svt-av1 intra",
)
CLIPS = ("x264", "x264 psnr", "x265", "x265 psnr", "svt-av1")
POINTS = st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.1, 3)), min_size=2, max_size=8)  # growth of both


def pixels_of() -> np.ndarray:
    return np.stack([made(shape, 9.0 * plane) for plane, shape in enumerate(PICTURE_INFO.plane_shapes)], axis=-1)


def psnr(reference: np.ndarray, distorted: np.ndarray) -> float:
    return PsnrMeter(255, is_rgb=True).add(tuple(reference.T), tuple(distorted.T))


def rising(growth: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Rates and qualities that rise from point to point."""
    steps = np.array(growth)
    return np.cumsum(steps[:, 0]).tolist(), (20 + np.cumsum(steps[:, 1])).tolist()


# Curves


@given(POINTS, st.floats(0.2, 5))
def test_bd_rate_of_a_multiple_is_that_multiple(growth: list[tuple[float, float]], factor: float) -> None:
    from curves import Curve, bd_rate

    rates, qualities = rising(growth)
    anchor, test = Curve(rates, qualities), Curve([factor * rate for rate in rates], qualities)
    assert bd_rate(anchor, test, anchor.reach) == pytest.approx(100 * (factor - 1), abs=1e-6)


def test_bd_rate_over_all_that_is_shared_is_that_of_the_points() -> None:
    import bjontegaard
    from curves import Curve, bd_rate

    anchor, test = ([0.1, 0.2, 0.4, 0.8], [25, 28, 30.5, 33]), ([0.08, 0.17, 0.35, 0.6], [25.5, 28.3, 30.9, 32])
    drawn = Curve(*anchor), Curve(*test)
    expected = bjontegaard.bd_rate(*anchor, *test, method="pchip")
    assert bd_rate(*drawn, drawn[0].reach.shared(drawn[1].reach)) == pytest.approx(expected, abs=1e-4)
    assert bd_rate(*drawn, drawn[0].reach.shared(drawn[1].reach)) < -20


@given(POINTS, st.floats(0, 1))
def test_rate_and_quality_are_each_other_s_inverse(growth: list[tuple[float, float]], part: float) -> None:
    from curves import Curve

    curve = Curve(*rising(growth))
    rate = float(curve.rates[0] * (curve.rates[-1] / curve.rates[0]) ** part)
    rate = min(max(rate, curve.rates[0]), curve.rates[-1])
    quality = curve.quality_at(rate)
    assert quality is not None
    assert curve.rate_at(quality) == pytest.approx(rate, rel=1e-6)
    assert curve.between(rate, math.inf) == (pytest.approx(quality), pytest.approx(curve.reach.high))


def test_a_curve_ends_where_its_points_do() -> None:
    from curves import Curve, ratio_at

    curve, dearer = Curve([1, 2], [30, 33]), Curve([3, 6], [30, 33])
    assert (curve.rate_at(29.9), curve.rate_at(33.1)) == (None, None)
    assert (curve.quality_at(0.9), curve.quality_at(2.1)) == (None, None)
    assert curve.between(0, math.inf) == (pytest.approx(30), pytest.approx(33))
    assert ratio_at(curve, dearer, 31) == pytest.approx(3)
    assert ratio_at(curve, dearer, 34) is None


def test_points_that_another_beats_are_not_on_the_curve() -> None:
    from curves import Curve

    curve = Curve([1, 1.5, 2, 2], [30, 29, 33, 32])
    assert curve.rates.tolist() == [1, 2]
    assert curve.qualities.tolist() == [30, 33]
    assert Curve.of([(1, 30), (2, 30)]) is None
    assert Curve.of([]) is None


# Other codecs


@pytest.mark.parametrize("name", STILLS)
def test_pictures_of_other_codecs(name: str) -> None:
    import anchors

    found = {anchor.name: anchor for anchor in anchors.still_anchors()}
    assert set(found) <= set(STILLS)
    if name not in found:
        pytest.skip(f"no {name} here")
    anchor, pixels = found[name], pixels_of()
    ends = [anchor.encode(pixels, step.value) for step in (anchor.steps[0], anchor.steps[-1])]
    shown = [anchor.decode(data, pixels) for data in ends]
    assert 2 * len(ends[0]) < len(ends[1])
    assert [(picture.shape, picture.dtype) for picture in shown] == [(pixels.shape, np.dtype(np.uint8))] * 2
    assert psnr(pixels, shown[0]) < psnr(pixels, shown[1])
    assert psnr(pixels, shown[1]) > 27
    assert anchor.version
    assert "\t" not in anchor.options


@pytest.mark.parametrize("name", CLIPS)
def test_clips_of_other_codecs(name: str) -> None:
    import anchors

    found = {anchor.name: anchor for anchor in anchors.clip_anchors()}
    assert set(found) <= set(CLIPS)
    if name not in found:
        pytest.skip(f"no {name} here")
    anchor = found[name]
    frames = [tuple(made(shape, 3.0 * number) for shape in CLIP_INFO.plane_shapes) for number in range(4)]
    ends = [anchor.encode(frames, CLIP_INFO, step.value) for step in (anchor.steps[-1], anchor.steps[0])]
    assert 2 * len(ends[0]) < len(ends[1])
    measured = []
    for data in ends:
        shown = list(anchor.decode(data, CLIP_INFO))
        assert [tuple(plane.shape for plane in frame) for frame in shown] == [CLIP_INFO.plane_shapes] * 4
        measured.append([PsnrMeter(255, is_rgb=False).add(*pair) for pair in zip(frames, shown, strict=True)])
    assert min(measured[1]) > 30  # every frame in its place
    assert all(low < high for low, high in zip(*measured, strict=True))
    assert b"options:" not in ends[0]  # what x264 and x265 say of themselves costs nobody's rate
    assert any(char.isdigit() for char in anchor.version)
    for size in (14, 16, 18, 20, 22, 24):  # whatever stands in memory that nobody has written
        np.full(1 << size, size, np.uint8)
        assert anchor.encode(frames, CLIP_INFO, anchor.steps[0].value) == ends[1]


def test_rgb_goes_to_ycbcr_and_back() -> None:
    import anchors

    rows, columns = np.mgrid[: SIDES[1], : SIDES[0]]
    pixels = np.stack([rows + 40, columns + 20, 200 - (rows + columns) // 2], axis=-1).astype(np.uint8)
    for pix_fmt in ("yuv444p", "yuv420p"):  # slopes of colour keep their place where chroma is halved
        planes, info = anchors.ycbcr_of(tuple(np.moveaxis(pixels, -1, 0)), PICTURE_INFO, pix_fmt)
        assert (info.matrix, info.range, info.pix_fmt) == (Matrix.BT709, Range.LIMITED, pix_fmt)
        assert psnr(pixels[4:-4, 4:-4], to_rgb(planes, info)[4:-4, 4:-4]) > 46
    same = tuple(made(shape, 0.0) for shape in CLIP_INFO.plane_shapes)
    assert anchors.ycbcr_of(same, CLIP_INFO, "yuv444p") == (same, CLIP_INFO)


def test_colours_are_those_of_bt709_in_limited_range() -> None:
    import anchors

    info = VideoInfo(4, 2, chroma=Chroma.RGB, matrix=Matrix.RGB, range=Range.FULL)
    red = tuple(np.full((2, 4), code, np.uint8) for code in (255, 0, 0))
    planes, _ = anchors.ycbcr_of(red, info, "yuv420p")
    assert [int(plane[0, 0]) for plane in planes] == [63, 102, 240]  # 16 + 219 Kr, ..


# The command


def test_stills(run: Callable[..., None], folder: Path, picture: Path) -> None:
    arguments = ["rd", "stills", picture, "--codec", "jpeg2000", "jpeg", "baseline"]
    arguments += ["--preset", "ultrafast", "--splats", "40", "80", "160"]
    run(*arguments)
    path = folder / "results" / "rd-stills.tsv"
    rows = rows_of(path)
    assert {row["codec"] for row in rows} == {"jpeg2000", "jpeg", "baseline ultrafast"}
    ours = [row for row in rows if row["level"]]
    assert [row["level"] for row in ours] == ["1", "2", "3"] * 3
    for stream in (ours[:3], ours[3:6], ours[6:]):
        sizes = [int(row["size_bytes"]) for row in stream]
        assert all(low < high for low, high in pairwise(sizes))
        shares = np.diff([0, *sizes]) / sizes[-1]
        assert [float(row["layer_share"]) for row in stream] == pytest.approx(shares.tolist(), abs=1e-4)
        assert {row["seconds"] for row in stream} == {stream[0]["seconds"]}
    pixels = SIDES[0] * SIDES[1]
    assert all(float(row["bpp"]) == pytest.approx(8 * int(row["size_bytes"]) / pixels, abs=1e-4) for row in rows)
    assert all(8 < float(row["psnr"]) < 60 and 0 < float(row["ms_ssim"]) <= 1 for row in rows)
    told = {row["codec"]: row for row in rows_of(folder / "results" / "rd-codecs.tsv")}
    assert set(told) == {row["codec"] for row in rows}
    assert "preset=ultrafast" in told["baseline ultrafast"]["options"]
    assert "optimize=True" in told["jpeg"]["options"]
    assert "OpenJPEG" in told["jpeg2000"]["version"]

    compared = rows_of(folder / "results" / "rd-stills-bd.tsv")
    assert {row["test"] for row in compared} == {"baseline ultrafast"}
    assert {row["picture"] for row in compared} == {"made.png", "mean of 1"}
    beside = rows_of(folder / "results" / "rd-stills-levels.tsv")
    assert [row["psnr"] for row in beside] == [row["psnr"] for row in ours]
    assert any(row["gain"] for row in beside)
    for row in beside:
        if row["gain"]:
            assert float(row["gain"]) == pytest.approx(float(row["psnr"]) - float(row["jpeg2000_psnr"]), abs=2e-4)
    assert_plotted(folder / "results" / "rd-stills.png")

    before = path.read_bytes()
    run(*arguments)
    assert path.read_bytes() == before
    marked = before.replace(b"\tpython benchmarks", b"\tEARLIER benchmarks")
    path.write_bytes(marked)
    run(*arguments, "--again")
    again = rows_of(path)
    assert len(again) == len(rows)
    assert all(row["command"].startswith("EARLIER") != bool(row["level"]) for row in again)
    sizes = [[row["size_bytes"] for row in listed if row["level"]] for listed in (rows, again)]
    assert sizes[0] == sizes[1]  # the same seed, the same file


def test_clips(run: Callable[..., None], folder: Path, clip: Path) -> None:
    arguments = ["rd", "clips", clip, "--codec", "x264", "baseline", "--preset", "ultrafast", "--splats", "60", "120"]
    run(*arguments)
    rows = rows_of(folder / "results" / "rd-clips.tsv")
    assert {row["frames"] for row in rows} == {"3"}
    assert {row["codec"] for row in rows} == {"x264", "baseline ultrafast"}
    for row in rows:
        first, last, mean = (float(row[name]) for name in ("psnr_first", "psnr_last", "psnr"))
        assert min(first, last) - 3 < mean < max(first, last) + 3
        assert 0 <= float(row["vmaf"]) <= 100
        assert bool(row["decode_ms_others"]) == bool(row["level"])
    compared = rows_of(folder / "results" / "rd-clips-bd.tsv")
    assert {row["anchor"] for row in compared} == {"x264"}
    assert {row["metric"] for row in compared} == {"psnr", "psnr_611", "vmaf"}
    assert_plotted(folder / "results" / "rd-clips.png")


def test_streams_of_profile_main(run: Callable[..., None], folder: Path, picture: Path, clip: Path) -> None:
    own = ["--codec", "main", "--preset", "ultrafast", "--quality"]
    run("rd", "stills", picture, *own, "25", "45", "65")
    rows = [row for row in rows_of(folder / "results" / "rd-stills.tsv") if row["codec"] == "main ultrafast"]
    assert [(row["setting"], row["level"]) for row in rows] == [
        (f"quality {quality}", str(level)) for quality in (25, 45, 65) for level in (1, 2, 3)
    ]
    whole = [row for row in rows if row["level"] == "3"]
    assert all(int(low["size_bytes"]) < int(high["size_bytes"]) for low, high in pairwise(whole))
    assert all(float(low["psnr"]) < float(high["psnr"]) for low, high in pairwise(whole))
    told = {row["codec"]: row["options"] for row in rows_of(folder / "results" / "rd-codecs.tsv")}
    assert told["main ultrafast"] == "layers=3 profile=main preset=ultrafast"
    run("rd", "clips", clip, *own, "45")
    rows = [row for row in rows_of(folder / "results" / "rd-clips.tsv") if row["codec"] == "main ultrafast"]
    assert [row["level"] for row in rows] == ["1", "2", "3"]


def test_a_clip_s_levels_are_measured_from_what_is_decoded(clip: Path, folder: Path) -> None:
    """The first frame of the row is that of the decoder, in RGB."""
    import rd

    from pgsvc_codec.decoder import Decoder

    config = EncodeConfig(layers=3, profile="baseline", preset="ultrafast", splats=60, keyint=3, scenecut=0)
    stream = rd.Stream("baseline ultrafast", "splats 60", config)
    data = rd.encode_stream(clip, None, stream).data
    row = next(row for row in rows_of(folder / "results" / "rd-clips.tsv") if row["level"] == "2")
    with Decoder(data) as decoder, open_source(str(clip)) as source:
        shown, reference = next(decoder.frames(layers=2)).planes, next(iter(source))
        expected = psnr(to_rgb(reference, source.info), to_rgb(shown, source.info))
    assert float(row["psnr_first"]) == pytest.approx(expected, abs=1e-4)
    assert len(rd.splat_milliseconds(data)) == 3


def test_a_stream_of_another_profile_is_refused(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import rd

    monkeypatch.setattr(rd, "describe_file", lambda file: {"profile": "other"})
    config = EncodeConfig(profile="baseline", preset="ultrafast", splats=40)
    with pytest.raises(SystemExit, match=r"made\.png: asked for a stream of profile baseline, got one of other"):
        rd.encode_stream(picture, 1, rd.Stream("baseline ultrafast", "splats 40", config))


def test_unknown_codecs_are_refused(run: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("rd", "stills", "--codec", "gif")
    assert "--codec: got gif, allowed main, baseline, jpeg" in capsys.readouterr().err


# Targets


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    lines = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
    (folder / "results").mkdir(exist_ok=True)
    (folder / "results" / f"{name}.tsv").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def test_targets_are_held_against_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import rd_targets

    monkeypatch.setattr(rd_targets, "RESULTS", tmp_path / "results")
    empty = list(rd_targets.targets())
    assert all(target.measured is None and not target.is_met for target in empty)
    assert all(target.cells[2] == "not measured" for target in empty)

    same = {"metric": "psnr", "test": "main medium", "level": 3}
    write(tmp_path, "rd-stills-bd", [{"picture": "mean of 1", **same, "anchor": "jpeg2000", "bd_rate": -25.5},
                                     {"picture": "mean of 1", **same, "anchor": "webp", "bd_rate": -20},
                                     {"picture": "a.png", **same, "anchor": "jpeg", "bd_rate": -99}])  # fmt: skip
    named = {"picture": "a.png", "codec": "main medium", "setting": "quality 50"}
    levels = [{**named, "level": level, "bpp": 0.1 * level, "layer_share": share, "gain": gain}
              for level, share, gain in ((1, 0.5, 0.3), (2, 0.4, -0.1), (3, 0.1, ""))]  # fmt: skip
    outside = {**named, "setting": "quality 90", "level": 3, "bpp": 0.9, "layer_share": 0.01, "gain": -9}
    write(tmp_path, "rd-stills-levels", [*levels, outside])
    write(tmp_path, "rd-stills", [{**named, "level": 3, "seconds": 30, "decode_ms": 4, "splats": 6000},
                                  {**named, "level": 3, "seconds": 45, "decode_ms": 1, "splats": 500}])  # fmt: skip
    found = {target.figure: target for target in rd_targets.targets()}
    verdicts = {
        "BD-rate against jpeg2000, mean of 1 pictures": (-25.5, True),
        "BD-rate against webp, mean of 1 pictures": (-20, False),
        "BD-rate against jpeg, mean of 1 pictures": (None, False),
        "PSNR of level 1 over JPEG 2000 at its rate, mean": (0.3, True),
        "PSNR of level 2 over JPEG 2000 at its rate, mean": (-0.1, False),
        "PSNR of level 3 over JPEG 2000 at its rate, mean": (None, False),
        "least share of layer 2 (a.png, quality 50)": (10, False),
        "least share of layer 0 (a.png, quality 50)": (50, True),
        "encoding a picture, main medium, mean": (37.5, True),
        "encoding a picture, main medium, the longest": (45, False),
        "segments to splats, an I-frame, per 12000 splats": (8, True),
    }
    for figure, (measured, is_met) in verdicts.items():
        assert found[figure].measured == pytest.approx(measured), figure
        assert found[figure].is_met is is_met, figure


def test_the_table_is_printed(run: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    run("rd", "table")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split(" | ")[0].strip("| ") == "figure"
    assert len({len(line) for line in lines}) == 1
    assert any("jpeg2000" in line and "≤ -25 %" in line for line in lines)


def test_comparisons_take_the_qualities_of_the_window(folder: Path) -> None:
    import rd

    def row(codec: str, level: str, bpp: float, quality: float) -> dict[str, str]:
        return {"codec": codec, "level": level, "bpp": str(bpp), "psnr": str(quality)}

    rows = [row("main medium", "3", rate, 30 + 10 * math.log10(rate)) for rate in (0.05, 0.1, 0.2, 0.5, 0.9)]
    rows += [row("jpeg", "", 2 * rate, 30 + 10 * math.log10(rate)) for rate in (0.2, 0.3, 0.7, 2)]
    (found,) = (entry for entry, _, _ in rd.comparisons(rows, "psnr", rd.WINDOW))
    decades = [math.log10(rate) for rate in (0.1, 0.2, 0.5)]
    assert found["bd_rate"] == pytest.approx(-50, abs=0.1)
    assert [found["low"], found["high"]] == pytest.approx([30 + 10 * decades[1], 30 + 10 * decades[2]])
    assert found["coverage"] == pytest.approx((decades[2] - decades[1]) / (decades[2] - decades[0]))
    rows += [row("webp", "", rate, 60 + rate) for rate in (1, 2)]
    (apart,) = (entry for entry, _, _ in rd.comparisons(rows, "psnr", rd.WINDOW) if entry["anchor"] == "webp")
    assert (apart["bd_rate"], apart["coverage"]) == (None, 0)


def test_ms_ssim_is_compared_in_decibels() -> None:
    import rd

    assert rd.quality_in({"ms_ssim": "0.99"}, "ms_ssim") == pytest.approx(20)
    assert rd.quality_in({"ms_ssim": "1"}, "ms_ssim") == pytest.approx(90)
    assert rd.quality_in({"vmaf": ""}, "vmaf") is None


def test_ideas_are_compared_with_the_default(run: Callable[..., None], folder: Path, picture: Path, clip: Path) -> None:
    ideas = ["splats rounded, not refined", "one layer", "P-frames alone"]
    run("rd_ideas", picture, clip, "--ideas", *ideas, "--quality", 50, 80, "--preset", "ultrafast")
    rows = rows_of(folder / "results" / "rd-ideas.tsv")
    assert {(row["source"], row["idea"]) for row in rows} == {
        (picture.name, "default"),
        (clip.name, "default"),
        (picture.name, ideas[0]),
        (picture.name, ideas[1]),
        (clip.name, ideas[2]),
    }
    assert {row["level"] for row in rows if row["idea"] == "one layer"} == {"1"}
    worse = {(row["idea"], row["kind"], row["level"]): row for row in rows_of(folder / "results" / "rd-ideas-bd.tsv")}
    assert float(worse[ideas[0], "stills", "3"]["bd_rate"]) > 0, "rounding alone is worse"
    assert (ideas[1], "stills", "1") not in worse, "one layer is compared with all layers"
