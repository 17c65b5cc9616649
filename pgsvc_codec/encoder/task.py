"""One GOP, from its frames to what the container takes: in this process while they come, or as a task elsewhere."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pgsvc_codec.config import EncodePlan
from pgsvc_codec.encoder.baseline import BaselineGop
from pgsvc_codec.encoder.gop import GopCoder, InputFrame, Measure, Tally
from pgsvc_codec.encoder.main import MainGop
from pgsvc_codec.format.container import Gop, LayerSegment
from pgsvc_codec.picture import to_unit
from pgsvc_codec.render.backend import load
from pgsvc_codec.train.levels import LevelSizes
from pgsvc_codec.train.main.fit import IntraFit
from pgsvc_codec.train.stack import FloatFit
from pgsvc_codec.video import VideoInfo
from pgsvc_codec.workers import own_device

Start = FloatFit | IntraFit  # of `baseline`, of `main`

_NO_LUMA = np.empty((0, 0), np.float32)


class Stage(NamedTuple):
    """What all GOPs of a stream have in common."""

    info: VideoInfo
    plan: EncodePlan
    device: str


class CodedGop(NamedTuple):
    """A GOP as the container takes it, and what is told of it."""

    gop: Gop
    tally: Tally


class OpenGop:
    """A GOP that is coded as its frames come.

    Args:
        stage: of the stream.
        levels: of the stream, on its device.
        first_frame: in display order.
        scene_cut: whether it begins at one.
        start: a float fit of the first frame, of the plan's profile, only to be quantised.

    Attributes:
        tally: of the frames coded so far.
    """

    def __init__(
        self, stage: Stage, levels: LevelSizes, first_frame: int, *, scene_cut: bool, start: Start | None
    ) -> None:
        info, plan = stage.info, stage.plan
        self.tally = Tally(info, plan.num_layers)
        self._first_frame = first_frame
        self._scene_cut = scene_cut
        self._coder: GopCoder
        measure = Measure(levels, self.tally)
        if plan.profile == "main":
            assert not isinstance(start, FloatFit)
            self._coder = MainGop(plan, info, levels, measure, start)
        else:
            assert not isinstance(start, IntraFit)
            self._coder = BaselineGop(plan, info.chroma.num_planes, levels, measure, start)

    def add(self, frame: InputFrame) -> None:
        """The next frame."""
        self._coder.add(frame)

    def finish(self) -> CodedGop:
        """Code what waits."""
        segments = [
            LayerSegment(payloads, splats, meter.combined)
            for payloads, splats, meter in zip(self._coder.finish(), self.tally.splats, self.tally.meters, strict=True)
        ]
        return CodedGop(Gop(self._first_frame, segments, key=True, scene_cut=self._scene_cut), self.tally)


class GopTask:
    """A GOP whose frames are collected, to be pickled and coded anywhere: called, it gives the `CodedGop`.

    Args:
        stage: of the stream.
        scene_cut: whether it begins at one.
        start: a float fit of the first frame, of the plan's profile, only to be quantised.
    """

    def __init__(self, stage: Stage, *, scene_cut: bool, start: Start | None) -> None:
        self._stage = stage
        self._scene_cut = scene_cut
        self._start = start
        self._frames: list[InputFrame] = []

    def add(self, frame: InputFrame) -> None:
        """The next frame."""
        # motion carries two luma planes, larger than the frame that they come from
        motion = None if frame.motion is None else frame.motion._replace(old=_NO_LUMA, new=_NO_LUMA)
        self._frames.append(frame._replace(motion=motion))

    def __call__(self) -> CodedGop:
        """Code it, on the device of this worker or else of the stream."""
        stage = self._stage._replace(device=own_device() or self._stage.device)
        levels = LevelSizes(stage.info, stage.plan.level_sizes, load(stage.device))
        first = self._frames[0].number
        gop = OpenGop(stage, levels, first, scene_cut=self._scene_cut, start=self._start)
        old = None
        for frame in self._frames:
            new = to_unit(frame.planes, stage.info)[0]
            # into the first frame there is motion from another GOP, which nothing here depends on
            motion = None if old is None or frame.motion is None else frame.motion._replace(old=old, new=new)
            gop.add(frame._replace(motion=motion))
            old = new
        return gop.finish()
