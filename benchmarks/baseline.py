"""What the `baseline` profile reaches, through the commands and from the files they write.

    python benchmarks/baseline.py stills    5000 splats on every Kodak picture: PSNR, bits per splat, seconds
    python benchmarks/baseline.py inter     a clip with P-frames against the same clip as I-frames alone, at equal PSNR
    python benchmarks/baseline.py memory    peak memory of 50 frames against that of 200

Real material is read under PGSVC_DATA (default ../shared/data); what is not there is named and left out.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from material import DATA
from results_file import ResultsFile

from pgsvc_codec.decoder import Decoder
from pgsvc_codec.media.source import open_source
from pgsvc_codec.metrics.psnr import PsnrMeter
from pgsvc_codec.video import Chroma

_PROFILE = ("--profile", "baseline")
ENCODE = Path(sysconfig.get_path("scripts")) / "pgsvc-encode"


def material(pattern: str) -> list[Path]:
    """Files under PGSVC_DATA that match; says so where none does."""
    found = sorted(DATA.glob(pattern))
    if not found:
        print(f"skipped: no {pattern} under PGSVC_DATA = {DATA}", file=sys.stderr)
    return found


def encode(source: Path, *options: str) -> dict[str, Any]:
    """Run the encoder; its seconds, its peak memory, and what the file it wrote decodes to.

    Returns:
        seconds, peak_mib, size_bytes, splats (summed over frames), frames, levels (PSNR of each from the file),
        per_frame (PSNR of each frame at the top level).
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out.pgs"
        report = Path(folder) / "report.json"
        command = [
            sys.executable,
            str(ENCODE),
            str(source),
            str(output),
            "--json",
            str(report),
            "-q",
            *_PROFILE,
            *options,
        ]
        started = time.monotonic()
        child = os.spawnv(os.P_NOWAIT, sys.executable, command)
        _, status, usage = os.wait4(child, 0)
        seconds = time.monotonic() - started
        if status:
            raise SystemExit(f"{' '.join(command)}: failed")
        stated = json.loads(report.read_text(encoding="utf-8"))
        measured = decode(source, output)
        told = [level["psnr"] for level in stated["levels"]]
        if not np.allclose(told, measured["levels"], atol=0.005):
            raise SystemExit(f"{source.name}: encoder states {told} dB, the file decodes to {measured['levels']}")
        return {
            **measured,
            "seconds": seconds,
            "peak_mib": usage.ru_maxrss / 1024,
            "size_bytes": output.stat().st_size,
        }


def decode(source: Path, stream: Path) -> dict[str, Any]:
    """PSNR of a stream against its source, splats and frames."""
    with Decoder(stream) as decoder:
        is_rgb = decoder.info.chroma is Chroma.RGB
        splats = sum(entry.splats for gop in decoder.reader.gops for entry in gop.segments if entry and entry.splats)
        levels = []
        per_frame: list[float] = []
        for level in range(1, decoder.num_layers + 1):
            total = PsnrMeter(decoder.info.max_code, is_rgb=is_rgb)
            per_frame = []
            with open_source(str(source), frames=decoder.frame_count) as reference:
                for frame, decoded in zip(reference, decoder.frames(layers=level), strict=True):
                    single = PsnrMeter(decoder.info.max_code, is_rgb=is_rgb)
                    for meter in (single, total):
                        meter.add(frame, decoded.planes)
                    per_frame.append(single.combined)
            levels.append(total.combined)
        return {"levels": levels, "per_frame": per_frame, "splats": splats, "frames": decoder.frame_count}


def stills(results: ResultsFile) -> None:
    """5000 splats in three equal layers, default preset."""
    for picture in material("kodak/*.png"):
        run = encode(picture, "-n", "5000")
        results.add(
            picture=picture.name,
            psnr_1=run["levels"][0],
            psnr_2=run["levels"][1],
            psnr_3=run["levels"][2],
            bits_per_splat=8 * run["size_bytes"] / run["splats"],
            size_bytes=run["size_bytes"],
            seconds=run["seconds"],
            peak_mib=run["peak_mib"],
        )


STILLS = ["picture", "psnr_1", "psnr_2", "psnr_3", "bits_per_splat", "size_bytes", "seconds", "peak_mib"]


def inter(results: ResultsFile) -> None:
    """A clip with P-frames, then its I-frames alone at fewer and fewer splats until their PSNR is the same."""
    for clip, frames, options in (
        ("park_joy_480x270_10f.y4m", 10, ()),
        ("bunny_1280x720_32f.mkv", 8, ("--preset", "fast")),
    ):
        for path in material(clip):
            common = ["-f", str(frames), *options]
            with_p = encode(path, *common)
            budget = with_p["splats"] // with_p["frames"]
            curve = []  # bytes and PSNR of I-frames alone
            for share in (0.5, 0.65, 0.8, 1.0):
                run = encode(path, *common, "-g", "1", "-n", str(round(share * budget)))
                curve.append((run["size_bytes"], run["levels"][-1]))
            sizes, decibels = zip(*curve, strict=True)
            equal = math.exp(np.interp(with_p["levels"][-1], decibels, np.log(sizes)))
            results.add(
                clip=clip,
                frames=frames,
                splats=budget,
                p_bytes=with_p["size_bytes"],
                p_psnr=with_p["levels"][-1],
                first_frame=with_p["per_frame"][0],
                last_frame=with_p["per_frame"][-1],
                seconds=with_p["seconds"],
                i_bytes_at_equal_psnr=equal,
                ratio=with_p["size_bytes"] / equal,
            )


INTER = [
    "clip", "frames", "splats", "p_bytes", "p_psnr", "first_frame", "last_frame", "seconds", "i_bytes_at_equal_psnr",
    "ratio",
]  # fmt: skip


def memory(results: ResultsFile) -> None:
    """Peak resident memory of the encoder's process."""
    for path in material("bikes.mp4"):
        for frames in (50, 200):
            run = encode(path, "-f", str(frames), "--preset", "ultrafast")
            results.add(clip=path.name, frames=frames, peak_mib=run["peak_mib"], seconds=run["seconds"])


MEMORY = ["clip", "frames", "peak_mib", "seconds"]

PARTS = {"stills": (stills, STILLS), "inter": (inter, INTER), "memory": (memory, MEMORY)}


def main() -> None:
    """Run one part and write its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    measure, columns = PARTS[parser.parse_args().part]
    with ResultsFile(f"baseline-{parser.parse_args().part}", columns) as results:
        measure(results)


if __name__ == "__main__":
    main()
