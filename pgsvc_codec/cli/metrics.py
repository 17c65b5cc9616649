"""pgsvc-metrics: how near each level of a stream, or other pixels, are to their source."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, cast

import click

from pgsvc_codec import __version__
from pgsvc_codec.cli.common import (
    PROGRESS_MODES,
    Console,
    finite,
    format_table,
    open_input,
    pgs_command,
    run,
    video_document,
)
from pgsvc_codec.cli.pixels import PixelOptions, pixel_options
from pgsvc_codec.errors import BackendError, ConfigError, InputError
from pgsvc_codec.format.constants import MAGIC
from pgsvc_codec.video import Chroma, VideoInfo

if TYPE_CHECKING:
    from pgsvc_codec.decoder import Decoder
    from pgsvc_codec.media.source import Source
    from pgsvc_codec.picture import Frame

NAME = "pgsvc-metrics"

METRICS = ("psnr", "ssim", "ms-ssim", "vmaf")


def _parse_layers(value: str) -> int | None:
    """A number of layers; None for every one."""
    if value == "all":
        return None
    if not re.fullmatch("[0-9]{1,4}", value):
        raise click.BadParameter(f"got {value!r}, allowed all or a number of layers")
    return int(value)


def _parse_metrics(value: str) -> tuple[str, ...]:
    """Names of metrics, separated by commas, in the order of `METRICS`."""
    names = value.split(",")
    for name in names:
        if name not in METRICS:
            raise click.BadParameter(f"got {name!r}, allowed {', '.join(METRICS)}")
    return tuple(name for name in METRICS if name in names)


@pgs_command(NAME)
@click.argument("ref")
@click.argument("dist")
@click.option(
    "-l", "--layers", type=_parse_layers, default="all", metavar="all|K", help="Levels of a stream.  [default: all]"
)
@click.option(
    "--metrics", type=_parse_metrics, metavar="A,B,..", help=f"[default: {','.join(METRICS)}, as far as installed]"
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, with every frame.")
@pixel_options
@click.option("--seek", type=int, default=0, metavar="N", help="Frames of REF to skip.")
@click.option("-f", "--frames", "--limit", type=int, metavar="N", help="Frames to compare.  [default: all]")
@click.option("--device", metavar="auto|cpu|cuda[:N]", help="Where to decode.  [default: auto]")
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors on stderr.")
@click.option("-v", "--verbose", is_flag=True, help="Say more.")
@click.option("--progress", type=click.Choice(PROGRESS_MODES), help="On stderr.  [default: auto]")
def metrics(
    *,
    ref: str,
    dist: str,
    pixels: PixelOptions,
    layers: int | None,
    metrics: tuple[str, ...] | None,
    as_json: bool,
    seek: int,
    frames: int | None,
    device: str | None,
    quiet: bool,
    verbose: bool,
    progress: str | None,
) -> None:
    """Compare DIST (a .pgs stream, or whatever pgsvc-encode takes) with REF (whatever pgsvc-encode takes).

    The first frame of DIST is compared with the first of REF that is not skipped, and so on.  Options that describe
    pixels are about REF; DIST must be alike, and raw video is read as such.  A level of lower size than the stream is
    compared with REF scaled down to it.  SSIM and VMAF are those of luma, SSIM of RGB where REF is RGB.
    """
    if ref == dist == "-":
        raise ConfigError("got standard input as REF and as DIST, allowed once")
    with ExitStack() as stack:
        console = stack.enter_context(Console(NAME, progress=progress, quiet=quiet, verbose=verbose))
        reference = stack.enter_context(pixels.open(ref, seek=seek, frames=frames))
        distorted = _open_distorted(dist, reference, layers, frames, device, stack)
        _check_alike(reference.info, distorted, console)
        if reference.assumed:
            console.detail(f"assumed  {', '.join(reference.assumed)}")
        wanted = _available(metrics, console)
        if distorted.levels[0].layers is not None:  # a stream is decoded
            console.choose_device(device or "auto")
        levels = [_Measured(level, wanted, console, stack) for level in distorted.levels]
        stack.enter_context(console.note_compilation())
        started = time.monotonic()
        count = _compare(reference, distorted, levels, console)
        document = {
            "tool": NAME,
            "version": __version__,
            "command": shlex.join([NAME, *sys.argv[1:]]),
            "reference": {"file": ref, **video_document(reference.info, count)},
            "distorted": {"file": dist, **video_document(distorted.info, count)},
            "frames": count,
            "ssim_planes": "rgb" if reference.info.chroma is Chroma.RGB else "y",
            "levels": [level.document() for level in levels],
            "warnings": console.warnings,
        }
        plural = "" if count == 1 else "s"
        console.note(f"compared {count} frame{plural} in {time.monotonic() - started:.2f} s")
    click.echo(json.dumps(document, indent=2) if as_json else _table(document))  # below any progress line


@dataclass
class _Level:
    """The frames of one level of a stream, or those of a file of pixels."""

    layers: int | None  # None for pixels
    info: VideoInfo
    frames: Iterator[tuple[int, Frame]]  # numbered from 0, rising; some may be missing


@dataclass
class _Distorted:
    """What is compared with the reference."""

    info: VideoInfo  # of the full size
    levels: list[_Level]
    warnings: Callable[[], Sequence[str]]  # so far


def _open_distorted(
    name: str, reference: Source, layers: int | None, limit: int | None, device: str | None, stack: ExitStack
) -> _Distorted:
    if _is_stream(name):
        from pgsvc_codec.decoder import Decoder

        decoder = stack.enter_context(Decoder(stack.enter_context(open_input(name)), device=device or "auto"))
        wanted = range(1, decoder.num_layers + 1) if layers is None else [layers]
        info = decoder.output_info(None, reference.info.pix_fmt, reference.info.range)
        levels = [_decoded_level(decoder, number, info, limit) for number in wanted]
        return _Distorted(info, levels, lambda: decoder.warnings)
    for option, value in (("--layers", layers), ("--device", device)):
        if value is not None:
            raise ConfigError(f"{option} does not apply to {name}, which is no .pgs stream")
    from pgsvc_codec.media.source import RAW_EXTENSIONS, open_source

    source = stack.enter_context(
        open_source(name, frames=limit, **_as_raw(reference.info))
        if Path(name).suffix.lower() in RAW_EXTENSIONS
        else open_source(name, frames=limit)
    )
    level = _Level(None, source.info, enumerate(source))
    return _Distorted(source.info, [level], lambda: source.warnings)


def _is_stream(name: str) -> bool:
    """Whether a file or standard input begins like a .pgs stream, of which nothing is taken."""
    if name != "-" and not Path(name).is_file():
        return False
    with open_input(name) as file:
        head = cast(io.BufferedReader, file).peek(len(MAGIC))[: len(MAGIC)]
    return head != b"" and MAGIC.startswith(head)


def _as_raw(info: VideoInfo) -> dict[str, Any]:
    """Arguments of `open_source` that describe raw video."""
    matrix = None if info.chroma is Chroma.RGB else info.matrix
    return {
        "size": (info.width, info.height),
        "pix_fmt": info.pix_fmt,
        "fps": info.rate,
        "range": info.range,
        "matrix": matrix,
    }


def _decoded_level(decoder: Decoder, number: int, info: VideoInfo, limit: int | None) -> _Level:
    width, height = size = decoder.level_size(number)
    frames = decoder.frames(layers=number, size=size, pix_fmt=info.pix_fmt, range=info.range, stop=limit)
    numbered = ((frame.number, frame.planes) for frame in frames)
    return _Level(number, replace(info, width=width, height=height), numbered)


def _check_alike(reference: VideoInfo, distorted: _Distorted, console: Console) -> None:
    """Refuse what cannot be compared, and say what had better not be."""
    info = distorted.info
    for what, wanted, got in (
        ("size", f"{reference.width}x{reference.height}", f"{info.width}x{info.height}"),
        ("pixel format", reference.pix_fmt, info.pix_fmt),
    ):
        if wanted != got:
            raise InputError(f"DIST: {what}: got {got}, allowed {wanted} as REF has")
    for what, expected, found in (
        ("range", reference.range.value, info.range.value),
        ("matrix", reference.matrix.name.lower(), info.matrix.name.lower()),
    ):
        if expected != found and not (what == "matrix" and info.chroma is Chroma.GRAY):
            console.warn(f"{what}: REF is {expected} and DIST {found}; code values are compared as they are")


def _available(asked: tuple[str, ...] | None, console: Console) -> tuple[str, ...]:
    """The metrics that are asked for; by default all that have what they need, with a warning for the others.

    Raises:
        BackendError: what is asked for by name is not installed.
    """
    if asked is not None:
        return asked
    from pgsvc_codec.metrics.structural import StructuralMeter
    from pgsvc_codec.metrics.vmaf import find_ffmpeg

    available = ["psnr"]
    try:
        StructuralMeter(255, is_rgb=False, is_multiscale=False)
        available += ["ssim", "ms-ssim"]
    except BackendError as error:
        console.warn(str(error))
    try:
        find_ffmpeg()
        available.append("vmaf")
    except BackendError as error:
        console.warn(str(error))
    return tuple(available)


class _Measured:
    """A level, and the meters that look at its frames; a metric that its size does not allow is None."""

    def __init__(self, level: _Level, wanted: Sequence[str], console: Console, stack: ExitStack) -> None:
        from pgsvc_codec.metrics.psnr import PsnrMeter
        from pgsvc_codec.metrics.structural import StructuralMeter, smallest_side
        from pgsvc_codec.metrics.vmaf import MIN_SIDE, VmafMeter

        info = level.info
        is_rgb = info.chroma is Chroma.RGB

        def allows(name: str, side: int) -> bool:
            if min(info.width, info.height) >= side:
                return True
            size = f"{info.width}x{info.height}"
            console.warn(f"{name}: got {size}, allowed sides of {side} and more; left out")
            return False

        self.level = level
        self.frames: list[int] = []  # the numbers of those that were compared
        self._wanted = wanted
        self._scores: dict[str, list[float]] = {}  # by key of the document, one per frame
        self._native = PsnrMeter(info.max_code, is_rgb=is_rgb) if "psnr" in wanted else None
        self._rgb = (
            PsnrMeter(255, is_rgb=True) if "psnr" in wanted and info.chroma not in (Chroma.GRAY, Chroma.RGB) else None
        )
        self._structural = {
            name: StructuralMeter(info.max_code, is_rgb=is_rgb, is_multiscale=is_multiscale)
            for name, is_multiscale in (("ssim", False), ("ms-ssim", True))
            if name in wanted and allows(name.upper(), smallest_side(is_multiscale=is_multiscale))
        }
        self._vmaf = (
            stack.enter_context(VmafMeter(info.max_code)) if "vmaf" in wanted and allows("VMAF", MIN_SIDE) else None
        )

    def add(self, number: int, reference: Frame, distorted: Frame) -> None:
        """Take in the frame of a number."""
        from pgsvc_codec.picture import luma_of

        info = self.level.info
        self.frames.append(number)
        if self._native is not None:
            self._note("psnr", self._native.add(reference, distorted))
        if self._rgb is not None:
            self._note("psnr_rgb", self._rgb.add(_rgb(reference, info), _rgb(distorted, info)))
        for name, meter in self._structural.items():
            self._note(_key(name), meter.add(reference, distorted))
        if self._vmaf is not None:
            self._vmaf.add(luma_of(reference, info), luma_of(distorted, info))

    def _note(self, key: str, score: float) -> None:
        self._scores.setdefault(key, []).append(score)

    def document(self) -> dict[str, Any]:
        """What was measured; to be asked for once, after the last frame."""
        info = self.level.info
        found: dict[str, float | None] = {}
        if self._native is not None:
            names = {Chroma.GRAY: "y", Chroma.RGB: "rgb"}.get(info.chroma, "yuv")
            found["psnr"] = found[f"psnr_{names}"] = self._native.combined
            found |= {f"psnr_{name}": value for name, value in zip(names, self._native.planes, strict=True)}
        if self._rgb is not None:
            found["psnr_rgb"] = self._rgb.combined
        if self._vmaf is not None:
            self._scores["vmaf"] = self._vmaf.finish()
        for name in self._wanted:
            scores = self._scores.get(_key(name))
            found.setdefault(_key(name), None if scores is None else fmean(scores))
        return {
            "layers": self.level.layers,
            "width": info.width,
            "height": info.height,
            **{key: None if value is None else finite(value, 6) for key, value in found.items()},
            "per_frame": {
                "frame": self.frames,
                **{key: [finite(score, 6) for score in scores] for key, scores in self._scores.items()},
            },
        }


def _compare(reference: Source, distorted: _Distorted, measured: Sequence[_Measured], console: Console) -> int:
    """Feed all meters, frame by frame; returns the number of frames.

    Raises:
        InputError: there is no frame that both have.
    """
    started = time.monotonic()
    waiting = [next(one.level.frames, None) for one in measured]
    count = 0
    for number, frame in enumerate(reference):
        if not any(waiting):
            console.warn(f"frames: DIST ends after {number}, REF goes on")
            break
        for index, one in enumerate(measured):
            found = waiting[index]
            if found is not None and found[0] == number:
                one.add(number, _scaled(frame, reference.info, one.level.info), found[1])
                waiting[index] = next(one.level.frames, None)
        count = number + 1
        _warn_of(reference, distorted, console)
        console.progress(count, reference.frame_count, time.monotonic() - started)
    else:
        if any(waiting):
            console.warn(f"frames: REF ends after {count}, DIST goes on")
    _warn_of(reference, distorted, console)
    if not all(one.frames for one in measured):
        raise InputError("REF and DIST have no frame in common")
    return len(measured[0].frames)


def _warn_of(reference: Source, distorted: _Distorted, console: Console) -> None:
    for role, warnings in (("REF", reference.warnings), ("DIST", distorted.warnings())):
        for warning in warnings:
            console.warn(f"{role}: {warning}")


def _scaled(frame: Frame, info: VideoInfo, target: VideoInfo) -> Frame:
    """A frame at the size of a level: averages over the samples of the level, rounded."""
    from pgsvc_codec.picture import from_unit, plane_grids, resample, to_unit

    if (info.width, info.height) == (target.width, target.height):
        return frame
    grids = plane_grids(info), plane_grids(info, target.width, target.height)
    return from_unit(resample(to_unit(frame, info), *grids), target)


def _rgb(frame: Frame, info: VideoInfo) -> Frame:
    from pgsvc_codec.picture import to_rgb

    return tuple(to_rgb(frame, info).transpose(2, 0, 1))


def _key(metric: str) -> str:
    """Of a metric in documents."""
    return metric.replace("-", "_")


def _table(document: dict[str, Any]) -> str:
    """A row for each level, a column for each figure."""
    keys = [key for key in document["levels"][0] if key.startswith(("psnr_", "ssim", "ms_ssim", "vmaf"))]
    of_planes = {key: f"{key}_{document['ssim_planes']}" for key in ("ssim", "ms_ssim")}
    rows = [["level", "size", *(of_planes.get(key, key).upper().replace("_", "-") for key in keys)]]
    for level in document["levels"]:
        number = "-" if level["layers"] is None else str(level["layers"])
        figures = ("-" if level[key] is None else f"{level[key]:.{4 if key in of_planes else 2}f}" for key in keys)
        rows.append([number, f"{level['width']}x{level['height']}", *figures])
    return format_table(rows)


def main() -> None:
    """The console script."""
    run(metrics)


if __name__ == "__main__":
    main()
