"""The qualities that the GPU benchmark is held to, reached on a CPU: what it must come to, not how fast a CPU is.

    python benchmarks/gpu_reference.py [paper] [stills]

`paper` encodes frames of 1920x1080 with `--preset paper` (profile baseline, 12,000 and 27,000 splats in three layers),
`stills` the photographs with `--preset slow -n 5000` (profile main).  Rows are added to `results/gpu-reference.tsv`;
those that are there are not measured again.  Material is that of `gpu_material.py`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import experiment
from experiment import LAYERS, level_columns, parser_of, per_level
from gpu_material import Material, find_material, folder
from progress import Ticker
from results_file import ResultsFile

from pgsvc_codec.config import EncodeConfig
from pgsvc_codec.encoder import encode

NAME = "gpu-reference"
HOME = Path(__file__).parent / "results"  # of the rows that the project carries
KEYS = ["source", "profile", "preset", "splats"]
COLUMNS = [*KEYS, "size_bytes", *level_columns("psnr"), "seconds"]
PAPER_SPLATS = (12_000, 27_000)
STILL_SPLATS = 5000


def add_reference(results: ResultsFile, source: Material, profile: str, preset: str, splats: int) -> None:
    """A row, unless it is there."""
    keys = dict(zip(KEYS, (source.name, profile, preset, splats), strict=True))
    if results.has(**keys):
        return
    config = EncodeConfig(profile=profile, preset=preset, splats=splats, layers=LAYERS, device="cpu")
    ticker = Ticker(f"{source.name}, {preset}, {splats} splats", source.frame_count)
    report = encode(source, io.BytesIO(), config, progress=lambda done: ticker.tick(done.frames, f"{done.psnr:.2f} dB"))
    psnr = per_level("psnr", [level.psnr for level in report.levels])
    results.add(**keys, size_bytes=report.size_bytes, **psnr, seconds=report.seconds)


def add_all(parts: Sequence[str]) -> None:
    """Rows of the parts that are asked for."""
    found = find_material(folder())
    with ResultsFile(NAME, COLUMNS, KEYS) as results:
        if "stills" in parts:
            for still in found.stills:
                add_reference(results, still, "main", "slow", STILL_SPLATS)
        for splats in PAPER_SPLATS if "paper" in parts else ():
            for frame in found.full_hd:
                add_reference(results, frame, "baseline", "paper", splats)


def main() -> None:
    """Encode on the CPU and note what comes out."""
    parser = parser_of(__doc__)
    parser.add_argument("parts", nargs="*", choices=["paper", "stills"], default=["stills", "paper"])
    add_all(parser.parse_args().parts)


if __name__ == "__main__":
    experiment.run(main)
