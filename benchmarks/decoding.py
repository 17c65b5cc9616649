"""How fast streams are decoded: frames per second, the first frame, the first use on a machine, memory.

    python benchmarks/decoding.py [CLIP] [--splats 12000 27000] [--levels 1 2 3] [--threads 1 2] [--frames 24]
                                  [--rounds 8] [--profile baseline main]

Without CLIP, a view of 1920x1080 moves over archer (see SOURCES.md under PGSVC_DATA), enlarged a little.  It is encoded
in three layers and GOPs of 12 frames.  Of `baseline`, a few iterations do: the time of decoding depends on the splats,
hardly on how well they fit.  In `main` bits follow from the fit, so that is one of preset veryfast.  Rows are
added to `results/decoding.tsv`; those that are there are not measured again.

fps is that of all frames of the stream, read, decoded and painted into planes in one process, the best of all rounds.
first_frame_s is the wall time of the command that writes the first frame to /dev/null, with kernels cached on disk,
likewise; first_use_s that of one with an empty cache.  peak_mib is the largest memory of the command that decodes all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import experiment
import numba
import numpy as np
from experiment import LAYERS, LEVELS
from material import DATA, find
from results_file import WORK, ResultsFile
from scipy.ndimage import zoom
from streams import encode_levels

from pgsvc_codec.config import PROFILES, EncodeConfig
from pgsvc_codec.decoder import Decoder
from pgsvc_codec.media.sinks import open_sink
from pgsvc_codec.media.source import open_source
from pgsvc_codec.picture import Frame

STILL = DATA / "archer_1920x1080_1f_420_8bit.yuv"
STEP = (4, 2)  # pixels to the right and down from frame to frame, even for the sake of chroma
KEYS = ["clip", "frames", "profile", "splats", "level", "threads"]
# Runs its arguments and prints wait status, seconds and KiB.  Linux counts what a process was before it became another
# program, and this one is large by now, so that somebody small must start those to be measured.
_WATCH = """
import os, sys, time
nowhere = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
started = time.perf_counter()
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=nowhere)
_, status, usage = os.wait4(child, 0)
print(status, time.perf_counter() - started, usage.ru_maxrss)
"""
COLUMNS = [*KEYS, "fps", "ms_per_frame", "first_frame_s", "first_use_s", "peak_mib", "size_bytes"]


def panned(still: Path, frames: int) -> Path:
    """A clip of one picture, 4:2:0, whose view moves; kept in the working folder."""
    path = WORK / "clips" / f"{still.stem}-{frames}.y4m"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_source(str(still)) as source, open_sink("y4m", str(path), source.info) as sink:
        (picture,) = source
        growth = 1 + max(step * (frames + 1) / side for step, side in zip(STEP, picture[0].shape[::-1], strict=True))
        large = tuple(np.rint(zoom(plane.astype(np.float32), growth, order=1)).astype(np.uint8) for plane in picture)
        for number in range(frames):
            sink.write(_view(large, picture, number))
    return path


def _view(large: Frame, shown: Frame, number: int) -> Frame:
    """What frame `number` shows: so much of each plane as the planes of `shown` hold."""
    luma_shape = shown[0].shape
    views = []
    for plane, (rows, columns) in zip(large, (plane.shape for plane in shown), strict=True):
        left = number * STEP[0] * columns // luma_shape[1]
        top = number * STEP[1] * rows // luma_shape[0]
        views.append(plane[top : top + rows, left : left + columns])
    return tuple(views)


def seconds_per_frame(path: Path, level: int, threads: int, rounds: int) -> float:
    """Of decoding all frames of a stream in this process, in the best of some rounds."""
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        with Decoder(path) as decoder:
            for _ in decoder.frames(layers=level, stop=1):
                pass  # loads the kernels
            spent = []
            for _ in range(rounds):
                started = time.perf_counter()
                count = sum(1 for _ in decoder.frames(layers=level))
                spent.append((time.perf_counter() - started) / count)
    finally:
        numba.set_num_threads(before)
    return min(spent)


def run_command(path: Path, level: int, threads: int, *options: str, cache: str | None = None) -> tuple[float, float]:
    """Wall seconds and peak memory in MiB of `pgsvc-decode`, whose y4m goes to /dev/null."""
    environment = {**os.environ, "NUMBA_NUM_THREADS": str(threads)}
    if cache is not None:
        environment["NUMBA_CACHE_DIR"] = cache
    command = [sys.executable, "-m", "pgsvc_codec.cli.decode", str(path), "-q", "-l", str(level), *options]
    told = subprocess.run([sys.executable, "-c", _WATCH, *command], env=environment, stdout=subprocess.PIPE, check=True)
    status, seconds, peak_kib = map(float, told.stdout.split())
    if status:
        raise SystemExit(f"{' '.join(command)}: failed")
    return seconds, peak_kib / 1024


def measure(path: Path, level: int, threads: int, rounds: int) -> dict[str, Any]:
    """One row, but for its keys."""
    spent = seconds_per_frame(path, level, threads, rounds)
    with tempfile.TemporaryDirectory() as empty:
        first_use, _ = run_command(path, level, threads, "-f", "1", cache=empty)
    first_frames = [run_command(path, level, threads, "-f", "1")[0] for _ in range(rounds)]
    _, peak_mib = run_command(path, level, threads)
    return {
        "fps": 1 / spent,
        "ms_per_frame": 1000 * spent,
        "first_frame_s": min(first_frames),
        "first_use_s": first_use,
        "peak_mib": peak_mib,
        "size_bytes": path.stat().st_size,
    }


def main() -> None:
    """Measure what has no row yet."""
    parser = experiment.parser_of(__doc__)
    parser.add_argument("clip", nargs="?", type=Path)
    parser.add_argument(
        "--splats", type=int, nargs="+", default=[12000, 27000], metavar="N", help="all layers together"
    )
    parser.add_argument("--levels", type=int, nargs="+", default=list(LEVELS), choices=LEVELS)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--frames", type=int, default=24, metavar="N")
    parser.add_argument("--profile", nargs="+", default=list(PROFILES), choices=PROFILES)
    parser.add_argument("--rounds", type=int, default=8, metavar="N", help="the best of which counts")
    options = parser.parse_args()
    found = find([options.clip or STILL], suffixes=())
    clips = found if options.clip else [panned(still, options.frames) for still in found]
    with ResultsFile("decoding", COLUMNS, KEYS) as results:
        for clip, profile, splats in product(clips, options.profile, options.splats):
            config = EncodeConfig(
                profile=profile,
                layers=LAYERS,
                splats=splats,
                preset="ultrafast" if profile == "baseline" else "veryfast",
                iterations=20 if profile == "baseline" else None,
                keyint=12,
                scenecut=0,
            )
            path = encode_levels(clip, options.frames, config).levels[-1].path
            for level, threads in product(options.levels, options.threads):
                values = (clip.name, options.frames, profile, splats, level, threads)
                keys = dict(zip(KEYS, values, strict=True))
                if not results.has(**keys):
                    results.add(**keys, **measure(path, level, threads, options.rounds))


if __name__ == "__main__":
    experiment.run(main)
