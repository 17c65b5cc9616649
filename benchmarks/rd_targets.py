"""What the `main` profile is held to, and where the rows of `rd.py` say that it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import fmean
from typing import NamedTuple

from curves import WINDOW
from experiment import LAYERS, LEVELS
from results_file import RESULTS, read_rows

MEDIUM, FAST, BASELINE = "main medium", "main fast", "baseline medium"
STILLS = {  # BD-rate against each, per cent at most; None: told, not held to
    "jpeg": -55.0,
    "jpeg 4:4:4": None,
    "jpeg2000": -25.0,
    "webp": -28.0,
    "avif psnr": -5.0,
    "avif": None,
    "jpegxl": None,
    "x265 intra": None,
    "svt-av1 intra": None,
    BASELINE: -80.0,
}
CLIPS = (  # beginning of the name, codec, PSNR in dB, times its bytes at most
    ("bunny", "x264", 31, 1.0),
    ("bunny", "x264", 34, 1.5),
    ("park_joy", "x264", 25, 2.2),
    ("park_joy", "x264", 28, 2.2),
    ("bunny", BASELINE, 31, 1 / 15),
    ("park_joy", BASELINE, 25, 1 / 4),
)
LEAST_SHARE = 15.0  # per cent of the bytes, of every layer
SECONDS = {MEDIUM: 40.0, FAST: 15.0}  # of a picture
FAST_EXCESS = 10.0  # per cent
FRAME_SECONDS = 3.0  # of 720p
LARGEST_DRIFT = 0.4  # dB between the first frame of a GOP and its last
DECODED_SPLATS = 12_000  # that milliseconds are told for
INTRA_MILLISECONDS, INTER_MILLISECONDS = 10.0, 3.0

Row = dict[str, str]


class Target(NamedTuple):
    """One line of the table."""

    figure: str
    measured: float | None
    limit: float | None
    is_least: bool = False  # the limit is the least that will do; else the most
    unit: str = "%"

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """Figure, target, what was measured, whether that will do."""
        asked = "-" if self.limit is None else f"{'≥' if self.is_least else '≤'} {self.limit:.3g} {self.unit}"
        if self.measured is None:
            return self.figure, asked, "not measured", ""
        told = f"{self.measured:.3g} {self.unit}"
        if self.limit is None:
            return self.figure, asked, told, ""
        return self.figure, asked, told, "yes" if self.is_met else "no"

    @property
    def is_met(self) -> bool:
        """Whether something was measured and will do."""
        if self.measured is None or self.limit is None:
            return False
        return self.measured >= self.limit if self.is_least else self.measured <= self.limit


def targets() -> Iterator[Target]:
    """All lines."""
    yield from _still_targets(_rows("rd-stills-bd"), _rows("rd-stills-levels"), _rows("rd-stills"))
    yield from _clip_targets(_rows("rd-clips-bd"), _rows("rd-clips"))
    yield from _decoding_targets(_rows("rd-stills"), _rows("rd-clips"))


def show() -> None:
    """Print the table, as Markdown."""
    lines = [("figure", "target", "measured", "met"), *(target.cells for target in targets())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for number, line in enumerate(lines):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def _rows(name: str) -> list[Row]:
    path = RESULTS / f"{name}.tsv"
    return read_rows(path) if path.exists() else []


def _number(values: list[str], combine: Callable[[list[float]], float]) -> float | None:
    """Of the cells that are not empty; None where all are."""
    numbers = [float(value) for value in values if value]
    return combine(numbers) if numbers else None


def _still_targets(compared: list[Row], levels: list[Row], rows: list[Row]) -> Iterator[Target]:
    means = {
        (row["test"], row["anchor"]): float(row["bd_rate"])
        for row in compared
        if row["picture"].startswith("mean") and (row["metric"], row["level"]) == ("psnr", str(LAYERS))
    }
    pictures = len({row["picture"] for row in rows if row["codec"] == MEDIUM})
    for anchor, limit in STILLS.items():
        yield Target(f"BD-rate against {anchor}, mean of {pictures} pictures", means.get((MEDIUM, anchor)), limit)
    asked = [row for row in levels if row["codec"] == MEDIUM and _counts(row, levels)]
    for level in LEVELS:
        gains = [row["gain"] for row in asked if row["level"] == str(level)]
        figure = f"PSNR of level {level} over JPEG 2000 at its rate, mean"
        yield Target(figure, _number(gains, fmean), 0.0, is_least=True, unit="dB")
    for level in LEVELS:
        shares = [(float(row["layer_share"]), row) for row in asked if row["level"] == str(level)]
        least, row = min(shares, key=lambda pair: pair[0]) if shares else (None, {})
        where = f" ({row['picture']}, {row['setting']})" if row else ""
        share = None if least is None else 100 * least
        yield Target(f"least share of layer {level - 1}{where}", share, LEAST_SHARE, is_least=True)
    for codec, limit in SECONDS.items():
        spent = [row["seconds"] for row in rows if (row["codec"], row["level"]) == (codec, str(LAYERS))]
        yield Target(f"encoding a picture, {codec}, mean", _number(spent, fmean), limit, unit="s")
        yield Target(f"encoding a picture, {codec}, the longest", _number(spent, max), limit, unit="s")
    yield Target(f"BD-rate of {FAST} against {MEDIUM}", means.get((FAST, MEDIUM)), FAST_EXCESS)


def _counts(row: Row, levels: list[Row]) -> bool:
    """Whether the whole stream, of which this is a level, lies in the window."""
    named = ("picture", "codec", "setting")
    (whole,) = (
        other for other in levels if other["level"] == str(LAYERS) and all(row[name] == other[name] for name in named)
    )
    return WINDOW[0] <= float(whole["bpp"]) <= WINDOW[1]


def _clip_targets(compared: list[Row], rows: list[Row]) -> Iterator[Target]:
    for clip, anchor, psnr, limit in CLIPS:
        ratios = [
            row[f"ratio_at_{psnr}"]
            for row in compared
            if row["clip"].startswith(clip)
            and (row["metric"], row["test"], row["level"], row["anchor"]) == ("psnr", MEDIUM, str(LAYERS), anchor)
        ]
        yield Target(f"{clip}: bytes at {psnr} dB against {anchor}", _number(ratios, max), limit, unit="times")
    whole = [
        row for row in rows if row["clip"].startswith("bunny") and (row["codec"], row["level"]) == (MEDIUM, str(LAYERS))
    ]
    spent = [str(float(row["seconds"]) / int(row["frames"])) for row in whole]
    yield Target("bunny: encoding a frame, the longest", _number(spent, max), FRAME_SECONDS, unit="s")
    drift = [str(float(row["psnr_first"]) - float(row["psnr_last"])) for row in whole]
    yield Target("bunny: last frame below the first, the largest", _number(drift, max), LARGEST_DRIFT, unit="dB")


def _decoding_targets(stills: list[Row], clips: list[Row]) -> Iterator[Target]:
    """At the stream with the most splats, as if it had so many as the target says."""
    for kind, rows, column, limit in (
        ("an I-frame", stills, "decode_ms", INTRA_MILLISECONDS),
        ("a P- or B-frame", clips, "decode_ms_others", INTER_MILLISECONDS),
    ):
        mine = [row for row in rows if (row["codec"], row["level"]) == (MEDIUM, str(LAYERS)) and row[column]]
        largest = max(mine, key=lambda row: int(row["splats"]), default=None)
        spent = largest and float(largest[column]) * DECODED_SPLATS / int(largest["splats"])
        yield Target(f"segments to splats, {kind}, per {DECODED_SPLATS} splats", spent, limit, unit="ms")
