"""Quantisation-aware end of a fit: splats take their coded values group by group while the others make up for it.

Rounding all splats at once costs several decibels, because neighbours are tuned to each other.  Here a part of the
splats is put on the quantiser's grid and held; the rest goes on descending against the true residual, errors of the
held ones included; then the next part follows.  Parts come from the base up: a higher layer can make up for errors of
those below it, not the other way round (0.1 to 0.3 dB at the top level against parts of all layers).  Shapes and
positions first, then, with codebooks fitted to what the colours have become, colours.  What comes out is on the grid,
so what was trained for is what is decoded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.splats import Splats
from pgsvc_codec.train.descent import Descent
from pgsvc_codec.train.grid import LayerGrid, snap, split
from pgsvc_codec.train.model import Held, SplatModel

RATE = 0.15  # learning rates while splats settle, in units of the free fit's
_GEOMETRY_ROUNDS = 8
_COLOR_ROUNDS = 8


def settle_on_grid(
    model: SplatModel,
    descent: Descent,
    grids: Sequence[LayerGrid],
    iterations: int,
    rng: np.random.Generator,
    skipped: NDArray[np.bool_],
) -> Splats:
    """Bring all splats of `model` onto `grids`, in at most `iterations` further iterations.

    Args:
        descent: of the model, with so many iterations left; one for all groups, since a fresh optimiser's first steps
            are as long as its rates and would undo a good fit each time.
        grids: one per layer, their tables fitted.
        skipped: [N] splats that are on the grid already and stay as they are.

    Returns:
        The splats as a decoder will have them.
    """
    ends = model.ends
    free = np.flatnonzero(~skipped)
    rounds = [min(most, iterations // 4 + 1) for most in (_GEOMETRY_ROUNDS, _COLOR_ROUNDS)]
    share = iterations // sum(rounds)
    held = Held(skipped.copy(), skipped.copy())

    layer_of = np.searchsorted(ends, free, side="right")

    def groups(count: int) -> list[NDArray[np.intp]]:
        shuffled = rng.permutation(len(free))
        from_the_base_up = free[shuffled[np.argsort(layer_of[shuffled], kind="stable")]]
        return [np.sort(part) for part in np.array_split(from_the_base_up, count)]

    for part in groups(rounds[0]):
        splats = model.splats()
        snapped = snap(splats, grids, ends, part)
        model.replace(part, Splats(snapped.means, snapped.cholesky, splats.colors[part]))
        held.geometry[part] = True
        model.hold(held)
        descent.run(share)
    if not any(len(grid.reference) for grid in grids):
        for grid, layer in zip(grids, split(model.splats(), ends), strict=True):
            grid.refit_colors(layer)
    for part in groups(rounds[1]):
        model.replace(part, snap(model.splats(), grids, ends, part))
        held.amplitudes[part] = True
        if not held.amplitudes.all():
            model.hold(held)
            descent.run(share)
    return snap(model.splats(), grids, ends)
