"""What is said of a stream is what its bytes and its index hold."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from pgsvc_codec.describe import describe_file
from pgsvc_codec.errors import FormatError
from pgsvc_codec.format.container import Gop, LayerSegment, StreamReader, StreamWriter
from pgsvc_codec.format.header import EncoderRecord, LayersRecord, LevelRecord, StreamHeader, VideoRecord

FRAMES = [4, 3]
SPLATS = [10, 20]  # per frame and layer
PSNR = [[30.0, 33.0], [20.0, 25.0]]  # per GOP and level


def make_stream(*, progression: Any = "gop", seekable: bool = True, psnr: bool = True, **video: Any) -> bytes:
    defaults: dict[str, Any] = {
        "width": 64, "height": 48, "rate": Fraction(25, 2), "chroma": 1, "depth": 10,
        "matrix": 9, "primaries": 9, "transfer": 16, "color_range": 1, "siting": 2,
    }  # fmt: skip
    levels = (LevelRecord(width=32, height=24, splats=10), LevelRecord(width=64, height=48, splats=30))
    header = StreamHeader(
        video=VideoRecord(**defaults | video),
        layers=LayersRecord(scalability=1, levels=levels),
        encoder=EncoderRecord(text="tests"),
    )
    sink = io.BytesIO()
    with StreamWriter(sink, header, progression=progression, seekable=seekable) as writer:
        first = 0
        for number, frames in enumerate(FRAMES):
            layers = [
                LayerSegment([b"x" * (50 + layer)] * frames, splats * frames, PSNR[number][layer] if psnr else None)
                for layer, splats in enumerate(SPLATS)
            ]
            writer.write_gop(Gop(first, layers, scene_cut=number == 1))
            first += frames
    return sink.getvalue()


@pytest.mark.parametrize(("progression", "seekable"), [("gop", True), ("layer", True), ("gop", False)])
def test_levels_are_measured_in_the_file(progression: str, seekable: bool) -> None:
    data = make_stream(progression=progression, seekable=seekable)
    described = describe_file(io.BytesIO(data))
    base, full = described["levels"]
    with StreamReader(data) as reader:
        upper = sum(gop.segments[1].length for gop in reader.gops if gop.segments[1])
    assert full["bytes"] == len(data) == described["file"]["total_bytes"] == described["file"]["bytes"]
    assert base["bytes"] == len(data) - upper
    assert (base["splats"], full["splats"]) == (10, 30)
    assert (base["psnr"], full["psnr"]) == (23.14, 27.85)  # of the mean error over frames
    assert (base["width"], base["height"], full["width"], full["height"]) == (32, 24, 64, 48)
    assert full["kbps"] == pytest.approx(len(data) * 8 / 1000 * 12.5 / 7)
    assert full["bpp"] == pytest.approx(len(data) * 8 / (64 * 48 * 7))
    assert base["bpp"] == pytest.approx(base["bytes"] * 8 / (32 * 24 * 7))
    assert described["file"]["progression"] == progression
    assert described["file"]["index"] == ("front" if seekable else "end")
    assert described["warnings"] == []


def test_geometry_and_colour_have_names() -> None:
    described = describe_file(io.BytesIO(make_stream()))
    assert described["input"] == {
        "w": 64, "h": 48, "frames": 7, "fps": 12.5, "rate": "25/2", "pix_fmt": "yuv420p10le", "range": "full",
        "matrix": "bt2020nc", "primaries": 9, "transfer": 16, "siting": "top_left",
    }  # fmt: skip
    assert (described["profile"], described["encoder"]) == ("baseline", "tests")
    assert (described["scalability"], described["num_layers"]) == ("resolution", 2)
    rgb = describe_file(io.BytesIO(make_stream(chroma=4, depth=8, matrix=0)))
    assert (rgb["input"]["pix_fmt"], rgb["input"]["matrix"], rgb["input"]["siting"]) == ("rgb24", "rgb", None)


def test_gops_are_listed_with_their_ranges() -> None:
    data = make_stream()
    gops = describe_file(io.BytesIO(data))["gops"]
    assert [(gop["first_frame"], gop["frames"], gop["key"], gop["scene_cut"]) for gop in gops] == [
        (0, 4, True, False),
        (4, 3, True, True),
    ]
    for gop in gops:
        for layer in gop["layers"]:
            assert data[layer["offset"] : layer["offset"] + 4] == b"\xc5SEG"
    assert [layer["psnr"] for layer in gops[1]["layers"]] == PSNR[1]


def test_truncation_points_complete_their_level() -> None:
    data = make_stream(progression="layer")
    points = {point["layers"]: point["bytes"] for point in describe_file(io.BytesIO(data))["truncation_points"]}
    assert points[2] == len(data)
    cut = describe_file(io.BytesIO(data[: points[1]]))
    assert [gop["layers_present"] for gop in cut["gops"]] == [1, 1]
    assert cut["warnings"] == ["truncated: GOPs 0-1 have 1 of 2 layers"]
    assert (cut["file"]["bytes"], cut["file"]["total_bytes"]) == (points[1], len(data))
    assert cut["levels"][1]["bytes"] == len(data)


def test_what_is_not_known_is_none() -> None:
    unmeasured = describe_file(io.BytesIO(make_stream(psnr=False)))
    assert [level["psnr"] for level in unmeasured["levels"]] == [None, None]
    scanned = describe_file(io.BytesIO(make_stream(seekable=False)[:-1]))
    assert scanned["file"]["total_bytes"] is None
    assert [(level["splats"], level["psnr"]) for level in scanned["levels"]] == [(None, None)] * 2
    assert scanned["warnings"] == ["truncated: index missing"]


def test_verify_lists_what_fails() -> None:
    data = bytearray(make_stream())
    assert describe_file(io.BytesIO(data), verify=True)["verify"] == {"segments": 4, "problems": []}
    data[-1] ^= 1
    verified = describe_file(io.BytesIO(data), verify=True)["verify"]
    assert len(verified["problems"]) == 1
    assert verified["problems"][0].startswith("GOP 1 layer 1 at byte 0x")


def test_paths_and_files_and_json(tmp_path: Path) -> None:
    path = tmp_path / "a.pgs"
    path.write_bytes(make_stream())
    opened: list[Callable[[], Any]] = [lambda: describe_file(path), lambda: describe_file(str(path))]
    with path.open("rb") as file:
        expected = describe_file(file)
        assert not file.closed
    assert all(describe() == expected for describe in opened)
    assert json.loads(json.dumps(expected)) == expected


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99))
    with pytest.raises(FormatError, match="not a PGS stream"):
        describe_file(path)
