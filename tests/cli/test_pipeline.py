"""The commands together, with ffmpeg and through pipes: what comes out is what was reported, level by level."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from clips import CLIP, CLIP_FRAMES, QUICK, Encoded, Outcome, y4m_of
from numpy.typing import NDArray

from pgsvc_codec.decoder import Decoder
from pgsvc_codec.media.raw import frame_to_bytes
from pgsvc_codec.picture import Frame

Run = Callable[..., Outcome]
BIN = Path(__file__).parents[2] / "bin"


def psnr(differences: Sequence[NDArray[np.int64]]) -> float:
    squares = sum(int((part**2).sum()) for part in differences)
    return 10 * math.log10(255**2 * sum(part.size for part in differences) / squares)


def differences(a: bytes, b: bytes) -> NDArray[np.int64]:
    assert len(a) == len(b)
    return np.frombuffer(a, np.uint8).astype(np.int64) - np.frombuffer(b, np.uint8)


def psnr_yuv(source: bytes, decoded: bytes) -> dict[str, float]:
    """Of raw 8-bit 4:2:0 frames of the size of `CLIP`: each plane, and 6:1:1."""
    frames = differences(source, decoded).reshape(-1, CLIP.frame_bytes)
    luma, chroma = CLIP.width * CLIP.height, CLIP.width * CLIP.height // 4
    y, u, v = (psnr([part]) for part in np.split(frames, [luma, luma + chroma], axis=1))
    return {"psnr_y": y, "psnr_u": u, "psnr_v": v, "psnr_yuv": (6 * y + u + v) / 8}


def psnr_rgb(source: bytes, decoded: bytes) -> dict[str, float]:
    pixels = differences(source, decoded).reshape(-1, 3)
    return {"psnr_rgb": psnr([pixels]), **{f"psnr_{name}": psnr([pixels[:, i]]) for i, name in enumerate("rgb")}}


@pytest.fixture(scope="module")
def raw_clip(clip_frames: list[Frame]) -> bytes:
    return b"".join(frame_to_bytes(frame, CLIP) for frame in clip_frames)


def test_shell_pipeline_into_ffmpeg(clip: Path, raw_clip: bytes, ffmpeg: Callable[..., bytes], tmp_path: Path) -> None:
    """Encoder and decoder share nothing but the stream: what the encoder read and wrote besides is gone by then."""
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    workshop = tmp_path / "workshop"
    workshop.mkdir()
    shutil.copy(clip, workshop / "clip.y4m")
    encode, decode = ([sys.executable, str(BIN / f"pgsvc-{name}")] for name in ("encode", "decode"))
    to_ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", "-", "-c:v", "libx264", "-qp", "0", "o.mp4"]
    line = (
        f"{shlex.join([*encode, 'workshop/clip.y4m', 'o.pgs', *QUICK, '-q', '--json', '-'])} && rm -r workshop && "
        f"{shlex.join([*decode, '--layers', '2', 'o.pgs', '-q'])} | {shlex.join(to_ffmpeg)}"
    )
    environment = {**os.environ, "TMPDIR": str(workshop)}
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.mp4", "o.pgs"]
    pixels = ffmpeg("-i", tmp_path / "o.mp4", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-")
    level = json.loads(done.stdout)["levels"][1]
    measured = psnr_yuv(raw_clip, pixels)
    assert {key: level[key] for key in measured} == pytest.approx(measured, abs=1e-4)


@pytest.mark.parametrize("kind", ["y4m", "yuv", "mkv", "png"])
def test_what_is_reported_is_what_comes_out(
    kind: str,
    clip: Path,
    raw_clip: bytes,
    here: Run,
    ffmpeg: Callable[..., bytes],
    tmp_path: Path,
) -> None:
    source, measure = raw_clip, psnr_yuv
    name = tmp_path / {"yuv": "clip_64x48_25fps.yuv"}.get(kind, f"clip.{kind}")
    if kind == "yuv":
        name.write_bytes(raw_clip)
    elif kind == "png":
        ffmpeg("-i", clip, "-frames:v", 1, name)
        source, measure = ffmpeg("-i", name, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"), psnr_rgb
    else:
        ffmpeg("-i", clip, *(["-c:v", "ffv1"] if kind == "mkv" else []), name)
    stream = tmp_path / "o.pgs"
    done = here("encode", name, stream, *QUICK, "--json", "-")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["levels"][-1]["bytes"] == stream.stat().st_size
    measured = []
    for level in report["levels"]:
        decoded = here("decode", stream, "--rawvideo", "-l", level["layers"], "--strict", "-q")
        assert decoded.code == 0, decoded.err
        measured.append(measure(source, decoded.out))
        assert {key: level[key] for key in measured[-1]} == pytest.approx(measured[-1], abs=1e-4)
    combined = [level["psnr"] for level in report["levels"]]
    assert combined == sorted(combined)
    assert combined[-1] > combined[0]


def test_pipes_on_both_ends(piped: bytes, stream: Encoded, apart: Run) -> None:
    with Decoder(stream.path) as decoder:
        expected = y4m_of([frame.planes for frame in decoder.frames(layers=2)])
    assert apart("decode", "-", "-l", 2, "-o", "-", "--strict", "-q", stdin=piped) == Outcome(0, expected, "")


def test_a_pipe_that_broke(piped: bytes, stream: Encoded, apart: Run) -> None:
    with Decoder(stream.path) as decoder:
        frames = [frame.planes for frame in decoder.frames()]
        lengths = [[segment.length for segment in gop.segments if segment] for gop in decoder.reader.gops]
    headers = piped.index(stream.data[-sum(map(sum, lengths)) :])  # the segments are the same, the index lies behind
    cut = piped[: headers + sum(lengths[0]) + 10]
    done = apart("decode", "-", stdin=cut)
    assert (done.code, done.out) == (0, y4m_of(frames[:3]))
    assert done.lines[0].startswith("pgsvc-decode: truncated: ")
    done = apart("decode", "-", "--no-allow-partial", stdin=cut)
    assert (done.code, done.out, len(done.lines)) == (4, b"", 1)


def test_a_still_through_pipes(clip_frames: list[Frame], ffmpeg: Callable[..., bytes], here: Run) -> None:
    picture = ffmpeg("-i", "-", "-frames:v", 1, "-f", "image2pipe", "-c:v", "png", "-", stdin=y4m_of(clip_frames))
    encoded = here("encode", "-", "-", *QUICK, "-q", stdin=picture)
    assert (encoded.code, encoded.err) == (0, "")
    decoded = here("decode", "-", "-F", "png", "-q", stdin=encoded.out)
    assert (decoded.code, decoded.err) == (0, "")
    with Decoder(encoded.out) as decoder:
        expected = [frame_to_bytes(frame.planes, decoder.info) for frame in decoder.frames()]
    assert [ffmpeg("-i", "-", "-f", "rawvideo", "-pix_fmt", "rgb24", "-", stdin=decoded.out)] == expected


def test_frame_counts_agree(stream: Encoded) -> None:
    assert stream.report["input"]["frames"] == CLIP_FRAMES
    assert sum(gop["frames"] for gop in stream.report["gops"]) == CLIP_FRAMES
