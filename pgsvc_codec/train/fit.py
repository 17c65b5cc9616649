"""Fit the splats of one frame: I-frames from nothing, P-frames from the decoded frame before (paper, Algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.quant import QuantTables
from pgsvc_codec.config import EncodePlan
from pgsvc_codec.render.reference import StepResult
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.density import birth_candidates, choose_moves, price_of_bits, removal_costs
from pgsvc_codec.train.descent import Descent, Held
from pgsvc_codec.train.model import SplatModel
from pgsvc_codec.train.motion import Motion, move
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.train.qat import RATE, LayerGrid, settle_on_grid, snap, split
from pgsvc_codec.train.schedule import LEVEL_SCHEDULES, LevelWeights
from pgsvc_codec.train.start import layer_ends, mean_background, start_splats

_SETTLING_INTRA = 0.35  # of the iterations are spent while splats take their coded values
_SETTLING_INTER = 0.5
_INTER_RATE = 2.2  # over the square root of its free iterations: learning rates of a P-frame, in units of an I-frame's
_MOST_INTER_RATE = 0.7
_WARMUP = 5  # iterations, where a fit goes on from a good one
_BEFORE_MOVES = 0.25  # of a P-frame's free iterations come first, so that mere motion is not taken for new content
_LEAST_AFTER_MOVES = 20  # iterations that new splats need to find their place
_SKIP_BITS = 100.0  # a change must be worth this many: what it costs, and what the others make good for nothing
_AFTER_SKIPS = 20  # iterations in which the others make up for those that stay
_REFIT_LOSS = 1.08  # factor on the loss from which old quantisers are worth replacing


class FrameFit(NamedTuple):
    """What the coder needs of a fitted frame, one entry per layer in each list."""

    background: NDArray[np.float32]  # [C]
    targets: list[Splats]  # of the survivors, in the order of the reference; none in an I-frame
    survivors: list[NDArray[np.bool_]]  # for each splat of the reference
    whole: list[Splats]  # splats of an I-frame, or injected into a P-frame
    tables_inter: list[QuantTables]  # none in an I-frame
    tables_intra: list[QuantTables]


def fit_intra(objective: Objective, plan: EncodePlan, rng: np.random.Generator) -> FrameFit:
    """Fit an I-frame from nothing but its picture."""
    ends = layer_ends(plan.splats, plan.layer_shares)
    background = mean_background(objective.picture)
    size = (objective.width, objective.height)
    model = SplatModel(start_splats(objective.picture, background, ends, rng), ends, *size)
    weights = LEVEL_SCHEDULES[plan.level_schedule](len(ends))
    free = math.ceil((1 - _SETTLING_INTRA) * plan.iterations_intra)
    Descent(model, objective, background, weights, free).run(free)
    nothing = Splats.empty(len(objective.picture))
    grids = [LayerGrid(layer, size, nothing) for layer in range(len(ends))]
    for grid, layer in zip(grids, split(model.splats(), ends), strict=True):
        grid.fit(layer)
    unskipped = np.zeros(len(model), np.bool_)
    rest = plan.iterations_intra - free
    descent = Descent(model, objective, background, weights, rest, rate=RATE, warmup=_WARMUP)
    splats = settle_on_grid(model, descent, grids, rest, rng, unskipped)
    return FrameFit(
        background=background,
        targets=[nothing] * len(ends),
        survivors=[np.zeros(0, np.bool_)] * len(ends),
        whole=split(splats, ends),
        tables_inter=[],
        tables_intra=[grid.whole for grid in grids if grid.whole],
    )


class _InterFit:
    """One P-frame while it is fitted."""

    def __init__(
        self,
        objective: Objective,
        weights: LevelWeights,
        reference: Sequence[Splats],
        background: NDArray[np.float32],
    ) -> None:
        self.objective = objective
        self.weights = weights
        self.reference = reference
        self.background = background
        self.size = (objective.width, objective.height)
        self.survivors = [np.ones(len(layer), np.bool_) for layer in reference]
        self._full_level = [0.0] * (len(reference) - 1) + [1.0]

    def descent(self, model: SplatModel, iterations: int, rate: float) -> Descent:
        """Iterations on `model`, which starts near where it should end."""
        return Descent(model, self.objective, self.background, self.weights, iterations, rate=rate, warmup=_WARMUP)

    def step(self, splats: Splats, ends: Sequence[int]) -> StepResult:
        """Errors and moments at these splats, levels weighted as in the first iteration."""
        return self.objective.step(splats, self.background, ends, self.weights(0))

    def error(self, step: StepResult, level_weights: Sequence[float]) -> float:
        """Eq. 7 times the samples: weighted squared error."""
        return self.objective.loss(step.squared_error, level_weights) * self.objective.width * self.objective.height

    def full_error(self, step: StepResult) -> float:
        """Squared error of the full level alone."""
        return self.error(step, self._full_level)

    def start(self, motion: Motion) -> SplatModel:
        """The reference, carried along the motion if that is nearer."""
        base = Splats.concatenate(self.reference)
        ends = [int(end) for end in np.cumsum([len(layer) for layer in self.reference])]
        moved = Splats(move(base.means, motion, *self.size), base.cholesky, base.colors)
        errors = [self.full_error(self.step(splats, ends)) for splats in (moved, base)]
        return SplatModel(moved if errors[0] < errors[1] else base, ends, *self.size)

    def exchange(self, model: SplatModel) -> SplatModel:
        """Let splats go where others are worth more; layers then hold survivors first, new ones behind."""
        splats, ends = model.splats(), model.ends
        weights = self.weights(0)
        step = self.step(splats, ends)
        costs = removal_costs(splats, step, weights, ends)
        price = price_of_bits(self.full_error(step), len(splats))
        residuals = self.objective.residuals(splats, self.background, ends)
        layers: list[Splats] = []
        for layer, (old, cost) in enumerate(zip(split(splats, ends), np.split(costs, ends[:-1]), strict=True)):
            levels = range(layer, len(ends))
            residual = tuple(
                np.sum([weights[k] * residuals[k][plane] for k in levels], axis=0) for plane in range(splats.channels)
            )
            length = float(np.median(np.sqrt(np.abs(old.cholesky[:, 0] * old.cholesky[:, 2]))))
            births = birth_candidates(residual, sum(weights[k] for k in levels), length)
            moves = choose_moves(cost, births, price, base=layer == 0)
            self.survivors[layer][np.argsort(cost, kind="stable")[:moves]] = False
            new = births.splats[:moves]
            layers += [old[self.survivors[layer]], new]  # as many as before
            if moves:  # higher layers must not fill the same hole again
                nothing = np.zeros_like(self.background)
                filled = [
                    source - without
                    for source, without in zip(
                        self.objective.picture, self.objective.residuals(new, nothing, [moves])[0], strict=True
                    )
                ]
                for k in levels:
                    residuals[k] = tuple(before - part for before, part in zip(residuals[k], filled, strict=True))
        return SplatModel(Splats.concatenate(layers), ends, *self.size)

    def skip(self, model: SplatModel, grids: Sequence[LayerGrid]) -> NDArray[np.bool_]:
        """Put splats back to their reference where the change is not worth its bits; [N] which."""
        splats = model.splats()
        least = _SKIP_BITS * price_of_bits(self.full_error(self.step(splats, model.ends)), len(splats))
        skipped, back = [], []
        for grid, layer in zip(grids, split(splats, model.ends), strict=True):
            kept = len(grid.reference)
            unchanged = change_energies(layer[:kept], grid.reference, self.size) < least
            skipped.append(np.concatenate([unchanged, np.zeros(len(layer) - kept, np.bool_)]))
            back += [grid.reference, layer[kept:]]
        mask = np.concatenate(skipped)
        model.put(Splats.concatenate(back), np.flatnonzero(mask))
        return mask


def change_energies(targets: Splats, reference: Splats, size: tuple[int, int]) -> NDArray[np.float64]:
    """[N] squared error of showing the reference for its target, each splat as if alone (to second order).

    In natural coordinates with d0, d1, d2 the changes of log l1, t, log l3 and v that of the mean:
    |a|^2 (|v|^2 / 2 + d0^2 / 2 + d2^2 / 2 + (d1 - t d0 + t d2)^2 / 4) + |da|^2.
    """
    old, new = reference.cholesky.astype(np.float64), targets.cholesky.astype(np.float64)
    l1, l2, l3 = old.T
    before, after = (
        splats.colors.astype(np.float64) * np.sqrt(math.pi * np.abs(cholesky[:, :1] * cholesky[:, 2:]))
        for splats, cholesky in ((reference, old), (targets, new))
    )
    x, y = ((targets.means.astype(np.float64) - reference.means) * np.array(size) / 2).T
    v1 = x / l1
    v2 = (y - l2 * v1) / l3
    d0, d2 = np.log(np.abs(new[:, 0] / l1)), np.log(np.abs(new[:, 2] / l3))
    shear = l2 / l3
    d1 = new[:, 1] / new[:, 2] - shear
    shape = d0**2 / 2 + d2**2 / 2 + (d1 - shear * d0 + shear * d2) ** 2 / 4
    motion = (v1**2 + v2**2) / 2
    return (before**2).sum(axis=1) * (motion + shape) + ((after - before) ** 2).sum(axis=1)


def fit_inter(
    objective: Objective,
    plan: EncodePlan,
    rng: np.random.Generator,
    reference: Sequence[Splats],
    background: NDArray[np.float32],
    motion: Motion,
    tables_intra: Sequence[QuantTables],
    tables_inter: Sequence[QuantTables],
) -> FrameFit:
    """Fit a P-frame.

    Args:
        reference: decoded splats of the previous frame, layer by layer.
        background: [C] of the previous frame, kept.
        motion: from the previous source frame to this one.
        tables_intra: quantisers of whole splats that this GOP has, for injected ones.
        tables_inter: quantisers of differences that this GOP has; none before its first P-frame.
    """
    fit = _InterFit(objective, LEVEL_SCHEDULES[plan.level_schedule](len(reference)), reference, background)
    free = math.ceil((1 - _SETTLING_INTER) * plan.iterations_inter)
    first = math.ceil(_BEFORE_MOVES * free)
    model = fit.start(motion)
    # short steps keep what a good reference had, but a few of them lead nowhere
    rate = min(_MOST_INTER_RATE, _INTER_RATE / math.sqrt(free))
    fit.descent(model, first, rate).run(first)
    if free - first >= _LEAST_AFTER_MOVES:
        model = fit.exchange(model)
    fit.descent(model, free - first, rate).run(free - first)

    ends = model.ends
    grids = [
        LayerGrid(layer, fit.size, splats[fit.survivors[layer]], whole, tables_inter[layer] if tables_inter else None)
        for layer, (splats, whole) in enumerate(zip(reference, tables_intra, strict=True))
    ]
    skipped = fit.skip(model, grids)
    held = Held(skipped, skipped)
    rest = plan.iterations_inter - free
    again = min(rest // 4, _AFTER_SKIPS)
    descent = fit.descent(model, rest, RATE)
    descent.run(again, held)
    _choose_tables(fit, model, grids)
    splats = split(settle_on_grid(model, descent, grids, rest - again, rng, skipped), ends)
    kept = [len(grid.reference) for grid in grids]
    return FrameFit(
        background=background,
        targets=[layer[:count] for layer, count in zip(splats, kept, strict=True)],
        survivors=fit.survivors,
        whole=[layer[count:] for layer, count in zip(splats, kept, strict=True)],
        tables_inter=[grid.differences for grid in grids if grid.differences],
        tables_intra=[grid.whole for grid in grids if grid.whole],
    )


def _choose_tables(fit: _InterFit, model: SplatModel, grids: Sequence[LayerGrid]) -> None:
    """Fit the quantisers that are missing, and replace those of differences where they have come to fit badly."""
    splats = model.splats()
    layers = split(splats, model.ends)
    had = [grid.differences for grid in grids]
    for grid, layer in zip(grids, layers, strict=True):
        grid.fit(layer)
    if not all(had):
        return

    def snapped_error() -> float:
        return fit.error(fit.step(snap(splats, grids, model.ends), model.ends), fit.weights(0))

    old_error = snapped_error()
    for grid, layer in zip(grids, layers, strict=True):
        grid.refit_differences(layer)
    if old_error < _REFIT_LOSS * snapped_error():
        for grid, tables in zip(grids, had, strict=True):
            grid.differences = tables
