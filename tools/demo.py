"""What `make demo` does: a clip into a stream, out again at every level, measured and shown.

Runs the installed commands as a user would.  PSNR is measured here from the decoded files, with the source read
again; rates are what `pgsvc-info` finds in the stream; seconds include starting the command.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import av.filter
import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.cli.common import format_table
from pgsvc_codec.media.raw import raw_frames
from pgsvc_codec.media.sinks import open_sink
from pgsvc_codec.media.source import open_source
from pgsvc_codec.metrics.psnr import PsnrMeter
from pgsvc_codec.picture import Frame, to_rgb
from pgsvc_codec.video import Chroma, Matrix, Range, VideoInfo

CLIP_INFO = VideoInfo(320, 180, Fraction(24), matrix=Matrix.BT601)
SCENE_FRAMES = 12
CLIP_SPLATS = 1200

# Scenes as chains of FFmpeg filters: a flight over a landscape, then a zoom into the Mandelbrot set.
_LANDSCAPE_COLORS = (
    "r=0/0.02 0.30/0.10 0.40/0.80 0.46/0.30 0.58/0.45 0.7/1:"
    "g=0/0.10 0.30/0.35 0.40/0.75 0.46/0.50 0.58/0.40 0.7/1:"
    "b=0/0.30 0.30/0.60 0.40/0.50 0.46/0.20 0.58/0.30 0.7/1"
)
_Chain = tuple[tuple[str, str], ...]
SCENES: tuple[_Chain, ...] = (
    (
        (
            "perlin",
            "size=480x270:rate=24:octaves=6:persistence=0.5:xscale=3:yscale=3:tscale=0:random_mode=seed:random_seed=6",
        ),
        ("format", "gbrp"),
        ("curves", _LANDSCAPE_COLORS),
        ("crop", "320:180:4*n:2*n"),
        ("format", "yuv420p"),
    ),
    (
        ("mandelbrot", "size=640x360:rate=24:start_scale=1.2:end_scale=0.4:end_pts=24:inner=mincol"),
        ("gblur", "sigma=2"),
        ("scale", "320:180:flags=area"),
        ("hue", "s=0.7"),
        ("format", "yuv420p"),
    ),
)

SHEET_ROWS = 4
SHEET_TILE_WIDTH = 640  # pixels, at most
SHEET_GAP = 4


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description="Encode a clip, decode every level, measure, show.")
    parser.add_argument("--clip", type=Path, help="video to use (default: one is made)")
    parser.add_argument("--frames", type=int, default=24, help="frames to use at most (default: 24)")
    parser.add_argument("--preset", default="fast", help="of pgsvc-encode (default: fast)")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder of the results (default: demo)")
    options = parser.parse_args(arguments)

    options.output.mkdir(parents=True, exist_ok=True)
    clip, frames, settings = options.clip, options.frames, ["--preset", options.preset]
    if clip is None:
        clip = options.output / "clip.y4m"
        frames = min(frames, make_clip(clip))
        settings += ["--splats", str(CLIP_SPLATS)]
    stream = options.output / "clip.pgs"
    print(f"encoding {clip}, at most {frames} frames", flush=True)
    encode_seconds = run("pgsvc-encode", clip, stream, "--frames", frames, *settings, "--overwrite")
    described = json.loads(subprocess.check_output([command("pgsvc-info"), stream, "--json"]))

    rows, columns = measure(clip, stream, described)
    sheet = options.output / "contact-sheet.png"
    write_sheet(sheet, columns)
    video = described["input"]
    print(f"\n{stream}: {video['w']}x{video['h']}, {video['frames']} frames, encoded in {encode_seconds:.1f} s\n")
    print(format_table(rows))
    picked = ", ".join(map(str, sheet_frames(video["frames"])))
    titles = ["source", *(f"level {row[0]}" for row in rows[1:])]
    print(f"\n{sheet}: frames {picked}; {' | '.join(titles)}")
    print(export(stream, described["num_layers"], options.output))


def make_clip(path: Path) -> int:
    """Write the scenes, one after the other, as y4m; the number of frames."""
    with open_sink("y4m", str(path), CLIP_INFO, overwrite=True) as sink:
        for chain in SCENES:
            for frame in filtered_frames(chain, SCENE_FRAMES):
                sink.write(frame)
    return len(SCENES) * SCENE_FRAMES


def filtered_frames(chain: _Chain, count: int) -> Iterator[Frame]:
    """The first frames, yuv420p, of a chain of filters that begins with a source: (name, arguments) each."""
    graph = av.filter.Graph()
    graph.link_nodes(*(graph.add(*stage) for stage in chain), graph.add("buffersink")).configure()
    for _ in range(count):
        planes = graph.vpull().planes
        rows = (np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size) for plane in planes)
        yield tuple(row[:, : plane.width] for row, plane in zip(rows, planes, strict=True))


def command(name: str) -> Path:
    """The command of this environment, whatever PATH says."""
    return Path(sysconfig.get_path("scripts")) / name


def run(name: str, *arguments: object) -> float:
    """Run a command; the seconds it took.  It says itself why it failed."""
    started = time.perf_counter()
    status = subprocess.run([command(name), *map(str, arguments)], check=False).returncode
    if status:
        sys.exit(status)
    return time.perf_counter() - started


def sheet_frames(count: int) -> list[int]:
    """Frames for the sheet, from the middles of equal parts of the clip."""
    rows = min(SHEET_ROWS, count)
    return [(2 * row + 1) * count // (2 * rows) for row in range(rows)]


def measure(
    clip: Path, stream: Path, described: dict[str, Any]
) -> tuple[list[list[str]], list[list[NDArray[np.uint8]]]]:
    """Decode every level: the rows of the table, and the columns of the sheet (source first, [H, W, 3] each)."""
    count = described["input"]["frames"]
    picked = sheet_frames(count)
    rows = [["level", "splats", "bytes", "kb/s", "PSNR dB", "decode s"]]
    columns: list[list[NDArray[np.uint8]]] = [[] for _ in range(1 + described["num_layers"])]
    with TemporaryDirectory(dir=stream.parent) as folder:
        decoded = Path(folder) / "level.yuv"
        for level in described["levels"]:
            number = level["layers"]
            seconds = run("pgsvc-decode", "--layers", number, stream, "-o", decoded, "--overwrite", "--quiet")
            with open_source(str(clip), frames=count) as source, decoded.open("rb") as file:
                info = source.info
                meter = PsnrMeter(info.max_code, is_rgb=info.chroma is Chroma.RGB)
                pairs = zip(source, raw_frames(file, info, sys.exit), strict=True)
                for index, (original, frame) in enumerate(pairs):
                    meter.add(original, frame)
                    if index in picked:
                        columns[number].append(to_rgb(frame, info))
                        if number == 1:
                            columns[0].append(to_rgb(original, info))
            figures = [f"{level['kbps']:.0f}", f"{meter.combined:.2f}", f"{seconds:.1f}"]
            rows.append([str(number), str(level["splats"]), str(level["bytes"]), *figures])
    return rows, columns


def write_sheet(path: Path, columns: list[list[NDArray[np.uint8]]]) -> None:
    """Columns of pictures [H, W, 3], all of one size, as one PNG; large ones are scaled down by a whole factor."""
    height, width = columns[0][0].shape[:2]
    scale = -(-width // SHEET_TILE_WIDTH)
    tile_height, tile_width = max(height // scale, 1), width // scale
    pitch_y, pitch_x = tile_height + SHEET_GAP, tile_width + SHEET_GAP
    sheet = np.full((len(columns[0]) * pitch_y - SHEET_GAP, len(columns) * pitch_x - SHEET_GAP, 3), 255, np.uint8)
    for x, column in enumerate(columns):
        for y, picture in enumerate(column):
            blocks = picture[: tile_height * scale, : tile_width * scale]
            tile = blocks.reshape(tile_height, -1, tile_width, scale, 3).mean(axis=(1, 3)).round()
            sheet[y * pitch_y :, x * pitch_x :][:tile_height, :tile_width] = tile
    info = VideoInfo(sheet.shape[1], sheet.shape[0], chroma=Chroma.RGB, matrix=Matrix.RGB, range=Range.FULL)
    with open_sink("png", str(path), info, overwrite=True) as sink:
        sink.write(tuple(np.moveaxis(sheet, -1, 0)))


def export(stream: Path, level: int, folder: Path) -> str:
    """The full level as a video that players open: through a pipe into ffmpeg where there is one; what was done."""
    ffmpeg = find_ffmpeg()
    if ffmpeg is None:
        output = folder / f"level-{level}.y4m"
        run("pgsvc-decode", stream, "-o", output, "--overwrite", "--quiet")
        return f"{output}: all layers (no ffmpeg found to make an mp4)"
    output = folder / f"level-{level}.mp4"
    # H.264 wants even sides.
    encode = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2,format=yuv420p", "-c:v", "libx264", "-crf", "12", "-y", str(output)]
    with subprocess.Popen([command("pgsvc-decode"), stream, "--quiet"], stdout=subprocess.PIPE) as decoder:
        subprocess.run([ffmpeg, "-v", "error", "-i", "-", *encode], stdin=decoder.stdout, check=True)
    return f"{output}: all layers, by pgsvc-decode {stream.name} | ffmpeg -i - {output.name}"


def find_ffmpeg() -> str | None:
    """An ffmpeg on PATH, or that of imageio-ffmpeg, or none."""
    found = shutil.which("ffmpeg")
    if found is None:
        try:
            from imageio_ffmpeg import get_ffmpeg_exe
        except ImportError:
            return None
        found = get_ffmpeg_exe()
    return found


if __name__ == "__main__":
    main()
