"""What the name of a raw file says about its pixels, as test sequences are named.

A size is ``WxH``, ``720p``/``1080p``/``2160p`` with an optional rate, or a word such as ``cif``.  What follows the
size may hold a rate (``120fps``, ``50hz``, ``24p``, a bare ``_50``), a chroma format (``420``, ``yuv420p``, ``I420``)
and a depth (``10bit``, ``8b``, ``10le``).  Before the size only the unmistakable spellings count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import PurePath

_ROW_SIZES = {"720": (1280, 720), "1080": (1920, 1080), "2160": (3840, 2160)}
_WORD_SIZES = {"sqcif": (128, 96), "qcif": (176, 144), "cif": (352, 288), "4cif": (704, 576)}
_NTSC_RATES = {
    "23.976": Fraction(24000, 1001),
    "23.98": Fraction(24000, 1001),
    "29.97": Fraction(30000, 1001),
    "59.94": Fraction(60000, 1001),
}
_CHROMA_NAMES = {"400": "gray", "420": "yuv420p", "422": "yuv422p", "444": "yuv444p"}


def _field(pattern: str) -> re.Pattern[str]:
    """A pattern that must not continue a word or a number on either side."""
    return re.compile(rf"(?<![0-9a-z])(?<![0-9]\.)(?:{pattern})(?![0-9a-z])(?!\.[0-9])", re.IGNORECASE)


_SIZE = re.compile(r"(?<![0-9])([0-9]{2,5})x([0-9]{2,5})(?![0-9])", re.IGNORECASE)
_ROWS = _field(r"(720|1080|2160)p([0-9]{2,3})?")
_WORD = _field(r"(sqcif|qcif|cif|4cif)")
_NUMBER = r"([0-9]{1,3}(?:\.[0-9]{1,3})?)"
_RATE = _field(_NUMBER + "(?:fps|hz)")
_LOOSE_RATE = _field(rf"(?!p?4(?:00|20|22|44)p?(?![0-9]))p?(?=[0-9]{{2}}){_NUMBER}p?")  # 24p, p50, or a bare 50
_CHROMA = _field(r"(?:yuv|i)(400|420|422|444)p?(?:([0-9]{1,2})(le|be))?")
_LOOSE_CHROMA = _field(r"p?(400|420|422|444)p?(?:([0-9]{1,2})(le|be))?")
_PACKED = _field(r"(gray|rgb24)(?:([0-9]{1,2})(le|be))?")
_DEPTH = _field(r"([0-9]{1,2})(?:bits?|b|(le|be))")


@dataclass(frozen=True)
class NameFacts:
    """What a file name says; None where it is silent."""

    size: tuple[int, int] | None = None  # width, height
    fps: Fraction | None = None
    layout: str | None = None  # ffmpeg's name of the pixel format at 8 bits
    depth: str | None = None  # suffix of ffmpeg's name: "" at 8 bits, else "10le", "12be", ...

    @property
    def pix_fmt(self) -> str | None:
        """ffmpeg's name of the pixel format, 4:2:0 where only a depth is known; may be one that nobody here reads."""
        if self.layout is None and self.depth is None:
            return None
        return (self.layout or "yuv420p") + (self.depth or "")


def facts_from_name(path: str) -> NameFacts:
    """What the base name of ``path`` says and, where that is silent, the name of its folder."""
    own, folder = _facts(PurePath(path).stem), _facts(PurePath(path).parent.name)
    merged = {}
    for field in fields(NameFacts):
        value = getattr(own, field.name)
        merged[field.name] = getattr(folder, field.name) if value is None else value
    return NameFacts(**merged)


def _facts(name: str) -> NameFacts:
    size, fps, before, after = _split_at_size(name)
    strict_rate = _RATE.search(after) or _RATE.search(before)
    rate = strict_rate or _LOOSE_RATE.search(after)
    if rate is not None:
        fps = _NTSC_RATES.get(rate[1], Fraction(rate[1])) or None
    layout = depth = None
    chroma = next((match for pattern, text in _chroma_places(before, after) if (match := pattern.search(text))), None)
    if chroma is not None:
        layout = _CHROMA_NAMES.get(chroma[1], chroma[1].lower())
        depth = _depth_suffix(chroma[2], chroma[3])
    if depth is None and (match := _DEPTH.search(after) or _DEPTH.search(before)):
        depth = _depth_suffix(match[1], match[2])
    return NameFacts(size, fps, layout, depth)


def _split_at_size(name: str) -> tuple[tuple[int, int] | None, Fraction | None, str, str]:
    """(size, rate that is written into it, text before it, text after it); without a size all text is before."""
    if match := _SIZE.search(name):
        return (int(match[1]), int(match[2])), None, name[: match.start()], name[match.end() :]
    if match := _ROWS.search(name):
        fps = Fraction(match[2]) if match[2] else None
        return _ROW_SIZES[match[1]], fps, name[: match.start()], name[match.end() :]
    if match := _WORD.search(name):
        return _WORD_SIZES[match[1].lower()], None, name[: match.start()], name[match.end() :]
    return None, None, name, ""


def _chroma_places(before: str, after: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    """Where a chroma format may be written, best first."""
    return (
        (_CHROMA, after),
        (_PACKED, after),
        (_LOOSE_CHROMA, after),
        (_CHROMA, before),
        (_PACKED, before),
    )


def _depth_suffix(bits: str | None, order: str | None) -> str | None:
    """ffmpeg's suffix for a depth; names that leave the byte order open mean little-endian."""
    if bits is None:
        return None
    return "" if int(bits) == 8 else f"{int(bits)}{(order or 'le').lower()}"
