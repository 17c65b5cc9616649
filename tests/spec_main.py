"""A second decoder of GOPs of profile main, from bitstream_spec.md §7 alone: its programs, run as they stand there.

It imports nothing of the package, so that the package and the text are held to each other.
"""

import re
from pathlib import Path

import numpy as np

SPEC = (Path(__file__).parents[1] / "bitstream_spec.md").read_text(encoding="utf-8")


def programs():
    """The names that the programs of the section define."""
    section = SPEC[SPEC.index("## 7. Coding: main profile") : SPEC.index("## 8. ")]
    names = {}
    exec("\n".join(re.findall(r"^```python\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)), names)
    return names


PROGRAMS = programs()
Corrupt = PROGRAMS["Corrupt"]


def decode_gop(payloads, video):
    """For each frame in display order, `state_of` every layer, and the codes of the background."""
    channels, *size = shape_of(video)
    for layers, background in PROGRAMS["decode_gop"](payloads, channels, *size):
        yield [state_of(slots, channels) for slots in layers], background


def anchor_distance(payloads, video):
    """That of a GOP."""
    base = PROGRAMS["Layer"](0, *shape_of(video))
    base.intra(payloads[0][0])
    return base.anchor_distance


def shape_of(video):
    """Channels, width and height."""
    return 1 if video["chroma"] == 0 else 3, video["width"], video["height"]


def state_of(slots, channels):
    """Slots as integer arrays [N, 2], [N, 3] and [N, C]."""
    parts = list(zip(*slots, strict=True))[:3] or [[], [], []]
    widths = (2, 3, channels)
    return [np.array(part, np.int64).reshape(-1, width) for part, width in zip(parts, widths, strict=True)]


def splats_of(state, video):
    """§7.1: means, Cholesky factors and colours, float64."""
    positions, shapes, amplitudes = state
    means = positions / (32 * np.array([video["width"], video["height"]])) - 1
    l1, l3 = 2.0 ** (shapes[:, 0] / 256), 2.0 ** (shapes[:, 2] / 256)
    v = amplitudes
    if video["chroma"] == 4:
        a, b, c = amplitudes.T / np.sqrt([[3], [2], [6]])
        v = np.stack([a + b - c, a + 2 * c, a - b - c], axis=1)
    cholesky = np.stack([l1, shapes[:, 1] / 256 * l3, l3], axis=1)
    return means, cholesky, v / (4096 * np.sqrt(np.pi * l1 * l3))[:, None]
