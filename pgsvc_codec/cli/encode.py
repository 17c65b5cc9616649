"""pgsvc-encode: pixels in, a layered .pgs stream out."""

from __future__ import annotations

import json
import re
import shlex
import sys
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import click

from pgsvc_codec import __version__
from pgsvc_codec.cli.common import (
    PROGRESS_MODES,
    Console,
    finite,
    format_size,
    format_table,
    parse_size,
    pgs_command,
    refuse_collisions,
    run,
    survive_broken_pipes,
    video_document,
)
from pgsvc_codec.cli.pixels import PixelOptions, pixel_options
from pgsvc_codec.config import (
    DEFAULT_QUALITY,
    LEVEL_SCHEDULES,
    PRESETS,
    PROFILES,
    PROGRESSIONS,
    SCALABILITIES,
    STRATEGIES,
    EncodeConfig,
)
from pgsvc_codec.describe import describe_file
from pgsvc_codec.errors import ConfigError
from pgsvc_codec.video import Chroma, VideoInfo
from pgsvc_codec.workers import local_workers

if TYPE_CHECKING:
    from pgsvc_codec.encoder import EncodeReport, LevelReport, Progress
    from pgsvc_codec.media.source import Source

NAME = "pgsvc-encode"

# What only a sequence has a use for.
_SEQUENCE_OPTIONS = ("fps", "keyint", "min_keyint", "scenecut")


def _parse_count(value: str) -> int:
    """A number that may be in thousands: 12000, 12k, 1.5k."""
    match = re.fullmatch(r"([0-9]{1,9})|([0-9]{1,6}(?:\.[0-9]{1,3})?)k", value, re.IGNORECASE)
    if match is None:
        raise click.BadParameter(f"got {value!r}, allowed a number such as 12000 or 12k")
    return int(match[1]) if match[1] else int(Fraction(match[2]) * 1000)


_PACES = ", ".join(f"{name} {preset.main or '-'}/{preset.iterations}" for name, preset in PRESETS.items())


def _parse_shares(value: str) -> tuple[float, ...]:
    """Numbers separated by commas."""
    number = r"([0-9]{1,9}(\.[0-9]{1,9})?|\.[0-9]{1,9})"
    if not re.fullmatch(rf"{number}(,{number})*", value):
        raise click.BadParameter(f"got {value!r}, allowed numbers such as 1,1,2.5")
    return tuple(map(float, value.split(",")))


def _parse_sizes(value: str) -> tuple[tuple[int, int], ...]:
    """Sizes separated by commas."""
    return tuple(map(parse_size, value.split(",")))


@pgs_command(NAME)
@click.argument("names", nargs=-1, metavar="INPUT OUTPUT")
@click.option("-i", "--input", metavar="INPUT", help="Instead of the first argument.")
@click.option("-o", "--output", metavar="OUTPUT", help="Instead of the last argument.")
@pixel_options
@click.option("--seek", "--start", type=int, default=0, metavar="N", help="Frames to skip.")
@click.option("-f", "--frames", "--limit", type=int, metavar="N", help="Frames to encode.  [default: all]")
@click.option("-L", "--layers", type=int, metavar="N", help=f"Layers.  [default: {EncodeConfig.layers}]")
@click.option(
    "--layer-split",
    type=_parse_shares,
    metavar="A,B,..",
    help="Shares of the bytes (baseline: of the splats).  [default: 5,4,3.2,..; baseline: equal]",
)
@click.option("--scalability", type=click.Choice(SCALABILITIES), help="What grows.  [default: quality]")
@click.option("--layer-res", type=_parse_sizes, metavar="WxH,..", help="Of the levels.  [default: by their splats]")
@click.option(
    "--quality", type=float, metavar="Q", help=f"0..100, of profile main.  [default: {DEFAULT_QUALITY:g}, without -n]"
)
@click.option(
    "-n",
    "--splats",
    type=_parse_count,
    metavar="N",
    help="Per frame, in place of a quality.  [default of baseline: 12k per 1080p, by area]",
)
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    metavar="NAME",
    help=f"Speed: iterations of an I-frame in profile main/baseline: {_PACES}.  [default: {EncodeConfig.preset}]",
)
@click.option("--iterations", type=int, metavar="N", help="Of an I-frame, all layers together; beats the preset.")
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    help="Coding tools.  [default: main; baseline with what only the paper has]",
)
@click.option("--strategy", type=click.Choice(STRATEGIES), help=f"Of training.  [default: {EncodeConfig.strategy}]")
@click.option(
    "--level-schedule", type=click.Choice(LEVEL_SCHEDULES), help="Which levels an iteration of joint training sees."
)
@click.option(
    "--level-weights",
    type=_parse_shares,
    metavar="A,B,..",
    help="Emphasis of the levels in joint training.  [default: 1,1,..]",
)
@click.option("-g", "--keyint", type=int, metavar="N", help="Most frames of a GOP.  [default: a second, 16..64]")
@click.option("--min-keyint", type=int, metavar="N", help="Fewest frames between scene cuts.")
@click.option("--scenecut", type=float, metavar="X", help=f"0 never..100 eager.  [default: {EncodeConfig.scenecut:g}]")
@click.option("--no-scenecut", is_flag=True, help="No I-frames at scene cuts.")
@click.option(
    "--progression", type=click.Choice(PROGRESSIONS), help="Order of segments.  [default: gop; stills: layer]"
)
@click.option("--device", metavar="auto|cpu|cuda[:N]", help="Where to compute.  [default: auto]")
@click.option(
    "-j",
    "--workers",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Processes, each with a GOP at a time.  [default: one per GPU]",
)
@click.option("--seed", type=int, metavar="N", help=f"Of all randomness.  [default: {EncodeConfig.seed}]")
@click.option("--json", "json_name", metavar="FILE|-", help="Write a report.")
@click.option("-y", "--overwrite", is_flag=True, help="Replace existing files.")
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors.")
@click.option("-v", "--verbose", is_flag=True, help="Say more.")
@click.option("--progress", type=click.Choice(PROGRESS_MODES), help="On stderr.  [default: auto]")
def encode(
    *,
    names: tuple[str, ...],
    input: str | None,
    output: str | None,
    pixels: PixelOptions,
    seek: int,
    frames: int | None,
    no_scenecut: bool,
    workers: int | None,
    json_name: str | None,
    overwrite: bool,
    quiet: bool,
    verbose: bool,
    progress: str | None,
    **settings: Any,  # the options that `EncodeConfig` has under the same names; None where not given
) -> None:
    """Encode INPUT (a file, a folder of images, a pattern such as f_%03d.png, - for standard input) as OUTPUT.pgs.

    An OUTPUT of - streams to standard output.  Strategy monolithic writes a stream of one layer for every level,
    OUTPUT.1.pgs and so on, and OUTPUT.pgs as the last of them.
    """
    source_name, target = _two_names(names, input, output)
    given = {name: value for name, value in settings.items() if value is not None}
    if no_scenecut:
        for name in {"scenecut", "min_keyint"} & set(given):
            raise ConfigError(f"--{name.replace('_', '-')} does not go with --no-scenecut")
        given["scenecut"] = 0.0
    config = EncodeConfig(**given)
    targets = _targets(target, config)
    others = {f"output of level {level}": name for level, name in enumerate(targets, start=1) if name != target}
    refuse_collisions(source_name, output=target, json=json_name, **others)
    if target == "-" and sys.stdout.isatty():
        raise ConfigError("refusing to write a stream to a terminal; use a file or a pipe")

    with ExitStack() as stack:
        console = stack.enter_context(Console(NAME, progress=progress, quiet=quiet, verbose=verbose))
        from pgsvc_codec.media.output import AtomicFile

        sinks = [stack.enter_context(AtomicFile(name, overwrite=overwrite)) for name in targets]
        copy = None if target in targets else stack.enter_context(AtomicFile(target, overwrite=overwrite))
        report_sink = stack.enter_context(AtomicFile(json_name, overwrite=overwrite)) if json_name else None
        source = stack.enter_context(pixels.open(source_name, seek=seek, frames=frames))
        _refuse_for_still(source, {**given, "fps": pixels.fps})
        _introduce(console, source, config)
        choice = console.choose_device(config.device)
        from pgsvc_codec import encoder

        def follow(state: Progress) -> None:
            _warn_of(source, console)
            console.progress(
                state.frames,
                state.frame_count,
                state.seconds,
                rate=source.info.rate,
                size_bytes=state.size_bytes,
                psnr=state.psnr,
            )

        stack.enter_context(console.note_compilation())
        count = 1 if source.still else workers or max(len(choice.gpus), 1)
        executor = None
        if count > 1:
            survive_broken_pipes()
            executor = stack.enter_context(local_workers(count, choice.gpus))
        streams = [cast(BinaryIO, sink) for sink in sinks]
        # Segments wait beside the output: a system's temporary files may lie in memory.
        how: dict[str, Any] = {
            "progress": follow,
            "spool_dir": sinks[0].folder,
            "executor": executor,
            "gops_in_flight": count + 1,
        }
        if len(sinks) > 1 or copy:
            reports = encoder.encode_monolithic(source, streams, config, **how)
        else:
            reports = [encoder.encode(source, streams[0], config, **how, seekable=sinks[0].seekable())]
        _warn_of(source, console)
        for sink in sinks:
            sink.commit()
        if copy:
            copy.write(Path(targets[-1]).read_bytes())
            copy.commit()
        document = _document(targets, source, reports, count, console.warnings)
        console.note(_summary(document, reports[-1]))
        if report_sink is not None:
            report_sink.write(json.dumps(document, indent=2).encode() + b"\n")


def _two_names(names: tuple[str, ...], input: str | None, output: str | None) -> tuple[str, str]:
    """Input and output, from options and the arguments that are left."""
    wanted = [role for role, option in (("INPUT", input), ("OUTPUT", output)) if option is None]
    if len(names) < len(wanted):
        raise click.UsageError(f"{wanted[len(names)]} is missing")
    if len(names) > len(wanted):
        raise click.UsageError(f"got one argument too many: {names[len(wanted)]}")
    rest = dict(zip(wanted, names, strict=True))
    return input or rest["INPUT"], output or rest["OUTPUT"]


def _targets(target: str, config: EncodeConfig) -> list[str]:
    """The files that streams go to: one, or one per level."""
    if config.strategy != "monolithic" or config.layers == 1:
        return [target]
    if target == "-":
        raise ConfigError("-: strategy monolithic writes a file per level, allowed the name of a file")
    path = Path(target)
    return [str(path.with_suffix(f".{level}{path.suffix}")) for level in range(1, config.layers + 1)]


def _refuse_for_still(source: Source, given: dict[str, Any]) -> None:
    """Raise where an option is given that one image has no use for."""
    for name in _SEQUENCE_OPTIONS:
        if source.still and given.get(name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')} does not apply to a single image")


def _warn_of(source: Source, console: Console) -> None:
    for warning in source.warnings:
        console.warn(warning)


def _introduce(console: Console, source: Source, config: EncodeConfig) -> None:
    """Say what is encoded, what had to be assumed, and the numbers that the options mean."""
    _warn_of(source, console)
    info = source.info
    plan = config.resolve(info.width, info.height, info.rate, still=source.still)
    count = "" if source.frame_count is None else f", {source.frame_count} frames" * (source.frame_count > 1)
    console.note(f"input    {_look(info)}{count}{'' if source.still else f', {float(info.rate):.6g} fps'}")
    if source.assumed:
        console.note(f"assumed  {', '.join(source.assumed)}")
    amount = f"{plan.splats} splats" if plan.quality is None else f"quality {plan.quality:g}"
    fit = f"profile {plan.profile}, {amount} in {config.layers} layers, {plan.iterations_intra} iterations"
    if plan.scalability == "resolution":
        fit += f", levels of {' '.join(f'{across}x{down}' for across, down in plan.level_sizes)}"
    if not source.still:
        fit += f" ({plan.iterations_inter} for P-frames), GOPs of {plan.keyint} frames at most"
    preset = "" if config.iterations and plan.method != "paper" else f"preset {config.preset}, "
    console.note(f"fit      {preset}{fit}")
    console.detail(
        f"plan     shares of the layers {','.join(f'{share:.2f}' for share in plan.layer_shares)}, strategy "
        f"{plan.strategy}, levels "
        f"trained: {plan.level_schedule}, scene cut {plan.scenecut:g} with at least {plan.min_keyint} frames between, "
        f"{plan.progression} order, seed {plan.seed}"
    )


def _look(info: VideoInfo) -> str:
    matrix = "" if info.chroma in (Chroma.GRAY, Chroma.RGB) else f", {info.matrix.name.lower()}"
    return f"{info.width}x{info.height} {info.pix_fmt}{matrix}, {info.range.value} range"


def _document(
    targets: list[str], source: Source, reports: list[EncodeReport], workers: int, warnings: list[str]
) -> dict[str, Any]:
    """The report of an encode; byte counts are those of the files, where there are any to be read again."""
    described = [describe_file(target) if Path(target).is_file() else None for target in targets]
    levels = [
        (report, level, read["levels"][level]["bytes"] if read else report.levels[level].size_bytes)
        for read, report in zip(described, reports, strict=True)
        for level in range(len(report.levels))
    ]
    info, last = source.info, reports[-1]
    return {
        "tool": NAME,
        "version": __version__,
        "command": shlex.join([NAME, *sys.argv[1:]]),
        "input": {**video_document(info, last.frames), "assumed": source.assumed},
        "levels": [
            {"layers": number, **_level(info, report, report.levels[level], size_bytes)}
            for number, (report, level, size_bytes) in enumerate(levels, start=1)
        ],
        "gops": described[-1]["gops"] if described[-1] else None,
        "time": {
            "wall_s": round(last.seconds, 3),
            "per_frame_s": round(last.seconds / last.frames, 3),
            "device": last.device,
            "workers": workers,
        },
        "warnings": warnings,
    }


def _level(info: VideoInfo, report: EncodeReport, level: LevelReport, size_bytes: int) -> dict[str, Any]:
    """One level of the report; its PSNR is also under the name that says over which planes it is taken."""
    names = {Chroma.GRAY: "y", Chroma.RGB: "rgb"}.get(info.chroma, "yuv")
    planes = zip(names, level.psnr_planes, strict=True)
    return {
        "bytes": size_bytes,
        "kbps": round(size_bytes * 8 / 1000 * float(info.rate) / report.frames, 3),
        "bpp": round(size_bytes * 8 / (level.width * level.height * report.frames), 6),
        "splats": round(level.splats / report.frames),
        "width": level.width,
        "height": level.height,
        "psnr": finite(level.psnr),
        f"psnr_{names}": finite(level.psnr),
        **{f"psnr_{name}": finite(value) for name, value in planes},
    }


def _summary(document: dict[str, Any], report: EncodeReport) -> str:
    """A table of the levels and a line with the time."""
    rows = [["level", "size", "splats", "bytes", "kb/s", "bpp", "PSNR dB"]]
    for level in document["levels"]:
        psnr = "-" if level["psnr"] is None else f"{level['psnr']:.2f}"
        numbers = [
            str(level["layers"]),
            f"{level['width']}x{level['height']}",
            str(level["splats"]),
            str(level["bytes"]),
        ]
        rows.append([*numbers, f"{level['kbps']:.1f}", f"{level['bpp']:.4f}", psnr])
    plural = "" if report.frames == 1 else "s"
    size = format_size(document["levels"][-1]["bytes"])
    return (
        f"{format_table(rows)}\nencoded {report.frames} frame{plural} in {report.seconds:.2f} s "
        f"({report.frames / report.seconds:.2f} fps) on {report.device}, {size}"
    )


def main() -> None:
    """The console script."""
    run(encode)


if __name__ == "__main__":
    main()
