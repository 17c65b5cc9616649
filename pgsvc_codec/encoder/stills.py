"""Pictures that are encoded side by side: a GPU has their fits in the same launches, and codes several at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from pgsvc_codec.encoder.main import still_of
from pgsvc_codec.encoder.report import FrameSource
from pgsvc_codec.encoder.task import Stage
from pgsvc_codec.errors import InputError
from pgsvc_codec.picture import Frame
from pgsvc_codec.render.backend import load
from pgsvc_codec.train.descent import single_threaded_torch
from pgsvc_codec.train.levels import LevelSizes
from pgsvc_codec.train.main.fit import IntraFit, fit_stills
from pgsvc_codec.train.place import device_of
from pgsvc_codec.video import Chroma, VideoInfo

MOST_TOGETHER = 32  # pictures: enough to fill a card, few enough for what each of them takes there

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass
class StillSource:
    """A picture that has been read; a `report.FrameSource`."""

    info: VideoInfo
    picture: Frame
    frame_count: int | None = 1
    still: bool = True

    def __iter__(self) -> Iterator[Frame]:
        yield self.picture


def read_still(source: FrameSource, number: int) -> StillSource:
    """The only frame of a source.

    Args:
        source: read once.
        number: of the source among others, for messages.

    Raises:
        InputError: it has none, or more.
    """
    frames = iter(source)
    picture = next(frames, None)
    if picture is None or next(frames, None) is not None:
        raise InputError(f"source {number}: got {'no frame' if picture is None else 'more than one'}, allowed 1 frame")
    return StillSource(source.info, picture)


def fit_together(stages: Sequence[Stage], pictures: Sequence[Frame]) -> list[IntraFit]:
    """The fits of pictures, of profile `main` and one number of iterations, with which their coding begins.

    Args:
        stages: of each picture, all on one device.
        pictures: one each.
    """
    alike: dict[Chroma, list[int]] = {}
    for number, stage in enumerate(stages):
        alike.setdefault(stage.info.chroma, []).append(number)
    fits: dict[int, IntraFit] = {}
    for chroma, numbers in alike.items():
        stills = []
        for number in numbers:
            info, plan, device = stages[number]
            objective = LevelSizes(info, plan.level_sizes, load(device)).read(pictures[number]).objective
            stills.append(still_of(objective, plan))
        iterations = stages[numbers[0]].plan.iterations_intra
        fits.update(zip(numbers, fit_stills(stills, iterations, opponent=chroma is Chroma.RGB), strict=True))
    return [fits[number] for number in range(len(stages))]


def on_device(work: Callable[[_Item], _Result], items: Sequence[_Item], device: str) -> list[_Result]:
    """What `work` makes of each item: one after the other on a CPU, of which each has all threads.

    On a GPU several go on at the same time, each in a stream of its own, for coding one picture leaves most of it idle.
    """
    place = device_of(load(device))
    if place is None:
        return [work(item) for item in items]
    from pgsvc_codec.render.cuda.device import Stream

    def beside(item: _Item) -> _Result:
        with Stream(place):
            return work(item)

    # threads that change torch's number of threads in turn would leave it anywhere
    with single_threaded_torch(), ThreadPoolExecutor(min(os.cpu_count() or 1, len(items)) or 1) as pool:
        return list(pool.map(beside, items))
