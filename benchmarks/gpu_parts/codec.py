"""Whole encodes and decodes for the GPU benchmark, and the material that its parts run on at either scale."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, NamedTuple

import gpu_reference
import numpy as np
from experiment import LAYERS
from gpu_material import Found, Material, find_material, folder
from results_file import RESULTS, WORK, read_rows

from pgsvc_codec.config import EncodeConfig
from pgsvc_codec.decoder import DecodedFrame, Decoder
from pgsvc_codec.encoder import EncodeReport, encode
from pgsvc_codec.format.container import Gop, LayerSegment, StreamReader, StreamWriter
from pgsvc_codec.render.availability import is_interpreted
from pgsvc_codec.video import Chroma, Matrix, Range, VideoInfo
from pgsvc_codec.workers import local_workers

CUDA = "cuda"
TINY_SIZE = (16, 16)
STREAMS = WORK / "gpu"  # what one part encodes for another


class Encoded(NamedTuple):
    """A stream in memory."""

    data: bytes
    report: EncodeReport

    @property
    def psnr(self) -> float:
        """Of the top level, as the encoder tells it."""
        return self.report.levels[-1].psnr

    @property
    def note(self) -> str:
        """What a row says of it."""
        return f"{self.psnr:.2f} dB, {self.report.size_bytes} bytes"


def material(*, tiny: bool) -> Found:
    """What GPU_DATA has; at the tiny scale, made pictures."""
    if not tiny:
        return find_material(folder())
    rgb = {"chroma": Chroma.RGB, "matrix": Matrix.RGB, "range": Range.FULL}
    made = _made("made", VideoInfo(*TINY_SIZE, **rgb), 1, 1)
    return Found([made], [made], _made("moving", VideoInfo(*TINY_SIZE), 2, 3))


def config_of(splats: int, preset: str, *, tiny: bool, device: str = CUDA, **options: Any) -> EncodeConfig:
    """Options of an encode in three layers; at the tiny scale a few splats and iterations, without a GPU on the CPU."""
    if is_interpreted():
        device = "cpu"  # interpreted, a fit takes minutes; that it works is for other tests
    if tiny:
        splats, options = 6, {**options, "iterations": 2}
    return EncodeConfig(splats=splats, preset=preset, layers=LAYERS, device=device, **options)


def encoded(source: Material, config: EncodeConfig, **how: Any) -> Encoded:
    """Encode in memory; `how` goes to `encode`."""
    sink = io.BytesIO()
    report = encode(source, sink, config, **how)
    return Encoded(sink.getvalue(), report)


def encoded_anyhow(source: Material, config: EncodeConfig) -> Encoded:
    """Encode on the device, or on the CPU if that fails: for figures of something else than encoding."""
    try:
        return encoded(source, config)
    except Exception as error:  # whatever it is, the parts that encode tell of it
        print(f"encoded on the CPU: {type(error).__name__}: {error}", file=sys.stderr)
        return encoded(source, replace(config, device="cpu"))


def processes(count: int, *, tiny: bool) -> AbstractContextManager[Executor]:
    """Processes that share the first GPU; at the tiny scale a thread, which starts sooner."""
    return ThreadPoolExecutor(1) if tiny else local_workers(count, (0,))


def decoded(data: bytes, device: str, layers: int | None = None) -> Iterator[DecodedFrame]:
    """All frames of a stream."""
    with Decoder(data, device=device) as decoder:
        yield from decoder.frames(layers=layers)


def repeated(data: bytes, times: int) -> bytes:
    """A stream with the GOPs of another, over and over: payloads that are decoded anew each time."""
    with StreamReader(data) as reader:
        sink = io.BytesIO()
        with StreamWriter(sink, reader.header, progression="gop", seekable=True, spool_dir=None) as writer:
            for turn in range(times):
                for number, gop in enumerate(reader.gops):
                    layers = [
                        LayerSegment(reader.read_segment(number, layer), 0, 0.0)
                        for layer in range(reader.header.num_layers)
                    ]
                    writer.write_gop(Gop(turn * reader.frame_count + gop.first_frame, layers))
    return sink.getvalue()


class Reference(NamedTuple):
    """What the CPU reached."""

    psnr: float  # of the top level
    size_bytes: int


def reference(source: str, preset: str, splats: int) -> Reference | None:
    """See `gpu_reference.py`; None where nobody measured it."""
    for place in (RESULTS, *([] if RESULTS == gpu_reference.HOME else [gpu_reference.HOME])):
        path = place / f"{gpu_reference.NAME}.tsv"
        rows = read_rows(path) if path.exists() else []
        for row in rows:
            if (row["source"], row["preset"], row["splats"]) == (source, preset, str(splats)):
                return Reference(float(row[f"psnr_{LAYERS}"]), int(row["size_bytes"]))
    return None


def _made(name: str, info: VideoInfo, count: int, seed: int) -> Material:
    """Slopes with a moving square."""
    rng = np.random.default_rng(seed)
    first, second = rng.uniform(3, 9, 2)
    frames = []
    for number in range(count):
        planes = []
        for plane, shape in enumerate(info.plane_shapes):
            rows, columns = np.mgrid[: shape[0], : shape[1]]
            slope = 120 + 50 * np.sin(columns / first + plane) + 40 * np.cos(rows / second)
            inside = (rows > shape[0] // 2) & (abs(columns - shape[1] // 3 - number) < 5)
            planes.append((slope + 40 * inside).astype(np.uint8))
        frames.append(tuple(planes))
    return Material(name, info, frames)
