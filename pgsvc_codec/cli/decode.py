"""pgsvc-decode: a .pgs stream in, frames of any level out."""

from __future__ import annotations

import gc
import hashlib
import json
import math
import re
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from pgsvc_codec import __version__
from pgsvc_codec.cli.common import (
    PROGRESS_MODES,
    CommandError,
    Console,
    ExitCode,
    open_input,
    parse_size,
    pgs_command,
    refuse_collisions,
    run,
    video_document,
)
from pgsvc_codec.errors import ConfigError, TruncatedError
from pgsvc_codec.video import PIX_FMTS, VideoInfo

if TYPE_CHECKING:
    from pgsvc_codec.decoder import Decoder
    from pgsvc_codec.media.sinks import Sink

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

NAME = "pgsvc-decode"

FORMATS = ("auto", "y4m", "yuv", "png", "ppm", "npy", "md5", "framemd5", "null")
_TEXT_FORMATS = ("md5", "framemd5", "null")  # what a terminal may get
_PIPE_BYTES = 1 << 20  # what Linux lets everybody have; by default a frame goes in pieces of 64 KiB
_SIZE_WORDS = ("native", "full")
_FIELD = re.compile("%([lwh])")  # in output names; frame numbers are filled in by the sinks


def _parse_gops(value: str) -> tuple[int, int]:
    """GOPs A-B, both included, or one."""
    match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", value)
    if match is None or int(match[2] or match[1]) < int(match[1]):
        raise click.BadParameter(f"got {value!r}, allowed A-B with A <= B, counted from 0")
    return int(match[1]), int(match[2] or match[1])


def _parse_md5(value: str) -> str:
    """An MD5 in hexadecimal."""
    if not re.fullmatch(r"[0-9a-fA-F]{32}", value):
        raise click.BadParameter(f"got {value!r}, allowed 32 hexadecimal digits")
    return value.lower()


def _parse_output_size(value: str) -> tuple[int, int] | str:
    """A size, or a word for one."""
    return value if value in _SIZE_WORDS else parse_size(value, words=_SIZE_WORDS)


@dataclass(frozen=True)
class _Picture:
    """What the frames are to look like; None: as they were encoded."""

    size: tuple[int, int] | str | None
    scale: float | None
    pix_fmt: str | None


@dataclass
class _Output:
    """Where one level goes."""

    level: int
    name: str
    info: VideoInfo
    sink: Sink
    frames_from: Counter[int] = field(default_factory=Counter)  # number of layers → frames that had so many


@pgs_command(NAME)
@click.argument("input")
@click.option("-l", "--layers", type=int, metavar="K", help="How many; 1 = base only.  [default: all]")
@click.option("-o", "--output", metavar="FILE", help="May hold %n or %04d, %l, %w, %h.  [default: standard output]")
@click.option("-F", "--format", "format_", type=click.Choice(FORMATS), help="[default: by extension; y4m for pipes]")
@click.option("--y4m", is_flag=True, help="As -F y4m.")
@click.option("--rawvideo", is_flag=True, help="As -F yuv.")
@click.option("--md5", is_flag=True, help="As -F md5.")
@click.option("--pix-fmt", type=click.Choice(list(PIX_FMTS)), help="Of the output.  [default: as encoded]")
@click.option("--size", type=_parse_output_size, metavar="WxH|native|full", help="[default: native, that of the level]")
@click.option("--scale", type=float, metavar="X", help="Factor on the native size.")
@click.option("--seek", "--skip", type=int, metavar="N", help="Frames to skip.")
@click.option("-f", "--frames", "--limit", type=int, metavar="N", help="Frames to decode.  [default: all]")
@click.option("--gops", type=_parse_gops, metavar="A-B", help="GOPs to decode, from 0, both included.")
@click.option("--all-layers", is_flag=True, help="A file for each level; needs %l in its name.")
@click.option("--allow-partial/--no-allow-partial", default=None, help="Accept a cut stream.  [default: allow]")
@click.option("--strict", is_flag=True, help="Take any warning for an error.")
@click.option("--verify", is_flag=True, help="Check every segment first; exit 5 if one fails.")
@click.option("--verify-md5", type=_parse_md5, metavar="HEX", help="Exit 5 unless the raw frames have this MD5.")
@click.option("--device", default="auto", metavar="auto|cpu|cuda[:N]", help="Where to compute.  [default: auto]")
@click.option("--json", "json_name", metavar="FILE|-", help="Write a report.")
@click.option("-y", "--overwrite", is_flag=True, help="Replace existing files.")
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors.")
@click.option("-v", "--verbose", is_flag=True, help="Say more.")
@click.option("--progress", type=click.Choice(PROGRESS_MODES), help="On stderr.  [default: auto]")
def decode(
    *,
    input: str,
    layers: int | None,
    output: str | None,
    format_: str | None,
    y4m: bool,
    rawvideo: bool,
    md5: bool,
    pix_fmt: str | None,
    size: tuple[int, int] | str | None,
    scale: float | None,
    seek: int | None,
    frames: int | None,
    gops: tuple[int, int] | None,
    all_layers: bool,
    allow_partial: bool | None,
    strict: bool,
    verify: bool,
    verify_md5: str | None,
    device: str,
    json_name: str | None,
    overwrite: bool,
    quiet: bool,
    verbose: bool,
    progress: str | None,
) -> None:
    """Decode INPUT, a .pgs stream (- for standard input), from all or its first layers only.

    Without -o, y4m goes to standard output: pgsvc-decode -l 2 a.pgs | ffmpeg -i - a.mp4
    """
    _refuse_both("--size", size, "--scale", scale)
    _refuse_both("--gops", gops, "--seek", seek)
    _refuse_both("--gops", gops, "--frames", frames)
    _refuse_both("--strict", strict or None, "--allow-partial", allow_partial or None)
    _refuse_both("--all-layers", all_layers or None, "--verify-md5", verify_md5)
    format = _choose_format(format_, y4m, rawvideo, md5)
    if format is None and output is None and verify_md5 is not None:
        format = "null"
    target = output or "-"
    if all_layers and "%l" not in target:
        raise ConfigError(f"--all-layers: got output {target}, allowed a name with %l, for each level has a file")
    refuse_collisions(input, output=None if format == "null" else target, json=json_name)
    if target == "-" and format not in _TEXT_FORMATS and sys.stdout.isatty():
        raise ConfigError("refusing to write video to a terminal; use -o FILE or a pipe")

    from pgsvc_codec.decoder import Decoder
    from pgsvc_codec.media.output import AtomicFile
    from pgsvc_codec.media.sinks import open_sink

    with ExitStack() as stack:
        console = stack.enter_context(Console(NAME, progress=progress, quiet=quiet, verbose=verbose, is_strict=strict))
        report_file = stack.enter_context(AtomicFile(json_name, overwrite=overwrite)) if json_name else None
        decoder = stack.enter_context(Decoder(stack.enter_context(open_input(input)), device=device))
        level = _choose_level(decoder, layers, console)
        wanted = _choose_frames(decoder, seek, frames, gops, console)
        if verify:
            _verify(decoder)
        _judge_completeness(decoder, level, wanted, console, allow_partial=allow_partial is not False)
        console.detail(_look(decoder))

        stack.enter_context(console.note_compilation())
        started = time.monotonic()
        outputs = []
        with ExitStack() as sinks:  # all of them appear under their names, or none
            for number in range(1, level + 1) if all_layers else [level]:
                kind = format or _format_by_name(target, len(wanted))
                info = _choose_info(decoder, number, kind, _Picture(size, scale, pix_fmt))
                name = _fill_in(target, number, info)
                sink = sinks.enter_context(open_sink(kind, name, info, overwrite=overwrite, first=wanted.start))
                outputs.append(_Output(number, name, info, sink))
            used = console.choose_device(device).name
            digest = _write_frames(decoder, outputs, wanted, console, with_digest=verify_md5 is not None)
            if digest != verify_md5:
                raise CommandError(ExitCode.MISMATCH, f"the frames have MD5 {digest}, not {verify_md5}")
        seconds = time.monotonic() - started
        count = sum(written.frames_from.total() for written in outputs)
        plural = "" if count == 1 else "s"
        console.note(
            f"decoded {count} frame{plural} in {seconds:.2f} s ({count / max(seconds, 1e-9):.1f} fps) on {used}"
        )
        if report_file is not None:
            document = _document(decoder, outputs, seconds, used, console.warnings)
            report_file.write(json.dumps(document, indent=2).encode() + b"\n")


def _refuse_both(name: str, value: object, other_name: str, other_value: object) -> None:
    if value is not None and other_value is not None:
        raise ConfigError(f"{name} does not go with {other_name}")


def _choose_format(format: str | None, y4m: bool, rawvideo: bool, md5: bool) -> str | None:
    """The format that the options name; None where the output's name decides."""
    named = [name for name, flag in (("y4m", y4m), ("yuv", rawvideo), ("md5", md5)) if flag]
    named += [format] if format else []
    if len(named) > 1:
        raise ConfigError(f"output format: got {' and '.join(named)}, allowed one")
    return None if named in ([], ["auto"]) else named[0]


def _format_by_name(target: str, num_frames: int) -> str:
    from pgsvc_codec.media.sinks import format_for

    return format_for(target, still=num_frames == 1)


def _choose_level(decoder: Decoder, layers: int | None, console: Console) -> int:
    """How many layers to decode: what is asked for, as far as the stream has it."""
    available = decoder.num_layers
    if layers is None:
        return available
    if layers < 1:
        raise ConfigError(f"--layers: got {layers}, allowed 1..{available}")
    if layers > available:
        console.warn(f"--layers: got {layers}, the stream has {available}; all are decoded")
    return min(layers, available)


def _choose_frames(
    decoder: Decoder, seek: int | None, frames: int | None, gops: tuple[int, int] | None, console: Console
) -> range:
    """The frames to decode, half open."""
    available = decoder.frame_count
    if gops is not None:
        entries = decoder.reader.gops
        if gops[1] >= len(entries):
            raise ConfigError(f"--gops: got {gops[0]}-{gops[1]}, allowed 0-{len(entries) - 1}")
        last = entries[gops[1]]
        return range(entries[gops[0]].first_frame, last.first_frame + last.frames)
    start = seek or 0
    if not 0 <= start < available:
        raise ConfigError(f"--seek: got {start}, allowed 0..{available - 1}")
    if frames is None:
        return range(start, available)
    if frames < 1:
        raise ConfigError(f"--frames: got {frames}, allowed 1 and more")
    if start + frames > available:
        console.warn(f"--frames: got {frames}, the stream has {available - start} from frame {start} on")
    return range(start, min(start + frames, available))


def _verify(decoder: Decoder) -> None:
    """Check all segments of the stream, wanted or not."""
    problems = decoder.reader.problems()
    if problems:
        count = f"{len(problems)} of {decoder.reader.num_segments} segments"
        raise CommandError(ExitCode.MISMATCH, f"{count} fail their check, first: {problems[0]}")


def _judge_completeness(decoder: Decoder, level: int, wanted: range, console: Console, *, allow_partial: bool) -> None:
    """Say what the stream has lost; raise where that is not allowed, before any frame is written."""
    reader = decoder.reader
    report = reader.truncation_report()
    if not allow_partial:
        if reader.index_place == "missing":
            raise CommandError(ExitCode.TRUNCATED, str(report))
        for number, gop in enumerate(reader.gops):
            if gop.first_frame >= wanted.stop or gop.first_frame + gop.frames <= wanted.start:
                continue
            for layer in range(level):
                problem = reader.problem(number, layer)
                if isinstance(problem, TruncatedError):
                    raise CommandError(ExitCode.TRUNCATED, str(report or problem))
                if problem is not None:
                    raise problem
    if report is not None:
        console.warn(report, ExitCode.TRUNCATED)


def _choose_info(decoder: Decoder, level: int, format: str, picture: _Picture) -> VideoInfo:
    """What the frames of a level are to be: as asked for, or else the nearest that the format takes."""
    from pgsvc_codec.media.sinks import sink_info

    width, height = decoder.level_size(level)
    if isinstance(picture.size, tuple):
        width, height = picture.size
    elif picture.size == "full":
        width, height = decoder.info.width, decoder.info.height
    elif picture.scale is not None:
        if not 0 < picture.scale < math.inf:
            raise ConfigError(f"--scale: got {picture.scale}, allowed > 0")
        width, height = (max(1, round(side * picture.scale)) for side in (width, height))
    asked = decoder.output_info((width, height), picture.pix_fmt)
    accepted = sink_info(format, asked)
    return asked if picture.pix_fmt is not None and accepted.pix_fmt != picture.pix_fmt else accepted


def _fill_in(target: str, level: int, info: VideoInfo) -> str:
    """The output name of a level."""
    values = {"l": level, "w": info.width, "h": info.height}
    return _FIELD.sub(lambda match: str(values[match[1]]), target)


def _look(decoder: Decoder) -> str:
    info, reader = decoder.info, decoder.reader
    return (
        f"input    {info.width}x{info.height} {info.pix_fmt}, {decoder.frame_count} frames in {len(reader.gops)} GOPs, "
        f"{decoder.num_layers} layers, {float(info.rate):.6g} fps, index {reader.index_place}"
    )


def _write_frames(
    decoder: Decoder, outputs: Sequence[_Output], wanted: range, console: Console, *, with_digest: bool
) -> str | None:
    """Decode into all outputs, one after the other; returns the MD5 of the raw frames if that is wanted.

    Raises:
        TruncatedError: the stream holds none of the frames.
    """
    from pgsvc_codec.media.raw import frame_pieces

    digest = hashlib.md5(usedforsecurity=False) if with_digest else None
    started = time.monotonic()
    done = 0
    for output in outputs:
        info = output.info
        frames = decoder.frames(
            layers=output.level,
            size=(info.width, info.height),
            pix_fmt=info.pix_fmt,
            range=info.range,
            start=wanted.start,
            stop=wanted.stop,
        )
        for frame in frames:
            for warning in decoder.warnings:
                console.warn(warning, ExitCode.INPUT)
            output.sink.write(frame.planes)
            output.frames_from[frame.layers] += 1
            if digest is not None:
                for piece in frame_pieces(frame.planes, info):
                    digest.update(piece)
            done += 1
            console.progress(done, len(wanted) * len(outputs), time.monotonic() - started)
    for warning in decoder.warnings:
        console.warn(warning, ExitCode.INPUT)
    if not done:
        raise TruncatedError(f"frames {wanted.start}..{wanted.stop - 1}: none of them is in the stream")
    return None if digest is None else digest.hexdigest()


def _document(
    decoder: Decoder, outputs: Sequence[_Output], seconds: float, device: str, warnings: list[str]
) -> dict[str, Any]:
    """The report of a decode."""
    count = sum(output.frames_from.total() for output in outputs)
    return {
        "tool": NAME,
        "version": __version__,
        "command": shlex.join([NAME, *sys.argv[1:]]),
        "input": {**video_document(decoder.info, decoder.frame_count), "layers": decoder.num_layers},
        "outputs": [
            {
                "file": output.name,
                "layers": output.level,
                **video_document(output.info, output.frames_from.total()),
                "frames_from_layers": {str(layers): n for layers, n in sorted(output.frames_from.items())},
            }
            for output in outputs
        ],
        "time": {"wall_s": round(seconds, 3), "per_frame_s": round(seconds / count, 4), "device": device},
        "warnings": warnings,
    }


def _prepare_process() -> None:
    """Make the process fit for nothing but decoding, which starts faster for it and has more to pipe at a time."""
    # Numba looks for the matrix products of SciPy, which no kernel here uses, and loads half of it on the way.
    sys.modules.setdefault("scipy", None)  # type: ignore[arg-type]
    # Decoding leaves no reference cycles, and to look for them among all that is loaded takes a sixth of the start.
    gc.disable()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):  # no pipe, or more than this user may have
            fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def main() -> None:
    """The console script."""
    _prepare_process()
    run(decode)


if __name__ == "__main__":
    main()
