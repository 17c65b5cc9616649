"""The same encode on the GPU and on the CPU of this machine, and the GPU's file decoded by both."""

from __future__ import annotations

import math
import os

import numpy as np
import torch
from gpu_material import Material

from gpu_parts.codec import CUDA, Encoded, config_of, decoded, encoded, material
from gpu_parts.timing import Rows, at_least, at_most
from pgsvc_codec.metrics.psnr import PsnrMeter
from pgsvc_codec.video import Chroma

SPLATS = 12_000
PRESET = "faster"


def measure(rows: Rows, at: torch.device, *, tiny: bool) -> None:
    """Rows of one still."""
    frames = material(tiny=tiny).full_hd
    if not frames:
        rows.add("CPU and GPU", None, "", note="skipped: no picture in GPU_DATA")
        return
    still = frames[0]
    if not tiny:
        encoded(still, config_of(SPLATS, "ultrafast", tiny=tiny))
    made = encoded(still, config_of(SPLATS, PRESET, tiny=tiny))
    with rows.trying("decoding a file of the GPU"):
        compare_decoders(rows, still, made)
    for warm in (True, False):
        on_cpu = encoded(still, config_of(SPLATS, "ultrafast" if warm else PRESET, tiny=tiny, device="cpu"))
    seconds, cpu_seconds = made.report.seconds, on_cpu.report.seconds
    what = f"{still.name}, {SPLATS} splats, preset {PRESET}"
    rows.add(f"GPU: {what}", seconds, "s", note=made.note)
    rows.add(f"CPU of {os.cpu_count()} cores: {what}", cpu_seconds, "s", note=on_cpu.note)
    rows.add("times faster than the CPU", cpu_seconds / seconds, "", note=what)
    rows.add("PSNR over the CPU's", made.psnr - on_cpu.psnr, "dB", note=what)


def compare_decoders(rows: Rows, still: Material, made: Encoded) -> None:
    """How far the pictures of two decoders lie apart, and from what the encoder told."""
    pictures = {device: next(iter(decoded(made.data, device))).planes for device in ("cpu", CUDA)}
    differences = [
        np.abs(a.astype(np.int32) - b.astype(np.int32)) for a, b in zip(pictures["cpu"], pictures[CUDA], strict=True)
    ]
    most = max(int(difference.max()) for difference in differences)
    squares = sum(float((difference.astype(np.float64) ** 2).sum()) for difference in differences)
    samples = sum(difference.size for difference in differences)
    between = 10 * math.log10(still.info.max_code**2 * samples / max(squares, 1e-9))
    rows.add("largest difference of pixels, CPU and GPU decoder", most, "codes", at_most(1.0))
    rows.add("PSNR between CPU and GPU decoder", between, "dB", at_least(60.0))
    meter = PsnrMeter(still.info.max_code, is_rgb=still.info.chroma is Chroma.RGB)
    psnr = meter.add(still.frames[0], pictures["cpu"])
    rows.add("PSNR told by the encoder over the CPU decoder's", abs(made.psnr - psnr), "dB", at_most(0.01))
