"""The benchmark of entropy decoding, from end to end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from test_benchmarks import clip, folder, picture, rows_of, run

import pgsvc_codec
from pgsvc_codec.config import EncodeConfig
from pgsvc_codec.media.source import open_source

__all__ = ["clip", "folder", "picture", "run"]  # fixtures of these tests too


def encoded(source: Path, target: Path, config: EncodeConfig) -> Path:
    with open_source(str(source)) as frames, target.open("w+b") as sink:
        pgsvc_codec.encode(frames, sink, config)
    return target


def test_every_type_of_frame_has_a_row(run: Callable[..., None], folder: Path, clip: Path, tmp_path: Path) -> None:
    stream = encoded(clip, tmp_path / "clip.pgs", EncodeConfig(quality=20, iterations=12))
    run("entropy", stream, "--rounds", "2")
    rows = rows_of(folder / "results" / "entropy.tsv")
    assert [row["type"] for row in rows][:2] == ["I", "P"]
    for row in rows:
        assert row["stream"] == "clip.pgs"
        assert 0 < float(row["ms"]) < float(row["ms_12k"])
        assert float(row["slots"]) > 0


def test_streams_of_the_other_profile_are_refused(run: Callable[..., None], picture: Path, tmp_path: Path) -> None:
    stream = encoded(picture, tmp_path / "picture.pgs", EncodeConfig(profile="baseline", splats=30, iterations=12))
    with pytest.raises(SystemExit, match="allowed 1, main"):
        run("entropy", stream)
