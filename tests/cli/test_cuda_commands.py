"""Commands on a CUDA device, compiled or, where there is none, interpreted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from clips import Outcome, clip_frame, y4m_of

from pgsvc_codec.decoder import Decoder
from pgsvc_codec.video import Matrix, VideoInfo

Run = Callable[..., Outcome]

TINY = VideoInfo(24, 16, matrix=Matrix.BT601)  # an interpreter needs a second for what a device does in microseconds
OPTIONS = {
    "baseline": ("--profile", "baseline", "-n", "6", "--iterations", "3"),
    "main": ("--quality", "40", "--iterations", "1"),
}


@pytest.mark.parametrize("profile", OPTIONS)
def test_streams_of_cuda_show_the_same_everywhere(profile: str, here: Run, tmp_path: Path) -> None:
    if profile == "baseline":
        pytest.importorskip("constriction")
    clip, stream, report = (tmp_path / name for name in ("c.y4m", "c.pgs", "c.json"))
    clip.write_bytes(y4m_of([clip_frame(0, TINY)], TINY))
    done = here("encode", clip, stream, *OPTIONS[profile], "-L", 2, "--device", "cuda", "--json", report)
    assert done.code == 0, done.err
    device = json.loads(report.read_text())["time"]["device"]
    assert device.startswith("cuda:0 ")
    assert ("interpreted" in device) == (f"device cuda: {device}, because TRITON_INTERPRET is set" in done.lines)
    frames = []
    for name in ("cpu", "cuda"):
        with Decoder(stream, device=name) as decoder:
            frames.append([frame.planes for frame in decoder.frames()])
    for planes in zip(*(plane for [plane] in frames), strict=True):
        a, b = (plane.astype(np.int32) for plane in planes)
        assert np.abs(a - b).max() <= 1


def test_decoding_on_cuda(here: Run, tmp_path: Path) -> None:
    stream = tmp_path / "c.pgs"
    clip = y4m_of([clip_frame(0, TINY)], TINY)
    assert here("encode", "-", stream, *OPTIONS["main"], "--device", "cpu", stdin=clip).code == 0
    shown = here("decode", stream, "--device", "cuda:0", "-F", "framemd5")
    assert shown.code == 0, shown.err
