"""What P-frames keep along a GOP: every frame of a clip coded as one GOP, against I-frames of as many splats.

    python benchmarks/pframes.py [CLIP ...] [--frames N] [--splats 8000] [--preset medium] [--seed 0]

CLIPs are files or folders of them (default: the clips under PGSVC_DATA).  A clip is encoded with the encoder's own
defaults but for one GOP from end to end, no scene cuts; seconds and bytes of a frame are those that it added to the
encode, PSNR of each level that of the decoded stream.  The frame in the middle and the last one are then encoded on
their own, as I-frames of the same preset.  Rows are added to `results/pframes.tsv`, those of a clip that is there
under the same options are not measured again; the plot of all rows is `results/pframes.png`.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import experiment
import plots
from experiment import LAYERS, LEVELS, per_level
from material import CLIPS, DATA, find
from results_file import ResultsFile

from pgsvc_codec.config import MAX_KEYINT, PRESETS, EncodeConfig
from pgsvc_codec.decoder import Decoder
from pgsvc_codec.encoder import Progress, encode
from pgsvc_codec.media.source import open_source
from pgsvc_codec.metrics.psnr import PsnrMeter
from pgsvc_codec.video import Chroma

SETTING = ["clip", "frames", "splats", "preset", "seed"]
KEYS = [*SETTING, "frame", "alone"]
COLUMNS = [*KEYS, "iterations", *experiment.level_columns("psnr"), "size_bytes", "seconds"]


class CodedFrame(NamedTuple):
    """One frame of a stream."""

    psnr: list[float]  # dB, of every level
    size_bytes: int
    seconds: float


class CodedClip(NamedTuple):
    """One stream."""

    frames: list[CodedFrame]
    iterations: tuple[int, int]  # of an I-frame, of a P-frame


def encode_clip(path: Path, frames: int | None, config: EncodeConfig, seek: int = 0) -> CodedClip:
    """Encode a clip from frame `seek` on and decode it again."""
    states = [Progress(0, None, 0, 0.0, 0.0)]
    with open_source(str(path), frames=frames, seek=seek) as source, io.BytesIO() as sink:
        plan = encode(source, sink, config, progress=states.append).plan
        levels = list(zip(*(decoded_psnr(path, sink.getvalue(), level, seek) for level in LEVELS), strict=True))
    coded = [
        CodedFrame(list(psnr), after.size_bytes - before.size_bytes, after.seconds - before.seconds)
        for (before, after), psnr in zip(pairwise(states), levels, strict=True)
    ]
    return CodedClip(coded, (plan.iterations_intra, plan.iterations_inter))


def decoded_psnr(path: Path, data: bytes, level: int, seek: int) -> Iterator[float]:
    """Of every frame of a stream."""
    with Decoder(data) as decoder, open_source(str(path), frames=decoder.frame_count, seek=seek) as source:
        for frame, decoded in zip(source, decoder.frames(layers=level), strict=True):
            meter = PsnrMeter(source.info.max_code, is_rgb=source.info.chroma is Chroma.RGB)
            meter.add(frame, decoded.planes)
            yield meter.combined


def measure(path: Path, keys: dict[str, Any], results: ResultsFile, options: argparse.Namespace) -> None:
    """One clip: all frames of its GOP, then two of them alone."""
    config = EncodeConfig(
        profile="baseline",
        layers=LAYERS,
        splats=options.splats,
        preset=options.preset,
        seed=options.seed,
        keyint=MAX_KEYINT,
        scenecut=0,
    )
    clip = encode_clip(path, options.frames, config)
    last = len(clip.frames) - 1
    numbers = sorted({(last + 1) // 2, last} - {0})
    alone = [encode_clip(path, 1, replace(config, keyint=1), seek=number) for number in numbers]
    # all at once: a run that is interrupted leaves no part of a clip
    for number, frame in enumerate(clip.frames):
        add(results, keys | {"frame": number, "alone": False}, frame, clip.iterations[number > 0])
    for number, single in zip(numbers, alone, strict=True):
        add(results, keys | {"frame": number, "alone": True}, single.frames[0], single.iterations[0])


def add(results: ResultsFile, keys: dict[str, Any], frame: CodedFrame, iterations: int) -> None:
    """A row."""
    cost = {"size_bytes": frame.size_bytes, "seconds": frame.seconds}
    results.add(**keys, iterations=iterations, **per_level("psnr", frame.psnr), **cost)


def report(name: str, rows: list[dict[str, str]]) -> None:
    """Print what a clip's GOP came to."""
    gop = [row for row in rows if row["alone"] == "False"]
    alone = {row["frame"]: row for row in rows if row["alone"] == "True"}
    first, *others = gop
    seconds = fmean(float(row["seconds"]) for row in gop)
    print(f"{name}: {seconds:.2f} s a frame, the first {first['seconds']} s and {first['size_bytes']} bytes")
    if others:
        print(f"  P-frames: {fmean(float(row['size_bytes']) for row in others):.0f} bytes")
    for row in others:
        if row["frame"] in alone:
            gains = [float(row[f"psnr_{k}"]) - float(alone[row["frame"]][f"psnr_{k}"]) for k in LEVELS]
            print(f"  frame {row['frame']} against an I-frame: {', '.join(f'{gain:+.2f}' for gain in gains)} dB")


def plot(rows: list[dict[str, str]]) -> None:
    """A panel for each clip and setting: lines along the GOP, marks for frames alone."""
    clips: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        clips.setdefault(tuple(row[name] for name in SETTING), []).append(row)
    figure, axes = plots.panels(1, len(clips))
    for (setting, members), axis in zip(clips.items(), axes[0], strict=True):
        for level in LEVELS:
            for alone, style in (("False", plots.LINES[level - 1]), ("True", "o")):
                chosen = [row for row in members if row["alone"] == alone]
                points = [[float(row[column]) for row in chosen] for column in ("frame", f"psnr_{level}")]
                axis.plot(*points, style, color="black" if alone == "True" else "tab:red", markersize=4)
        name, _, splats, preset, _ = setting
        axis.set(xlabel="frame", ylabel="PSNR, dB", title=f"{name}\n{splats} splats, preset {preset}")
    for level in LEVELS:
        axes[0, 0].plot([], [], plots.LINES[level - 1], color="tab:red", label=f"level {level} along the GOP")
    axes[0, 0].plot([], [], "o", color="black", markersize=4, label="I-frame alone")
    axes[0, 0].legend(fontsize="small")
    plots.save(figure, "pframes")


def main() -> None:
    """Measure, report, plot."""
    parser = experiment.parser_of(__doc__)
    parser.add_argument("clips", nargs="*", type=Path, default=[DATA])
    parser.add_argument("--frames", type=int, metavar="N", help="of each clip; default: all")
    parser.add_argument("--splats", type=int, metavar="N", help="all layers together; default: by the clip's size")
    parser.add_argument("--preset", choices=list(PRESETS), default="medium")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with ResultsFile("pframes", COLUMNS, KEYS) as results:
        for path in find(options.clips, CLIPS):
            values = [path.name, options.frames or "all", options.splats or "default", options.preset, options.seed]
            keys = dict(zip(SETTING, values, strict=True))
            if not results.matching(**keys):
                measure(path, keys, results, options)
            report(path.name, results.matching(**keys))
    if results.rows:
        plot(results.rows)


if __name__ == "__main__":
    experiment.run(main)
