"""The iterations of an I-frame's fit from one decision to the next.

What splats there are, their prices and what they are coded with stay as they are meanwhile, so that a course is all
arithmetic: on the host, or on a GPU of which the host hears nothing until it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pgsvc_codec.render.reference import StepResult
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.main.model import GrowingAdam, RatedModel
from pgsvc_codec.train.main.rate import Densities
from pgsvc_codec.train.objective import Objective


class Course(NamedTuple):
    """So many iterations as there are scales, at least one."""

    objective: Objective
    background: NDArray[np.float32]  # [C]
    model: RatedModel  # not empty; changed in place
    optimizer: GrowingAdam  # of the model
    level_weights: Sequence[float]
    densities: Densities  # of the model's splats
    prices: NDArray[np.float64]  # [layers] squared error that a bit is worth
    ramps: Sequence[float]  # share of the prices that counts, in each iteration
    scales: Sequence[float]  # factor on the learning rates, in each iteration


class Seen(NamedTuple):
    """What the last iteration of a course saw, before its step."""

    splats: Splats
    step: StepResult
    bits: torch.Tensor  # [N] of these splats


def row_prices(prices: NDArray[np.float64], ends: Sequence[int]) -> torch.Tensor:
    """[N] price of a bit of each splat, from those of layers that end there."""
    return torch.from_numpy(np.repeat(prices, np.diff([0, *ends])).astype(np.float32))


def take(courses: Sequence[Course]) -> list[Seen]:
    """Go through some courses, of as many iterations each."""
    return [_take(course) for course in courses]


def _take(course: Course) -> Seen:
    """One course on the host."""
    model, prices = course.model, row_prices(course.prices, course.model.ends)
    for ramp, scale in zip(course.ramps, course.scales, strict=True):
        splats = model.splats()
        step = course.objective.step(splats, course.background, model.ends, course.level_weights)
        model.set_gradients(step.moments)
        rate = model.rate(course.densities)
        model.add_rate(rate, ramp * prices)
        course.optimizer.step(scale)
        model.settle()
    return Seen(splats, step, rate.bits)
