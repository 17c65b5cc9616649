"""What a stream holds, as a plain dictionary: geometry, levels and their rates, GOPs, where it may be cut.

Reads headers and index only (plus the segments, on request, to check them); loads neither NumPy nor torch.
"""

from __future__ import annotations

from contextlib import nullcontext
from math import fsum, log10
from os import PathLike
from typing import Any, BinaryIO

from pgsvc_codec.format.constants import (
    CHROMA_NAMES,
    DEPTH_SUFFIXES,
    MATRIX_NAMES,
    PROFILE_NAMES,
    RANGE_NAMES,
    SCALABILITY_NAMES,
    SITING_NAMES,
    VERSION,
)
from pgsvc_codec.format.container import GopEntry, StreamReader
from pgsvc_codec.format.header import VideoRecord


def describe_file(file: str | PathLike[str] | BinaryIO, *, verify: bool = False) -> dict[str, Any]:
    """Describe a stream, which may be cut or damaged behind its headers.

    Byte counts are those of the file.  ``levels[k - 1]`` is level k: `bytes` counts headers, index and all segments
    that it needs, `bpp` is per pixel of the level's own size, `splats` is the mean per frame, `psnr` the mean over
    frames as stored by the encoder; what the file does not tell is None.  ``truncation_points[k - 1]["bytes"]`` is the
    least ``head -c`` size at which level k is whole in every GOP.

    Args:
        file: path or binary file.
        verify: read and check every segment; what fails is listed in ``verify``.

    Raises:
        FormatError: not a stream, or cut before headers, index and one base segment are whole.
        OSError: the file cannot be read.
    """
    opened = open(file, "rb") if isinstance(file, str | PathLike) else nullcontext(file)  # noqa: SIM115
    with opened as source, StreamReader(source) as reader:
        report = reader.truncation_report()
        described = {
            "file": {
                "bytes": reader.size,
                "total_bytes": reader.total_length,
                "format_version": VERSION,
                "progression": "layer" if reader.file_header.layer_order else "gop",
                "index": reader.index_place,
            },
            "input": _describe_video(reader),
            "profile": PROFILE_NAMES[reader.header.profile.profile],
            "encoder": reader.header.encoder.text if reader.header.encoder else None,
            "scalability": SCALABILITY_NAMES[reader.header.layers.scalability],
            "num_layers": reader.header.num_layers,
            "levels": [_describe_level(reader, level) for level in range(1, reader.header.num_layers + 1)],
            "gops": [_describe_gop(reader, number) for number in range(len(reader.gops))],
            "truncation_points": [
                {"layers": level, "bytes": reader.level_end(level)} for level in range(1, reader.header.num_layers + 1)
            ],
            "warnings": [report] if report else [],
        }
        if verify:
            problems = [str(problem) for problem in reader.problems()]
            described["verify"] = {"segments": reader.num_segments, "problems": problems}
        return described


def pix_fmt(video: VideoRecord) -> str:
    """ffmpeg's name of the planes' layout."""
    return CHROMA_NAMES[video.chroma] + DEPTH_SUFFIXES[video.depth]


def _describe_video(reader: StreamReader) -> dict[str, Any]:
    video = reader.header.video
    subsampled = CHROMA_NAMES[video.chroma] in ("yuv420p", "yuv422p")
    return {
        "w": video.width,
        "h": video.height,
        "frames": reader.frame_count,
        "fps": float(video.rate),
        "rate": f"{video.rate.numerator}/{video.rate.denominator}",
        "pix_fmt": pix_fmt(video),
        "range": RANGE_NAMES[video.color_range],
        "matrix": MATRIX_NAMES[video.matrix],
        "primaries": video.primaries,
        "transfer": video.transfer,
        "siting": SITING_NAMES[video.siting] if subsampled else None,
    }


def _describe_level(reader: StreamReader, level: int) -> dict[str, Any]:
    record = reader.header.layers.levels[level - 1]
    frames = reader.frame_count
    segments = [entry for gop in reader.gops for entry in gop.segments]
    needed = [entry for gop in reader.gops for entry in gop.segments[:level]]
    overhead = (reader.total_length or reader.size) - sum(entry.length for entry in segments if entry)
    size_bytes = max(overhead, 0) + sum(entry.length for entry in needed if entry)
    splats = [entry.splats for entry in needed if entry and entry.splats is not None]
    return {
        "layers": level,
        "bytes": size_bytes,
        "kbps": size_bytes * 8 / 1000 * float(reader.header.video.rate) / frames,
        "bpp": size_bytes * 8 / (record.width * record.height * frames),
        "splats": round(sum(splats) / frames) if len(splats) == len(needed) else None,
        "width": record.width,
        "height": record.height,
        "psnr": _level_psnr(reader.gops, level),
    }


def _level_psnr(gops: list[GopEntry], level: int) -> float | None:
    """Of the mean error over frames, as an encoder sums it up; None unless every GOP has one."""
    errors = []
    for gop in gops:
        entry = gop.segments[level - 1]
        if entry is None or entry.psnr is None:
            return None
        errors.append(gop.frames * 10 ** (-entry.psnr / 10))
    return round(-10 * log10(fsum(errors) / sum(gop.frames for gop in gops)), 2)


def _describe_gop(reader: StreamReader, number: int) -> dict[str, Any]:
    gop = reader.gops[number]
    layers = [
        entry and {"offset": entry.offset, "bytes": entry.length, "splats": entry.splats, "psnr": entry.psnr}
        for entry in gop.segments
    ]
    return {
        "gop": number,
        "first_frame": gop.first_frame,
        "frames": gop.frames,
        "key": gop.key,
        "scene_cut": gop.scene_cut,
        "layers_present": reader.present_layers(number),
        "layers": layers,
    }
