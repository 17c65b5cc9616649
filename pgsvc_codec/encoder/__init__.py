"""Frames in, a `.pgs` stream out: decides frame types, has frames fitted, codes them and writes GOPs.

The loop is closed: a P-frame is fitted from what the decoder will have, and the PSNR reported is that of the
decoder's own pictures.  No more frames are in memory than a coder looks ahead, so clips may be of any length.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import BinaryIO

from pgsvc_codec.config import EncodeConfig
from pgsvc_codec.encoder.report import EncodeReport, FrameSource, LevelReport, Progress
from pgsvc_codec.encoder.stream import Job, StreamEncoder, stream_header
from pgsvc_codec.errors import ConfigError
from pgsvc_codec.format.container import StreamWriter
from pgsvc_codec.picture import Frame
from pgsvc_codec.render.backend import load
from pgsvc_codec.train.levels import LevelSizes
from pgsvc_codec.train.stack import FloatFit

__all__ = ["EncodeReport", "FrameSource", "LevelReport", "Progress", "encode", "encode_monolithic"]


def encode(
    source: FrameSource,
    sink: BinaryIO,
    config: EncodeConfig,
    *,
    progress: Callable[[Progress], None] | None = None,
    seekable: bool = True,
    spool_dir: str | None = None,
    start: FloatFit | None = None,
) -> EncodeReport:
    """Encode all frames of a source.

    Args:
        source: frames and what they are; read once.
        sink: where the stream goes, at its current position.
        config: options.
        progress: called when further frames have been coded.
        seekable: False writes GOP by GOP, with the index at the end, for pipes.
        spool_dir: where segments wait, in a nameless file, for the index that goes in front of them; None = the
            system's folder for temporary files.
        start: a float fit of the first frame with these options (`train.fit.fit_float`), only to be quantised.

    Raises:
        ConfigError: options do not fit the source or each other.
        InputError: the source is empty, or a frame is not what the source's info says.
        BackendError: the device is not available.
        OutputError: the sink or the temporary file cannot be written.
    """
    if config.strategy == "monolithic" and config.layers > 1:
        raise ConfigError(f"layers: got {config.layers}, allowed 1 in a stream of strategy monolithic")
    info = source.info
    plan = config.resolve(info.width, info.height, info.rate, still=source.still and seekable)
    job = Job(info, plan, config.device, sink, start)
    return _encode(source, [job], lambda frame: [frame], progress, seekable=seekable, spool_dir=spool_dir)[0]


def encode_monolithic(
    source: FrameSource,
    sinks: Sequence[BinaryIO],
    config: EncodeConfig,
    *,
    progress: Callable[[Progress], None] | None = None,
    spool_dir: str | None = None,
) -> list[EncodeReport]:
    """Encode every level of a source as a stream of one layer: what scalable streams are compared with (GSVC).

    Args:
        source: frames and what they are; read once.
        sinks: one per level, seekable.
        config: options; levels have the splats and the size that they would have in one stream, and each its own
            `iterations`.
        progress: called after every frame.
        spool_dir: see `encode`.

    Raises:
        as `encode`.
    """
    info = source.info
    plan = config.resolve(info.width, info.height, info.rate, still=source.still)
    if len(sinks) != plan.num_layers:
        raise ConfigError(f"sinks: got {len(sinks)}, allowed {plan.num_layers}, one per level")
    levels = LevelSizes(info, plan.level_sizes, load(config.device))
    jobs = []
    for level, ((width, height), sink) in enumerate(zip(plan.level_sizes, sinks, strict=True), start=1):
        single = config.of_level(level, plan).resolve(width, height, info.rate, still=source.still)
        jobs.append(Job(replace(info, width=width, height=height), single, config.device, sink))
    return _encode(source, jobs, levels.references, progress, seekable=True, spool_dir=spool_dir)


def _encode(
    source: FrameSource,
    jobs: Sequence[Job],
    frames: Callable[[Frame], Sequence[Frame]],  # of each job, from one of the source
    progress: Callable[[Progress], None] | None,
    *,
    seekable: bool,
    spool_dir: str | None,
) -> list[EncodeReport]:
    """Write all streams side by side, the source being read once."""
    started = time.monotonic()
    with ExitStack() as stack:
        encoders = []
        for job in jobs:
            writer = StreamWriter(
                job.sink,
                stream_header(job.info, job.plan),
                progression=job.plan.progression,
                seekable=seekable,
                spool_dir=spool_dir,
            )
            encoders.append(StreamEncoder(job, stack.enter_context(writer)))
        told = 0  # frames

        def tell() -> None:
            nonlocal told
            last = encoders[-1].tally
            if progress is not None and last.frames > told:  # a coder may wait for frames to come
                told = last.frames
                seconds = time.monotonic() - started
                size_bytes = sum(encoder.tally.payload_bytes for encoder in encoders)
                progress(Progress(told, source.frame_count, size_bytes, last.meters[-1].combined, seconds))

        for frame in source:
            for encoder, part in zip(encoders, frames(frame), strict=True):
                encoder.add(part)
            tell()
        for encoder in encoders:
            encoder.finish_gop()
        tell()
    seconds = time.monotonic() - started
    return [encoder.report(seconds) for encoder in encoders]
