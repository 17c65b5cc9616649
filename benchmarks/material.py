"""The pictures and clips that benchmarks run on: files, or what folders hold, by default under PGSVC_DATA."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

DATA = Path(os.environ.get("PGSVC_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))
KODAK = DATA / "kodak"
PICTURES = (".png", ".jpg", ".jpeg", ".ppm", ".tif", ".tiff", ".webp")
CLIPS = (".y4m", ".mkv", ".mp4", ".mov", ".webm")  # those that say their own size; raw ones are named one by one


def is_picture(path: Path) -> bool:
    """Whether the name is that of a still rather than of a clip."""
    return path.suffix.lower() in PICTURES


def find(places: Sequence[Path], suffixes: Sequence[str] = PICTURES) -> list[Path]:
    """Files that are named, and those of folders that end as one of the suffixes; says where there are none."""
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            files = [path for path in sorted(place.iterdir()) if path.suffix.lower() in suffixes and path.is_file()]
        else:
            files = [place] if place.is_file() else []
        if not files:
            print(f"skipped: nothing to measure at {place}", file=sys.stderr)
        found += files
    return found
