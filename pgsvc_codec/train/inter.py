"""P-frames fitted in natural coordinates: from the decoded frame before, carried along the motion.

Splats go to where something is new, are coded whole where they have changed more than differences can tell, and go
back to their reference where a change is not worth its bits; the rest ends on the quantiser's grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.splats import Splats
from pgsvc_codec.train.grid import LayerGrid, snap, split
from pgsvc_codec.train.model import Held, SplatModel
from pgsvc_codec.train.motion_search import follow
from pgsvc_codec.train.qat import RATE, settle_on_grid
from pgsvc_codec.train.rates import WARMUP, adam_of, descent_of
from pgsvc_codec.train.relocate import Relocations, Turns
from pgsvc_codec.train.schedule import full_level, half_cosine
from pgsvc_codec.train.stack import FrameFit, Reference, Stack, as_inter

_SETTLING = 0.35  # of the iterations are spent while splats take their coded values
_RATE = 0.35  # learning rates in units of an I-frame's: longer steps change what was good, and changes cost bits
# Of the free iterations: late enough that mere motion is not taken for new content, early enough for new splats to
# find their place.
_FIRST_RELOCATION, _LAST_RELOCATION = 0.15, 0.65
_RELOCATIONS = 3  # of each layer
_LEAST_INTERVAL = 3  # iterations from one relocation to the next
_MOST_RELOCATED = (0.1, 0.2)  # share of the base layer, of an enhancement layer, at a time
_SKIP_BITS = 60.0  # a change must be worth this many: what it costs, and what the others make good for nothing
_WHOLE_BITS = 15.0  # what a splat coded whole may cost beyond one coded as a difference
_SPLAT_BITS = 40.0  # a coded splat, all in; turns the error of a frame into a price per bit
_AFTER_SKIPS = 20  # iterations in which the others make up for those that stay
_REFIT_LOSS = 1.08  # factor on the loss from which old quantisers are worth replacing


def inter(stack: Stack, background: NDArray[np.float32], reference: Reference) -> FrameFit:
    """As `stack.Method.inter`."""
    fit = InterFit(stack, background, reference)
    rest = math.floor(_SETTLING * stack.iterations)
    model, is_new = fit.descend(stack.iterations - rest)
    model = fit.part(model, is_new)
    model = fit.part(model, fit.strays(model))
    grids = reference.grids(stack, fit.survivors)
    skipped = fit.skip(model, grids)
    again = min(rest // 4, _AFTER_SKIPS)
    descent = descent_of(stack, model, background, rest, RATE, WARMUP)
    model.hold(Held(skipped, skipped))
    descent.run(again)
    fit.choose_tables(model, grids)
    splats = settle_on_grid(model, descent, grids, rest - again, stack.rng, skipped)
    return as_inter(background, split(splats, model.ends), fit.survivors, grids)


class InterFit:
    """One P-frame while it is fitted."""

    def __init__(self, stack: Stack, background: NDArray[np.float32], reference: Reference) -> None:
        self.stack = stack
        self.background = background
        self.reference = reference
        self.survivors = [np.ones(len(layer), np.bool_) for layer in reference.layers]
        self._full_level = full_level(len(reference.layers), 0)(0)

    def error(self, splats: Splats, ends: Sequence[int], level_weights: Sequence[float]) -> float:
        """Eq. 7 times the samples: weighted squared error."""
        objective = self.stack.objective
        shown = objective.step(splats, self.background, ends, level_weights, with_moments=False)
        return objective.loss(shown.squared_error, level_weights) * objective.width * objective.height

    def price(self, splats: Splats, ends: Sequence[int]) -> float:
        """Squared error of the full level that one bit is worth: the slope of error over rate at this quality."""
        return self.error(splats, ends, self._full_level) / (_SPLAT_BITS * max(len(splats), 1))

    def start(self) -> SplatModel:
        """The reference, carried along the motion if that is nearer."""
        base = Splats.concatenate(self.reference.layers)
        ends = [int(end) for end in np.cumsum([len(layer) for layer in self.reference.layers])]
        means = follow(base, self.reference.motion, self.stack.objective.rasterizer)
        moved = Splats(means, base.cholesky, base.colors)
        errors = [self.error(splats, ends, self._full_level) for splats in (moved, base)]
        return SplatModel(moved if errors[0] < errors[1] else base, ends, *self.stack.size)

    def descend(self, iterations: int) -> tuple[SplatModel, NDArray[np.bool_]]:
        """The part that knows no quantiser; the splats in the order of the reference, and [N] which are new."""
        stack = self.stack
        model = self.start()
        optimizer = adam_of(model, stack.tuning, iterations, _RATE)
        # a new splat costs hardly more bits than one that has changed, so nothing is asked beyond its gain
        most = [_MOST_RELOCATED[layer > 0] for layer in stack.layers]
        turns = _turns(iterations, len(most))
        relocations = Relocations(stack, self.background, model, optimizer, turns, most)
        schedule = half_cosine(iterations, WARMUP)
        stack.descent(model, optimizer, self.background, schedule, between=relocations).run(iterations)
        return model, relocations.is_new

    def part(self, model: SplatModel, leaving: NDArray[np.bool_]) -> SplatModel:
        """The same splats, those that survive first in each layer; `leaving` [N] do not, and will be coded whole."""
        order = []
        rows = np.split(np.arange(len(model)), model.ends[:-1])
        for alive, layer, gone in zip(self.survivors, rows, np.split(leaving, model.ends[:-1]), strict=True):
            kept = np.count_nonzero(alive)
            alive[np.flatnonzero(alive)[gone[:kept]]] = False
            order += [layer[:kept][~gone[:kept]], layer[:kept][gone[:kept]], layer[kept:]]
        return SplatModel(model.splats()[np.concatenate(order)], model.ends, *self.stack.size)

    def strays(self, model: SplatModel) -> NDArray[np.bool_]:
        """[N] survivors that have changed so much that they are better coded whole than as differences."""
        splats, size = model.splats(), self.stack.size
        price = self.price(splats, model.ends)
        stray = []
        grids = self.reference.grids(self.stack, self.survivors)
        for grid, layer in zip(grids, split(splats, model.ends), strict=True):
            grid.fit(layer)
            kept = len(grid.reference)
            old = layer[:kept]
            as_difference = change_energies(grid.snap(layer)[:kept], old, size)
            as_whole = change_energies(LayerGrid(grid.layer, size, old[:0], grid.whole).snap(old), old, size)
            changed = change_energies(old, grid.reference, size) > _SKIP_BITS * price
            better = changed & (as_difference - as_whole > _WHOLE_BITS * price)
            stray.append(np.concatenate([better, np.zeros(len(layer) - kept, np.bool_)]))
        return np.concatenate(stray)

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


def _turns(iterations: int, num_layers: int) -> Turns:
    first, last = math.ceil(_FIRST_RELOCATION * iterations), math.floor(_LAST_RELOCATION * iterations)
    return Turns(first, last, max((last - first) // (_RELOCATIONS * num_layers), _LEAST_INTERVAL))


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
