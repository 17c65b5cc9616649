"""One stream while it is written: cuts the frames of a source into GOPs, has them coded and writes them."""

from __future__ import annotations

from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec import __version__
from pgsvc_codec.config import EncodePlan
from pgsvc_codec.encoder.baseline import BaselineGop
from pgsvc_codec.encoder.gop import GopCoder, InputFrame, Measure, Tally, assemble
from pgsvc_codec.encoder.main import MainGop
from pgsvc_codec.encoder.report import EncodeReport, LevelReport
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
from pgsvc_codec.render.backend import load
from pgsvc_codec.train.keyframes import KeyframeRule, keyframe_rule
from pgsvc_codec.train.levels import LevelSizes
from pgsvc_codec.train.motion import estimate_motion
from pgsvc_codec.train.stack import FloatFit
from pgsvc_codec.video import Range, VideoInfo


class Job(NamedTuple):
    """One stream to write."""

    info: VideoInfo
    plan: EncodePlan
    device: str
    sink: BinaryIO
    start: FloatFit | None = None  # of the first frame, only to be quantised


class _OpenGop(NamedTuple):
    """The GOP being coded."""

    first_frame: int
    scene_cut: bool
    coder: GopCoder
    tally: Tally


class StreamEncoder:
    """State of one stream.

    Attributes:
        tally: of the frames coded so far.
        writer: of the stream.
    """

    def __init__(self, job: Job, writer: StreamWriter) -> None:
        info, plan = job.info, job.plan
        self._job = job
        self._levels = LevelSizes(info, plan.level_sizes, load(job.device))
        self._keyframes: KeyframeRule = keyframe_rule(plan)
        self._luma: NDArray[np.float32] | None = None  # of the previous source frame
        self._gop: _OpenGop | None = None
        self._gops = 0
        self._frames = 0  # read
        self.tally = Tally(info, plan.num_layers)
        self.writer = writer

    def add(self, planes: Frame) -> None:
        """The next frame of the source."""
        plan = self._job.plan
        luma = to_unit(planes, self._job.info)[0]
        motion = None if self._luma is None else estimate_motion(self._luma, luma)
        self._luma = luma
        gop_frames = self._frames - self._gop.first_frame if self._gop else 0
        cut = self._keyframes(lambda: self._levels.read(planes).objective, motion, gop_frames)
        if cut or self._gop is None or gop_frames >= plan.keyint:
            self.finish_gop()
            self._gop = self._open_gop(scene_cut=cut)
        self._gop.coder.add(InputFrame(self._frames, planes, motion))
        self._frames += 1

    def _open_gop(self, *, scene_cut: bool) -> _OpenGop:
        info, plan = self._job.info, self._job.plan
        tally = Tally(info, plan.num_layers)
        measure = Measure(self._levels, (tally, self.tally))
        start = None if self._frames else self._job.start
        coder: GopCoder
        if plan.profile == "main":
            coder = MainGop(plan, info, self._levels, measure)
        else:
            coder = BaselineGop(plan, info.chroma.num_planes, self._levels, measure, start)
        return _OpenGop(self._frames, scene_cut, coder, tally)

    def finish_gop(self) -> None:
        """Write the open GOP, if there is one."""
        gop, self._gop = self._gop, None
        if gop is None:
            return
        self.writer.write_gop(assemble(gop.first_frame, gop.coder.finish(), gop.tally, scene_cut=gop.scene_cut))
        self._gops += 1

    def report(self, seconds: float) -> EncodeReport:
        """Of the finished stream."""
        job, tally = self._job, self.tally
        levels = [
            LevelReport(
                level,
                *size,
                sum(tally.splats[:level]),
                self.writer.level_bytes(level),
                meter.combined,
                meter.planes,
            )
            for level, (size, meter) in enumerate(zip(job.plan.level_sizes, tally.meters, strict=True), start=1)
        ]
        return EncodeReport(
            frames=tally.frames,
            size_bytes=self.writer.level_bytes(job.plan.num_layers),
            levels=tuple(levels),
            gops=self._gops,
            seconds=seconds,
            device="cpu" if job.device == "auto" else job.device,
            plan=job.plan,
        )


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
