"""Rate and distortion: streams against other codecs, bytes of files and decoded pixels on both sides.

    python benchmarks/rd.py stills [PICTURE ...] [--codec NAME ...] [--quality 20 35 ..] [--splats 700 1500 ..]
                                   [--preset medium fast] [--again]
    python benchmarks/rd.py clips [CLIP ...] [--frames N] [likewise]
    python benchmarks/rd.py compare     the comparisons and plots again, from the rows that are there
    python benchmarks/rd.py table       what the `main` profile is held to, and where it stands

PICTUREs and CLIPs are files or folders of them (default: Kodak, bunny and park_joy under PGSVC_DATA).  NAMEs are
`main`, `baseline` (the profiles of this codec, at every level) and those of `anchors.py`; default: all.  `main` is
measured at every `--quality`, `baseline` at every `--splats` (default: by the picture's size).  Rows are added to
`results/rd-stills.tsv` and `results/rd-clips.tsv`; those that are there are not measured again.  `--again` measures
streams anew, after a change to the codec: rows of the named pictures, profiles and presets are removed first, those
of other codecs stay.  `results/rd-codecs.tsv` has the versions of all codecs and what they are given.

A level's bytes are those of the headers and of the segments that it needs.  Pictures are compared in RGB.  Clips are
coded as one GOP by everybody, from the source's own Y′CbCr planes (of RGB: 4:2:0, BT.709, limited), and come back to
RGB by one conversion for all.

Comparisons go to `results/rd-stills-bd.tsv` and `results/rd-clips-bd.tsv`: BD-rates against each codec, of all layers
for every file, of each level in the mean over pictures and for clips.
They are taken over the qualities that the tested stream has between 0.1 and 0.5 bits per pixel (clips: at all its
rates), as far as the other codec comes to them: `low` and `high`, `coverage` being how much of those qualities this
is.  MS-SSIM is taken as -10 log10(1 - MS-SSIM).  `results/rd-stills-levels.tsv` has every level beside JPEG 2000 at
the level's own rate.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import anchors
import experiment
import numpy as np
import plots
import rd_targets
from anchors import Pixels
from curves import WINDOW, Curve, bd_rate, ratio_at
from experiment import LAYERS
from material import CLIPS, DATA, KODAK, PICTURES, find
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter
from progress import Ticker
from results_file import RESULTS, ResultsFile, read_rows

from pgsvc_codec import __version__
from pgsvc_codec.coding.gop import decode_gop
from pgsvc_codec.config import PRESETS, PROFILES, EncodeConfig
from pgsvc_codec.decoder import Decoder
from pgsvc_codec.describe import describe_file
from pgsvc_codec.encoder import Progress, encode
from pgsvc_codec.errors import FormatError
from pgsvc_codec.format.container import StreamReader
from pgsvc_codec.media.source import open_source
from pgsvc_codec.metrics.psnr import PsnrMeter
from pgsvc_codec.metrics.structural import StructuralMeter, smallest_side
from pgsvc_codec.metrics.vmaf import VmafMeter
from pgsvc_codec.picture import Frame, to_rgb
from pgsvc_codec.video import VideoInfo

OURS = ("main", "baseline")
QUALITIES = (20, 35, 50, 65, 80)  # of `main`
DENSITIES = (1800, 3800, 7600, 15000, 30000)  # of `baseline`, splats per megapixel
CLIP_NAMES = ("bunny_1280x720_32f.mkv", "park_joy_480x270_10f.y4m")

SERIES = ["codec", "setting", "level"]  # level is empty but for streams of ours
COST = ["size_bytes", "bpp"]
OUR_FACTS = ["layer_share", "splats", "seconds", "cpu_seconds"]  # share: of the level's own layer in the stream
CODEC_COLUMNS = ["codec", "options", "version"]
STILL_KEYS = ["picture", *SERIES]
STILL_COLUMNS = [*STILL_KEYS, *COST, "psnr", "ms_ssim", *OUR_FACTS, "decode_ms"]
CLIP_KEYS = ["clip", "frames", *SERIES]
CLIP_QUALITIES = ["psnr", "psnr_first", "psnr_last", "psnr_611", "vmaf"]  # the first three in RGB
CLIP_COLUMNS = [*CLIP_KEYS, *COST, *CLIP_QUALITIES, *OUR_FACTS, "decode_ms_first", "decode_ms_others"]

LEAST_COVERAGE = 0.1  # of what a test reaches; less is no comparison
EQUAL_PSNR = (25, 28, 31, 34)  # dB, of clips
BD_COLUMNS = ["metric", "test", "level", "anchor", "bd_rate", "low", "high", "coverage"]
LEVEL_COLUMNS = ["picture", "codec", "setting", "level", "bpp", "psnr", "jpeg2000_psnr", "gain", "layer_share"]
OUR_COLORS = {rd_targets.MEDIUM: "tab:red", rd_targets.FAST: "salmon", rd_targets.BASELINE: "tab:orange"}
OTHER_COLORS = ("tab:blue", "tab:green", "tab:purple", "tab:brown", "tab:pink", "tab:gray", "tab:olive", "tab:cyan",
                "navy")  # fmt: skip
ROUNDS = 5  # of decoding, the best of which counts


class Timed(NamedTuple):
    """What was made, and how long that took."""

    data: bytes
    seconds: float
    cpu_seconds: float  # of all threads


class Stream(NamedTuple):
    """A stream of ours to be made."""

    codec: str  # see `name_of`
    setting: str
    config: EncodeConfig


def timed(make: Callable[[], bytes]) -> Timed:
    """Run something."""
    started, spent = time.perf_counter(), time.process_time()
    data = make()
    return Timed(data, time.perf_counter() - started, time.process_time() - spent)


def name_of(profile: str, preset: str) -> str:
    """What a codec of ours is called in the results."""
    return f"{profile} {preset}"


def streams_of(info: VideoInfo, options: argparse.Namespace, frames: int) -> Iterator[Stream]:
    """The streams of a source that were asked for."""
    for profile in OURS:
        if profile not in options.codec:
            continue
        if profile not in PROFILES:
            print(f"skipped: {profile}, no profile of this version", file=sys.stderr)
            continue
        densities = [round(density * info.width * info.height / 1e6) for density in DENSITIES]
        name = "quality" if profile == "main" else "splats"
        for preset in options.preset:
            for value in options.quality if name == "quality" else options.splats or densities:
                fixed: dict[str, Any] = {"layers": LAYERS, "profile": profile, "preset": preset, name: value}
                if frames > 1:
                    fixed |= {"keyint": frames, "scenecut": 0}
                yield Stream(name_of(profile, preset), f"{name} {value:g}", EncodeConfig(**fixed))


def encode_stream(path: Path, frames: int | None, stream: Stream) -> Timed:
    """A whole stream, as it would be in a file."""
    with open_source(str(path), frames=frames) as source, io.BytesIO() as sink:
        ticker = Ticker(f"{path.name}, {stream.codec}, {stream.setting}", source.frame_count)

        def follow(progress: Progress) -> None:
            ticker.tick(progress.frames, f"{progress.size_bytes} bytes, PSNR {progress.psnr:.2f}")

        def make() -> bytes:
            encode(source, sink, stream.config, progress=follow)
            return sink.getvalue()

        made = timed(make)
    written = describe_file(io.BytesIO(made.data))["profile"]
    if written != stream.config.profile:
        raise SystemExit(f"{path.name}: asked for a stream of profile {stream.config.profile}, got one of {written}")
    return made


def level_facts(data: bytes, pixels: int) -> Iterator[dict[str, Any]]:
    """What the file says of each level: bytes that it needs, bits per pixel, splats, and its own layer's share.

    Args:
        pixels: of all frames.
    """
    below = 0
    for level in describe_file(io.BytesIO(data))["levels"]:
        size_bytes = level["bytes"]
        yield {
            "level": level["layers"],
            "size_bytes": size_bytes,
            "bpp": 8 * size_bytes / pixels,
            "layer_share": (size_bytes - below) / len(data),
            "splats": level["splats"],
        }
        below = size_bytes


def splat_milliseconds(data: bytes) -> list[float]:
    """From segments to splats, for each frame in the best of some rounds; nothing is painted."""
    rounds = []
    with StreamReader(data) as reader:
        for _ in range(ROUNDS):
            ends = [time.perf_counter()]
            for gop in range(len(reader.gops)):
                payloads = [reader.read_segment(gop, layer) for layer in range(reader.available_layers(gop))]
                ends += [time.perf_counter() for _ in decode_gop(payloads, reader.header, _refuse)]
            rounds.append(np.diff(ends))
    return (1000 * np.min(rounds, axis=0)).tolist()


def _refuse(layer: int, error: FormatError) -> None:
    raise error


def rgb_psnr(reference: Pixels, distorted: Pixels) -> float:
    """Over all samples, dB."""
    return PsnrMeter(255, is_rgb=True).add(_planes(reference), _planes(distorted))


def measure_still(path: Path, results: ResultsFile, options: argparse.Namespace) -> None:
    """All rows of a picture that are not there yet."""
    with open_source(str(path), frames=1) as source:
        info, frame = source.info, next(iter(source))
    reference = to_rgb(frame, info)
    rows, columns, _ = reference.shape

    def quality_of(pixels: Pixels) -> dict[str, Any]:
        meter = StructuralMeter(255, is_rgb=True, is_multiscale=True)
        large = min(rows, columns) >= smallest_side(is_multiscale=True)
        similarity = meter.add(_planes(reference), _planes(pixels)) if large else None
        return {"psnr": rgb_psnr(reference, pixels), "ms_ssim": similarity}

    none = dict.fromkeys(["layer_share", "splats", "decode_ms"])
    for anchor in options.still_anchors:
        for step in anchor.steps:
            keys = {"picture": path.name, "codec": anchor.name, "setting": str(step), "level": None}
            if not results.has(**keys):
                made = timed(lambda anchor=anchor, step=step: anchor.encode(reference, step.value))
                cost = _cost(len(made.data), rows * columns)
                quality = quality_of(anchor.decode(made.data, reference))
                results.add(**keys, **cost, **quality, **_spent(made), **none)
    for stream in streams_of(info, options, 1):
        keys = {"picture": path.name, "codec": stream.codec, "setting": stream.setting}
        if results.has(**keys, level=LAYERS):
            continue
        made = encode_stream(path, 1, stream)
        told = _spent(made) | {"decode_ms": splat_milliseconds(made.data)[0]}
        with Decoder(made.data) as decoder:
            measured = []
            for facts in level_facts(made.data, rows * columns):
                (shown,) = decoder.frames(layers=facts["level"])
                measured.append(facts | quality_of(to_rgb(shown.planes, info)))
        for level in measured:  # all at once: a run that is interrupted leaves no part of a stream
            results.add(**keys, **level, **told)


def measure_clip(path: Path, results: ResultsFile, options: argparse.Namespace) -> None:
    """All rows of a clip that are not there yet."""
    with open_source(str(path), frames=options.frames) as source:
        native, frames = source.info, list(source)
    coded = [anchors.ycbcr_of(frame, native, "yuv420p") for frame in frames]
    sources, info = [planes for planes, _ in coded], coded[0][1]
    references = [to_rgb(frame, native) for frame in frames]
    pixels = len(frames) * info.width * info.height
    clip = {"clip": path.name, "frames": len(frames)}

    def quality_of(shown: Iterable[Frame], shown_info: VideoInfo) -> dict[str, Any]:
        rgb, ycbcr = PsnrMeter(255, is_rgb=True), PsnrMeter(info.max_code, is_rgb=False)
        each = []
        with VmafMeter(info.max_code) as perceived:
            for reference, planes, frame in zip(references, sources, shown, strict=True):
                each.append(rgb.add(_planes(reference), _planes(to_rgb(frame, shown_info))))
                compared, _ = anchors.ycbcr_of(frame, shown_info, "yuv420p")
                ycbcr.add(planes, compared)
                perceived.add(planes[0], compared[0])
            vmaf = fmean(perceived.finish())
        in_rgb = {"psnr": rgb.combined, "psnr_first": each[0], "psnr_last": each[-1]}
        return in_rgb | {"psnr_611": ycbcr.combined, "vmaf": vmaf}

    none = dict.fromkeys(["layer_share", "splats", "decode_ms_first", "decode_ms_others"])
    for anchor in options.clip_anchors:
        for step in anchor.steps:
            keys = {**clip, "codec": anchor.name, "setting": str(step), "level": None}
            if not results.has(**keys):
                made = timed(lambda anchor=anchor, step=step: anchor.encode(sources, info, step.value))
                quality = quality_of(anchor.decode(made.data, info), info)
                results.add(**keys, **_cost(len(made.data), pixels), **quality, **_spent(made), **none)
    for stream in streams_of(native, options, len(frames)):
        keys = {**clip, "codec": stream.codec, "setting": stream.setting}
        if results.has(**keys, level=LAYERS):
            continue
        made = encode_stream(path, options.frames, stream)
        first, *others = splat_milliseconds(made.data)
        told = _spent(made) | {"decode_ms_first": first, "decode_ms_others": fmean(others) if others else None}
        with Decoder(made.data) as decoder:
            measured = []
            for facts in level_facts(made.data, pixels):
                shown = (frame.planes for frame in decoder.frames(layers=facts["level"]))
                measured.append(facts | quality_of(shown, native))
        for level in measured:
            results.add(**keys, **level, **told)


def _planes(pixels: Pixels) -> Frame:
    return tuple(np.moveaxis(pixels, -1, 0))


def _cost(size_bytes: int, pixels: int) -> dict[str, Any]:
    return {"size_bytes": size_bytes, "bpp": 8 * size_bytes / pixels}


def _spent(made: Timed) -> dict[str, Any]:
    return {"seconds": made.seconds, "cpu_seconds": made.cpu_seconds}


def tell_codecs(options: argparse.Namespace) -> None:
    """Who the codecs are that are measured: what they are given at every step, and their versions."""
    told = [(anchor.name, anchor.options, anchor.version) for anchor in (*options.still_anchors, *options.clip_anchors)]
    for profile in OURS:
        if profile in options.codec and profile in PROFILES:
            for preset in options.preset:
                fixed = f"layers={LAYERS} profile={profile} preset={preset}"
                told.append((name_of(profile, preset), fixed, f"pgsvc-codec {__version__}"))
    with ResultsFile("rd-codecs", CODEC_COLUMNS, CODEC_COLUMNS, is_shown=False) as results:
        for row in told:
            named = dict(zip(CODEC_COLUMNS, row, strict=True))
            if not results.has(**named):
                results.add(**named)


def forget(name: str, is_old: Callable[[dict[str, str]], bool]) -> None:
    """Take rows out of a results file."""
    path = RESULTS / f"{name}.tsv"
    rows = read_rows(path) if path.exists() else []
    kept = [row for row in rows if not is_old(row)]
    if len(kept) < len(rows):
        lines = ["\t".join(cells) for cells in ([*rows[0]], *(row.values() for row in kept))]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


# Comparisons


def quality_in(row: dict[str, str], metric: str) -> float | None:
    """What curves are drawn of: MS-SSIM in dB, others as they are; None where it was not measured."""
    if not row[metric]:
        return None
    value = float(row[metric])
    return -10 * math.log10(max(1 - value, 1e-9)) if metric == "ms_ssim" else value


def points_of(rows: Sequence[dict[str, str]], metric: str) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Rates and qualities of one picture or clip, by codec and level."""
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in rows:
        quality = quality_in(row, metric)
        if quality is not None:
            points.setdefault((row["codec"], row["level"]), []).append((float(row["bpp"]), quality))
    return points


def curves_of(rows: Sequence[dict[str, str]], metric: str) -> dict[tuple[str, str], Curve]:
    """Through `points_of`, where there are two or more."""
    curves = {series: Curve.of(listed) for series, listed in points_of(rows, metric).items()}
    return {series: curve for series, curve in curves.items() if curve is not None}


def is_ours(codec: str) -> bool:
    """Whether a codec of a row is one of our profiles."""
    return codec.split()[0] in OURS


def comparisons(
    rows: Sequence[dict[str, str]], metric: str, window: tuple[float, float]
) -> Iterator[tuple[dict[str, Any], Curve, Curve]]:
    """Every level of ours against every other codec, ours at all layers; with the curves of anchor and test.

    Args:
        rows: of one picture or clip.
        window: rates of the test whose qualities count, bits per pixel.
    """
    curves = curves_of(rows, metric)
    for (codec, level), test in curves.items():
        if not is_ours(codec):
            continue
        asked = test.between(*window)
        for (other, other_level), anchor in curves.items():
            if other == codec or other_level not in ("", str(LAYERS)):
                continue
            shared = asked.shared(anchor.reach)
            coverage = max(shared.width, 0) / asked.width if asked.width else 0.0
            rate = bd_rate(anchor, test, shared) if coverage >= LEAST_COVERAGE else None
            low, high = shared if rate is not None else (None, None)
            values = (metric, codec, level, other, rate, low, high, coverage)
            yield dict(zip(BD_COLUMNS, values, strict=True)), anchor, test


def by_file(rows: Iterable[dict[str, str]], key: str) -> dict[str, list[dict[str, str]]]:
    """Rows of each picture or clip, in order of their names."""
    files: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        files.setdefault(row[key], []).append(row)
    return dict(sorted(files.items()))


def compare_stills(rows: Sequence[dict[str, str]]) -> None:
    """Write BD-rates of every picture and their means, and the levels beside JPEG 2000."""
    pictures = by_file(rows, "picture")
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    with ResultsFile("rd-stills-bd", ["picture", *BD_COLUMNS], is_shown=False) as results:
        for picture, members in pictures.items():
            for metric in ("psnr", "ms_ssim"):
                for entry, _, _ in comparisons(members, metric, WINDOW):
                    if entry["level"] == str(LAYERS):
                        results.add(picture=picture, **entry)
                    if entry["bd_rate"] is not None:
                        group = tuple(entry[name] for name in ("metric", "test", "level", "anchor"))
                        groups.setdefault(group, []).append(entry)
        for group, entries in groups.items():
            named = dict(zip(("metric", "test", "level", "anchor"), group, strict=True))
            means = {name: fmean(entry[name] for entry in entries) for name in ("bd_rate", "low", "high", "coverage")}
            results.add(picture=f"mean of {len(entries)}", **named, **means)
    with ResultsFile("rd-stills-levels", LEVEL_COLUMNS, is_shown=False) as results:
        for picture, members in pictures.items():
            jpeg2000 = curves_of(members, "psnr").get(("jpeg2000", ""))
            for row in members:
                if not is_ours(row["codec"]):
                    continue
                other = jpeg2000.quality_at(float(row["bpp"])) if jpeg2000 else None
                gain = None if other is None else float(row["psnr"]) - other
                same = {name: row[name] for name in ("codec", "setting", "level", "bpp", "psnr", "layer_share")}
                results.add(picture=picture, **same, jpeg2000_psnr=other, gain=gain)


def compare_clips(rows: Sequence[dict[str, str]]) -> None:
    """Write BD-rates of every clip, and rates at equal PSNR."""
    ratios = [f"ratio_at_{psnr}" for psnr in EQUAL_PSNR]
    with ResultsFile("rd-clips-bd", ["clip", "frames", *BD_COLUMNS, *ratios], is_shown=False) as results:
        for clip, members in by_file(rows, "clip").items():
            for frames, listed in by_file(members, "frames").items():
                for metric in ("psnr", "psnr_611", "vmaf"):
                    for entry, anchor, test in comparisons(listed, metric, (0, math.inf)):
                        equal = [ratio_at(anchor, test, at) if metric == "psnr" else None for at in EQUAL_PSNR]
                        results.add(clip=clip, frames=frames, **entry, **dict(zip(ratios, equal, strict=True)))


def plot_stills(rows: Sequence[dict[str, str]]) -> None:
    """Means over pictures at equal rates, where a codec reaches the rate in all of them."""
    pictures = by_file(rows, "picture")
    rates = np.geomspace(0.04, 0.8, 40)
    figure, axes = plots.panels(1, 2, width=6.0, height=5.0)
    for axis, metric, name in zip(axes[0], ("psnr", "ms_ssim"), ("PSNR (RGB), dB", "MS-SSIM, dB"), strict=True):
        curves = [curves_of(members, metric) for members in pictures.values()]
        points: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for series in set.intersection(*(set(members) for members in curves)):
            values = [[members[series].quality_at(rate) for members in curves] for rate in rates]
            points[series] = [(rate, fmean(row)) for rate, row in zip(rates, values, strict=True) if None not in row]
        _draw(axis, points, rows)
        axis.set(ylabel=name, title=f"mean, pictures: {len(pictures)}")
    _legend(figure, axes)
    plots.save(figure, "rd-stills")


def plot_clips(rows: Sequence[dict[str, str]]) -> None:
    """Measured points of every clip."""
    clips = by_file(rows, "clip")
    figure, axes = plots.panels(len(clips), 2, height=3.6)
    for (clip, members), panels in zip(clips.items(), axes, strict=True):
        for axis, metric, name in zip(panels, ("psnr", "vmaf"), ("PSNR (RGB), dB", "VMAF"), strict=True):
            _draw(axis, points_of(members, metric), rows)
            axis.set(ylabel=name, title=f"{clip}, {members[0]['frames']} frames")
    _legend(figure, axes)
    plots.save(figure, "rd-clips")


def _draw(axis: Any, points: dict[tuple[str, str], list[tuple[float, float]]], rows: Sequence[dict[str, str]]) -> None:
    """Curves in the colours that their codecs have in all panels; levels below the last for `main medium` alone."""
    others = sorted({row["codec"] for row in rows if not is_ours(row["codec"])})
    colors = dict(zip(others, cycle(OTHER_COLORS), strict=False))
    for (codec, level), listed in sorted(points.items()):
        if not listed or (is_ours(codec) and codec != rd_targets.MEDIUM and level != str(LAYERS)):
            continue
        style: dict[str, Any] = {"label": codec, "color": colors.get(codec), "linewidth": 1}
        if is_ours(codec):
            style = {"label": f"{codec}, level {level}", "linestyle": plots.LINES[int(level) - 1], "linewidth": 2}
            style["color"] = OUR_COLORS.get(codec, "black")
        axis.plot(*zip(*sorted(listed), strict=True), **style)
    axis.set(xlabel="bits per pixel", xscale="log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _legend(figure: Any, axes: Any) -> None:
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize="small")


# Commands


class Part(NamedTuple):
    """Stills, or clips."""

    results: str
    columns: list[str]
    keys: list[str]
    measure: Callable[[Path, ResultsFile, argparse.Namespace], None]
    compare: Callable[[Sequence[dict[str, str]]], None]
    plot: Callable[[Sequence[dict[str, str]]], None]
    places: list[Path]
    suffixes: tuple[str, ...]


PARTS = {
    "stills": Part("rd-stills", STILL_COLUMNS, STILL_KEYS, measure_still, compare_stills, plot_stills, [KODAK],
                   PICTURES),
    "clips": Part("rd-clips", CLIP_COLUMNS, CLIP_KEYS, measure_clip, compare_clips, plot_clips,
                  [DATA / name for name in CLIP_NAMES], CLIPS),
}  # fmt: skip


def measure(part: Part, options: argparse.Namespace) -> None:
    """What is not there yet, file by file."""
    files = find(options.files or part.places, part.suffixes)
    tell_codecs(options)
    if options.again:
        profiles = [profile for profile in OURS if profile in options.codec]
        codecs = {name_of(profile, preset) for profile in profiles for preset in options.preset}
        names = {path.name for path in files}
        forget(part.results, lambda row: row["codec"] in codecs and row[part.keys[0]] in names)
    with ResultsFile(part.results, part.columns, part.keys) as results:
        for path in files:
            part.measure(path, results, options)


def compare(part: Part) -> None:
    """Write the comparisons and the plot of the rows that are there."""
    path = RESULTS / f"{part.results}.tsv"
    rows = read_rows(path) if path.exists() else []
    if rows:
        part.compare(rows)
        part.plot(rows)


def _read_options() -> argparse.Namespace:
    parser = experiment.parser_of(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in PARTS:
        command = commands.add_parser(name)
        command.add_argument("files", nargs="*", type=Path)
        command.add_argument("--codec", nargs="+", metavar="NAME", help="default: all")
        command.add_argument("--quality", nargs="+", type=float, default=list(QUALITIES), metavar="Q")
        command.add_argument("--splats", nargs="+", type=int, metavar="N")
        command.add_argument("--preset", nargs="+", choices=list(PRESETS), default=["medium"])
        command.add_argument("--again", action="store_true", help="measure streams of ours anew")
        if name == "clips":
            command.add_argument("--frames", type=int, metavar="N", help="of each clip; default: all")
    commands.add_parser("compare")
    commands.add_parser("table")
    options = parser.parse_args()
    if options.command in PARTS:
        listed = anchors.still_anchors() if options.command == "stills" else anchors.clip_anchors()
        names = [*OURS, *(anchor.name for anchor in listed)]
        options.codec = options.codec or names
        for name in options.codec:
            if name not in names:
                parser.error(f"--codec: got {name}, allowed {', '.join(names)}")
        chosen = [anchor for anchor in listed if anchor.name in options.codec]
        options.still_anchors, options.clip_anchors = (chosen, []) if options.command == "stills" else ([], chosen)
    return options


def main() -> None:
    """Measure and compare, or tell."""
    options = _read_options()
    if options.command == "table":
        rd_targets.show()
        return
    for name, part in PARTS.items():
        if options.command == name:
            measure(part, options)
        if options.command in (name, "compare"):
            compare(part)


if __name__ == "__main__":
    experiment.run(main)
