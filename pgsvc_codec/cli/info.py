"""pgsvc-info: what a stream holds, without decoding it."""

from __future__ import annotations

import json
from typing import Any

import click

from pgsvc_codec import __version__
from pgsvc_codec.cli.common import CommandError, ExitCode, format_size, format_table, open_input, pgs_command, run, warn
from pgsvc_codec.describe import describe_file
from pgsvc_codec.errors import ConfigError

NAME = "pgsvc-info"


@pgs_command(NAME)
@click.argument("file", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("-l", "--layers", type=click.IntRange(min=1), metavar="K", help="Describe the first K layers only.")
@click.option("--ranges", is_flag=True, help="Byte range of every segment.")
@click.option("--truncation-points", is_flag=True, help="The sizes for head -c at which each level is complete.")
@click.option("--verify", is_flag=True, help="Check every segment; exit 5 if one fails.")
@click.option("--doctor", is_flag=True, help="Instead of FILE: what this machine can run and, where not, why.")
def info(
    *,
    file: str | None,
    as_json: bool,
    layers: int | None,
    ranges: bool,
    truncation_points: bool,
    verify: bool,
    doctor: bool,
) -> None:
    """Say what FILE (a .pgs stream, - for standard input) holds."""
    if doctor:
        if file is not None or layers is not None or ranges or truncation_points or verify:
            raise ConfigError("--doctor is about the machine, allowed beside it --json alone")
        _examine_machine(as_json=as_json)
        return
    if file is None:
        raise click.UsageError("FILE is missing")
    with open_input(file) as source:
        described = describe_file(source, verify=verify)
    num_layers = described["num_layers"]
    if layers is not None and layers > num_layers:
        raise ConfigError(f"--layers: got {layers}, allowed 1..{num_layers}")
    described["levels"] = described["levels"][:layers]
    described["truncation_points"] = described["truncation_points"][:layers]
    for gop in described["gops"]:
        gop["layers"] = gop["layers"][:layers]
    if as_json:
        click.echo(json.dumps({"tool": NAME, "version": __version__, **described}, indent=2))
    else:
        blocks = [_summary(file, described), _levels(described)]
        if ranges:
            blocks.append(_ranges(described))
        if truncation_points:
            blocks.append(_truncation_points(described))
        click.echo("\n\n".join(blocks))
    for warning in described["warnings"]:
        warn(NAME, warning)
    if verify:
        _judge(described["verify"])


def _examine_machine(*, as_json: bool) -> None:
    from pgsvc_codec.cli.doctor import describe, examine

    document = examine(lambda line: warn(NAME, line))
    click.echo(
        json.dumps({"tool": NAME, "version": __version__, **document}, indent=2) if as_json else describe(document)
    )


def _judge(verified: dict[str, Any]) -> None:
    problems = verified["problems"]
    for problem in problems:
        warn(NAME, problem)
    if problems:
        raise CommandError(ExitCode.MISMATCH, f"{len(problems)} of {verified['segments']} segments fail their check")


def _summary(name: str, described: dict[str, Any]) -> str:
    file, video = described["file"], described["input"]
    cuts = sum(gop["scene_cut"] for gop in described["gops"])
    of_total = f" of {file['total_bytes']}" if file["total_bytes"] not in (None, file["bytes"]) else ""
    plural = "" if video["frames"] == 1 else "s"
    lines = [
        f"{name}: PGS version {file['format_version']}, profile {described['profile']}",
        f"  video    {video['w']}x{video['h']}, {video['frames']} frame{plural}, {video['fps']:.6g} fps, "
        f"{video['pix_fmt']}, {video['matrix']}, {video['range']} range",
        f"  layers   {described['num_layers']}, {described['scalability']} scalability",
        f"  GOPs     {len(described['gops'])} in {file['progression']} order, {cuts} scene cuts",
        f"  index    {file['index']}",
        f"  file     {file['bytes']}{of_total} bytes ({format_size(file['bytes'])})",
    ]
    if described["encoder"]:
        lines.append(f"  encoder  {described['encoder']}")
    return "\n".join(lines)


def _known(value: float | None, form: str = "") -> str:
    return "-" if value is None else format(value, form)


def _levels(described: dict[str, Any]) -> str:
    rows = [["level", "size", "splats", "bytes", "kb/s", "bpp", "PSNR dB"]]
    for level in described["levels"]:
        rows.append(
            [
                str(level["layers"]),
                f"{level['width']}x{level['height']}",
                _known(level["splats"]),
                str(level["bytes"]),
                f"{level['kbps']:.1f}",
                f"{level['bpp']:.4f}",
                _known(level["psnr"], ".2f"),
            ]
        )
    return format_table(rows)


def _ranges(described: dict[str, Any]) -> str:
    rows = [["GOP", "frames", "layer", "first byte", "last byte", "bytes", "splats", "PSNR dB"]]
    for gop in described["gops"]:
        frames = f"{gop['first_frame']}-{gop['first_frame'] + gop['frames'] - 1}"
        for layer, entry in enumerate(gop["layers"]):
            if entry is not None:
                place = [entry["offset"], entry["offset"] + entry["bytes"] - 1, entry["bytes"]]
                row = [str(gop["gop"]), frames, str(layer), *map(str, place)]
                rows.append([*row, _known(entry["splats"]), _known(entry["psnr"], ".2f")])
    return format_table(rows)


def _truncation_points(described: dict[str, Any]) -> str:
    rows = [["level", "complete from"]]
    rows += [[str(point["layers"]), f"head -c {point['bytes']}"] for point in described["truncation_points"]]
    return format_table(rows)


def main() -> None:
    """The console script."""
    run(info)


if __name__ == "__main__":
    main()
