"""GOPs of the `main` profile: an I-frame, anchors some frames apart, and what lies between two of them.

Frames wait until the anchor behind them is there.  How far anchors lie apart stands in the I-frame's payload, so that
one waits for the frames that decide it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pgsvc_codec.coding.main.gop import FrameStep, coding_order
from pgsvc_codec.coding.main.layer import FrameHeader, LayerEncoder, background_of
from pgsvc_codec.coding.main.predict import MotionField, Slots
from pgsvc_codec.coding.main.state import splats_of
from pgsvc_codec.config import DEFAULT_QUALITY, EncodePlan
from pgsvc_codec.encoder.gop import InputFrame, Measure
from pgsvc_codec.picture import Frame, to_unit
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.levels import LevelSizes
from pgsvc_codec.train.main.aim import Aim, level_weights, step_of_quality
from pgsvc_codec.train.main.alternate import alternate
from pgsvc_codec.train.main.fit import IntraFit, Still, fit_stills
from pgsvc_codec.train.main.gop import TRIAL_FRAMES, Effort, choose_distance, fit_anchor, fit_between, held_price
from pgsvc_codec.train.main.problem import InterProblem
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.video import Chroma, VideoInfo

_FINER = 0.75  # step of an I-frame that others are made of, over that of a still of the same quality
_BRIEF = 100  # iterations of a fit: below, the refinement is as brief


class MainGop:
    """One GOP; a `gop.GopCoder`.

    Args:
        plan: of the encode.
        info: of the frames.
        levels: how frames and levels become pictures.
        measure: told of every frame.
        start: the fit of the first frame, where it is known.
    """

    def __init__(
        self, plan: EncodePlan, info: VideoInfo, levels: LevelSizes, measure: Measure, start: IntraFit | None = None
    ) -> None:
        layers = range(plan.num_layers)
        self._plan = plan
        self._info = info
        self._size = (info.width, info.height)
        self._opponent = info.chroma is Chroma.RGB
        self._levels = levels
        self._measure = measure
        self._start = start
        self._coders = [LayerEncoder(layer, info.chroma.num_planes, *self._size) for layer in layers]
        self._payloads: list[list[bytes]] = [[] for _ in layers]
        self._frames: list[Frame] = []  # from the last anchor on, which is the first of them
        self._first = 0  # number of that anchor within the GOP
        self._number = 0  # of the GOP's first frame in the source
        self._distance: int | None = None  # from one anchor to the next; None before it is decided
        self._field: MotionField | None = None  # of the last anchor

    def add(self, frame: InputFrame) -> None:
        """As `gop.GopCoder.add`."""
        if not self._frames:
            self._number = frame.number
        self._frames.append(frame.planes)
        if self._distance is None and len(self._frames) > TRIAL_FRAMES:
            self._begin()
        while self._distance is not None and len(self._frames) > self._distance:
            self._code_up_to(self._distance)

    def finish(self) -> list[list[bytes]]:
        """As `gop.GopCoder.finish`."""
        if self._distance is None:
            self._begin()
        assert self._distance is not None
        while len(self._frames) > 1:
            self._code_up_to(min(self._distance, len(self._frames) - 1))
        return self._payloads

    def _begin(self) -> None:
        """Code the I-frame, and decide how far anchors lie apart."""
        source = self._levels.read(self._frames[0])
        plan, alone = self._plan, len(self._frames) == 1
        aim = _aim(plan, alone=alone)
        fit, self._start = self._start, None
        if fit is None:
            wanted = still_of(source.objective, plan, self._number, alone=alone)
            fit = fit_stills([wanted], plan.iterations_intra, opponent=self._opponent)[0]
        codes = tuple(int(code) for code in np.rint(np.clip(fit.background, 0, 1) * 255))
        self._background = background_of(codes)
        refined = alternate(
            source.objective,
            self._background,
            fit.layers,
            fit.step_indices,
            fit.prices,
            fit.level_weights,
            opponent=self._opponent,
            rounds=_rounds(plan.iterations_intra),
            passes=4 if plan.iterations_intra < _BRIEF else 8,
            shares=plan.least_shares,
            most=aim.splats,
        )
        self._fit = fit
        self._first_error = self._last_error = float(refined.squared_error[-1])
        slots = [Slots(state, np.zeros(len(state), np.int32)) for state in refined.layers]
        self._distance = 1
        if len(self._frames) > 2:
            problems = [self._problem(self._levels.read(planes).objective) for planes in self._frames]
            self._distance = choose_distance(problems, slots)
        for layer, (coder, state) in enumerate(zip(self._coders, refined.layers, strict=True)):
            header = None if layer else FrameHeader(codes, self._distance)
            self._payloads[layer].append(coder.encode_intra(state, fit.step_indices[layer], header))
        self._show(source.references, 0)

    def _code_up_to(self, distance: int) -> None:
        """Code the anchor `distance` frames behind the last, and the frames between the two."""
        for step in coding_order(distance + 1, distance)[1:]:
            self._code(step)
        del self._frames[:distance]
        self._first += distance

    def _code(self, step: FrameStep) -> None:
        """Code one frame, whose step counts from the last anchor."""
        assert step.past is not None
        source = self._levels.read(self._frames[step.display])
        problem = self._problem(source.objective)
        iterations = self._plan.iterations_inter
        effort = Effort(iterations, max(iterations * 2 // 5, 1))
        own = _shifted(step, self._first)
        if step.future is None:
            assert own.past is not None
            luma = to_unit(self._frames[step.past], self._info)[0]
            reference = [coder.frames[own.past] for coder in self._coders]
            targets = fit_anchor(problem, reference, luma, effort, self._field)
            self._field = targets.field
            self._last_error = float(targets.squared_error[-1])
        else:
            predicted = [coder.predicted(own, None) for coder in self._coders]
            targets = fit_between(problem, predicted, step.depth, effort)
        for layer, coder in enumerate(self._coders):
            payload = coder.encode_inter(
                own,
                targets.slots[layer],
                self._fit.step_indices[layer],
                reborn=None if targets.reborn is None else targets.reborn[layer],
                field=targets.field,
            )
            self._payloads[layer].append(payload)
        self._show(source.references, own.display)

    def _problem(self, objective: Objective) -> InterProblem:
        fit = self._fit
        return InterProblem(
            objective=objective,
            background=self._background,
            step_indices=fit.step_indices,
            level_weights=fit.level_weights,
            opponent=self._opponent,
            price=held_price(self._last_error, self._first_error),
        )

    def _show(self, references: Sequence[Frame], display: int) -> None:
        """Measure the frame just coded."""
        layers = [self._splats(coder.frames[display]) for coder in self._coders]
        size = sum(len(frames[-1]) for frames in self._payloads)
        self._measure(references, layers, background_of(self._coders[0].backgrounds[display]), size)

    def _splats(self, slots: Slots) -> Splats:
        return splats_of(slots.state, *self._size, opponent=self._opponent)


def still_of(objective: Objective, plan: EncodePlan, number: int = 0, *, alone: bool = True) -> Still:
    """An I-frame as it is to be fitted.

    Args:
        objective: of the frame.
        plan: of the encode.
        number: of the frame in the source.
        alone: no other frame is made of it.
    """
    # a seed per frame: a GOP then does not depend on how many random numbers earlier ones drew
    return Still(objective, _aim(plan, alone=alone), np.random.default_rng([plan.seed, number]))


def _aim(plan: EncodePlan, *, alone: bool) -> Aim:
    """What an I-frame is to reach; `alone` where no other frame is made of it."""
    step = step_of_quality(DEFAULT_QUALITY if plan.quality is None else plan.quality)
    if not alone:
        step *= _FINER
    splats = plan.splats if plan.quality is None else None
    return Aim(step, plan.layer_shares, level_weights(plan.num_layers, plan.level_weights), splats)


def _rounds(iterations: int) -> int:
    """Of fit and refinement in turn, behind a first fit of so many iterations."""
    return 0 if iterations < _BRIEF else min(math.ceil(iterations / 125), 24)


def _shifted(step: FrameStep, by: int) -> FrameStep:
    """A step that counts from an anchor, counted from the GOP's first frame."""
    assert step.past is not None
    future = None if step.future is None else step.future + by
    return step._replace(display=step.display + by, past=step.past + by, future=future)
