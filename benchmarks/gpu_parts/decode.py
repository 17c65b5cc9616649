"""From a file to planes in memory: frames per second of a stream by level, beside the CPU, and of both halves alone."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from statistics import median

import torch
from gpu_material import panned

from gpu_parts.clip import STREAM
from gpu_parts.codec import CUDA, STREAMS, config_of, decoded, encoded_anyhow, material, repeated
from gpu_parts.timing import Rows, at_least, wall_s
from pgsvc_codec.coding.ahead import SplatsAhead
from pgsvc_codec.coding.gop import DecodedSplats, GopDecoder, most_threads
from pgsvc_codec.decoder import Decoder
from pgsvc_codec.format.container import StreamReader
from pgsvc_codec.picture import plane_grids
from pgsvc_codec.render.backend import load
from pgsvc_codec.render.frames import FramePainter

TARGET_FPS = 500.0
FRAMES = 144
ROUNDS = 3


def measure(rows: Rows, at: torch.device, *, tiny: bool) -> None:
    """Rows for every level on the GPU, for all layers on the CPU, for splats alone and painting alone."""
    path = STREAMS / STREAM
    if path.exists():
        data, origin = path.read_bytes(), "the clip of part clip"
    else:
        frames = material(tiny=tiny).full_hd
        if not frames:
            rows.add("decode", None, "frames/s", note="skipped: no picture in GPU_DATA")
            return
        clip = panned(frames[0], 3)
        made = encoded_anyhow(clip, config_of(12_000, "ultrafast", tiny=tiny))
        data, origin = made.data, f"{clip.name}, preset ultrafast"
    once = sum(1 for _ in decoded(data, "cpu"))
    count = once if tiny else -(-FRAMES // once) * once
    stream = repeated(data, count // once)
    origin = f"{origin}, {count} frames"

    def add(name: str, run: Callable[[], object], *, is_held: bool = False) -> None:
        with rows.trying(name):
            run()
            fps = count / median(wall_s(run, at) for _ in range(1 if tiny else ROUNDS))
            rows.add(name, fps, "frames/s", at_least(TARGET_FPS) if is_held else None, origin)

    for level in (3,) if tiny else (3, 2, 1):
        add(f"file to planes, level {level}", lambda level=level: _drain(stream, CUDA, level), is_held=level == 3)
    add(f"file to planes, level 3, CPU of {os.cpu_count()} cores", lambda: _drain(stream, "cpu", 3))
    add("file to splats", lambda: splats_of(stream))
    with rows.trying("planes from splats"):
        painted = splats_of(stream)
        add("splats to planes", lambda: paint(stream, painted))


def _drain(stream: bytes, device: str, level: int) -> None:
    """Decode all frames, and keep none."""
    deque(decoded(stream, device, level), maxlen=0)


def splats_of(stream: bytes) -> list[DecodedSplats]:
    """The splats of all frames, by all threads."""

    def raise_loss(layer: int, error: Exception) -> None:
        raise error

    with StreamReader(stream) as reader:
        layers = range(reader.header.num_layers)
        gops = [[reader.read_segment(gop, layer) for layer in layers] for gop in range(len(reader.gops))]
        with SplatsAhead(
            lambda index: GopDecoder(gops[index], reader.header, raise_loss),
            len(gops),
            len(layers),
            most_threads(reader.header),
        ) as ahead:
            return [splats for gop in ahead.gops() for splats in gop]


def paint(stream: bytes, frames: list[DecodedSplats]) -> None:
    """Paint all layers of each frame, and keep no frame."""
    with Decoder(stream, device=CUDA) as decoder:
        info = decoder.info
    painter = FramePainter(load(CUDA), (info.width, info.height), plane_grids(info), info.max_code)
    tagged = ((number, *splats) for number, splats in enumerate(frames))
    deque(painter.paint_all(tagged, len(frames)), maxlen=0)
