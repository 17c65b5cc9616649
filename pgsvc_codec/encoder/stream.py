"""One stream while it is written: cuts the frames of a source into GOPs, has them coded and writes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec import __version__
from pgsvc_codec.config import EncodePlan
from pgsvc_codec.encoder.gop import InputFrame, Tally
from pgsvc_codec.encoder.report import EncodeReport, LevelReport
from pgsvc_codec.encoder.task import CodedGop, GopTask, OpenGop, Stage, Start
from pgsvc_codec.errors import PgsError
from pgsvc_codec.format.constants import PROFILE_NAMES, SCALABILITY_NAMES
from pgsvc_codec.format.container import StreamWriter
from pgsvc_codec.format.header import (
    EncoderRecord,
    LayersRecord,
    LevelRecord,
    ProfileRecord,
    StreamHeader,
    VideoRecord,
)
from pgsvc_codec.picture import Frame, to_unit
from pgsvc_codec.render.backend import choose, load
from pgsvc_codec.train.keyframes import KeyframeRule, keyframe_rule
from pgsvc_codec.train.levels import LevelSizes
from pgsvc_codec.train.motion_search import estimate_motion
from pgsvc_codec.video import Range, VideoInfo


class Job(NamedTuple):
    """One stream to write."""

    stage: Stage
    sink: BinaryIO
    start: Start | None = None  # of the first frame, only to be quantised


class Crew(NamedTuple):
    """Who codes GOPs other than this thread."""

    executor: Executor
    most_gops: int  # handed out and not yet written


class StreamEncoder:
    """State of one stream.

    Args:
        job: what to write.
        writer: of the stream.
        crew: codes GOPs whole; None = they are coded here, as their frames come.

    Attributes:
        writer: of the stream.
    """

    def __init__(self, job: Job, writer: StreamWriter, crew: Crew | None) -> None:
        info, plan, device = job.stage
        self._job = job
        self._rasterizer = load(device)
        self._levels = LevelSizes(info, plan.level_sizes, self._rasterizer)
        self._keyframes: KeyframeRule = keyframe_rule(plan)
        self._luma: NDArray[np.float32] | None = None  # of the previous source frame
        self._crew = crew
        self._gop: OpenGop | GopTask | None = None
        self._gop_frames = 0  # of that
        self._waiting: deque[Future[CodedGop]] = deque()
        self._gops = 0  # written
        self._frames = 0  # read
        self._written = Tally(info, plan.num_layers)
        self.writer = writer

    @property
    def tally(self) -> Tally:
        """Of the frames coded so far."""
        stage = self._job.stage
        tally = Tally(stage.info, stage.plan.num_layers)
        tally.include(self._written)
        if isinstance(self._gop, OpenGop):
            tally.include(self._gop.tally)
        return tally

    def add(self, planes: Frame) -> None:
        """The next frame of the source."""
        stage = self._job.stage
        luma = to_unit(planes, stage.info)[0]
        motion = None if self._luma is None else estimate_motion(self._luma, luma, self._rasterizer)
        self._luma = luma
        cut = self._keyframes(lambda: self._levels.read(planes).objective, motion, self._gop_frames)
        if cut or self._gop is None or self._gop_frames >= stage.plan.keyint:
            self.finish_gop()
            self._gop = self._open_gop(scene_cut=cut)
        self._gop.add(InputFrame(self._frames, planes, motion))
        self._gop_frames += 1
        self._frames += 1
        while self._waiting and self._waiting[0].done():
            self.write_next()

    def _open_gop(self, *, scene_cut: bool) -> OpenGop | GopTask:
        start = None if self._frames else self._job.start
        if self._crew is not None:
            return GopTask(self._job.stage, scene_cut=scene_cut, start=start)
        return OpenGop(self._job.stage, self._levels, self._frames, scene_cut=scene_cut, start=start)

    def finish_gop(self) -> None:
        """Write the open GOP, if there is one, or hand it out."""
        gop, self._gop, self._gop_frames = self._gop, None, 0
        if isinstance(gop, OpenGop):
            self._write(gop.finish())
        elif gop is not None and self._crew is not None:
            while len(self._waiting) >= self._crew.most_gops:
                self.write_next()
            with _telling_of_dead_workers():
                self._waiting.append(self._crew.executor.submit(gop))

    def write_next(self) -> bool:
        """Wait for the first GOP that has been handed out, and write it; False where there is none."""
        if not self._waiting:
            return False
        with _telling_of_dead_workers():
            coded = self._waiting.popleft().result()
        self._write(coded)
        return True

    def _write(self, coded: CodedGop) -> None:
        self.writer.write_gop(coded.gop)
        self._written.include(coded.tally)
        self._gops += 1

    def abandon(self) -> None:
        """Have no GOP coded that is not yet begun."""
        for future in self._waiting:
            future.cancel()

    def report(self, seconds: float) -> EncodeReport:
        """Of the finished stream."""
        (_, plan, device), tally = self._job.stage, self._written
        levels = [
            LevelReport(
                level,
                *size,
                sum(tally.splats[:level]),
                self.writer.level_bytes(level),
                meter.combined,
                meter.planes,
            )
            for level, (size, meter) in enumerate(zip(plan.level_sizes, tally.meters, strict=True), start=1)
        ]
        return EncodeReport(
            frames=tally.frames,
            size_bytes=self.writer.level_bytes(plan.num_layers),
            levels=tuple(levels),
            gops=self._gops,
            seconds=seconds,
            device=choose(device).name,
            plan=plan,
        )


@contextmanager
def _telling_of_dead_workers() -> Iterator[None]:
    try:
        yield
    except BrokenExecutor:
        raise PgsError("a worker ended without a word: killed, or out of memory") from None


def stream_header(info: VideoInfo, plan: EncodePlan) -> StreamHeader:
    """What a stream says about itself."""
    return StreamHeader(
        video=VideoRecord(
            width=info.width,
            height=info.height,
            rate=info.rate,
            chroma=int(info.chroma),
            depth=info.depth,
            matrix=int(info.matrix),
            primaries=info.primaries,
            transfer=info.transfer,
            color_range=int(info.range is Range.FULL),
            siting=int(info.siting),
        ),
        layers=LayersRecord(
            scalability={name: value for value, name in SCALABILITY_NAMES.items()}[plan.scalability],
            levels=tuple(
                LevelRecord(width=width, height=height, splats=end)
                for (width, height), end in zip(plan.level_sizes, plan.level_splats, strict=True)
            ),
        ),
        profile=ProfileRecord(profile={name: value for value, name in PROFILE_NAMES.items()}[plan.profile]),
        encoder=EncoderRecord(text=f"pgsvc {__version__}"),
    )
