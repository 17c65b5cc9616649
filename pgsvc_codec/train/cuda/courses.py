"""`train.main.courses` on a GPU: courses of pictures of one kind in the same launches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pgsvc_codec.train.cuda.model_kernels import DENSITIES
from pgsvc_codec.train.cuda.passes import Kind, kind_of
from pgsvc_codec.train.cuda.runs import Going, run
from pgsvc_codec.train.main.courses import Course, Seen
from pgsvc_codec.train.main.rate import Densities


def take(courses: Sequence[Course], device: torch.device) -> list[Seen]:
    """As `courses.take`, on the device of the rasteriser that all of them have."""
    alike: dict[tuple[Kind, bool], list[int]] = {}
    for number, course in enumerate(courses):
        alike.setdefault((kind_of(course.objective), course.model.opponent), []).append(number)
    seen: dict[int, Seen] = {}
    for (_, opponent), numbers in alike.items():
        runs = run([_going(courses[number]) for number in numbers], device, opponent=opponent)
        for number, last in zip(numbers, runs, strict=True):
            seen[number] = Seen(last.splats, last.step, torch.from_numpy(last.bits))
    return [seen[number] for number in range(len(courses))]


def _going(course: Course) -> Going:
    return Going(
        course.model,
        course.optimizer,
        course.objective,
        course.background,
        [course.level_weights] * len(course.scales),
        course.scales,
        _densities(course),
        course.ramps,
    )


def _densities(course: Course) -> NDArray[np.float32]:
    """[layers, DENSITIES] see `model_kernels.step`; whatever where a layer has no splats.

    Amplitudes of planes that are not there cost nothing: densities of infinite width.
    """
    table = np.full((len(course.prices), DENSITIES), np.inf, np.float32)
    table[:, 0] = course.prices
    for row, rows in zip(table, course.model.layers, strict=True):
        if rows.start < rows.stop:
            costs = Densities(*(part[rows.start : rows.start + 1] for part in course.densities))
            numbers = torch.cat([costs.step, *costs.centers, *costs.scales, *costs.magnitudes])
            row[1 : 1 + len(numbers)] = numbers.numpy()
            row[-1] = costs.any_bits
    return table
