"""Clips: seconds per frame, and of a P-frame, from pixels to bytes; GOPs one after the other and side by side."""

from __future__ import annotations

import torch
from gpu_material import Material, panned

from gpu_parts.codec import STREAMS, Encoded, config_of, encoded, material, processes
from gpu_parts.timing import Rows, Target, at_most

SPLATS = 12_000  # of a frame of 1920x1080
PRESETS = ("faster", "medium")
FRAMES = 25  # a GOP of the default length: what is decided once for each is shared by so many
WORKERS, GOP_FRAMES = 4, 4  # processes on one GPU, and frames of the GOPs that they code
P_FRAME_S, PER_FRAME_S = 0.2, 0.3
STREAM = "clip.pgs"  # for decoding


def measure(rows: Rows, at: torch.device, *, tiny: bool) -> None:
    """Rows for a panned frame of 1920x1080 and for the clip that there is."""
    found = material(tiny=tiny)
    count = 2 if tiny else FRAMES
    clips = [] if tiny else [panned(frame, count) for frame in found.full_hd[:1]]
    clips += [] if found.clip is None else [found.clip.first(count)]
    if not clips:
        rows.add("clip", None, "s", note="skipped: neither picture nor clip in GPU_DATA")
    for clip in clips:
        splats = _splats(clip)
        if not tiny:
            with rows.trying(f"warm-up, {clip.name}"):
                encoded(clip.first(2), config_of(splats, "ultrafast", tiny=tiny))
        for preset in PRESETS if clip is clips[0] and not tiny else PRESETS[:1]:
            with rows.trying(f"clip, preset {preset}, {clip.name}"):
                made = _one_gop(rows, clip, splats, preset, tiny=tiny)
                if clip is clips[0] and preset == PRESETS[0]:
                    STREAMS.mkdir(parents=True, exist_ok=True)
                    (STREAMS / STREAM).write_bytes(made.data)
    if clips:
        with rows.trying("GOPs side by side"):
            longer = clips[0] if tiny else panned(found.full_hd[0], WORKERS * GOP_FRAMES) if found.full_hd else clips[0]
            _side_by_side(rows, longer, tiny=tiny)


def _splats(clip: Material) -> int:
    """By area."""
    return max(24, round(SPLATS * clip.info.width * clip.info.height / (1920 * 1080)))


def _target(clip: Material, seconds: float) -> Target | None:
    """Only frames of 1920x1080 are held to something."""
    return at_most(seconds) if (clip.info.width, clip.info.height) == (1920, 1080) else None


def _one_gop(rows: Rows, clip: Material, splats: int, preset: str, *, tiny: bool) -> Encoded:
    """Rows of one clip and preset, which is one GOP."""
    config = config_of(splats, preset, tiny=tiny, keyint=max(2, clip.frame_count), scenecut=0)
    intra = encoded(clip.first(1), config)
    made = encoded(clip, config)
    seconds, count = made.report.seconds, clip.frame_count
    what = f"{clip.name}, {clip.info.width}x{clip.info.height}, {splats} splats, preset {preset}"
    behind = (seconds - intra.report.seconds) / (count - 1)
    rows.add(f"I-frame: {what}", intra.report.seconds, "s", note=intra.note)
    rows.add(f"P-frame: {what}", behind, "s", _target(clip, P_FRAME_S), "(GOP - I-frame) / others")
    per_frame = _target(clip, PER_FRAME_S)
    rows.add(f"frame of a clip: {what}", seconds / count, "s", per_frame, f"{count} frames, {made.note}")
    return made


def _side_by_side(rows: Rows, clip: Material, *, tiny: bool) -> None:
    """A row of GOPs that several processes code on one GPU, once these are under way."""
    workers, length = (1, 1) if tiny else (WORKERS, GOP_FRAMES)
    splats = _splats(clip)
    config = config_of(splats, PRESETS[0], tiny=tiny, keyint=length, scenecut=0)
    with processes(workers, tiny=tiny) as executor:
        how = {"executor": executor, "gops_in_flight": workers + 1}
        for turn in ("warm-up", "timed"):
            if turn == "timed" or not tiny:
                made = encoded(clip, config, **how)
    seconds = made.report.seconds / clip.frame_count
    what = f"{clip.name}, {clip.info.width}x{clip.info.height}, {splats} splats, preset {PRESETS[0]}"
    note = f"{clip.frame_count} frames in GOPs of {length}, {made.note}"
    rows.add(f"frame of a clip, {workers} processes: {what}", seconds, "s", _target(clip, PER_FRAME_S), note)
