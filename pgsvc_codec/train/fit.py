"""Fit the splats of one frame: strategies, which cut its layers into stacks, over methods, which fit a stack.

    joint           all layers at once, the full level and one or all of the others supervised (paper, Eq. 9)
    joint-random    the same with the other level drawn at random (paper, Fig. 5a)
    sequential      layer after layer, those below frozen (paper, Eq. 6; LIG, LapisGS)
    pruning         one fit to the full level, layers cut by what splats contribute to it
    monolithic      one layer, so nothing is left to decide; the encoder makes a stream for each level (GSVC)

A strategy spends the same iterations in all, whatever its stacks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.config import EncodePlan
from pgsvc_codec.splats import Splats
from pgsvc_codec.train import natural, paper
from pgsvc_codec.train.descent import Observer
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.train.schedule import LevelWeights, all_levels, cyclic, emphasised, full_level, uniform
from pgsvc_codec.train.stack import FloatFit, FrameFit, Method, Reference, Stack
from pgsvc_codec.train.tuning import DEFAULTS, Tuning

METHODS: dict[str, Method] = {"natural": natural, "paper": paper}
LEVEL_SCHEDULES: dict[str, Callable[[int, int], LevelWeights]] = {"all": all_levels, "cyclic": cyclic}


class Strategy(NamedTuple):
    """How the layers of a frame are fitted."""

    schedule: Callable[[int, int], LevelWeights] | None  # of level weights; None = the plan's
    layerwise: bool = False  # a stack per layer
    ranked: bool = False  # layers are cut from one fit


STRATEGIES = {
    "joint": Strategy(None),
    "joint-random": Strategy(uniform),
    "sequential": Strategy(full_level, layerwise=True),
    "pruning": Strategy(full_level, ranked=True),
    "monolithic": Strategy(full_level),
}


def fit_intra(
    objective: Objective, plan: EncodePlan, rng: np.random.Generator, start: FloatFit | None = None
) -> FrameFit:
    """Fit an I-frame from nothing but its picture, quantised.

    Args:
        objective: of the frame, one level per layer.
        start: a float fit of the same plan, to be quantised: only the iterations under quantisation are spent.
    """
    method = METHODS[plan.method]
    background = method.background(objective) if start is None else start.background

    def fit(stack: Stack, background: NDArray[np.float32]) -> FrameFit:
        chosen = start and start.layers[stack.first : stack.first + len(stack.sizes)]
        return method.intra(stack._replace(start=chosen), background)

    return _joined(_fit_stacks(objective, plan, rng, plan.iterations_intra, background, fit))


def fit_inter(
    objective: Objective,
    plan: EncodePlan,
    rng: np.random.Generator,
    background: NDArray[np.float32],
    reference: Reference,
) -> FrameFit:
    """Fit a P-frame from the decoded frame before, quantised.

    Args:
        objective: of the frame, one level per layer.
        background: [C] of the frame before, kept.
        reference: of all layers.
    """
    method = METHODS[plan.method]

    def fit(stack: Stack, background: NDArray[np.float32]) -> FrameFit:
        return method.inter(stack, background, reference.of(stack.layers))

    sizes = [len(layer) for layer in reference.layers]
    return _joined(_fit_stacks(objective, plan, rng, plan.iterations_inter, background, fit, sizes))


def fit_float(
    objective: Objective,
    plan: EncodePlan,
    rng: np.random.Generator,
    observe: Observer | None = None,
    tuning: Tuning = DEFAULTS,
) -> FloatFit:
    """Fit an I-frame and quantise nothing, as the paper's Table 1 does; all iterations go into the float fit.

    Args:
        objective: of the frame, one level per layer.
        observe: told of every iteration.
        tuning: of the fit in natural coordinates.
    """
    method = METHODS[plan.method]
    background = method.background(objective)

    def fit(stack: Stack, background: NDArray[np.float32]) -> FloatFit:
        return method.intra_float(stack._replace(tuning=tuning), background)

    fits = _fit_stacks(objective, plan, rng, plan.iterations_intra, background, fit, observe=observe)
    return FloatFit(background, [layer for fit in fits for layer in fit.layers])


_Fit = TypeVar("_Fit", FrameFit, FloatFit)


def _fit_stacks(
    objective: Objective,
    plan: EncodePlan,
    rng: np.random.Generator,
    iterations: int,
    background: NDArray[np.float32],
    fit: Callable[[Stack, NDArray[np.float32]], _Fit],
    sizes: Sequence[int] | None = None,
    observe: Observer | None = None,
) -> list[_Fit]:
    """Fit the stacks of the plan's strategy, from the base up; layers above see what those below came to."""
    strategy = STRATEGIES[plan.strategy]
    schedule = strategy.schedule or LEVEL_SCHEDULES[plan.level_schedule]
    num_layers = objective.num_levels
    sizes = sizes or plan.layer_splats
    if not strategy.layerwise:
        weights = emphasised(schedule(num_layers, plan.seed), plan.level_weights)
        return [fit(Stack(objective, 0, sizes, weights, iterations, rng, strategy.ranked, observe), background)]
    fits: list[_Fit] = []
    nothing = np.zeros_like(background)
    below = Splats.empty(objective.channels)
    iterations = max(iterations, num_layers)  # no fit gets along without any
    for layer, size in enumerate(sizes):
        share = iterations * (layer + 1) // num_layers - iterations * layer // num_layers
        rest = objective.alone(layer, below, background if layer else nothing)
        stack = Stack(rest, layer, [size], schedule(1, plan.seed), share, rng, observe=observe)
        fits.append(fit(stack, nothing if layer else background))
        below = Splats.concatenate([below, *fits[-1].layers])
    return fits


def _joined(fits: Sequence[FrameFit]) -> FrameFit:
    """The fits of all stacks as one; the background lies under the base."""
    return FrameFit(
        background=fits[0].background,
        targets=[splats for fit in fits for splats in fit.targets],
        survivors=[mask for fit in fits for mask in fit.survivors],
        whole=[splats for fit in fits for splats in fit.whole],
        tables_inter=[tables for fit in fits for tables in fit.tables_inter],
        tables_intra=[tables for fit in fits for tables in fit.tables_intra],
    )
