"""An I-frame of 1920x1080 from pixels to bytes: seconds to the quality that preset paper comes to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from gpu_material import Material

from gpu_parts.codec import config_of, encoded, material, reference
from gpu_parts.timing import Rows, at_most, wall_s

SPLATS = (12_000, 27_000)
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium")
TARGET_S = 2.0


def measure(rows: Rows, at: torch.device, *, tiny: bool) -> None:
    """A row for each preset, and one for the first that is good enough."""
    frames = material(tiny=tiny).full_hd
    if not frames:
        rows.add("I-frame", None, "s", note="skipped: no picture in GPU_DATA")
        return
    if not tiny:
        first_s = wall_s(lambda: encoded(frames[0], config_of(SPLATS[0], PRESETS[0], tiny=tiny)), at)
        rows.add("first encode in a process", first_s, "s", note=f"{frames[0].name}, kernels compiled or loaded")
    for splats in SPLATS[:1] if tiny else SPLATS:
        for frame in frames:
            with rows.trying(f"I-frame, {frame.name}, {splats} splats"):
                _measure(rows, frame, splats, PRESETS[:1] if tiny else PRESETS, tiny=tiny)


def _measure(rows: Rows, frame: Material, splats: int, presets: Sequence[str], *, tiny: bool) -> None:
    """Rows of one frame, up to the first preset that is good enough and one behind it."""
    wanted = reference(frame.name, "paper", splats)
    name = f"I-frame to preset paper's quality: {frame.name}, {splats} splats"
    is_reached = False
    for preset in presets:
        made = encoded(frame, config_of(splats, preset, tiny=tiny))
        seconds = made.report.seconds
        rows.add(f"I-frame: {frame.name}, {splats} splats, preset {preset}", seconds, "s", note=made.note)
        if is_reached:
            return
        if wanted is not None and made.psnr >= wanted.psnr:
            note = f"preset {preset}, {made.note}; wanted {wanted.psnr:.2f} dB, which took {wanted.size_bytes} bytes"
            rows.add(name, seconds, "s", at_most(TARGET_S), note)
            is_reached = True
    if not is_reached:
        why = "its quality is not known" if wanted is None else f"none of the presets has its {wanted.psnr:.2f} dB"
        rows.add(name, None, "s", at_most(TARGET_S), why)
