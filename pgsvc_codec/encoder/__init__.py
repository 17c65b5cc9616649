"""Frames in, a `.pgs` stream out: decides frame types, has frames fitted, codes them and writes GOPs.

The loop is closed: a P-frame is fitted from what the decoder will have, and the PSNR reported is that of the
decoder's own pictures.  No more frames are in memory than a coder looks ahead, or GOPs than are being coded side by
side, so clips may be of any length.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import replace
from typing import BinaryIO

from pgsvc_codec.config import EncodeConfig
from pgsvc_codec.encoder.report import EncodeReport, FrameSource, LevelReport, Progress
from pgsvc_codec.encoder.stills import MOST_TOGETHER, StillSource, fit_together, on_device, read_still
from pgsvc_codec.encoder.stream import Crew, Job, StreamEncoder, stream_header
from pgsvc_codec.encoder.task import Stage, Start
from pgsvc_codec.errors import ConfigError
from pgsvc_codec.format.container import StreamWriter
from pgsvc_codec.picture import Frame
from pgsvc_codec.render.backend import choose, load
from pgsvc_codec.train.levels import LevelSizes

__all__ = [
    "EncodeReport",
    "FrameSource",
    "LevelReport",
    "Progress",
    "encode",
    "encode_monolithic",
    "encode_stills",
]


def encode(
    source: FrameSource,
    sink: BinaryIO,
    config: EncodeConfig,
    *,
    progress: Callable[[Progress], None] | None = None,
    seekable: bool = True,
    spool_dir: str | None = None,
    start: Start | None = None,
    executor: Executor | None = None,
    gops_in_flight: int | None = None,
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
        start: a float fit of the first frame with these options, only to be quantised: in profile `baseline` one of
            `train.fit.fit_float`, in `main` one of `train.main.fit.fit_stills`.
        executor: codes GOPs side by side, to the same bytes: `workers.local_workers`, or any other that runs tasks in
            processes; not in threads, for what they call knows of no others.  None = they are coded here.
        gops_in_flight: how many GOPs, with all their frames, may be with the executor; None = one more than this
            machine has cores.

    Raises:
        ConfigError: options do not fit the source or each other.
        InputError: the source is empty, or a frame is not what the source's info says.
        BackendError: the device is not available.
        OutputError: the sink or the temporary file cannot be written.
        PgsError: a worker of the executor was killed.
    """
    if config.strategy == "monolithic" and config.layers > 1:
        raise ConfigError(f"layers: got {config.layers}, allowed 1 in a stream of strategy monolithic")
    info = source.info
    plan = config.resolve(info.width, info.height, info.rate, still=source.still and seekable)
    job = Job(Stage(info, plan, choose(config.device).device), sink, start)
    crew = _crew(executor, gops_in_flight)
    return _encode(source, [job], lambda frame: [frame], progress, crew, seekable=seekable, spool_dir=spool_dir)[0]


def encode_monolithic(
    source: FrameSource,
    sinks: Sequence[BinaryIO],
    config: EncodeConfig,
    *,
    progress: Callable[[Progress], None] | None = None,
    spool_dir: str | None = None,
    executor: Executor | None = None,
    gops_in_flight: int | None = None,
) -> list[EncodeReport]:
    """Encode every level of a source as a stream of one layer: what scalable streams are compared with (GSVC).

    Args:
        source: frames and what they are; read once.
        sinks: one per level, seekable.
        config: options; levels have the splats and the size that they would have in one stream, and each its own
            `iterations`.
        progress: called after every frame.
        spool_dir, executor, gops_in_flight: see `encode`; GOPs are counted in each stream.

    Raises:
        as `encode`.
    """
    info = source.info
    plan = config.resolve(info.width, info.height, info.rate, still=source.still)
    if len(sinks) != plan.num_layers:
        raise ConfigError(f"sinks: got {len(sinks)}, allowed {plan.num_layers}, one per level")
    device = choose(config.device).device  # whatever a worker would choose for itself
    levels = LevelSizes(info, plan.level_sizes, load(device))
    jobs = []
    for level, ((width, height), sink) in enumerate(zip(plan.level_sizes, sinks, strict=True), start=1):
        single = config.of_level(level, plan).resolve(width, height, info.rate, still=source.still)
        jobs.append(Job(Stage(replace(info, width=width, height=height), single, device), sink))
    crew = _crew(executor, gops_in_flight)
    return _encode(source, jobs, levels.references, progress, crew, seekable=True, spool_dir=spool_dir)


def encode_stills(
    sources: Sequence[FrameSource],
    sinks: Sequence[BinaryIO],
    config: EncodeConfig,
    *,
    spool_dir: str | None = None,
) -> list[EncodeReport]:
    """Encode pictures, each to a stream of its own as `encode` makes it, side by side on a GPU.

    Args:
        sources: of one frame each; read a few at a time, in order.
        sinks: one per source, seekable.
        config: options.
        spool_dir: see `encode`.

    Raises:
        InputError: a source has not exactly one frame.
        others as `encode`.
    """
    if len(sinks) != len(sources):
        raise ConfigError(f"sinks: got {len(sinks)}, allowed {len(sources)}, one per source")
    device = choose(config.device).device
    reports: list[EncodeReport] = []

    def encode_one(job: tuple[StillSource, Job]) -> EncodeReport:
        source, own = job
        return _encode(source, [own], lambda frame: [frame], None, None, seekable=True, spool_dir=spool_dir)[0]

    for first in range(0, len(sources), MOST_TOGETHER):
        numbers = range(first, min(first + MOST_TOGETHER, len(sources)))
        stills = [read_still(sources[number], number) for number in numbers]
        stages = [
            Stage(info, config.resolve(info.width, info.height, info.rate, still=True), device)
            for info in (still.info for still in stills)
        ]
        together = stages[0].plan.profile == "main"
        fits = fit_together(stages, [still.picture for still in stills]) if together else [None] * len(stills)
        jobs = [Job(stage, sinks[number], fit) for number, stage, fit in zip(numbers, stages, fits, strict=True)]
        reports += on_device(encode_one, list(zip(stills, jobs, strict=True)), device)
    return reports


def _crew(executor: Executor | None, gops_in_flight: int | None) -> Crew | None:
    if executor is None:
        return None
    most = (os.cpu_count() or 1) + 1 if gops_in_flight is None else gops_in_flight
    if most < 1:
        raise ConfigError(f"GOPs in flight: got {most}, allowed 1 and more")
    return Crew(executor, most)


def _encode(
    source: FrameSource,
    jobs: Sequence[Job],
    frames: Callable[[Frame], Sequence[Frame]],  # of each job, from one of the source
    progress: Callable[[Progress], None] | None,
    crew: Crew | None,
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
                stream_header(job.stage.info, job.stage.plan),
                progression=job.stage.plan.progression,
                seekable=seekable,
                spool_dir=spool_dir,
            )
            encoders.append(StreamEncoder(job, stack.enter_context(writer), crew))
            stack.callback(encoders[-1].abandon)
        told = 0  # frames

        def tell() -> None:
            nonlocal told
            if progress is None:
                return
            tallies = [encoder.tally for encoder in encoders]
            last = tallies[-1]
            if last.frames > told:  # a coder may wait for frames to come
                told = last.frames
                seconds = time.monotonic() - started
                size_bytes = sum(tally.payload_bytes for tally in tallies)
                progress(Progress(told, source.frame_count, size_bytes, last.meters[-1].combined, seconds))

        for frame in source:
            for encoder, part in zip(encoders, frames(frame), strict=True):
                encoder.add(part)
            tell()
        for encoder in encoders:
            encoder.finish_gop()
        tell()
        for encoder in encoders:
            while encoder.write_next():
                tell()
    seconds = time.monotonic() - started
    return [encoder.report(seconds) for encoder in encoders]
