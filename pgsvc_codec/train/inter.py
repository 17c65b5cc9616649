"""P-frames fitted in natural coordinates: from the decoded frame before, carried along the motion.

Splats are moved to where something is new and skipped where a change is not worth its bits; the rest ends on the
quantiser's grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.render.reference import StepResult
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.density import birth_candidates, choose_moves, price_of_bits
from pgsvc_codec.train.grid import LayerGrid, snap, split
from pgsvc_codec.train.model import Held, SplatModel
from pgsvc_codec.train.motion import move
from pgsvc_codec.train.qat import RATE, settle_on_grid
from pgsvc_codec.train.rates import WARMUP, descent_of
from pgsvc_codec.train.relocate import removal_costs
from pgsvc_codec.train.schedule import full_level
from pgsvc_codec.train.stack import FrameFit, Reference, Stack, as_inter

_SETTLING = 0.5  # of the iterations are spent while splats take their coded values
_RATE = 2.2  # over the square root of its free iterations: learning rates of a P-frame, in units of an I-frame's
_MOST_RATE = 0.7
_BEFORE_MOVES = 0.25  # of a P-frame's free iterations come first, so that mere motion is not taken for new content
_LEAST_AFTER_MOVES = 20  # iterations that new splats need to find their place
_SKIP_BITS = 100.0  # a change must be worth this many: what it costs, and what the others make good for nothing
_AFTER_SKIPS = 20  # iterations in which the others make up for those that stay
_REFIT_LOSS = 1.08  # factor on the loss from which old quantisers are worth replacing


def inter(stack: Stack, background: NDArray[np.float32], reference: Reference) -> FrameFit:
    """As `stack.Method.inter`."""
    fit = _InterFit(stack, background, reference)
    free = math.ceil((1 - _SETTLING) * stack.iterations)
    first = math.ceil(_BEFORE_MOVES * free)
    model = fit.start()
    # short steps keep what a good reference had, but a few of them lead nowhere
    rate = min(_MOST_RATE, _RATE / math.sqrt(free))
    descent_of(stack, model, background, first, rate, WARMUP).run(first)
    if free - first >= _LEAST_AFTER_MOVES:
        model = fit.exchange(model)
    descent_of(stack, model, background, free - first, rate, WARMUP).run(free - first)

    grids = reference.grids(stack, fit.survivors)
    skipped = fit.skip(model, grids)
    rest = stack.iterations - free
    again = min(rest // 4, _AFTER_SKIPS)
    descent = descent_of(stack, model, background, rest, RATE, WARMUP)
    model.hold(Held(skipped, skipped))
    descent.run(again)
    fit.choose_tables(model, grids)
    splats = settle_on_grid(model, descent, grids, rest - again, stack.rng, skipped)
    return as_inter(background, split(splats, model.ends), fit.survivors, grids)


class _InterFit:
    """One P-frame while it is fitted."""

    def __init__(self, stack: Stack, background: NDArray[np.float32], reference: Reference) -> None:
        self.stack = stack
        self.background = background
        self.reference = reference
        self.survivors = [np.ones(len(layer), np.bool_) for layer in reference.layers]
        self._full_level = full_level(len(reference.layers), 0)(0)

    def step(self, splats: Splats, ends: Sequence[int], level_weights: Sequence[float]) -> StepResult:
        """Errors and moments at these splats."""
        return self.stack.objective.step(splats, self.background, ends, level_weights)

    def error(self, splats: Splats, ends: Sequence[int], level_weights: Sequence[float]) -> float:
        """Eq. 7 times the samples: weighted squared error."""
        objective = self.stack.objective
        step = self.step(splats, ends, level_weights)
        return objective.loss(step.squared_error, level_weights) * objective.width * objective.height

    def price(self, splats: Splats, ends: Sequence[int]) -> float:
        """Squared error of the full level that one bit is worth."""
        return price_of_bits(self.error(splats, ends, self._full_level), len(splats))

    def start(self) -> SplatModel:
        """The reference, carried along the motion if that is nearer."""
        size = self.stack.size
        base = Splats.concatenate(self.reference.layers)
        ends = [int(end) for end in np.cumsum([len(layer) for layer in self.reference.layers])]
        moved = Splats(move(base.means, self.reference.motion, *size), base.cholesky, base.colors)
        errors = [self.error(splats, ends, self._full_level) for splats in (moved, base)]
        return SplatModel(moved if errors[0] < errors[1] else base, ends, *size)

    def exchange(self, model: SplatModel) -> SplatModel:
        """Let splats go where others are worth more; layers then hold survivors first, new ones behind."""
        splats, ends = model.splats(), model.ends
        objective = self.stack.objective
        weights = self.stack.level_weights(0)
        costs = removal_costs(splats, self.step(splats, ends, weights), weights, ends)
        price = self.price(splats, ends)
        residuals = objective.residuals(splats, self.background, ends)
        layers: list[Splats] = []
        for layer, (old, cost) in enumerate(zip(split(splats, ends), np.split(costs, ends[:-1]), strict=True)):
            levels = objective.peers(layer)
            residual = tuple(
                np.sum([weights[k] * residuals[k][plane] for k in levels], axis=0) for plane in range(splats.channels)
            )
            length = float(np.median(np.sqrt(np.abs(old.cholesky[:, 0] * old.cholesky[:, 2]))))
            births = birth_candidates(residual, sum(weights[k] for k in levels), length, objective.width)
            moves = choose_moves(cost, births, price, base=self.stack.first + layer == 0)
            self.survivors[layer][np.argsort(cost, kind="stable")[:moves]] = False
            new = births.splats[:moves]
            layers += [old[self.survivors[layer]], new]  # as many as before
            if moves:  # higher layers must not fill the same hole again
                for k in levels:
                    residuals[k] = objective.without(k, residuals[k], new)
        return SplatModel(Splats.concatenate(layers), ends, *self.stack.size)

    def skip(self, model: SplatModel, grids: Sequence[LayerGrid]) -> NDArray[np.bool_]:
        """Put splats back to their reference where the change is not worth its bits; [N] which."""
        splats = model.splats()
        least = _SKIP_BITS * self.price(splats, model.ends)
        skipped, back = [], []
        for grid, layer in zip(grids, split(splats, model.ends), strict=True):
            kept = len(grid.reference)
            unchanged = change_energies(layer[:kept], grid.reference, self.stack.size) < least
            skipped.append(np.concatenate([unchanged, np.zeros(len(layer) - kept, np.bool_)]))
            back += [grid.reference, layer[kept:]]
        mask = np.concatenate(skipped)
        model.put(Splats.concatenate(back), np.flatnonzero(mask))
        return mask

    def choose_tables(self, model: SplatModel, grids: Sequence[LayerGrid]) -> None:
        """Fit the quantisers that are missing, and replace those of differences where they have come to fit badly."""
        splats = model.splats()
        layers = split(splats, model.ends)
        had = [grid.differences for grid in grids]
        for grid, layer in zip(grids, layers, strict=True):
            grid.fit(layer)
        if not all(had):
            return

        def snapped_error() -> float:
            return self.error(snap(splats, grids, model.ends), model.ends, self.stack.level_weights(0))

        old_error = snapped_error()
        for grid, layer in zip(grids, layers, strict=True):
            grid.refit_differences(layer)
        if old_error < _REFIT_LOSS * snapped_error():
            for grid, tables in zip(grids, had, strict=True):
                grid.differences = tables


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
