"""Splats to integers and back: refinement and float fit in turn.

A refinement moves one splat at a time, and knows what bits cost: it drops splats, bears others, and ends where no
single one can do better.  A few iterations of a plain fit then move all of them together to make the best of who is
left, and the next refinement starts from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main.state import splats_of
from pgsvc_codec.splats import Splats, SplatState
from pgsvc_codec.train.descent import Descent
from pgsvc_codec.train.main.fit import LIMITS
from pgsvc_codec.train.main.refine import Refined, refine_intra
from pgsvc_codec.train.model import SplatModel
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.train.rates import adam_of
from pgsvc_codec.train.schedule import half_cosine
from pgsvc_codec.train.tuning import DEFAULTS

_RATE = 0.3  # learning rates in units of a first fit's
_WARMUP = 3  # iterations
_PASSES_BETWEEN = 4  # of refinements that are not the last
_UNREST = 0.02  # of J, by which a round may be worse than the best; the next ones make that good
_SLOWER = 0.5  # learning rates after a round that was worse still


def alternate(
    objective: Objective,
    background: NDArray[np.float32],
    layers: Sequence[Splats],
    step_indices: Sequence[int],
    lambdas: Sequence[float],
    level_weights: Sequence[float],
    *,
    opponent: bool,
    rounds: int = 6,
    iterations: int = 15,
    passes: int = 8,
    shares: Sequence[float] | None = None,
    most: int | None = None,
) -> Refined:
    """Fit the splats of an I-frame to their lattices, in several rounds.

    Args:
        objective: of the frame, one level per layer.
        background: [C] as a decoder has it.
        layers: not quantised, base first.
        step_indices: see `refine_intra`; likewise lambdas, level_weights, opponent, shares and most.
        rounds: of a float fit and a refinement, after a first refinement; 0 are a refinement alone.  One that makes J
            much worse is taken back, and the next are more careful.
        iterations: of each float fit.
        passes: of the last refinement; others make do with few.
    """
    rate = _RATE
    best: Refined | None = None
    for turn in range(rounds + 1):
        last = turn == rounds
        refined = refine_intra(
            objective,
            background,
            layers,
            step_indices,
            lambdas,
            level_weights,
            opponent=opponent,
            passes=passes if last else min(_PASSES_BETWEEN, passes),
            shares=shares,
            most=most,
        )
        least = refined.cost if best is None else _cost(best, refined.prices, level_weights)
        if best is None or refined.cost <= least:
            best = refined
        if refined.cost <= (1 + _UNREST) * least:
            result = refined
        else:  # rates are for rounding errors of ordinary pictures, and may be far too fast for an almost perfect one
            result, rate = best, rate * _SLOWER
        if not last:
            layers = _fit_again(
                objective, background, result.layers, level_weights, iterations, rate, opponent=opponent
            )
    return result


def _cost(refined: Refined, prices: Sequence[float], level_weights: Sequence[float]) -> float:
    """J at other prices."""
    return float(np.dot(level_weights, refined.squared_error) + np.dot(prices, refined.bits))


def _fit_again(
    objective: Objective,
    background: NDArray[np.float32],
    states: Sequence[SplatState],
    level_weights: Sequence[float],
    iterations: int,
    rate: float,
    *,
    opponent: bool,
) -> list[Splats]:
    """Float splats from where integers are; nothing is quantised, and bits cost nothing."""
    size = objective.width, objective.height
    splats = Splats.concatenate([splats_of(state, *size, opponent=opponent) for state in states])
    ends = [int(end) for end in np.cumsum([len(state) for state in states])]
    model = SplatModel(splats, ends, *size, LIMITS)
    optimizer = adam_of(model, DEFAULTS, iterations, rate)
    weights = list(level_weights)
    schedule = half_cosine(iterations, _WARMUP)
    Descent(model, optimizer, objective, background, lambda _: weights, schedule).run(iterations)
    fitted = model.splats()
    return [fitted[start:end] for start, end in pairwise([0, *ends])]
